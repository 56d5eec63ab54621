"""A draft model: SmolLM2 with Gemma's vocabulary proposes tokens, and Gemma accepts those that it would have written.

python examples/draft.py [OUTPUT_FOLDER]
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
from tokswap.evaluation.losses import load_model
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"


def main() -> None:
    """Make the draft, ask the engines' rules about it, and let transformers use it."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo") / "smollm2-for-gemma"
    small, big = (resolve_model(str(fetch(name))) for name in ("smollm2", "gemma"))
    report = tokswap.make_draft(str(small), str(big), init="subword", out=out, force=True)
    print(f"{report.plan.coverage['missing']:,} rows made and {out} written in {report.seconds['all']:.0f} s\n")
    for name, folder in (("SmolLM2 as it was", small), ("SmolLM2 with Gemma's vocabulary", out)):
        print(f"{name}, as a draft for Gemma by the engines' own rules:")
        for verdict in tokswap.draft_verdicts(folder, big):
            print(f"  {verdict.engine:13} {'ok' if verdict.ok else '; '.join(verdict.reasons)[:140]}")
    (target, tokenizer), (draft, _) = load_model(big), load_model(out)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    options = {"attention_mask": inputs["attention_mask"], "max_new_tokens": 16, "do_sample": False}
    alone = target.generate(inputs["input_ids"], **options)
    assisted = target.generate(inputs["input_ids"], assistant_model=draft, **options)
    print(f"\n{PROMPT!r} goes on:\n  {tokenizer.decode(assisted[0, inputs['input_ids'].shape[1] :])!r}")
    print(
        f"the same as without the draft: {assisted.tolist() == alone.tolist()}. Next: tokswap verify {out} --draft-for {big}"
    )


if __name__ == "__main__":
    main()
