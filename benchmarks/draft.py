"""Speculative decoding with a transplanted draft, beside universal assisted generation with the untransplanted pair.

    python benchmarks/draft.py [--init subword ...] [--calibrate TEXT...] [--folder DIR] [--tokens 32]

--init: methods; A/B stands for an untied draft with A for its input table and B for its head. Rows that the results have already
are taken from there, so that a run can be added to.

The target is Gemma-3-270m, the draft SmolLM2-135M-Instruct, which takes Gemma's 262k tokens for it. Both run in
transformers, in float32 and greedily, with five proposed tokens a round. The universal way keeps both tokenizers and
translates proposals through text. Assisted text has to be the target's own greedy text, token for token.

The pair is far from the ones that drafts are made for: the draft is half as large as its target, and with a vocabulary of 262k
tokens larger still, so that no time can be won; no times are taken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _machine import RESULTS, keep
from transformers.generation import candidate_generator

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import load_model
from tokswap.storage.resolve import resolve_model

TEXTS = Path(__file__).parent.parent / "tests" / "texts"
KINDS = {"English": "english.txt", "code": "code.txt", "German": "german.txt"}
PROPOSED = 5


def prompts(name: str, count: int = 3, length: int = 220) -> list[str]:
    """Return beginnings for the models to go on from: stretches of a text from one line or sentence on."""
    text = (TEXTS / name).read_text("utf-8")
    found = []
    for n in range(count):
        begin = n * len(text) // count
        begin = 0 if not begin else max(text.find("\n", begin), 0) + 1
        found.append(text[begin : begin + length].rstrip())
    return found


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count what a draft proposes, what the target accepts of it, and how often the target is run."""
    count = {"proposed": 0, "accepted": 0, "rounds": 0}
    base = candidate_generator.AssistedCandidateGenerator
    classes = [base, candidate_generator.AssistedCandidateGeneratorDifferentTokenizers]
    own = {cls: cls.__dict__["get_candidates"] for cls in classes}
    update = base.update_candidate_strategy

    def watch(cls: type) -> Any:
        def get_candidates(self: Any, input_ids: Any, **kwargs: Any) -> Any:
            found = own[cls](self, input_ids, **kwargs)
            count["proposed"] += found[0].shape[1] - input_ids.shape[1]
            count["rounds"] += 1
            return found

        return get_candidates

    def after(self: Any, input_ids: Any, scores: Any, num_matches: Any) -> Any:
        count["accepted"] += int(num_matches)
        return update(self, input_ids, scores, num_matches)

    for cls in classes:
        cls.get_candidates = watch(cls)
    base.update_candidate_strategy = after
    try:
        yield count
    finally:
        for cls in classes:
            cls.get_candidates = own[cls]
        base.update_candidate_strategy = update


def write(target: Any, own: Any, prompt: str, tokens: int, **more: Any) -> list[int]:
    """Return the ids that the target writes after a prompt."""
    inputs = own(prompt, return_tensors="pt")
    with torch.inference_mode():
        output = target.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=tokens,
            **more,
        )
    found: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--init", nargs="+", default=["subword"])
    parser.add_argument("--calibrate", nargs="+", default=[], help="one more draft, by subword, fitted to these texts")
    parser.add_argument("--folder", help="where drafts are kept, and taken from if they are there")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--name", default="draft")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp())
    small, big = (resolve_model(str(fetch(name))) for name in ("smollm2", "gemma"))
    drafts = {init: folder / init.replace("/", "-") for init in options.init}
    if options.calibrate:
        drafts["subword, calibrated"] = folder / "calibrated"
    for name, path in drafts.items():
        if not path.exists():
            texts = options.calibrate if name == "subword, calibrated" else ()
            init, _, head = ("subword" if texts else name).partition("/")
            more = {"output_init": head, "tie": False} if head else {}
            tokswap.make_draft(str(small), str(big), init=init, calibrate=texts, out=path, **more)
    target, tokenizer = load_model(big)
    texts = {kind: prompts(file) for kind, file in KINDS.items()}
    alone = {
        kind: [write(target, tokenizer, prompt, options.tokens) for prompt in some] for kind, some in texts.items()
    }
    earlier = json.loads(path.read_text()) if (path := RESULTS / f"{options.name}.json").is_file() else {}
    rows: dict[str, Any] = {}
    if earlier.get("new_tokens") == options.tokens and earlier.get("proposed_a_round") == PROPOSED:
        rows = dict(earlier["drafts"])
    for name, path in {"universal, own tokenizers": small, **drafts}.items():
        if name in rows:
            continue
        draft, own = load_model(path)
        draft.generation_config.num_assistant_tokens = PROPOSED
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        more = {"tokenizer": tokenizer, "assistant_tokenizer": own} if path == small else {}
        rows[name] = {}
        for kind, some in texts.items():
            equal, made = 0, 0
            with counted() as count:
                for prompt, wanted in zip(some, alone[kind], strict=True):
                    ids = write(target, tokenizer, prompt, options.tokens, assistant_model=draft, **more)
                    equal += ids == wanted
                    made += len(ids)
            rows[name][kind] = {
                "accepted": count["accepted"] / max(count["proposed"], 1),
                "tokens_per_target_run": made / count["rounds"],
                "proposed": count["proposed"],
                "tokens": made,
                "texts_equal": f"{equal} of {len(some)}",
            }
            print(f"{name}, {kind}: {rows[name][kind]}", flush=True)
            assert equal == len(some), f"{name}, {kind}: {equal} of {len(some)} texts are the target's own greedy text"
        del draft
    print(
        f"accepted share of proposed tokens, and tokens a run of the target{'':8}"
        + "".join(f"{kind:>18}" for kind in KINDS)
    )
    for name, found in rows.items():
        cells = [f"{one['accepted']:.3f} {one['tokens_per_target_run']:9.2f}" for one in found.values()]
        print(f"{name:72}" + "".join(f"{cell:>18}" for cell in cells))
    print(
        "texts equal to the target's own greedy text:",
        {n: [o["texts_equal"] for o in f.values()] for n, f in rows.items()},
    )
    print(
        "kept in",
        keep(
            options.name,
            {"proposed_a_round": PROPOSED, "new_tokens": options.tokens, "drafts": rows},
        ),
    )


if __name__ == "__main__":
    main()
