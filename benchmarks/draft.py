"""Speculative decoding with a transplanted draft, beside universal assisted generation with the pair as it is.

    python benchmarks/draft.py [--init subword ...] [--calibrate TEXT...] [--folder DIR] [--tokens 32]

--init names methods. A/B stands for an untied draft, with A for its input embeddings and B for its lm_head. Drafts that
have results already are not run again, so further drafts can be added.

The target is Gemma-3-270m. The draft is SmolLM2-135M-Instruct with Gemma's 262k tokens. Both run in transformers, in
float32 and greedily, with five proposed tokens a round. Universal assisted generation keeps both tokenizers and
translates proposals through text. Assisted text must be the target's own greedy text, token for token.

No times are taken, because this pair cannot win any: the draft is half as large as its target, and larger with 262k
tokens.
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
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

TEXTS = Path(__file__).parent.parent / "tests" / "texts"
KINDS = {"English": "english.txt", "code": "code.txt", "German": "german.txt"}
PROPOSED = 5
CALIBRATED = "subword, calibrated"


def prompts(name: str, count: int = 3, length: int = 220) -> list[str]:
    """Return parts of a text for the models to continue. Each starts at a line."""
    text = (TEXTS / name).read_text("utf-8")
    found = []
    for n in range(count):
        begin = n * len(text) // count
        begin = 0 if not begin else max(text.find("\n", begin), 0) + 1
        found.append(text[begin : begin + length].rstrip())
    return found


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the tokens that a draft proposes, those that the target accepts, and the runs of the target."""
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
    """Return the ids that the target generates after a prompt."""
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


def make_drafts(options: argparse.Namespace, small: Path, big: Path) -> dict[str, Path]:
    """Make the drafts that are not there yet. Return their folders by name."""
    folder = Path(options.folder or tempfile.mkdtemp())
    drafts = {init: folder / init.replace("/", "-") for init in options.init}
    if options.calibrate:
        drafts[CALIBRATED] = folder / "calibrated"
    for name, path in drafts.items():
        if not path.exists():
            texts = options.calibrate if name == CALIBRATED else ()
            init, _, head = ("subword" if texts else name).partition("/")
            more: dict[str, Any] = {"output_init": head, "tie": False} if head else {}
            tokswap.make_draft(str(small), str(big), init=init, calibrate=texts, out=path, **more)
    return drafts


def measured(
    target: tuple[Any, Any],
    draft: Any,
    tokens: int,
    texts: dict[str, list[str]],
    alone: dict[str, list[list[int]]],
    **more: Any,
) -> dict[str, Any]:
    """Generate with a draft, and compare with what the target generates alone.

    Args:
        target: The target and its tokenizer.
        draft: The draft.
        tokens: New tokens per prompt.
        texts: Kind of text -> prompts.
        alone: Kind of text -> ids that the target generates after each prompt.
        **more: Further options of `generate`.

    Returns:
        Figures by kind of text.
    """
    draft.generation_config.num_assistant_tokens = PROPOSED
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    found: dict[str, Any] = {}
    for kind, some in texts.items():
        equal, generated = 0, 0
        with counted() as count:
            for prompt, wanted in zip(some, alone[kind], strict=True):
                ids = write(*target, prompt, tokens, assistant_model=draft, **more)
                equal += ids == wanted
                generated += len(ids)
        found[kind] = {
            "accepted": count["accepted"] / max(count["proposed"], 1),
            "tokens_per_target_run": generated / count["rounds"],
            "proposed": count["proposed"],
            "tokens": generated,
            "texts_equal": f"{equal} of {len(some)}",
        }
        assert equal == len(some), f"{kind}: {equal} of {len(some)} texts are the target's own greedy text"
    return found


def show(rows: dict[str, Any]) -> None:
    """Print the figures of all drafts."""
    title = "accepted share of proposed tokens, and tokens per run of the target"
    print(f"{title:72}" + "".join(f"{kind:>18}" for kind in KINDS))
    for name, found in rows.items():
        cells = [f"{one['accepted']:.3f} {one['tokens_per_target_run']:9.2f}" for one in found.values()]
        print(f"{name:72}" + "".join(f"{cell:>18}" for cell in cells))
    print("texts equal to the target's own greedy text:")
    for name, found in rows.items():
        print(f"  {name}: {', '.join(one['texts_equal'] for one in found.values())}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--init", nargs="+", default=["subword"])
    parser.add_argument(
        "--calibrate", nargs="+", default=[], help="add a draft by subword, calibrated with these texts"
    )
    parser.add_argument("--folder", help="where drafts are kept; drafts that are there are not made again")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--name", default="draft")
    options = parser.parse_args()
    small, big = (resolve_model(str(fetch(name))) for name in ("smollm2", "gemma"))
    drafts = make_drafts(options, small, big)
    target = load_model(big)
    texts = {kind: prompts(file) for kind, file in KINDS.items()}
    alone = {kind: [write(*target, prompt, options.tokens) for prompt in some] for kind, some in texts.items()}
    kept = RESULTS / f"{options.name}.json"
    earlier = json.loads(kept.read_text()) if kept.is_file() else {}
    rows: dict[str, Any] = {}
    if earlier.get("new_tokens") == options.tokens and earlier.get("proposed_a_round") == PROPOSED:
        rows = dict(earlier["drafts"])
    for name, path in {"universal, own tokenizers": small, **drafts}.items():
        if name not in rows:
            draft, own = load_model(path)
            more = {"tokenizer": target[1], "assistant_tokenizer": own} if path == small else {}
            rows[name] = measured(target, draft, options.tokens, texts, alone, **more)
            print(f"{name}: {rows[name]}", flush=True)
            del draft
    show(rows)
    result = {"proposed_a_round": PROPOSED, "new_tokens": options.tokens, "drafts": rows}
    print("kept in", keep(options.name, result))


if __name__ == "__main__":
    main()
