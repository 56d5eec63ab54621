"""SmolLM2-135M, which is English, with a German tokenizer: methods with and without parallel text.

    python benchmarks/parallel.py [--rows subword ...] [--texts DIR] [--folder DIR] [--heal-kilobytes 0]

The parallel text is the Debian handbook in English and German: paragraphs, cut into sentences where both languages have
as many. The tokenizer is trained on its German half with `tokswap tokenizer train --like` SmolLM2. `wechsel` reads word
vectors that gensim trains on the words of each pair of lines together. The excess is that of the held-out German of the
quality table (manual pages). Each row is a process of its own; rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _machine import missing_rows, row_parser
from quality_texts import HANDBOOK, fetch_texts, healing_texts, unpack

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

SIZE = 8000
ROWS: dict[str, Mapping[str, Any]] = {
    "source": {},
    "subword": {"init": "subword"},
    "trans-tokenizer": {"init": "trans-tokenizer"},
    "auto": {"init": "auto"},
    "trans-tokenizer, pieces=0": {"init": "trans-tokenizer", "settings": {"pieces": 0}},
    "wechsel": {"init": "wechsel"},
    "subword, weights=length": {"init": "subword", "settings": {"weights": "length"}},
    "subword, weights=exponential": {"init": "subword", "settings": {"weights": "exponential"}},
    "mean": {"init": "mean"},
}
"""Row -> options of the transplant."""
_PARAGRAPH = re.compile(r'(?s)<(div class="para"|h\d|dt|p class="title")[^>]*>((?:(?!<div).)*?)</(?:div|h\d|dt|p)>')
_SENTENCE = re.compile(r'(?<=[.!?:])\s+(?=[A-ZÄÖÜ"„(])')


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-parallel")
    parser.add_argument("--heal-kilobytes", type=int, default=0, help="heal each result with so much German")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given)))
        return
    rows = missing_rows("parallel", given.rows, heal_kilobytes=given.heal_kilobytes)
    print("\n".join(table(rows)))


def one_row(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Transplant with one method and score the result, in this process."""
    held = (fetch_texts(given.texts, ["held"]) / "held" / "de.txt").read_text("utf-8")
    source = resolve_model(str(fetch("smollm2")))
    if name == "source":
        return {"bits_per_byte": round(scored(source, held), 4)}
    english, german = parallel_text(given.texts, given.folder)
    tokenizer, out, healed = (given.folder / part for part in ("tokenizer", "out", "healed"))
    if not tokenizer.is_dir():
        tokswap.train_tokenizer([german], size=SIZE, like=str(source), out=tokenizer)
    options = {**ROWS[name]}
    begin = time.process_time()
    if options["init"] == "trans-tokenizer":
        own = {"source_text": str(english), "target_text": str(german)}
        options["settings"] = {**options.get("settings", {}), **own}
    elif options["init"] == "wechsel":
        options["settings"] = {"vectors": str(word_vectors(english, german, given.folder / "words.vec"))}
    report = tokswap.transplant_tokenizer(source, tokenizer, out=out, force=True, **options)
    found: dict[str, Any] = {"cpu_s": round(time.process_time() - begin), "notes": list(report.notes)}
    found["bits_per_byte"] = round(scored(out, held), 4)
    if given.heal_kilobytes:
        text = next(path for path in healing_texts(given.texts, 3 * given.heal_kilobytes) if path.stem == "de")
        tokswap.heal_model(out, [text], out=healed, force=True)
        found["healed"] = round(scored(healed, held), 4)
    return found


def parallel_text(texts: Path, folder: Path) -> tuple[Path, Path]:
    """Write the lines of the handbook in English and in German, on first use."""
    files = folder / "english.txt", folder / "german.txt"
    if not all(file.is_file() for file in files):
        for package in HANDBOOK:
            unpack(package, texts / "packages")
        pairs = list(_pairs(texts / "packages/usr/share/doc/debian-handbook/html"))
        for file, lines in zip(files, zip(*pairs, strict=True), strict=True):
            file.write_text("\n".join(lines) + "\n", "utf-8")
    return files


def _pairs(pages: Path) -> Iterator[tuple[str, str]]:
    """Yield translated lines. A page counts where both languages have the same paragraphs."""
    for page in sorted((pages / "en-US").glob("*.html")):
        english, german = (_paragraphs(pages / language / page.name) for language in ("en-US", "de-DE"))
        if [kind for kind, _ in english] != [kind for kind, _ in german]:
            continue
        for (_, one), (_, other) in zip(english, german, strict=True):
            lines = _SENTENCE.split(one), _SENTENCE.split(other)
            together = zip(*(lines if len(lines[0]) == len(lines[1]) else ([one], [other])), strict=True)
            yield from ((a, b) for a, b in together if a != b and a and b)  # what is equal was not translated


def _paragraphs(page: Path) -> list[tuple[str, str]]:
    """Return the kind and the text of each paragraph and title of a page, without code blocks."""
    text = re.sub(r"(?s)<(script|style|head|pre)\b.*?</\1>", "", page.read_text("utf-8", "replace"))
    plain = ((kind, html.unescape(re.sub(r"<[^>]+>", "", inside))) for kind, inside in _PARAGRAPH.findall(text))
    return [(kind, " ".join(inside.split())) for kind, inside in plain]


def word_vectors(english: Path, german: Path, path: Path) -> Path:
    """Train vectors of both languages' words in one space, on the shuffled words of each pair of lines."""
    from gensim.models import Word2Vec

    draw, lines = random.Random(0), []
    for pair in zip(english.read_text("utf-8").splitlines(), german.read_text("utf-8").splitlines(), strict=True):
        lines.append(re.findall(r"\w+", " ".join(pair)))
        draw.shuffle(lines[-1])
    model = Word2Vec(lines, vector_size=100, window=20, epochs=15, min_count=2, sg=1, workers=1, seed=0)
    model.wv.save_word2vec_format(str(path))
    return path


def scored(folder: Path, text: str) -> float:
    """Return the bits per byte of a model."""
    return bits_per_byte(*load_model(folder), text).bits_per_byte


def table(rows: Mapping[str, Any]) -> list[str]:
    """Return the rows as a Markdown table."""
    own = rows["source"]["bits_per_byte"]
    lines = ["| method | excess, bits per byte | healed | CPU s |", "| --- | ---: | ---: | ---: |"]
    for name, row in rows.items():
        if name != "source":
            healed = f"{row['healed'] - own:+.3f}" if "healed" in row else "-"
            lines.append(f"| `{name}` | {row['bits_per_byte'] - own:+.3f} | {healed} | {row['cpu_s']} |")
    return lines


if __name__ == "__main__":
    main()
