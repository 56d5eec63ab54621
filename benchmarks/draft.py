"""Drafts for speculative decoding beside universal assisted generation, in transformers and in llama.cpp.

    python benchmarks/draft.py [--rows ...] [--engines ...] [--kilobytes 120] [--folder DIR] [--texts DIR]

The target is Gemma-3-270m. The draft is SmolLM2-135M-Instruct: as it is (universal assisted generation, which
translates proposals through text; transformers only), with Gemma's 262k tokens (`tokswap draft`), and distilled too.
Prompts are parts of the held-out texts of quality.py; the text to distill on is from Debian's handbook and Python's
library. Extra tokens relative to universal assisted generation have a 95 % interval, by bootstrap over the prompts.

Both models run greedily on one thread, with five proposed tokens a round: in transformers in float32, where assisted
text must be the target's own greedy text, token for token; in llama.cpp from GGUF files, the target as its package has
it (Q4_K_M), drafts as Q8_0. Times are processor times, so that they do not depend on what else the machine does. Rows
that have results are not run again, and drafts that are there are not made again.

Rows with a head take only the tokens of a reduced head (`tokswap draft-head`) from the draft, which shows what the
head costs in acceptance; the time that it saves is an engine's to show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _draft_figures import ALONE, KINDS, UNIVERSAL, Run, figures, finished, table
from _llama_cpp import llama_cpp
from _machine import RESULTS, keep
from quality_texts import fetch_texts, healing_texts
from transformers.generation import candidate_generator

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

PROPOSED = 5
DRAFTS: dict[str, dict[str, Any]] = {
    "draft": {},
    "draft, copied only": {"propose": "copied"},
    "draft, distilled": {"distill": 1.0},
    "draft, distilled also on text of the target": {"distill": 1.0, "self_text": 1.0},
    "draft, distilled on four times as much of it": {"distill": 1.0, "self_text": 4.0},
    "draft by subword": {"init": "subword"},
    "draft by subword, distilled on four times as much of it": {"init": "subword", "distill": 1.0, "self_text": 4.0},
}
HEADS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "draft, head of 32,768": ("draft", 32_768, ("en", "code", "de")),
    "draft, head of 8,192": ("draft", 8192, ("en", "code", "de")),
    "draft, head of 2,048": ("draft", 2048, ("en", "code", "de")),
    "draft, head of 8,192 for code": ("draft", 8192, ("code",)),
}
"""Name of a row -> the draft, the tokens of the head, and the texts that choose them."""


def prompts(kind: str, given: argparse.Namespace, length: int = 220) -> list[str]:
    """Return parts of a held-out text for the models to continue. Each starts at a line."""
    text = (fetch_texts(given.texts, ["held"]) / "held" / f"{KINDS[kind]}.txt").read_text("utf-8")
    found = []
    for n in range(given.prompts):
        begin = n * len(text) // given.prompts
        begin = 0 if not begin else max(text.find("\n", begin), 0) + 1
        found.append(text[begin : begin + length].strip())
    return found


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the tokens that a draft proposes, those that the target accepts, and the calls of the target."""
    count = {"proposed": 0, "accepted": 0, "calls": 0}
    base = candidate_generator.AssistedCandidateGenerator
    classes = [base, candidate_generator.AssistedCandidateGeneratorDifferentTokenizers]
    own = {cls: cls.__dict__["get_candidates"] for cls in classes}
    update = base.update_candidate_strategy

    def watch(cls: type) -> Any:
        def get_candidates(self: Any, input_ids: Any, **kwargs: Any) -> Any:
            found = own[cls](self, input_ids, **kwargs)
            count["proposed"] += found[0].shape[1] - input_ids.shape[1]
            count["calls"] += 1
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


def make_draft(name: str, given: argparse.Namespace, small: Path, big: Path) -> tuple[Path, Path]:
    """Make a draft where it is not there yet. Return its folder and its GGUF file."""
    out = given.folder / name.replace(", ", "-").replace(" ", "-")
    file = out.with_suffix(".gguf")
    if not out.exists():
        settings, begin = DRAFTS[name], time.process_time()
        more = {key: settings[key] for key in ("init", "propose") if key in settings}
        if "distill" in settings:
            more["distill"] = healing_texts(given.texts, given.kilobytes)
        if "self_text" in settings:
            more["self_text"] = int(settings["self_text"] * given.kilobytes * 1000)
        tokswap.make_draft(str(small), str(big), out=out, gguf=file, gguf_type="q8_0", **more)
        made = {"cpu_seconds": round(time.process_time() - begin, 1)}
        out.with_suffix(".json").write_text(json.dumps(made))
    return out, file


def in_transformers(name: str, given: argparse.Namespace, small: Path, big: Path) -> dict[str, Any]:
    """Generate in transformers, alone or with a draft. Returns figures by kind of text."""
    torch.set_num_threads(1)
    model, own = load_model(big)
    more: dict[str, Any] = {}
    if name != ALONE:
        made, *head = HEADS.get(name, (name,))
        draft, tokenizer = load_model(small if name == UNIVERSAL else make_draft(made, given, small, big)[0])
        if head:
            only_head(draft, head_ids(Path(draft.name_or_path), big, given, *head))
        draft.generation_config.num_assistant_tokens = PROPOSED
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        more = {"assistant_model": draft}
        if name == UNIVERSAL:
            more |= {"tokenizer": own, "assistant_tokenizer": tokenizer}
    found: dict[str, Any] = {}
    for kind in KINDS:
        begin, runs = time.process_time(), []
        for prompt in prompts(kind, given):
            with counted() as count:
                ids = write(model, own, prompt, given.tokens, **more)
            runs.append(Run(ids, count["proposed"], count["accepted"], count["calls"] if more else len(ids)))
        found[kind] = figures(runs, time.process_time() - begin)
    return found


def head_ids(draft: Path, big: Path, given: argparse.Namespace, size: int, kinds: Sequence[str]) -> Any:
    """Return the ids of a reduced head, int64 [size]."""
    texts = [path for path in healing_texts(given.texts, given.kilobytes) if path.stem in kinds]
    job = tokswap.reduce_draft_head(draft, big, corpora=texts, size=size, out=given.folder / "head", force=True)
    return torch.from_numpy(job.choice.ids)


def only_head(model: Any, ids: Any) -> None:
    """Let a model predict some ids alone."""
    others = torch.ones(model.config.vocab_size, dtype=torch.bool)
    others[ids] = False

    def masked(head: Any, inputs: Any, logits: Any) -> Any:
        return logits.masked_fill(others, float("-inf"))

    model.get_output_embeddings().register_forward_hook(masked)


def in_llama_cpp(name: str, given: argparse.Namespace, small: Path, big: Path) -> dict[str, Any] | None:
    """Generate in llama.cpp, alone or with a draft; None for what it cannot do."""
    if name == UNIVERSAL or name in HEADS:
        return None
    file = None if name == ALONE else make_draft(name, given, small, big)[1]
    own = load_model(big)[1]
    found: dict[str, Any] = {}
    for kind in KINDS:
        ids = [own(prompt)["input_ids"] for prompt in prompts(kind, given)]
        answers = llama_cpp(fetch("gemma"), ids, draft=file, count=given.tokens, proposed=PROPOSED)
        runs = [Run(one["ids"], one["proposed"], one["accepted"], len(one["ids"]) - one["accepted"]) for one in answers]
        found[kind] = figures(runs, sum(one["cpu_seconds"] for one in answers))
    return found


ENGINES = {"transformers": in_transformers, "llama.cpp": in_llama_cpp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [ALONE, UNIVERSAL, *DRAFTS, *HEADS]
    parser.add_argument("--rows", nargs="+", default=names, choices=names)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--kilobytes", type=int, default=120)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=15, help="of each kind of text")
    parser.add_argument("--folder", type=Path, default=Path("bench-draft"))
    parser.add_argument("--texts", type=Path, default=Path("bench-texts"))
    parser.add_argument("--name", default="draft")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    small, big = (resolve_model(str(fetch(name))) for name in ("smollm2", "gemma"))
    path = RESULTS / f"{given.name}.json"
    engines: dict[str, Any] = json.loads(path.read_text("utf-8")).get("engines", {}) if path.is_file() else {}
    for name in given.rows:
        for engine in given.engines:
            rows = engines.setdefault(engine, {})
            found = ENGINES[engine](name, given, small, big) if name not in rows else None
            if found is not None:
                rows[name] = found
            engines[engine] = finished({one: rows[one] for one in names if one in rows})
            made = {one.stem: json.loads(one.read_text()) for one in sorted(given.folder.glob("*.json"))}
            settings = {"proposed_a_round": PROPOSED, "new_tokens": given.tokens, "kilobytes": given.kilobytes}
            keep(given.name, {**settings, "prompts": given.prompts, "made": made, "engines": engines})
        print(*(line for engine in given.engines for line in table(engine, engines[engine])), sep="\n", flush=True)


if __name__ == "__main__":
    main()
