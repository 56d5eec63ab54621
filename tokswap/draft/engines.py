"""Whether inference engines would take one model as the draft of another.

Each engine compares a pair before it starts. These rules are repeated here on the files of both models; no engine is
run. A rule says which release it was tried on, or that it was only read. Most engines compare less than speculative
decoding needs. The last rule is tokswap's own: under it, every id means the same to both models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokswap.checkpoint.nested_configs import text_config
from tokswap.draft.llama_cpp import DIFFERENCE, FIRST, differing_frames, differing_tokens, llama_reasons
from tokswap.draft.sides import Side, read_side
from tokswap.options.kinds import typed
from tokswap.report.wording import listed
from tokswap.tokenizer.probes import TEXTS

_SHOWN = 10
Reasons = Callable[[Side, Side], Iterator[str]]


@dataclass(frozen=True)
class Verdict:
    """What one inference engine would say to a draft.

    Attributes:
        engine: Its name, "tokswap" for the last rule.
        rule: What it asks for, in plain words.
        reasons: Why it would not take the draft; empty where it would.
        release: The release that the rule is of.
        tried: Whether the rule was tried on this release; else it is from its sources or documentation.
        notes: What to set in the engine for this pair.
    """

    engine: str
    rule: str
    reasons: tuple[str, ...]
    release: str = ""
    tried: bool = False
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the rule is met."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        lists = {"reasons": list(self.reasons), "notes": list(self.notes)}
        return {
            "engine": self.engine,
            "ok": self.ok,
            "rule": self.rule,
            "release": self.release,
            "tried": self.tried,
            **lists,
        }


@dataclass(frozen=True)
class _Rule:
    """The rule of one inference engine: what it compares, its release, and the function that applies it."""

    engine: str
    rule: str
    reasons: Reasons
    release: str = ""
    tried: bool = False
    notes: Reasons = field(default=lambda draft, target: iter(()))


@typed
def draft_verdicts(draft: str | Path, target: str | Path, *, trust_remote_code: bool = False) -> list[Verdict]:
    """Tell for each inference engine whether it would take a model as the draft of another.

    Args:
        draft: The draft: a folder, hub id, alias or .gguf file. Its weights are not read.
        target: The target, or its tokenizer.json. It needs a tokenizer and a config.
        trust_remote_code: Whether code that comes with the models may run.

    Returns:
        A verdict for each engine, and last that of tokswap's own rule.

    Raises:
        InputError: unknown-tokenizer, missing-config, bad-config, missing-tokenizer, bad-tokenizer,
            unsupported-tokenizer, duplicate-ids.
    """
    sides = [read_side(name, trust_remote_code=trust_remote_code) for name in (draft, target)]
    return [
        Verdict(
            engine=rule.engine,
            rule=rule.rule,
            reasons=tuple(rule.reasons(*sides)),
            release=rule.release,
            tried=rule.tried,
            notes=tuple(rule.notes(*sides)),
        )
        for rule in _RULES
    ]


def _vllm(draft: Side, target: Side) -> Iterator[str]:
    """vLLM compares two numbers of the configs when it loads a `draft_model`."""
    for reason in _sizes(draft, target):
        yield f"{reason}; only `use_heterogeneous_vocab` takes it, with greedy drafts from the tokens that both have"


def _vllm_notes(draft: Side, target: Side) -> Iterator[str]:
    names = [name for side, name in ((draft, "draft"), (target, "target")) if _slides(side)]
    if names:
        yield f"the {' and the '.join(names)} has sliding-window layers: set `disable_hybrid_kv_cache_manager`"


def _slides(side: Side) -> bool:
    """Whether a model has layers with a sliding window, such as Gemma's."""
    text = text_config(side.config)[1]
    return "sliding_attention" in (text.get("layer_types") or []) or bool(text.get("sliding_window_pattern"))


def _transformers(draft: Side, target: Side) -> Iterator[str]:
    """transformers takes two models of equal vocab_size for models of one tokenizer (assisted generation)."""
    for reason in _sizes(draft, target):
        yield f"{reason}; only universal assisted generation takes it, with `tokenizer` and `assistant_tokenizer`"


def _mlx(draft: Side, target: Side) -> Iterator[str]:
    """mlx-lm compares the `vocab_size` of the tokenizers, which does not count added tokens."""
    sizes = [len(side.tokenizer.spec["model"]["vocab"]) for side in (draft, target)]
    if sizes[0] != sizes[1]:
        yield f"the tokenizer has {sizes[0]:,} tokens besides added ones, the target's {sizes[1]:,}"
    yield from _rows(draft, target)


def _rows(draft: Side, target: Side) -> Iterator[str]:
    """Where nothing is compared, ids without a row are read from beyond the matrix."""
    if draft.vocab_size < target.vocab_size:
        yield (
            f"the draft has {draft.vocab_size:,} rows, the target {target.vocab_size:,}: this is not tested, and the "
            f"draft reads beyond its matrix from id {draft.vocab_size:,} on"
        )


def _equal_sizes(draft: Side, target: Side) -> Iterator[str]:
    yield from _sizes(draft, target)


def _tokswap(draft: Side, target: Side) -> Iterator[str]:
    """Every id must mean the same to both, and the same text must become the same ids."""
    yield from _sizes(draft, target)
    if len(draft.vocabulary) != len(target.vocabulary):
        yield f"the tokenizer has {len(draft.vocabulary):,} ids, the target's {len(target.vocabulary):,}"
    both = zip_longest(*(zip(s.vocabulary.text, s.vocabulary.kind, strict=True) for s in (draft, target)))
    differ = [n for n, (a, b) in enumerate(both) if a != b]
    yield from differing_tokens(differ, draft.vocabulary.text, target.vocabulary.text)
    for role in ("bos", "eos", "pad"):
        ids = [side.role(role) for side in (draft, target)]
        if ids[0] != ids[1]:
            yield f"{role} is {_ids(ids[0])}, the target's {_ids(ids[1])}"
    stops = [sorted(side.stops()) for side in (draft, target)]
    if stops[0] != stops[1]:
        yield f"generation stops at {_ids(stops[0])}, the target's at {_ids(stops[1])}"
    yield from differing_frames(draft.adds, target.adds)
    for side, name in ((draft, "the draft"), (target, "the target")):
        if side.probes.trouble:
            yield f"transformers cannot use the tokenizer of {name}: {side.probes.trouble}"
    if not (draft.probes.trouble or target.probes.trouble):
        yield from _tokenizations(draft, target)


_RULES = (
    _Rule(
        "vLLM",
        "vocab_size is equal in both configs; what the ids mean is not tested",
        _vllm,
        release="vLLM 0.32.0",
        tried=True,
        notes=_vllm_notes,
    ),
    _Rule(
        "llama.cpp",
        "the tokenizer type, add_bos and add_eos are equal, bos and eos where they are added, the sizes are at most "
        f"{DIFFERENCE} apart, and every id from {FIRST} on has the same text; else it serves without the draft",
        llama_reasons,
        release="llama.cpp in xllamacpp 2026.10.11549",
        tried=True,
    ),
    _Rule(
        "transformers",
        "vocab_size is equal, which is taken for the same tokenizer; else both tokenizers have to be given",
        _transformers,
        release="transformers 5.23.0",
        tried=True,
    ),
    _Rule(
        "mlx-lm",
        "vocab_size of both tokenizers is equal, added tokens not counted: the command line refuses others, the "
        "server warns, and the Python API tests nothing",
        _mlx,
        release="mlx-lm 0.32.2",
        tried=True,
    ),
    _Rule(
        "SGLang",
        "nothing is tested for STANDALONE drafts; every id of the target needs a row in the draft",
        _rows,
        release="SGLang 0.5.23",
    ),
    _Rule(
        "TensorRT-LLM",
        "both models have one vocabulary, says the documentation; here vocab_size is compared",
        _equal_sizes,
        release="TensorRT-LLM 1.2",
    ),
    _Rule(
        "tokswap",
        "sizes, bos, eos and pad are equal, every id is the same token, and texts and a chat become the same ids",
        _tokswap,
        tried=True,
    ),
)
"""Engine by engine, what it asks for."""


def _tokenizations(draft: Side, target: Side) -> Iterator[str]:
    """Compare the ids of texts and of a conversation."""
    differ = [name for name in TEXTS if draft.probes.texts[name] != target.probes.texts[name]]
    if differ:
        yield f"these probe texts get other ids: {listed(differ, _SHOWN)}"
    ours, theirs = draft.probes.chat, target.probes.chat
    if theirs is None and ours is not None:
        yield "the draft has a chat template, the target has none"
    elif ours is None and theirs is not None:
        yield "the target has a chat template, the draft has none"
    elif ours is not None and theirs is not None and ours != theirs:
        at = next(n for n, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b)
        yield f"a rendered conversation gets other ids from its token {at} on"


def _sizes(draft: Side, target: Side) -> Iterator[str]:
    if draft.vocab_size != target.vocab_size:
        yield f"vocab_size is {draft.vocab_size:,}, the target's {target.vocab_size:,}"


def _ids(tokens: Sequence[int]) -> str:
    return listed(tokens, _SHOWN) if tokens else "not set"
