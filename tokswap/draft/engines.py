"""Whether inference engines would take one model as the draft of another.

Each engine tests a pair before it starts. These tests are repeated here on the files of both models; no engine is run.
They are those of vLLM, llama.cpp, transformers and mlx-lm as of 2026. Most of them test less than speculative decoding
needs. The last rule is tokswap's own: under it, every id means the same to both models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokswap.draft.sides import Side, read_side
from tokswap.report.wording import listed
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.probes import TEXTS

_LLAMA_TYPES = {BYTE_LEVEL: "BPE", SENTENCEPIECE: "SPM", UNIGRAM: "UGM", WORDPIECE: "WPM"}
_LLAMA_DIFFERENCE = 128
"""How far apart llama.cpp lets the two sizes be."""
_LLAMA_FIRST = 5
"""The first id whose text llama.cpp compares."""
_SHOWN = 10


@dataclass(frozen=True)
class Verdict:
    """What one inference engine would say to a draft.

    Attributes:
        engine: Its name, "tokswap" for the last rule.
        rule: What it asks for, in plain words.
        reasons: Why it would not take the draft; empty where it would.
    """

    engine: str
    rule: str
    reasons: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the rule is met."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"engine": self.engine, "ok": self.ok, "rule": self.rule, "reasons": list(self.reasons)}


def draft_verdicts(draft: str | Path, target: str | Path, *, trust_remote_code: bool = False) -> list[Verdict]:
    """Tell for each inference engine whether it would take a model as the draft of another.

    Args:
        draft: Folder of the draft. Its weights are not read.
        target: Folder of the target, or its tokenizer.json. It needs a tokenizer and a config.
        trust_remote_code: Whether code that comes with the models may run.

    Raises:
        InputError: missing-config, bad-config, missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids.
    """
    sides = [read_side(Path(folder), trust_remote_code=trust_remote_code) for folder in (draft, target)]
    return [Verdict(engine, rule, tuple(reasons(*sides))) for engine, rule, reasons in _RULES]


def _vllm(draft: Side, target: Side) -> Iterator[str]:
    """vLLM compares two numbers of the configs when it loads a `draft_model`."""
    yield from _sizes(draft, target)


def _llama(draft: Side, target: Side) -> Iterator[str]:
    """llama.cpp compares what its GGUF files say of the vocabularies (`common/speculative.cpp`)."""
    types = [_LLAMA_TYPES[side.tokenizer.family] for side in (draft, target)]
    if types[0] != types[1]:
        yield f"the tokenizer type is {types[0]}, the target's {types[1]}"
    yield from _added(draft, target)
    for role, used in (("bos", target.tokenizer.adds_bos), ("eos", target.tokenizer.adds_eos)):
        ids = [side.vocabulary.roles.get(role, next(iter(side.role(role)), None)) for side in (draft, target)]
        if ids[0] != ids[1]:
            unused = "" if used else "; some releases compare it only where the tokenizer adds it, and would not mind"
            yield f"{role} is {_id(ids[0])}, the target's {_id(ids[1])}{unused}"
    if abs(draft.vocab_size - target.vocab_size) > _LLAMA_DIFFERENCE:
        yield (
            f"there are {draft.vocab_size:,} ids, and {target.vocab_size:,} in the target: more than "
            f"{_LLAMA_DIFFERENCE} apart"
        )
    # Its converter gives an id that the tokenizer does not define the name [PAD<id>], so two such ids are equal.
    count = min(draft.vocab_size, target.vocab_size)
    texts = [list(side.vocabulary.text[:count]) for side in (draft, target)]
    differ = [n for n, (a, b) in enumerate(zip_longest(*texts, fillvalue="")) if a != b and n >= _LLAMA_FIRST]
    yield from _tokens(differ, draft, target)


def _transformers(draft: Side, target: Side) -> Iterator[str]:
    """transformers takes two models of equal vocab_size for models of one tokenizer (assisted generation)."""
    for reason in _sizes(draft, target):
        yield f"{reason}; only universal assisted generation takes it, with `tokenizer` and `assistant_tokenizer`"


def _mlx(draft: Side, target: Side) -> Iterator[str]:
    """mlx-lm compares the `vocab_size` of the tokenizers, which does not count added tokens."""
    sizes = [len(side.tokenizer.spec["model"]["vocab"]) for side in (draft, target)]
    if sizes[0] != sizes[1]:
        yield f"the tokenizer has {sizes[0]:,} tokens besides added ones, the target's {sizes[1]:,}"


def _tokswap(draft: Side, target: Side) -> Iterator[str]:
    """Every id must mean the same to both, and the same text must become the same ids."""
    yield from _sizes(draft, target)
    if len(draft.vocabulary) != len(target.vocabulary):
        yield f"the tokenizer has {len(draft.vocabulary):,} ids, the target's {len(target.vocabulary):,}"
    both = zip_longest(*(zip(s.vocabulary.text, s.vocabulary.kind, strict=True) for s in (draft, target)))
    yield from _tokens([n for n, (a, b) in enumerate(both) if a != b], draft, target)
    for role in ("bos", "eos", "pad"):
        ids = [side.role(role) for side in (draft, target)]
        if ids[0] != ids[1]:
            yield f"{role} is {_ids(ids[0])}, the target's {_ids(ids[1])}"
    stops = [sorted(side.stops()) for side in (draft, target)]
    if stops[0] != stops[1]:
        yield f"generation stops at {_ids(stops[0])}, the target's at {_ids(stops[1])}"
    yield from _added(draft, target)
    for side, name in ((draft, "the draft"), (target, "the target")):
        if side.probes.trouble:
            yield f"transformers cannot use the tokenizer of {name}: {side.probes.trouble}"
    if not (draft.probes.trouble or target.probes.trouble):
        yield from _tokenizations(draft, target)


_RULES: tuple[tuple[str, str, Callable[[Side, Side], Iterator[str]]], ...] = (
    ("vLLM", "vocab_size is equal in both configs; what the ids mean is not tested", _vllm),
    (
        "llama.cpp",
        "the tokenizer type, add_bos, add_eos, bos and eos are equal, the sizes are at most "
        f"{_LLAMA_DIFFERENCE} apart, and every id from {_LLAMA_FIRST} on has the same text",
        _llama,
    ),
    (
        "transformers",
        "vocab_size is equal, which is taken for the same tokenizer; else both tokenizers have to be given",
        _transformers,
    ),
    ("mlx-lm", "vocab_size of both tokenizers is equal, added tokens not counted", _mlx),
    (
        "tokswap",
        "sizes, bos, eos and pad are equal, every id is the same token, and texts and a chat become the same ids",
        _tokswap,
    ),
)
"""Engine, what it asks for, and the function that finds reasons against a draft."""


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


def _added(draft: Side, target: Side) -> Iterator[str]:
    """Compare whether the tokenizers add bos and eos to a text."""
    for role in ("bos", "eos"):
        adds = [getattr(side.tokenizer, f"adds_{role}") for side in (draft, target)]
        if adds[0] != adds[1]:
            own, other = ("adds", "does not") if adds[0] else ("does not add", "does")
            yield f"the tokenizer {own} {role}, the target's {other}"


def _tokens(ids: Sequence[int], draft: Side, target: Side) -> Iterator[str]:
    """Name the ids that are not the same token to both."""

    def text(side: Side, token: int) -> str:
        return repr(side.vocabulary.text[token]) if token < len(side.vocabulary) else "nothing"

    if ids:
        some = [f"{n} ({text(draft, n)}, {text(target, n)})" for n in ids]
        yield f"{len(ids):,} ids mean something else than to the target: {listed(some, _SHOWN)}"


def _id(token: int | None) -> str:
    return "not set" if token is None else str(token)


def _ids(tokens: Sequence[int]) -> str:
    return listed(tokens, _SHOWN) if tokens else "not set"
