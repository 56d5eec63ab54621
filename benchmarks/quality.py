"""How good every method is, with mergekit's beside them: excess bits per byte on held-out texts, two pairs, one run.

    python benchmarks/quality.py [--mergekit PYTHON] [--encoder DIR] [--vectors FILE] [--texts DIR] [--work DIR]
        [--only NAME ...]

Pair 1 puts SmolLM2's tokenizer on Gemma-3-270m. Pair 2 puts Gemma's on SmolLM2, trimmed to the tokens of a selection
text with a donor of the same rows, so that peers take minutes. The excess of a result is its bits per byte less those
of the source with its own tokenizer on the same text. The mean is over English, code and German. Russian is shown
beside it: neither the source model of pair 2 nor the tokenizer of pair 1 knows much of it. The ratio is the mean over
both pairs, relative to mergekit's omp.

--mergekit names the Python of an environment with mergekit==0.1.5; its tokensurgeon runs as a whole process. --vectors
names word vectors for wechsel, such as the words.vec of parallel.py. --work keeps the trimmed donor, mergekit's results
and every score. A second run does only what is missing, and shows all scores on these texts. A method that failed is
tried again where --only names it. The texts are those of `quality_texts.py`; --bytes shortens all of them, for a try.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _machine import RESULTS, keep
from _peers import for_mergekit
from quality_table import IN_MEAN, collect, show
from quality_texts import LANGUAGES, fetch_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.errors import TokswapError
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.init.registry import METHODS
from tokswap.storage.json_files import json_bytes
from tokswap.storage.resolve import cache_folder, resolve_model
from tokswap.transplant.plan import plan_transplant
from tokswap.transplant.run import TransplantJob

PEERS = {f"mergekit-{method}": method for method in ("omp", "subword", "common_interpolation")}
"""Name of a score -> the method of mergekit."""
K = 64
AUTO: Mapping[str, dict[str, Any]] = {
    "auto": {"init": "auto"},
    "omp-exact": {"init": "omp", "settings": {"exact": True}},
    "kriging-untied-blend": {
        "init": "kriging",
        "tie": False,
        "output_init": "0.6*kriging + 0.4*subword(weights=first)",
    },
    "auto-healed": {"init": "auto", "heal": True},
    "auto-healed-untied": {"init": "auto", "heal": True, "tie": False},
}


@dataclass(frozen=True)
class Pair:
    """A source model and a target tokenizer.

    Attributes:
        number: "1" or "2".
        key: Its name in the work folder.
        model: Folder of the source model.
        tokenizer: Folder of the target tokenizer, which is the donor too.
    """

    number: str
    key: str
    model: Path
    tokenizer: Path


@dataclass(frozen=True)
class Bench:
    """One run.

    Attributes:
        work: The work folder.
        scores: Where scores are kept.
        texts: Language -> text to score on.
        healing: Files to heal with.
        dtype: Type of the scored models.
    """

    work: Path
    scores: Path
    texts: Mapping[str, str]
    healing: tuple[Path, ...]
    dtype: str

    def measure(self, folder: Path) -> dict[str, float]:
        """Return the bits per byte of a model on every text."""
        model = load_model(folder, dtype=self.dtype)
        return {language: bits_per_byte(*model, text).bits_per_byte for language, text in self.texts.items()}

    def ours(self, pair: Pair, options: Mapping[str, Any], tokenizer: Path) -> dict[str, Any]:
        """Transplant into the work folder, score the result, and delete it. Return bits per byte and cost."""
        given = {**options, "heal": self.healing if options.get("heal") else ()}
        with tempfile.TemporaryDirectory(dir=self.work, prefix="result-") as scratch:
            wall, cpu = time.perf_counter(), time.process_time()
            job = plan_transplant(str(pair.model), str(tokenizer), out=Path(scratch) / "model", **given)
            report = job.run()
            cost = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
            found = {"bits": self.measure(Path(scratch) / "model"), **cost, "notes": list(report.notes)}
        return {**found, "evidence": report.evidence} if report.evidence else found

    def source(self, pair: Pair) -> dict[str, Any]:
        """Score the source with its own tokenizer, and return the size of the pair."""
        alignment = _plan(pair, self.work / "never-written").task.alignment
        return {"bits": self.measure(pair.model), "rows": len(alignment.source_of), "missing": len(alignment.missing)}

    def peer_folder(self, pair: Pair, method: str) -> Path:
        """Return where the result of mergekit is kept."""
        return self.work / "peers" / f"{pair.key}-{method}"

    def peer(self, pair: Pair, method: str, python: str | None) -> dict[str, Any]:
        """Score the rows of mergekit. Run it unless its result is there."""
        folder = self.peer_folder(pair, method)
        if not folder.is_dir():
            assert python is not None
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(exist_ok=True)
            cost = _run_mergekit(python, method, pair, part, self.work)
            if "failed" in cost:
                shutil.rmtree(part, ignore_errors=True)
                return cost
            (part / "cost.json").write_text(json.dumps(cost))
            part.rename(folder)
        # Score the rows and not the template: a text must begin with bos where the source model needs it.
        edit = _plan(pair, self.work / "never-written").edit
        for name, content in edit.files.items():
            if name.startswith("tokenizer"):
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (folder / "tokenizer_config.json").write_bytes(json_bytes(edit.configs.tokenizer))
        cost_file = folder / "cost.json"
        return {"bits": self.measure(folder), **(json.loads(cost_file.read_text()) if cost_file.is_file() else {})}

    def score_of(self, pair: Pair, name: str, methods: Mapping[str, Any], mergekit: str | None, again: bool) -> Any:
        """Return the score of one of `methods`, or of a peer."""

        def work() -> dict[str, Any]:
            if name in PEERS:
                return self.peer(pair, PEERS[name], mergekit)
            return self.ours(pair, methods[name], pair.tokenizer)

        return self.score(pair, name, again, work)

    def score(self, pair: Pair, name: str, again: bool, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the kept score of a method, or do the work and keep it. A failure is a score too."""
        path = self.scores / pair.number / f"{name}.json"
        if path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text())
            if not (again and "failed" in kept):
                return kept
        print(f"pair {pair.number}: {name} ...", file=sys.stderr, flush=True)
        try:
            found = work()
        except TokswapError as error:
            found = {"failed": str(error).splitlines()[0]}
        if not np.isfinite(list(found.get("bits", {}).values())).all():
            found = {"failed": "non-finite bits per byte"}
        found = {"date": datetime.date.today().isoformat(), **found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(found, indent=2) + "\n")
        path.with_suffix(".part").rename(path)
        print(f"  {found.get('failed') or found['bits']}", file=sys.stderr, flush=True)
        return found


def _plan(pair: Pair, out: Path) -> TransplantJob:
    return plan_transplant(str(pair.model), str(pair.tokenizer), init="mean", out=out)


def _run_mergekit(python: str, method: str, pair: Pair, out: Path, work: Path) -> dict[str, Any]:
    """Run tokensurgeon. Return its cost, or how it failed."""
    surgeon = "from mergekit.scripts.tokensurgeon import main; main()"
    models = [str(for_mergekit(folder, work)) for folder in (pair.model, pair.tokenizer)]
    arguments = [*models, str(out), "-k", str(K), "--approximation-method", method]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(
        [python, "-c", surgeon, *arguments], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
        return {"failed": lines[-1] if lines else f"status {process.returncode}"}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - begin, 1), "cpu_s": round(cpu, 1)}


def our_methods(encoder: str | None, vectors: str | None) -> dict[str, dict[str, Any]]:
    """Return the options of `plan_transplant` by name, for every method that needs no file but these two."""
    found: dict[str, dict[str, Any]] = {}
    for name in METHODS:
        if name == "tokenadapt":
            for choice in ("donor", "source"):
                found[f"{name}-{choice}"] = {"init": name, "settings": {"encoder": choice}}
            found[f"{name}-encoder"] = {"init": name, "settings": {"encoder": encoder}}
            continue
        if name == "wechsel":
            found[name] = {"init": name, "settings": {"vectors": vectors}}
            continue
        if name not in ("auto", "trans-tokenizer", "zett"):  # the last two need a file
            found[name] = {"init": name}
    return {**found, **AUTO}


def trimmed_donor(gemma: Path, select: Path, work: Path) -> Path:
    """Return the folder of Gemma with only the tokens of the selection texts. It is made on first use."""
    folder = work / f"gemma-trimmed-{_digest(select)}"
    if not folder.is_dir():
        print("trimming the donor of pair 2 ...", file=sys.stderr, flush=True)
        texts = [str(select / f"{language}.txt") for language in LANGUAGES]
        tokswap.trim_vocabulary(str(gemma), corpora=texts, drop_tokens=["<unused*>"], out=folder)
    return folder


def _digest(*folders: Path, more: str = "") -> str:
    """Return a short name for the texts of some folders."""
    total = hashlib.sha256(more.encode())
    for folder in folders:
        for language in LANGUAGES:
            total.update(hashlib.sha256((folder / f"{language}.txt").read_bytes()).digest())
    return total.hexdigest()[:10]


def _shortened(texts: Path, names: tuple[str, ...], size: int, work: Path) -> Path:
    """Copy some sets with only the first bytes of each text."""
    folder = work / f"first-{size}"
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for language in LANGUAGES:
            part = (texts / name / f"{language}.txt").read_bytes()[:size].decode("utf-8", "ignore")
            (folder / name / f"{language}.txt").write_text(part, "utf-8")
    return folder


def _check_texts(folder: Path, names: tuple[str, ...]) -> None:
    missing = [
        f"{name}/{one}.txt" for name in names for one in LANGUAGES if not (folder / name / f"{one}.txt").is_file()
    ]
    if missing:
        raise SystemExit(f"quality.py: --texts {folder} lacks {', '.join(missing)}")


def read_texts(options: argparse.Namespace) -> tuple[Bench, Path, str]:
    """Return the run, the folder of the selection texts, and a name for all texts and settings."""
    names = ("cal", "dev" if options.development else "held")
    texts = options.texts or fetch_texts(options.work / "texts", names)
    _check_texts(texts, names)
    select = texts / "select"
    if not select.is_dir():
        select = fetch_texts(options.work / "texts", ["select"]) / "select"
    if options.bytes:
        texts = _shortened(texts, names, options.bytes, options.work)
    key = _digest(texts / names[1], texts / names[0], select, more=options.dtype)
    bench = Bench(
        work=options.work,
        scores=options.work / "scores" / key,
        texts={language: (texts / names[1] / f"{language}.txt").read_text("utf-8") for language in LANGUAGES},
        healing=tuple(texts / "cal" / f"{language}.txt" for language in IN_MEAN),
        dtype=options.dtype,
    )
    return bench, select, key


def score_pair(bench: Bench, pair: Pair, options: argparse.Namespace) -> None:
    """Score all chosen methods on a pair."""
    methods = our_methods(options.encoder, options.vectors)
    files = {"tokenadapt-encoder": options.encoder, "wechsel": options.vectors}
    base = bench.score(pair, "source", True, lambda: bench.source(pair))
    if "failed" in base:
        raise SystemExit(f"quality.py: the source of pair {pair.number} cannot be scored: {base['failed']}")
    for name in options.only or [*PEERS, *methods]:
        if name in PEERS and not (options.mergekit or bench.peer_folder(pair, PEERS[name]).is_dir()):
            print(f"pair {pair.number}: {name} left out: give --mergekit", file=sys.stderr)
            continue
        if not files.get(name, True):
            print(f"pair {pair.number}: {name} left out: give --encoder or --vectors", file=sys.stderr)
            continue
        bench.score_of(pair, name, methods, options.mergekit, bool(options.only))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    known = [*PEERS, *our_methods(None, None)]
    parser = argparse.ArgumentParser()
    parser.add_argument("--mergekit", help="Python of an environment with mergekit 0.1.5")
    parser.add_argument("--encoder", help="sentence-transformers folder for tokenadapt")
    parser.add_argument("--vectors", help="word vectors for wechsel, .vec or .npz")
    parser.add_argument("--texts", type=Path, help="DIR/{select,cal,held}/{en,code,de,ru}.txt; select may be missing")
    parser.add_argument("--work", type=Path, default=cache_folder() / "quality", help="keeps intermediate results")
    parser.add_argument("--pairs", nargs="+", choices=["1", "2"], default=["1", "2"])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=known, default=[])
    parser.add_argument("--development", action="store_true", help="score on DIR/dev, to choose settings")
    parser.add_argument("--bytes", type=int, help="use the first bytes of each text, for a try")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="type of scored models")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    options.work.mkdir(parents=True, exist_ok=True)
    bench, select, key = read_texts(options)
    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    if "1" in options.pairs:
        score_pair(bench, Pair(number="1", key="1", model=gemma, tokenizer=smollm2), options)
    if "2" in options.pairs:
        donor = trimmed_donor(gemma, select, options.work)
        score_pair(bench, Pair(number="2", key=f"2-{_digest(select)}", model=smollm2, tokenizer=donor), options)
    result = collect(bench.scores)
    show(result)
    settings = {
        "text_set": "dev" if options.development else "held",
        "dtype": options.dtype,
        "mean_over": IN_MEAN,
        "bytes": {language: len(text.encode("utf-8")) for language, text in bench.texts.items()},
        "healing_bytes": sum(path.stat().st_size for path in bench.healing),
        "texts_and_settings": key,
    }
    official = not (options.development or options.bytes)
    name = f"quality-{datetime.date.today().isoformat()}"
    print("kept in", keep(name, {**settings, **result}, RESULTS if official else options.work))


if __name__ == "__main__":
    main()
