"""Hypernetworks for several languages: is one that is told the language better than one that is not?

    python benchmarks/zett_languages.py --work DIR [--handbook FOLDER] [--steps 800] [--identity-steps 1000]

All texts are the Debian handbook in English, German, French and Spanish (`apt install debian-handbook`). The same
chapters are held out in every language. A language model is trained on the rest, and two hypernetworks for it on the
same text and for as many steps: one is told the language of its texts, the other is not. Then the model gets
tokenizers that neither has seen: one of each language alone, with as many tokens as the model's own for all four.
What is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import keep
from zett import Texts, make_tokenizer, prose, score, sort_in, train_hypernet, train_model

HANDBOOK = Path("/usr/share/doc/debian-handbook/html")
LANGUAGES = {"en": "en-US", "de": "de-DE", "fr": "fr-FR", "es": "es-ES"}
VOCABULARY = 8192


def texts(handbook: Path) -> tuple[Texts, Texts, Texts]:
    """Return the pages to train on, to score, and to choose by, each by language."""
    learnt, held, dev = ({code: [] for code in LANGUAGES} for _ in range(3))
    for code, folder in LANGUAGES.items():
        for path in sorted((handbook / folder).glob("*.html")):
            sort_in(learnt, held, dev, code, path.name, prose(path))
    return learnt, held, dev


def train_both(model: Path, corpora: dict[str, list[Path]], work: Path, steps: int, identity_steps: int) -> Any:
    """Train both hypernetworks and return what their trainings took."""
    files = [path for paths in corpora.values() for path in paths]
    kinds = {"without languages": files, "with languages": corpora}
    return {
        kind: train_hypernet(texts, model, _folder(work, kind), steps=steps, identity_steps=identity_steps)
        for kind, texts in kinds.items()
    }


def _folder(work: Path, kind: str) -> Path:
    return work / kind.replace(" ", "-")


def compare(model: Path, work: Path, learnt: Texts, scored: dict[str, str]) -> list[dict[str, Any]]:
    """Give the model the tokenizer of each language, with rows of every kind, and score the results in that language.

    Returns:
        A row for each language and method: its excess in bits per byte.
    """
    import tokswap

    rows = []
    for code, text in scored.items():
        tokenizer = work / f"tokenizer-{code}"
        if not tokenizer.is_dir():
            make_tokenizer(learnt[code], tokenizer, VOCABULARY)
        own = score(model, {code: text})[code]
        methods: dict[str, dict[str, Any]] = {
            "subword": {},
            **{
                f"zett, {kind}{', all rows' * every}": {
                    "path": str(_folder(work, kind)),
                    "replace": every,
                    **({"lang": code} if kind == "with languages" else {}),
                }
                for every in (False, True)
                for kind in ("without languages", "with languages")
            },
        }
        for method, settings in methods.items():
            out = work / "result"
            report = tokswap.transplant_tokenizer(
                str(model), str(tokenizer), init=method.split(",")[0], settings=settings, out=out, force=out.exists()
            )
            row = {
                "language": code,
                "own_bits_per_byte": round(own, 4),
                "initialised": report.plan.coverage["missing"],
                "method": method,
                "excess": round(score(out, {code: text})[code] - own, 4),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--model-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--identity-steps", type=int, default=1000)
    parser.add_argument("--dev", action="store_true", help="score on the texts for choices")
    given = parser.parse_args()
    learnt, held, dev = texts(given.handbook)
    model = given.work / "model"
    if not (model / "training.json").is_file():
        train_model([page for pages in learnt.values() for page in pages], model, given.model_steps, VOCABULARY)
    corpora = {code: [given.work / f"{code}.txt"] for code in LANGUAGES}
    for code, [path] in corpora.items():
        path.write_text("\n".join(learnt[code]), "utf-8")
    trained = train_both(model, corpora, given.work, given.steps, given.identity_steps)
    scored = {code: "\n".join(pages) for code, pages in (dev if given.dev else held).items()}
    result = {
        "texts": {code: {"learnt": sum(map(len, learnt[code])), "scored": len(scored[code])} for code in LANGUAGES},
        "model": json.loads((model / "training.json").read_text()),
        "hypernets": trained,
        "rows": compare(model, given.work, learnt, scored),
    }
    if not given.dev:
        print(keep("zett-languages", result))


if __name__ == "__main__":
    main()
