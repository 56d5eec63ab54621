"""The curve of a trim: rows against tokens per byte and bits per byte of held-out text, in three languages.

    python benchmarks/trim_curve.py [--texts DIR] [--bytes 1500] [--languages en ...]

For each language, Gemma-3-270m is trimmed to all tokens of its script, to word lists and the `select` text of
`quality_texts.py`, to the text alone, and to parts of it by --coverage and --target-size; it reads the beginning of the
`held` text, which is of another kind. arXiv 2305.15020 finds that half of a multilingual vocabulary is enough for one
language. As a downstream score, English results answer the multiple-choice questions of `tokswap eval --probe facts`.
Bias, which the paper also studies, is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from _machine import RESULTS, keep
from quality_texts import fetch_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import token_losses
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

LANGUAGES = {"en": "Latin", "de": "Latin", "ru": "Cyrillic"}
"""Language -> its script."""
TRIMS: dict[str, dict[str, Any]] = {
    "script and text": {"scripts": True},
    "word lists and text": {"languages": True},
    "text": {},
    "coverage 0.99": {"coverage": 0.99},
    "coverage 0.95": {"coverage": 0.95},
    "target size 10,000": {"target_size": 10_000},
}
"""What is kept -> options of the trim. Bytes and added tokens of this model take 6,671 rows."""


def measured(model: Any, tokenizer: Any, text: str) -> dict[str, float]:
    """Return rows, parameters, and how well a model reads a text."""
    losses, size = token_losses(model, tokenizer, text), len(text.encode())
    return {
        "rows": int(model.get_input_embeddings().weight.shape[0]),
        "parameters": sum(one.numel() for one in model.parameters()),
        "tokens_per_byte": len(tokenizer(text, add_special_tokens=False)["input_ids"]) / size,
        "bits_per_byte": float(losses.bits.sum()) / size,
    }


def facts(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the score of the multiple-choice questions, which are in English."""
    text = {"text": "A text for the evaluation, which needs one. The probe does not read it."}
    found = tokswap.evaluate_models([(model, tokenizer)], text, tokens=0, probes=["facts"], questions=20)
    score: dict[str, Any] = found.models[0].probes["facts"].as_dict()
    return {key: score[key] for key in ("score", "interval")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=Path("trim-curve-texts"), help="where the texts are or go")
    parser.add_argument("--bytes", type=int, default=1500, help="held-out text of each language")
    parser.add_argument("--languages", nargs="+", choices=list(LANGUAGES), default=list(LANGUAGES))
    options = parser.parse_args()
    texts = fetch_texts(options.texts, ["select", "held"])
    held = {
        name: (texts / "held" / f"{name}.txt").read_bytes()[: options.bytes].decode("utf-8", "ignore")
        for name in LANGUAGES
    }
    source = resolve_model(str(fetch("gemma")))
    path = RESULTS / "trim-curve.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text("utf-8"))["curves"] if path.is_file() else {}
    found |= {name: [] for name in options.languages}

    def note(name: str, trim: str, model: Any, tokenizer: Any) -> None:
        found[name].append({"trim": trim, **measured(model, tokenizer, held[name])})
        one = found[name][-1]
        if name == "en":
            one["facts"] = facts(model, tokenizer)
        print(f"{name} {trim:24} {one['rows']:7,} rows {one['parameters'] / 1e6:6.1f} M", end=" ")
        print(f"{one['tokens_per_byte']:.3f} tokens/byte {one['bits_per_byte']:.3f} bits/byte", flush=True)

    whole = load_model(source)
    for name in options.languages:
        note(name, "whole", *whole)
    del whole
    for name in options.languages:
        script = LANGUAGES[name]
        for trim, options_of in TRIMS.items():
            given = {"scripts": [script], "languages": [name]}
            more = {key: given.get(key, value) for key, value in options_of.items()}
            with tempfile.TemporaryDirectory(prefix="tokswap-curve-") as folder:
                out = Path(folder) / "trimmed"
                corpus = str(texts / "select" / f"{name}.txt")
                tokswap.trim_vocabulary(source, corpora=[corpus], out=out, check="tokens", **more)
                note(name, trim, *load_model(out))
    print("kept in", keep("trim-curve", {"model": "gemma-3-270m", "held_out_bytes": options.bytes, "curves": found}))


if __name__ == "__main__":
    main()
