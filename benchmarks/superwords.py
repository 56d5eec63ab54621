"""SmolLM2-135M with trained tokenizers whose tokens cross spaces: of the same size, of twice the size, and without.

    python benchmarks/superwords.py [--rows same ...] [--texts DIR] [--folder DIR] [--megabytes 30] [--heal-kilobytes 60]

The tokenizers are trained with `tokswap tokenizer train --like` SmolLM2 on the Debian handbook in English and on Python
packages; results are scored on the held-out English and code of the quality table. Operations count the multiplications
of one pass over the text, layers and lm_head, for each byte, relative to the source. Each row is a process of its own;
rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _machine import missing_rows, row_parser
from quality_texts import SITE, fetch_texts, healing_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

PARTS = ("en", "code")
SAME = 49_152
ROWS: dict[str, dict[str, Any]] = {
    "source": {},
    "source, trained on the same text": {},
    "no superwords, the same size": {"size": SAME, "superwords": False},
    "superwords, the same size": {"size": SAME, "superwords": True},
    "superwords, twice the size": {"size": 2 * SAME, "superwords": True, "word_share": 0.4},
}
"""Row -> how its tokenizer is trained. Both superword tokenizers have as many tokens within words."""


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-superwords")
    parser.add_argument("--megabytes", type=int, default=30, help="of code to train the tokenizers on")
    parser.add_argument("--heal-kilobytes", type=int, default=60)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given)))
        return
    more = {"megabytes": given.megabytes, "heal_kilobytes": given.heal_kilobytes}
    rows = missing_rows("superwords", given.rows, **more)
    print("\n".join(table(rows)))


def one_row(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train a tokenizer, put it on the model, heal the result, and score all, in this process."""
    texts = fetch_texts(given.texts, ["select", "held"])
    held = {part: (texts / "held" / f"{part}.txt").read_text("utf-8") for part in PARTS}
    source, settings = resolve_model(str(fetch("smollm2"))), ROWS[name]
    if name == "source":
        return {"before": scored(source, held)}
    healing = [path for path in healing_texts(given.texts, given.heal_kilobytes * 3 // 2) if path.stem in PARTS]
    healed = given.folder / "healed"
    if not settings:
        return {"before": scored(source, held), **trained_source(source, healing, healed, held)}
    begin, found = time.process_time(), {}
    tokenizer = given.folder / f"tokenizer-{settings['size']}-{settings['superwords']}"
    if not tokenizer.is_dir():
        corpora = [texts / "select" / "en.txt", python_code(given.folder / "code.txt", given.megabytes)]
        tokswap.train_tokenizer(corpora, **settings, like=str(source), out=tokenizer)
        found["train_cpu_s"] = round(time.process_time() - begin)
    out = given.folder / "out"
    tokswap.transplant_tokenizer(source, tokenizer, out=out, force=True)
    found["before"] = scored(out, held)
    begin = time.process_time()
    tokswap.heal_model(out, healing, out=healed, force=True)
    found["heal_cpu_s"] = round(time.process_time() - begin)
    return {**found, "healed": scored(healed, held)}


def trained_source(source: Path, healing: Sequence[Path], out: Path, held: Mapping[str, str]) -> dict[str, Any]:
    """Train the source model with its own tokenizer on the text that heals the others, as often, without a teacher."""
    begin, found = time.process_time(), {}
    try:
        tokswap.heal_model(source, healing, teacher=source, kl=0.0, cross_entropy=1.0, out=out, force=True)
        found["healed"] = scored(out, held)
    except tokswap.InputError as error:
        if error.code != "not-better":
            raise
        found["not_better"] = error.message
    return {"heal_cpu_s": round(time.process_time() - begin), **found}


def python_code(path: Path, megabytes: int) -> Path:
    """Write every tenth file of the installed packages, as many as fit."""
    left = megabytes * 1_000_000
    with path.open("wb") as out:
        for file in sorted(SITE.rglob("*.py"))[::10]:
            text = file.read_bytes()
            if 2000 < len(text) < left:
                out.write(text + b"\n\n")
                left -= len(text)
    return path


def scored(folder: Path, held: Mapping[str, str]) -> dict[str, Any]:
    """Return what a model needs for each text, and how well it predicts it."""
    model, tokenizer = load_model(folder)
    # Each weight of the layers and of lm_head is used once a token; input embeddings are only looked up.
    lookup = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings().weight.numel()
    operations = sum(one.numel() for one in model.parameters()) - lookup
    operations += head if model.get_output_embeddings().weight is model.get_input_embeddings().weight else 0
    found: dict[str, Any] = {}
    for part, text in held.items():
        score, size = bits_per_byte(model, tokenizer, text), len(text.encode("utf-8"))
        found[part] = {
            "tokens_per_byte": round(score.tokens / size, 4),
            "operations_per_byte": round(operations * score.tokens / size),
            "bits_per_byte": round(score.bits_per_byte, 4),
        }
    return found


def table(rows: Mapping[str, Any]) -> list[str]:
    """Return the rows as a Markdown table, English and code in one field."""
    lines = [
        "| English / code | tokens per byte | operations per byte | excess, `auto` | excess, healed | bits per byte, healed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    source = rows["source"]["before"]
    for name, row in rows.items():
        before, after = row["before"], row.get("healed")
        cells = [
            both(f"{before[part]['tokens_per_byte']:.3f}" for part in PARTS),
            both(f"{before[part]['operations_per_byte'] / source[part]['operations_per_byte']:.2f}" for part in PARTS),
        ]
        for state in (before, after):
            known = state and not (name.startswith("source") and state is before)
            cells.append(both(f"{excess(state, source, part):+.3f}" for part in PARTS) if known else "-")
        last = after or before
        cells.append(both(f"{last[part]['bits_per_byte']:.3f}" for part in PARTS))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def excess(state: Mapping[str, Any], source: Mapping[str, Any], part: str) -> float:
    """Return the bits per byte of a result on a text, less those of the source."""
    return float(state[part]["bits_per_byte"] - source[part]["bits_per_byte"])


def both(cells: Any) -> str:
    """Join the cells of both texts."""
    return " / ".join(cells)


if __name__ == "__main__":
    main()
