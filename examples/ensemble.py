"""An ensemble of two models of different families.

    python examples/ensemble.py [OUTPUT_FOLDER]

Gemma-3-270m gets the tokenizer of SmolLM2-135M-Instruct. Then the predictions of both are averaged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a model hub
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

from models import fetch

import tokswap
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"
TEXTS = Path(__file__).parent.parent / "tests" / "texts"


def main() -> None:
    """Prepare, check and evaluate the ensemble, and continue a prompt."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-ensemble")
    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    tokswap.prepare_ensemble([gemma, smollm2], smollm2, out, init="subword")
    for check in tokswap.check_ensemble(out):
        print(f"{'ok' if check.ok else 'FAIL':5}{check.name}: {check.detail}")
    texts = {name: (TEXTS / f"{name}.txt").read_text("utf-8") for name in ("english", "code")}
    evaluation = tokswap.evaluate_ensemble(out, texts, sources=True, tokens=0)
    print(f"\n{'bits per byte':56}{''.join(f'{name:>10}' for name in texts)}")
    for one in evaluation.models:
        bits = [one.score.only(name).bits_per_byte for name in texts]
        print(f"{Path(one.model).name:56}{''.join(f'{value:10.3f}' for value in bits)}")
    model, tokenizer = tokswap.load_ensemble(out)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    found = model.generate(ids, max_new_tokens=16, do_sample=False)
    print(f"\ncontinuation of {PROMPT!r}: {tokenizer.decode(found[0, ids.shape[1] :])!r}")


if __name__ == "__main__":
    main()
