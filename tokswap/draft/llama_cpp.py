"""What llama.cpp compares of two vocabularies before it drafts (`common/speculative.cpp`).

It compares GGUF files. For a folder they are what `--gguf` writes; llama.cpp's own converter can choose another type
where there is no `tokenizer.model`, so give the .gguf file of a target that is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from tokswap.draft.sides import Side
from tokswap.report.wording import listed
from tokswap.storage.gguf.keys import scores_suffice
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE

DIFFERENCE = 128
"""How far apart llama.cpp lets the two sizes be."""
FIRST = 5
"""The first id whose text llama.cpp compares."""
_TYPES = {BYTE_LEVEL: "BPE", UNIGRAM: "UGM", WORDPIECE: "WPM"}
_TYPE_OF_KEY = {"llama": "SPM", "t5": "UGM", "bert": "WPM", "rwkv": "RWKV", "plamo2": "PLAMO2"}
_SHOWN = 10
_DEFAULT_IDS = {"SPM": {"bos": 1, "eos": 2}, "BPE": {"bos": 11, "eos": 11}}


@dataclass(frozen=True)
class LlamaVocabulary:
    """A vocabulary as llama.cpp has it.

    Attributes:
        type: BPE, SPM, UGM or WPM.
        texts: Its tokens by id, padding rows included.
        ids: Role -> id, for bos and eos.
        adds: The roles that texts begin or end with.
    """

    type: str
    texts: Sequence[str]
    ids: Mapping[str, int | None]
    adds: frozenset[str]


def llama_vocabulary(side: Side) -> LlamaVocabulary:
    """Return the vocabulary of a GGUF file, or the one that `--gguf` would write."""
    return _of_folder(side) if side.gguf is None else _of_file(side, side.gguf)


def llama_reasons(draft: Side, target: Side) -> Iterator[str]:
    """Yield why llama.cpp would serve without the draft, or stop."""
    ours, theirs = llama_vocabulary(draft), llama_vocabulary(target)
    if ours.type != theirs.type:
        yield f"the tokenizer type is {ours.type}, the target's {theirs.type}"
    yield from differing_frames(ours.adds, theirs.adds)
    for role in ("bos", "eos"):
        if role in ours.adds & theirs.adds and ours.ids[role] != theirs.ids[role]:
            yield f"{role} is {ours.ids[role]}, the target's {theirs.ids[role]}"
    sizes = len(ours.texts), len(theirs.texts)
    if abs(sizes[0] - sizes[1]) > DIFFERENCE:
        yield f"there are {sizes[0]:,} ids, and {sizes[1]:,} in the target: more than {DIFFERENCE} apart"
    elif sizes[0] < sizes[1]:
        yield (
            f"there are {sizes[0]:,} ids, and {sizes[1]:,} in the target: it is accepted, and the process aborts on "
            f"the first id from {sizes[0]:,} on"
        )
    both = zip(ours.texts, theirs.texts, strict=False)  # only ids that both have are compared
    yield from differing_tokens([n for n, (a, b) in enumerate(both) if a != b and n >= FIRST], ours.texts, theirs.texts)


def differing_frames(ours: frozenset[str], theirs: frozenset[str]) -> Iterator[str]:
    """Yield whether only one of two tokenizers adds bos, and eos, to a text."""
    for role in ("bos", "eos"):
        if (role in ours) != (role in theirs):
            own, other = ("adds", "does not") if role in ours else ("does not add", "does")
            yield f"the tokenizer {own} {role}, the target's {other}"


def differing_tokens(ids: Sequence[int], ours: Sequence[str], theirs: Sequence[str]) -> Iterator[str]:
    """Name the ids that are not the same token to both."""

    def text(texts: Sequence[str], token: int) -> str:
        return repr(texts[token]) if token < len(texts) else "nothing"

    if ids:
        some = [f"{n} ({text(ours, n)}, {text(theirs, n)})" for n in ids]
        yield f"{len(ids):,} ids mean something else than to the target: {listed(some, _SHOWN)}"


def _of_folder(side: Side) -> LlamaVocabulary:
    tokenizer = side.tokenizer
    family = tokenizer.family
    kind = ("SPM" if scores_suffice(tokenizer.spec) else "BPE") if family == SENTENCEPIECE else _TYPES[family]
    named = zip_longest(side.vocabulary.text[: side.vocab_size], range(side.vocab_size), fillvalue="")
    roles = side.vocabulary.roles
    return LlamaVocabulary(
        type=kind,
        texts=[text or f"[PAD{number}]" for text, number in named],  # the converter's name of an id without a token
        ids={role: roles.get(role, _DEFAULT_IDS.get(kind, {}).get(role)) for role in ("bos", "eos")},
        adds=side.adds,
    )


def _of_file(side: Side, keys: Mapping[str, Any]) -> LlamaVocabulary:
    kind = _TYPE_OF_KEY.get(keys["tokenizer.ggml.model"], "BPE")
    default = _DEFAULT_IDS.get(kind, {})
    ids = {role: keys.get(f"tokenizer.ggml.{role}_token_id", default.get(role)) for role in ("bos", "eos")}
    return LlamaVocabulary(type=kind, texts=keys["tokenizer.ggml.tokens"], ids=ids, adds=side.adds)
