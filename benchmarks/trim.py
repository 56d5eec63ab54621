"""Trimming: sizes, closure, counting speed, exactness; beside a plain filter, and lm-vocab-trimmer where it runs.

    python benchmarks/trim.py TEXT... [--model gemma] [--published] [--seconds 20] [--peer PYTHON]

TEXT are files in one language. The plain filter keeps the tokens that occur in the text without their merge
dependencies, as trimmers do that know nothing of merges.

--published compares parameter counts with those of arXiv 2305.15020, from shapes alone. --peer names the Python of an
environment with vocabtrimmer 0.0.2 (lm-vocab-trimmer). It is tried on the model, and on random masked models with
Unigram and WordPiece tokenizers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import keep
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import makers
from models import fetch

from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim.checks import ModelPair, token_figures
from tokswap.trim.closure import closed
from tokswap.trim.corpora import Counts, blocks, count, find_corpus
from tokswap.trim.outputs import model_figures, sequences
from tokswap.trim.plan import plan_trim
from tokswap.trim.rebuild import Trimmed, forced_ids, parts_of, rebuilt, trim_tokenizer

PUBLISHED = {
    # name: (parameters of the whole model, rows, width, matrices, biases, rows of a trim -> published millions)
    "XLM-R base": (278_295_186, 250_002, 768, 1, 1, {60_000: 132.2, 15_000: 97.6}),
    "mT5-small": (300_176_768, 250_112, 512, 2, 0, {60_000: 105.5, 15_000: 59.4}),
}
"""From arXiv 2305.15020. Biases are vectors with one number per row."""


def raw_speed(tokenizer: Tokenizer, texts: list[str], seconds: float) -> tuple[float, float]:
    """Return bytes per second of the tokenizers library alone, and of counting the same text in a file."""
    text = "".join(texts)
    while len(text) < 4_000_000:
        text += text
    pieces = list(blocks(text))
    size = len(text.encode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")
        raw: list[float] = []
        ours: list[float] = []
        end = time.perf_counter() + seconds
        while not raw or time.perf_counter() < end:
            begin = time.perf_counter()
            for start in range(0, len(pieces), 256):
                tokenizer.backend.encode_batch_fast(pieces[start : start + 256], add_special_tokens=False)
            raw.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            count(find_corpus(str(path)), tokenizer)
            ours.append(time.perf_counter() - begin)
    return size / min(raw), size / min(ours)


def published() -> dict[str, Any]:
    """Return the parameters that a trim leaves, in millions, beside the published ones."""
    found = {}
    for name, (whole, rows, width, matrices, biases, trims) in PUBLISHED.items():
        for size, said in trims.items():
            ours = (whole - (rows - size) * (width * matrices + biases)) / 1e6
            found[f"{name}, {size:,} rows"] = {"computed": round(ours, 1), "published": said}
    return found


def peers(python: str, model: Path, text: str) -> dict[str, Any]:
    """Keep the same tokens of some models with lm-vocab-trimmer and with tokswap, and compare the results."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus = work / "text.txt"
        corpus.write_text(text, "utf-8")
        models = {
            model.name: model,
            "masked model, Unigram": makers.make_model("roberta", work / "unigram", family="unigram", vocab_size=3000),
            "masked model, WordPiece": makers.make_model("bert", work / "wordpiece", vocab_size=3000),
        }
        for name, source in models.items():
            begin = time.perf_counter()
            job = plan_trim(str(source), corpora=[str(corpus)], out=work / "ours")
            job.run()
            seconds = round(time.perf_counter() - begin, 2)
            own = _compared(source, work / "ours", job.trimmed, job.sample)
            kept = work / "kept.json"
            vocabulary = job.task.source.tokenizer.vocabulary
            kept.write_text(json.dumps({vocabulary.text[n]: n for n in job.trimmed.kept.tolist()}), "utf-8")
            script = Path(__file__).with_name("trim_peer.py")
            run = subprocess.run(
                [python, str(script), str(source), str(kept), str(work / "theirs")], capture_output=True, text=True
            )
            theirs = json.loads(run.stdout.strip().splitlines()[-1])
            if "failed" not in theirs:
                theirs |= _compared(source, work / "theirs", job.trimmed, job.sample)
            found[name] = {"tokswap": {"seconds": seconds, **own}, "lm-vocab-trimmer": theirs}
            print(name, json.dumps(found[name], indent=2), flush=True)
            for done in ("ours", "theirs"):
                shutil.rmtree(work / done, ignore_errors=True)
    return found


def _compared(source: Path, folder: Path, trimmed: Trimmed, texts: tuple[str, ...]) -> dict[str, Any]:
    """Load a result with its classes, and compare it with the source on texts of kept tokens."""
    old, new = (AutoTokenizer.from_pretrained(path, local_files_only=True) for path in (source, folder))
    pieces = [piece for text in texts for piece in text.split("\n") if piece][:300]
    same = sum(
        old.convert_ids_to_tokens(old(t)["input_ids"]) == new.convert_ids_to_tokens(new(t)["input_ids"]) for t in pieces
    )
    ids = sequences(read_tokenizer(source), trimmed, texts)
    architecture = json.loads((source / "config.json").read_text())["architectures"][0]
    try:
        figures = model_figures(ModelPair(source, folder, architecture), trimmed.kept, ids)
    except Exception as error:  # a result that cannot be run is a finding
        figures = {"outputs": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"lines": len(pieces), "lines tokenized as before": same, **figures, "bytes": size}


def closure_time(tokenizer: Tokenizer) -> dict[str, Any]:
    """Time the merge dependencies of all tokens."""
    size = len(tokenizer.vocabulary)
    begin, used = time.perf_counter(), time.process_time()
    parts_of(tokenizer, range(size))
    wall, used = time.perf_counter() - begin, time.process_time() - used
    print(f"closure of all {size:,} ids: {wall:.1f} s, {used:.1f} s CPU")
    return {"ids": size, "seconds": round(wall, 2), "cpu_seconds": round(used, 2)}


def compare(tokenizer: Tokenizer, name: str, counts: Counts) -> dict[str, Any]:
    """Trim a tokenizer to the tokens of a text, with and without merge dependencies."""
    seen = set(counts.counts.nonzero()[0].tolist())
    forced = forced_ids(tokenizer)
    begin = time.perf_counter()
    ours = trim_tokenizer(tokenizer, seen)
    seconds = time.perf_counter() - begin
    plain = rebuilt(tokenizer, seen | forced)
    ancestors = closed(_all_merges(tokenizer), seen | forced) if "merges" in tokenizer.spec["model"] else set()
    rows: dict[str, Any] = {}
    for label, trimmed in (("tokswap", ours), ("plain filter", plain)):
        figures = token_figures(tokenizer, trimmed, counts.sample)
        rows[label] = {"rows": len(trimmed.kept), "exact": figures["exact"], "of": figures["kept"]}
        print(f"{Path(name).name:16} {label:14} {rows[label]}")
    print(f"{Path(name).name:16} with all ancestors {len(ancestors):,} rows; trimmed in {seconds:.1f} s")
    return {**rows, "rows with all ancestors": len(ancestors), "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--model", default="gemma")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--peer", help="Python of an environment with vocabtrimmer 0.0.2")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.published:
        result["published"] = published()
        for name, sizes in result["published"].items():
            print(f"{name:26} {sizes['computed']:7.1f} M   published {sizes['published']:.1f} M")
    if options.texts:
        folder = Path(options.model)
        folder = folder if folder.is_dir() else resolve_model(str(fetch(options.model)))
        tokenizer = read_tokenizer(folder)
        result["closure"] = closure_time(tokenizer)
        for name in options.texts:
            counts = count(find_corpus(name), tokenizer)
            result[Path(name).name] = compare(tokenizer, name, counts)
        raw, ours = raw_speed(tokenizer, list(counts.sample), options.seconds)
        share = ours / raw
        result["counting"] = {"raw_mb_s": raw / 1e6, "tokswap_mb_s": ours / 1e6, "share": share}
        print(f"counting {ours / 1e6:.2f} MB/s, tokenizers alone {raw / 1e6:.2f} MB/s: {100 * share:.0f} %")
        if options.peer:
            result["peer"] = peers(options.peer, folder, "".join(counts.sample)[:200_000])
    name = f"trim-{Path(options.model).name}" if options.texts else "trim-published"
    print("kept in", keep(name, result))


def _all_merges(tokenizer: Tokenizer) -> dict[int, tuple[int, ...]]:
    """Return the merge pairs of every token, those included that the tokenizer never uses."""
    from tokswap.tokenizer.merges import merges_of

    vocab = tokenizer.spec["model"]["vocab"]
    parts: dict[int, set[int]] = {}
    for left, right in merges_of(tokenizer.spec["model"]):
        parts.setdefault(vocab[left + right], set()).update((vocab[left], vocab[right]))
    return {token: tuple(found) for token, found in parts.items()}


if __name__ == "__main__":
    main()
