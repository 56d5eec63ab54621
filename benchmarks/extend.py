"""SmolLM2-135M with 2,000 German or medical tokens: what they save and cost, beside `add_tokens` with mean rows.

    python benchmarks/extend.py [--domain german] [--rows ...] [--add 2000] [--texts DIR] [--folder DIR]

German: tokens are chosen by the German Debian handbook, without its last pages. `handbook` is the end of those pages, and
`manual` German manual pages; both are held out. Medicine: tokens are chosen by every other entry about medicine of the
Collaborative International Dictionary (`dict-gcide`), and words by the medical dictionary of hunspell (`hunspell-en-med`).
`dictionary` is a part of the other entries, and `English` the held-out English of the quality table, which is about
something else. The words for `add_tokens` are those that save most: how often a word occurs, times the tokens that it
saves. Each row is a process of its own; rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _machine import RESULTS, keep, row_apart
from quality_texts import fetch_texts, unpack

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
    "extend --tokens, the same words, as many as take 2,000 ids": {"init": "auto", "words": "fitting"},
    "extend --tokens, all of the words": {"init": "auto", "words": "all"},
    "extend --corpus, mean rows": {"init": "mean"},
    "extend --corpus, then --heal": {"init": "auto", "heal": True},
}
LAST_PAGES, HELD_OUT_BYTES = 40_000, 12_000
MEDICINE = re.compile(r"\((Med|Anat|Physiol|Surg|Pharm)\.\)")
"""How the dictionary marks what a word means in medicine."""


@dataclass(frozen=True)
class Domain:
    """What tokens are added for.

    Attributes:
        used: The text that chooses them.
        held: Name -> text to measure on.
        words: The words that may be added as words; None for all of the text.
    """

    used: Path
    held: Mapping[str, Path]
    words: Collection[str] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", default="german", choices=list(DOMAINS))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--add", type=int, default=2000)
    parser.add_argument("--texts", type=Path, default=Path("bench-texts"))
    parser.add_argument("--folder", type=Path, default=Path("bench-extend"))
    parser.add_argument("--heal-kilobytes", type=int, default=30)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given, DOMAINS[given.domain](given.texts, given.folder))))
        return
    path = RESULTS / "extend.json"
    domains: dict[str, Any] = json.loads(path.read_text("utf-8"))["domains"] if path.is_file() else {}
    rows = domains.setdefault(given.domain, {})
    for name in given.rows:
        if name in rows:
            continue
        rows[name] = row_apart(name)
        keep("extend", {"domains": domains})
    print("\n".join(table(rows)))


def german(texts: Path, folder: Path) -> Domain:
    """Return the German texts."""
    found = fetch_texts(texts, ["select", "held"])
    whole = (found / "select" / "de.txt").read_bytes()
    used = written(folder / "german.txt", whole[:-LAST_PAGES])
    held = {
        "handbook": written(folder / "handbook.txt", whole[-HELD_OUT_BYTES:]),
        "manual": written(folder / "manual.txt", (found / "held" / "de.txt").read_bytes()[:HELD_OUT_BYTES]),
    }
    return Domain(used, held)


def medicine(texts: Path, folder: Path) -> Domain:
    """Return the medical texts, with a list of medical words."""
    found = fetch_texts(texts, ["held"])
    for package in ("dict-gcide", "hunspell-en-med"):
        unpack(package, texts / "packages")
    shared = texts / "packages" / "usr" / "share"
    with gzip.open(shared / "dictd" / "gcide.dict.dz", "rt", encoding="utf-8", errors="replace") as file:
        entries = [plain(entry) for entry in re.split(r"\n\n(?=\S)", file.read()) if MEDICINE.search(entry)]
    used = written(folder / "medicine.txt", "\n\n".join(entries[::2]).encode("utf-8"))
    other = entries[1::2]
    held = {
        "dictionary": written(folder / "dictionary.txt", "\n\n".join(other[::100]).encode("utf-8")[:HELD_OUT_BYTES]),
        "English": written(folder / "english.txt", (found / "held" / "en.txt").read_bytes()[:HELD_OUT_BYTES]),
    }
    listed = (shared / "hunspell" / "en_med_glut.dic").read_text("utf-8").split()
    return Domain(used, held, {word.partition("/")[0] for word in listed})


DOMAINS = {"german": german, "medicine": medicine}


def plain(entry: str) -> str:
    """Return an entry of the dictionary without pronunciation, sources and markup."""
    text = re.sub(r"\\[^\\]*\\|\(\[[^)]*\)|\[[^\]]*\]|[{}]", "", entry)
    return re.sub(r"\s+", " ", text).strip()


def written(path: Path, text: bytes) -> Path:
    """Write a text, without a character that was cut."""
    path.write_bytes(text.decode("utf-8", "ignore").encode("utf-8"))
    return path


def one_row(name: str, given: argparse.Namespace, domain: Domain) -> dict[str, Any]:
    """Make one row, in this process."""
    source, settings = resolve_model(str(fetch("smollm2"))), dict(ROWS[name])
    out, begin, found = given.folder / "out", time.perf_counter(), {}
    if name == "source":
        out = source
    elif "added" in settings:
        words = best_words(source, domain, given.add)
        with_added(source, [settings["added"].format(word) for word in words], out)
    else:
        options: dict[str, Any] = {"init": settings["init"], "out": out, "force": True}
        if settings.get("heal"):
            healing = given.folder / "heal.txt"
            healing.write_text(domain.used.read_text("utf-8")[: given.heal_kilobytes * 1000], encoding="utf-8")
            options["heal"] = [healing]
        if "words" in settings:
            words = best_words(source, domain, given.add)
            options["tokens"] = [word_list(source, words, given, fitting=settings["words"] == "fitting")]
        else:
            options |= {"corpora": [str(domain.used)], "add": given.add}
        report = tokswap.extend_model(source, **options)
        facts = report.plan.counted
        found = {"tokens": len(facts.added), "intermediate": facts.intermediate, "pays": facts.pays}
        found |= {"healing": report.evidence["healing"]["seconds"]} if "healing" in report.evidence else {}
    found["seconds"] = round(time.perf_counter() - begin, 1)
    model, tokenizer = load_model(out)
    for part, path in domain.held.items():
        score = bits_per_byte(model, tokenizer, path.read_text("utf-8"))
        found[part] = {"tokens": score.tokens, "bits_per_byte": round(score.bits_per_byte, 4)}
    return found


def best_words(source: Path, domain: Domain, count: int) -> list[str]:
    """Return the words that save most: how often they occur, times the tokens that each saves."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    words = Counter(re.findall(r"[^\W\d_]+", domain.used.read_text("utf-8")))
    if domain.words is not None:
        words = Counter({word: count for word, count in words.items() if word in domain.words})
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


def word_list(source: Path, words: list[str], given: argparse.Namespace, *, fitting: bool) -> Path:
    """Write words, or as many of them as take no more ids than the user wants, those on the way to them included."""
    path = given.folder / "words.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    if fitting:
        added = tokswap.plan_extend(source, tokens=[path], out=given.folder / "none").plan.counted.added
        fit = {text for _, text, _ in added[: given.add]}  # a word comes after the tokens on the way to it
        path.write_text("\n".join(word for word in words if repr(f" {word}") in fit), encoding="utf-8")
    return path


def table(rows: Mapping[str, Any]) -> list[str]:
    """Return the rows as a Markdown table."""
    parts = [part for part, value in rows["source"].items() if isinstance(value, dict)]
    lines = [
        f"| | {' | '.join(f'{part}: tokens saved | excess' for part in parts)} |",
        f"| --- |{' ---: |' * 2 * len(parts)}",
    ]
    for name, row in rows.items():
        cells = []
        for part in parts:
            own, before = row[part], rows["source"][part]
            cells.append(f"{100 * (1 - own['tokens'] / before['tokens']):.1f} %")
            cells.append(f"{own['bits_per_byte'] - before['bits_per_byte']:+.3f}")
        if name != "source":
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
