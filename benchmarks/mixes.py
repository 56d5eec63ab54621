"""The ways of mixing, on a pair of which one member is transplanted and healed: bits per byte beside both models alone.

    python benchmarks/mixes.py [--sets held dev] [--kilobytes 120] [--folder DIR] [--texts DIR]

SmolLM2-135M-Instruct gets the tokenizer of Gemma-3-270m (`--init auto`), and is healed on English, code and German (apart
from the texts that are measured). A folder that is there is used again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from _machine import keep
from quality_texts import fetch_texts, healing_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

KINDS = ("en", "code", "de")
EQUAL = (0.5, 0.5)
MIXES = {
    "probabilities, equal weights": ("probabilities", EQUAL),
    "probabilities, 0.9 Gemma": ("probabilities", (0.9, 0.1)),
    "logits, equal weights": ("logits", EQUAL),
    "adaptive, equal weights": ("adaptive", EQUAL),
}


def measured(model: Any, tokenizer: Any, texts: dict[str, str]) -> dict[str, float]:
    """Return bits per byte of each text."""
    return {name: round(bits_per_byte(model, tokenizer, text).bits_per_byte, 4) for name, text in texts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["held", "dev"], choices=["held", "dev"])
    parser.add_argument("--kilobytes", type=int, default=120)
    parser.add_argument("--folder", type=Path, default=Path("bench-mixes"))
    parser.add_argument("--texts", type=Path, default=Path("bench-texts"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    big, small = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    moved, healed, both = (given.folder / name for name in ("transplanted", "healed", "both"))
    if not healed.exists():
        tokswap.transplant_tokenizer(small, big, out=moved, force=True)
        tokswap.heal_model(moved, healing_texts(given.texts, given.kilobytes), teacher=small, out=healed)
    tokswap.prepare_ensemble([str(big), str(healed)], str(big), both)
    sets = {}
    for name in given.sets:
        folder = fetch_texts(given.texts, [name]) / name
        sets[name] = {kind: (folder / f"{kind}.txt").read_text("utf-8") for kind in KINDS}
    rows: dict[str, dict[str, Any]] = {name: {} for name in sets}
    for name, texts in sets.items():
        rows[name]["SmolLM2 with its own tokenizer"] = measured(*load_model(small), texts)
    mix, tokenizer = tokswap.load_ensemble(both)
    for name, texts in sets.items():
        for member, model in zip(("Gemma", "SmolLM2 with Gemma's tokenizer, healed"), mix.members, strict=True):
            rows[name][member] = measured(model, tokenizer, texts)
        for row, (way, weights) in MIXES.items():
            mix.mix, mix.weights = way, weights
            rows[name][row] = measured(mix, tokenizer, texts)
            print(name, row, rows[name][row], flush=True)
    print("kept in", keep("mixes", {"kilobytes": given.kilobytes, "rows": rows}))


if __name__ == "__main__":
    main()
