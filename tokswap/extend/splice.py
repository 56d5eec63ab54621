"""New tokens in a tokenizer: each comes out of the model itself, and all others stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokswap.errors import InputError
from tokswap.extend import bpe, unigram, wordpiece
from tokswap.tokenizer.backend import model_texts
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.tokenizer import CONVERTIBLE, Tokenizer
from tokswap.tokenizer.vocabulary import byte_level_token

Splice = bpe.Splice | unigram.Splice | wordpiece.Splice
_SPLICES: Mapping[str, type[Splice]] = {
    BYTE_LEVEL: bpe.Splice,
    SENTENCEPIECE: bpe.Splice,
    UNIGRAM: unigram.Splice,
    WORDPIECE: wordpiece.Splice,
}
_NEVER = "the tokenizer would never produce it"
_BEFORE = ("", "a", "ab", "x", "in", "un", "1", "the")
"""What stands before a continuation of WordPiece when it is tried."""


@dataclass(frozen=True)
class Extended:
    """A tokenizer with new tokens after its last id.

    Attributes:
        tokenizer: The new tokenizer.
        first: The first new id.
        parts: The ids whose place each new token takes, in the order of the new ids.
        asked: Whether each of them was asked for, and is not on the way to another.
        skipped: Token bytes -> why the token was not added.
    """

    tokenizer: Tokenizer
    first: int
    parts: tuple[tuple[int, ...], ...]
    asked: tuple[bool, ...]
    skipped: Mapping[bytes, str]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def token_bytes(self) -> Sequence[bytes]:
        """The token bytes of each new token."""
        return self.tokenizer.vocabulary.token_bytes[self.first :]


def spelled(tokenizer: Tokenizer, token_bytes: bytes) -> str:
    """Return a token as the model of a tokenizer spells it."""
    if tokenizer.family == BYTE_LEVEL:
        return byte_level_token(token_bytes)
    text = token_bytes.decode("utf-8", "replace")
    if tokenizer.family == WORDPIECE:
        prefix = tokenizer.spec["model"].get("continuing_subword_prefix") or ""
        return text[1:] if text.startswith(" ") else prefix + text
    return text.replace(" ", "▁")


def extended(tokenizer: Tokenizer, tokens: Sequence[bytes], first: int | None = None) -> Extended:
    """Add tokens to a tokenizer, in their order.

    Each one is tried afterwards. A token that does not come out is left out.

    Args:
        tokenizer: The tokenizer.
        tokens: Token bytes of the new tokens.
        first: The first new id, None for the one after the last id of the tokenizer.

    Raises:
        InputError: unsupported-tokenizer where an added token would be found in more texts than before.
    """
    first = len(tokenizer.vocabulary) if first is None else first
    skipped: dict[bytes, str] = {}
    wanted = {spelled(tokenizer, token): token for token in tokens}
    while True:
        splice, problems = _spliced(tokenizer, list(wanted))
        skipped |= {wanted[name]: why for name, why in problems.items()}
        names = list(splice.parts)
        if tokenizer.family == UNIGRAM:  # they were added by their length
            names = [name for name in wanted if name in splice.parts]
        new_ids = {name: first + n for n, name in enumerate(names)}
        grown = _with_model(tokenizer, splice, new_ids, first)
        asked = {name: new_ids[name] for name in names if name in wanted}
        lost = _unproduced(grown, asked.values())
        if not lost:
            break
        for name in [name for name, token in asked.items() if token in lost]:
            skipped[wanted.pop(name)] = _NEVER
    _check_added(tokenizer, grown)
    known = {**_ids_of(tokenizer), **new_ids}
    return Extended(
        tokenizer=grown,
        first=first,
        parts=tuple(tuple(known[part] for part in splice.parts[name]) for name in names),
        asked=tuple(name in asked for name in names),
        skipped=skipped,
    )


def _spliced(tokenizer: Tokenizer, names: list[str]) -> tuple[Splice, dict[str, str]]:
    """Add tokens to the model; say which could not be added, and why."""
    splice, problems = _SPLICES[tokenizer.family](tokenizer.spec["model"]), {}
    for name in sorted(names, key=len) if tokenizer.family == UNIGRAM else names:
        if name not in splice.parts and (problem := splice.add(name)):
            problems[name] = problem
    return splice, problems


def _with_model(tokenizer: Tokenizer, splice: Splice, new_ids: Mapping[str, int], first: int) -> Tokenizer:
    """Return the tokenizer with a model that holds the new tokens, and before them the added tokens.

    The tokenizers library numbers an added token that the model lacks after the last token of the model. So the model
    gets them all, each under its id.
    """
    spec, known = tokenizer.spec, _ids_of(tokenizer)
    added = {str(entry["content"]): int(entry["id"]) for entry in spec.get("added_tokens") or []}
    ids = {name: token for name, token in added.items() if name not in known}
    if isinstance(spec["model"]["vocab"], list):  # ids are places
        free = set(range(len(spec["model"]["vocab"]), first)) - {*ids.values()}
        ids |= {f"<unused{token}>": token for token in free}
    old = (*CONVERTIBLE, "added_tokens.json", "special_tokens_map.json")  # they list the old tokens, or are older forms
    return dataclasses.replace(
        tokenizer,
        spec={**spec, "model": splice.model({**ids, **new_ids})},
        files={name: path for name, path in tokenizer.files.items() if name not in old},
        edited=True,
    )


def _check_added(tokenizer: Tokenizer, grown: Tokenizer) -> None:
    """Refuse a tokenizer if the new model would produce one of its added tokens where the tokenizer does not find it.

    Such are whole words (`single_word`), and those that are looked for before a text is normalised.
    """
    spec, known = tokenizer.spec, _ids_of(tokenizer)
    doubtful = {
        text: entry["id"]
        for entry in spec.get("added_tokens") or []
        if (text := str(entry["content"])) not in known
        and (
            entry.get("single_word")
            or (spec.get("normalizer") is not None and not entry.get("normalized") and set(text) <= known.keys())
        )
    }
    # All at once: a tokenizer has thousands of reserved tokens, and is built anew for each call.
    for text, parts in zip(doubtful, model_texts(spec, list(doubtful), tokenizer.path), strict=True):
        found = {piece.id for part in parts if text in part for piece in grown.backend.model.tokenize(part)}
        if doubtful[text] in found:
            raise InputError(
                "unsupported-tokenizer",
                f"an extension would find the added token {text!r} in more texts than before: inside words, or spelled "
                "otherwise",
                "remove this token, or add it again with single_word=False and normalized=True",
                tokenizer=tokenizer.path,
            )


def _ids_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Token of the model -> id."""
    vocab: Any = tokenizer.spec["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {entry[0]: token for token, entry in enumerate(vocab)}


def _unproduced(tokenizer: Tokenizer, ids: Collection[int]) -> set[int]:
    """Return the ids that tokenizing their text inside a longer text does not give."""
    token_bytes, listed = tokenizer.vocabulary.token_bytes, list(ids)
    if tokenizer.family != WORDPIECE:
        found = tokenizer.tokenize_bytes([token_bytes[token] for token in listed])
        tokenizer.release()
        return {token for token, row in zip(listed, found, strict=True) if row != [token]}
    texts = {token: token_bytes[token].decode("utf-8", "replace") for token in listed}
    words = [token for token in listed if texts[token].startswith(" ")]
    rows = tokenizer.encode_batch([texts[token][1:] for token in words])
    lost = {token for token, row in zip(words, rows, strict=True) if row != [token]}
    for token in set(listed) - set(words):
        rows = tokenizer.encode_batch([before + texts[token] for before in _BEFORE])
        if not any(row[-1:] == [token] for row in rows):
            lost.add(token)
    return lost
