"""Hypernetworks for several languages: is it better to sample tokenizers from one language at a time?

    python benchmarks/zett_languages.py --work DIR [--handbook FOLDER] [--mergekit PYTHON]

All texts are the Debian handbook in English, German, French and Spanish (`apt install debian-handbook`). The same
chapters are held out in every language. A language model is trained on the rest, and two hypernetworks for it on the
same text and for as many steps: one under tokenizers of all texts, the other under those of one language at a time.
Then the model gets tokenizers that neither has seen: one of each language alone, with as many tokens as the model's own
for all four.

It also gets SmolLM2's tokenizer with every method and mergekit's beside them, as in `quality.py`, for a table of a
model that is much smaller than those there. What is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _machine import keep
from quality import PEERS, Bench, Pair, our_methods
from quality_table import excess_of
from zett import Texts, make_tokenizer, prose, score, sort_in, train_hypernet, train_model

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.storage.resolve import resolve_model

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


KINDS = {"all texts": False, "by text": True}
"""How the tokenizers of the training are sampled -> whether from one text at a time."""


def train_both(model: Path, corpora: list[Path], work: Path, steps: int, identity_steps: int) -> dict[str, Any]:
    """Train both hypernetworks and return what their trainings took."""
    sizes = {"steps": steps, "identity_steps": identity_steps}
    return {
        kind: train_hypernet(corpora, model, _folder(work, kind), by_text=by_text, **sizes)
        for kind, by_text in KINDS.items()
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
                f"zett, {kind}{', all rows' * every}": {"path": str(_folder(work, kind)), "replace": every}
                for every in (False, True)
                for kind in KINDS
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


def every_method(model: Path, work: Path, scored: dict[str, str], mergekit: str | None) -> dict[str, Any]:
    """Give the model SmolLM2's tokenizer with every method that needs no more files, and score the results.

    Returns:
        Bits per byte of the model itself, rows, initialised rows, and the excess of each method by language.
    """
    bench = Bench(work=work, scores=work / "scores", texts=scored, healing=(), dtype="float32")
    pair = Pair(number="small", key="small", model=model, tokenizer=resolve_model(str(fetch("smollm2"))))
    methods = {name: options for name, options in our_methods(None, None).items() if not options.get("heal")}
    for kind in KINDS:
        methods[f"zett, {kind}"] = {"init": "zett", "settings": {"path": str(_folder(work, kind))}}
    for name in ("tokenadapt-encoder", "wechsel"):  # these need files
        del methods[name]
    base = bench.score(pair, "source", True, lambda: bench.source(pair))
    found = {}
    for name in [*(PEERS if mergekit else ()), *methods]:
        score = bench.score_of(pair, name, methods, mergekit, again=False)
        found[name] = excess_of(score, base["bits"], tuple(scored))
    return {**base, "methods": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--model-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--identity-steps", type=int, default=1000)
    parser.add_argument("--mergekit", help="Python of an environment with mergekit 0.1.5")
    parser.add_argument("--dev", action="store_true", help="score on the texts for choices")
    given = parser.parse_args()
    learnt, held, dev = texts(given.handbook)
    model = given.work / "model"
    if not (model / "training.json").is_file():
        train_model([page for pages in learnt.values() for page in pages], model, given.model_steps, VOCABULARY)
    corpora = [given.work / f"{code}.txt" for code in LANGUAGES]
    for path in corpora:
        path.write_text("\n".join(learnt[path.stem]), "utf-8")
    trained = train_both(model, corpora, given.work, given.steps, given.identity_steps)
    scored = {code: "\n".join(pages) for code, pages in (dev if given.dev else held).items()}
    result = {
        "texts": {code: {"learnt": sum(map(len, learnt[code])), "scored": len(scored[code])} for code in LANGUAGES},
        "model": json.loads((model / "training.json").read_text()),
        "hypernets": trained,
        "rows": compare(model, given.work, learnt, scored),
        "every_method": every_method(model, given.work, scored, given.mergekit),
    }
    if not given.dev:
        print(keep("zett-languages", result))


if __name__ == "__main__":
    main()
