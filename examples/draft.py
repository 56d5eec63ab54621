"""SmolLM2 as a draft model for Gemma: it gets Gemma's vocabulary, proposes tokens, and Gemma accepts some of them.

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
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"


def main() -> None:
    """Make the draft, check it by the rules of each inference engine, and use it in transformers."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo") / "smollm2-for-gemma"
    small, big = (resolve_model(str(fetch(name))) for name in ("smollm2", "gemma"))
    result = tokswap.make_draft(small, big, init="subword", out=out, force=True)
    rows, seconds = result.plan.coverage["missing"], result.seconds["all"]
    print(f"initialised {rows:,} rows and wrote {out} in {seconds:.0f} s\n")
    for name, folder in (("SmolLM2 as it was", small), ("SmolLM2 with Gemma's vocabulary", out)):
        print(f"{name}, as a draft for Gemma, by the rules of each inference engine:")
        for verdict in tokswap.draft_verdicts(folder, big):
            print(f"  {verdict.engine:13} {'ok' if verdict.ok else '; '.join(verdict.reasons)[:140]}")
    (target, tokenizer), (draft, _) = load_model(big), load_model(out)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    options = {"attention_mask": inputs["attention_mask"], "max_new_tokens": 16, "do_sample": False}
    alone = target.generate(inputs["input_ids"], **options)
    assisted = target.generate(inputs["input_ids"], assistant_model=draft, **options)
    print(f"\ncontinuation of {PROMPT!r}:\n  {tokenizer.decode(assisted[0, inputs['input_ids'].shape[1] :])!r}")
    print(f"equal to the target's own text: {assisted.tolist() == alone.tolist()}")
    print(f"Next: tokswap verify {out} --draft-for {big}")


if __name__ == "__main__":
    main()
