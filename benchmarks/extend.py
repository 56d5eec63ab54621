"""SmolLM2-135M with 2,000 German tokens: what they save and what they cost, beside `add_tokens` with mean rows.

    python benchmarks/extend.py [--rows corpus ...] [--add 2000] [--texts DIR] [--folder DIR] [--heal-kilobytes N]

Tokens are chosen by the German Debian handbook, without its last pages. `handbook` is the end of those pages, and
`manual` German manual pages; both are held out. The words for `add_tokens` are those that save most: how often a word
occurs, times the tokens that it saves. Each row is a process of its own; rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _machine import RESULTS, keep
from quality_texts import fetch_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

ROWS: dict[str, dict[str, Any]] = {
    "source": {},
    "add_tokens, words, mean rows": {"added": "{}"},
    "add_tokens, words with the space before, mean rows": {"added": " {}"},
    "extend --corpus": {"init": "auto"},
    "extend --tokens, the same words, as many as take 2,000 ids": {"init": "auto", "words": True},
    "extend --corpus, mean rows": {"init": "mean"},
    "extend --corpus, then --heal": {"init": "auto", "heal": True},
}
LAST_PAGES, HELD_OUT_BYTES = 40_000, 12_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ROWS)[:-1], choices=list(ROWS))
    parser.add_argument("--add", type=int, default=2000)
    parser.add_argument("--texts", type=Path, default=Path("bench-texts"))
    parser.add_argument("--folder", type=Path, default=Path("bench-extend"))
    parser.add_argument("--heal-kilobytes", type=int, default=30)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    texts = german(given.texts, given.folder)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given, texts)))
        return
    path = RESULTS / "extend.json"
    rows: dict[str, Any] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    for name in given.rows:
        if name in rows:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        run = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", name], stdout=subprocess.PIPE, text=True, check=True
        )
        rows[name] = json.loads(run.stdout.splitlines()[-1])
        print(json.dumps(rows[name]), file=sys.stderr, flush=True)
        keep("extend", {"rows": rows})
    print("\n".join(table(rows)))


def german(texts: Path, folder: Path) -> Mapping[str, Path]:
    """Return the text that tokens are chosen by, and the held-out texts."""
    found = fetch_texts(texts, ["select", "held"])
    whole = (found / "select" / "de.txt").read_bytes()
    parts = {
        "used": whole[:-LAST_PAGES],
        "handbook": whole[-HELD_OUT_BYTES:],
        "manual": (found / "held" / "de.txt").read_bytes()[:HELD_OUT_BYTES],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in parts.items():
        (folder / f"{name}.txt").write_text(text.decode("utf-8", "ignore"), encoding="utf-8")
    return {name: folder / f"{name}.txt" for name in parts}


def one_row(name: str, given: argparse.Namespace, texts: Mapping[str, Path]) -> dict[str, Any]:
    """Make one row, in this process."""
    source, settings = resolve_model(str(fetch("smollm2"))), dict(ROWS[name])
    out, begin, found = given.folder / "out", time.perf_counter(), {}
    if name == "source":
        out = source
    elif "added" in settings:
        words = best_words(source, texts["used"], given.add)
        with_added(source, [settings["added"].format(word) for word in words], out)
    else:
        options: dict[str, Any] = {"init": settings["init"], "out": out, "force": True}
        if settings.get("heal"):
            healing = given.folder / "heal.txt"
            healing.write_text(texts["used"].read_text("utf-8")[: given.heal_kilobytes * 1000], encoding="utf-8")
            options["heal"] = [healing]
        if settings.get("words"):
            options["tokens"] = [list_that_fits(source, best_words(source, texts["used"], given.add), given)]
        else:
            options |= {"corpora": [str(texts["used"])], "add": given.add}
        report = tokswap.extend_model(source, **options)
        facts = report.plan.counted
        found = {"tokens": len(facts.added), "intermediate": facts.intermediate, "pays": facts.pays}
        found |= {"healing": report.evidence["healing"]["seconds"]} if "healing" in report.evidence else {}
    found["seconds"] = round(time.perf_counter() - begin, 1)
    model, tokenizer = load_model(out)
    for part in ("handbook", "manual"):
        score = bits_per_byte(model, tokenizer, texts[part].read_text("utf-8"))
        found[part] = {"tokens": score.tokens, "bits_per_byte": round(score.bits_per_byte, 4)}
    return found


def best_words(source: Path, text: Path, count: int) -> list[str]:
    """Return the words that save most: how often they occur, times the tokens that each saves."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    words = Counter(re.findall(r"[^\W\d_]+", text.read_text("utf-8")))
    pieces = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    saved = {word: words[word] * (len(ids) - 1) for word, ids in zip(words, pieces, strict=True)}
    return sorted(saved, key=lambda word: -saved[word])[:count]


def with_added(source: Path, tokens: list[str], out: Path) -> None:
    """Write the model with added tokens, as transformers' documentation shows, each with the mean row."""
    import torch

    model, tokenizer = load_model(source)
    before = len(tokenizer)
    tokenizer.add_tokens(tokens)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows[before:] = rows[:before].mean(0)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def list_that_fits(source: Path, words: list[str], given: argparse.Namespace) -> Path:
    """Write as many of the words as take no more ids than the user wants, those on the way to them included."""
    path = given.folder / "words.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    added = tokswap.plan_extend(source, tokens=[path], out=given.folder / "none").plan.counted.added
    fitting = {text for _, text, _ in added[: given.add]}  # a word comes after the tokens on the way to it
    path.write_text("\n".join(word for word in words if repr(f" {word}") in fitting), encoding="utf-8")
    return path


def table(rows: Mapping[str, Any]) -> list[str]:
    """Return the rows as a Markdown table."""
    lines = [
        "| | handbook: tokens saved | excess, bits per byte | manual pages: tokens saved | excess |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        cells = []
        for part in ("handbook", "manual"):
            own, before = row[part], rows["source"][part]
            cells.append(f"{100 * (1 - own['tokens'] / before['tokens']):.1f} %")
            cells.append(f"{own['bits_per_byte'] - before['bits_per_byte']:+.3f}")
        if name != "source":
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
