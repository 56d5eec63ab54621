"""How ids of the source vocabulary translate to ids of the new one, for configs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokswap.checkpoint.nested_configs import token_ids
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.vocabulary import Kind, Vocabulary


class IdMap(Protocol):
    """How ids of the source vocabulary translate to ids of the new one."""

    @property
    def source(self) -> Vocabulary:
        """The source vocabulary."""
        ...

    @property
    def target(self) -> Vocabulary:
        """The new vocabulary."""
        ...

    def role(self, role: str) -> int | None:
        """Return the id that a config is to name for a role, whatever it named before; None to translate its old id."""
        ...

    def has(self, token: int) -> bool:
        """Return whether a number is an id of the source."""
        ...

    def translate(self, token: int, wanted: str | None = None) -> int | None:
        """Return the new id of a source id, None where there is none.

        Args:
            token: The source id.
            wanted: The role that is meant where the token has several.
        """
        ...

    def words(self, key: str, value: Any) -> tuple[Any, int]:
        """Return the new value of a key that holds words as ids, and how many words cannot be translated."""
        ...


@dataclass(frozen=True)
class AlignedIds:
    """The `IdMap` of a transplant: special tokens by role, the others by the rows that are copied.

    Attributes:
        alignment: Where each target row comes from.
        source: The source vocabulary.
        target: The target vocabulary.
        target_config: Config of the model that owns the target tokenizer, {} if unknown. It may name a pad or a second
            eos that the tokenizer files do not.
    """

    alignment: Alignment
    source: Vocabulary
    target: Vocabulary
    target_config: Mapping[str, Any] = field(default_factory=dict)

    def role(self, role: str) -> int | None:
        """Return the target's id of a role, from its tokenizer or else from its config."""
        if role in self.target.roles:
            return self.target.roles[role]
        ids = token_ids(self.target_config, f"{role}_token_id")
        return ids[0] if ids and 0 <= ids[0] < len(self.target) else None

    def has(self, token: int) -> bool:
        """Return whether a number is an id of the source."""
        return 0 <= token < len(self.source)

    def translate(self, token: int, wanted: str | None = None) -> int | None:
        """Return the target id for a source id: the same role first, then the row that is copied from it."""
        if not self.has(token):  # -1 stands for no token, and -1 is where a missing row comes from
            return None
        for role in sorted(self.source.roles_of(token), key=lambda role: role != wanted):
            found = self.role(role)
            if found is not None:
                return found
        return self.alignment.target_of(token)

    def words(self, key: str, value: Any) -> tuple[Any, int]:
        """Translate words of special tokens; the new tokenizer makes other ids of the text of others."""
        words = _translated_words(key, value, self._special)
        return words, len(value) - len(words)

    def _special(self, token: int) -> int | None:
        return self.translate(token) if self.has(token) and self.source.kind[token] == Kind.SPECIAL else None


@dataclass(frozen=True)
class KeptIds:
    """The `IdMap` of a trim, which changes no meaning: every id becomes the new id of the same token.

    Attributes:
        source: The source vocabulary.
        target: The trimmed vocabulary.
        new_of: Old id -> new id, for tokens and for kept rows past the tokenizer.
    """

    source: Vocabulary
    target: Vocabulary
    new_of: Mapping[int, int]

    def role(self, role: str) -> int | None:
        """Return None: a config that names another token than the tokenizer does goes on naming it."""
        return None

    def has(self, token: int) -> bool:
        """Return whether a number is an id of the source, or a kept row past its tokenizer."""
        return 0 <= token < len(self.source) or token in self.new_of

    def translate(self, token: int, wanted: str | None = None) -> int | None:
        """Return the new id of a token."""
        return self.new_of.get(token)

    def words(self, key: str, value: Any) -> tuple[Any, int]:
        """Translate words; one with a token that is gone cannot occur any more, and so is no loss."""
        return _translated_words(key, value, self.translate), 0


def texts_by_id(texts: Mapping[str, Any], ids: IdMap) -> dict[str, Any]:
    """Translate a key that gives ids their texts: source tokens keep theirs, other tokens of the target get their own.

    Args:
        texts: The texts by id, which is text in JSON.
        ids: How ids translate.
    """
    known = {ids.translate(int(token)): text for token, text in texts.items() if token.isdecimal()}
    return {str(token): known.get(token, text) for token, text in enumerate(ids.target.text)}


Translate = Callable[[int], int | None]


def _translated_words(key: str, value: Any, translate: Translate) -> list[Any]:
    """Return the words of a key whose tokens all have a new id."""
    if key == "forced_decoder_ids":
        pairs = [(place, token, None if token is None else translate(token)) for place, token in value]
        return [[place, new] for place, old, new in pairs if old is None or new is not None]
    if key == "sequence_bias":  # a list of [word, bias], or a mapping from the word as text
        entries = value.items() if isinstance(value, dict) else value
        words = [(_word(word, translate), bias) for word, bias in entries]
        return [[word, bias] for word, bias in words if word]
    if key == "force_words_ids":  # a word, or several forms of it
        return [found for found in (_forms(word, translate) for word in value) if found]
    return [found for found in (_word(word, translate) for word in value) if found]


def _word(word: Any, translate: Translate) -> list[int] | None:
    """Return a word in new ids, None where one of its tokens has none."""
    new = list(map(translate, map(int, re.findall(r"\d+", word)) if isinstance(word, str) else word))
    return None if None in new else new  # type: ignore[return-value]


def _forms(value: Any, translate: Translate) -> list[Any] | None:
    if value and isinstance(value[0], list):
        return [found for found in (_word(form, translate) for form in value) if found]
    return _word(value, translate)
