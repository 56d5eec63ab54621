"""Which learning rate heals best, in models of several widths that are trained here.

    python benchmarks/heal_rates.py --work DIR [--handbook FOLDER] [--widths 128 256] [--languages de fr es]

The models are those of `zett_languages.py` and others of the same kind, trained on the Debian handbook in four
languages. A model gets a tokenizer of one language, with as many tokens as its own, and is healed on 60 kB of pages
that it was not trained on, each time at another rate of the adapter. The excess is that on the held-out part of these
pages. What is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _machine import keep
from zett import make_tokenizer, train_model
from zett_languages import HANDBOOK, VOCABULARY, texts

import tokswap
from tokswap.errors import TokswapError
from tokswap.heal.options import HealOptions

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)


def healed(student: Path, teacher: Path, text: Path, rate: float) -> dict[str, float]:
    """Return the excess before and after healing at a rate; that before again where healing does not help."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            report = tokswap.heal_model(student, [text], teacher=teacher, out=Path(scratch) / "out", rate=rate)
        except TokswapError as error:
            if error.code != "not-better":
                raise
            return {"rate": rate, "not_better": True}
    before, after = (report.healing[f"excess_{when}"]["all"] for when in ("before", "after"))
    return {"rate": rate, "before": round(before, 4), "after": round(after, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--languages", nargs="+", default=["de", "fr", "es"])
    parser.add_argument("--steps", type=int, default=700, help="steps of the models")
    given = parser.parse_args()
    learnt, held, _ = texts(given.handbook)
    rows: list[dict[str, Any]] = []
    for width in given.widths:
        model = given.work / f"model-{width}"
        if not (model / "training.json").is_file():
            pages = [page for pages in learnt.values() for page in pages]
            train_model(pages, model, given.steps, VOCABULARY, width)
        for code in given.languages:
            tokenizer, text = given.work / f"tokenizer-{code}", given.work / f"heal-{code}.txt"
            if not tokenizer.is_dir():
                make_tokenizer(learnt[code], tokenizer, VOCABULARY)
            text.write_text("\n".join(held[code]), "utf-8")
            student = given.work / f"student-{width}-{code}"
            if not student.is_dir():
                tokswap.transplant_tokenizer(model, tokenizer, out=student)
            row = {"width": width, "language": code, "default": HealOptions().rate_at(width)}
            rows.append({**row, "healed": [healed(student, model, text, rate) for rate in RATES]})
            print(rows[-1], flush=True)
    print(keep("heal-rates", {"rows": rows}))


if __name__ == "__main__":
    main()
