"""How ids of the source vocabulary translate to ids of the new one, for configs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokswap.checkpoint.nested_configs import token_ids
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.vocabulary import Vocabulary


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

    def words(self, key: str, value: Any) -> Any:
        """Return the new value of a key that holds words as ids, None where it cannot be translated."""
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

    def words(self, key: str, value: Any) -> Any:
        """Return None: words of the old tokenizer are other ids in the new one."""
        return None


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

    def words(self, key: str, value: Any) -> Any:
        """Translate words; a word with a token that is gone cannot occur any more."""
        if key == "forced_decoder_ids":
            return [[place, None if token is None else self.new_of[token]] for place, token in value]
        if key == "sequence_bias":  # a list of [word, bias], or a mapping from the word as text
            pairs = value.items() if isinstance(value, dict) else value
            words = [(self._word(word), bias) for word, bias in pairs]
            return [[word, bias] for word, bias in words if word]
        if key == "force_words_ids":  # a word, or several forms of it; one that is gone cannot be forced any more
            return [found for found in map(self._forms, value) if found]
        return [found for found in map(self._word, value) if found]

    def _word(self, word: Any) -> list[int] | None:
        """Return a word in new ids, None where one of its tokens is gone."""
        ids = list(map(int, re.findall(r"\d+", word))) if isinstance(word, str) else list(word)
        return [self.new_of[token] for token in ids] if all(token in self.new_of for token in ids) else None

    def _forms(self, value: Any) -> list[Any] | None:
        if value and isinstance(value[0], list):
            return [found for found in map(self._word, value) if found]
        return self._word(value)
