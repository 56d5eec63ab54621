"""What the tokens of a vocabulary are: token bytes and a kind for every id. Pure: no files, no tokenizer library.

Tokenizer families spell the same text differently: `Ġthe` (byte-level BPE), `▁the` (SentencePiece), and `the` with its
continuation form `##the` (WordPiece). The *token bytes* are the bytes of text that a token stands for, in a canonical
form, so that tokens of different families can be compared. For the first three tokens above they are ``b" the"``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache, cached_property

import numpy as np

ROLES = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
"""The roles that a special token may have. One token may have several."""


class Kind(IntEnum):
    """What a token id is for."""

    NORMAL = 0
    """A piece of text."""
    SPECIAL = 1
    """A special token: matched by role and by name, never by its bytes."""
    BYTE = 2
    """A byte-fallback piece such as `<0x41>`: used only where no normal piece covers the byte."""
    UNUSED = 3
    """A reserved id, or one that the tokenizer does not define: never produced, never trained."""


_GROUP_OF_KIND = {Kind.SPECIAL: "special tokens", Kind.BYTE: "byte pieces", Kind.UNUSED: "reserved"}

_UNUSED = re.compile(
    r"<unused[_-]?\d+>|\[unused\d+\]|<\|?reserved[_a-z]*\d+\|?>|<SPECIAL_\d+>|<\|extra_\d+\|>|\[control_\d+\]"
)
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


BYTE_ALPHABET = _byte_alphabet()
"""Character -> byte: the printable characters in which GPT-2 writes bytes."""
_BYTE_CHARACTERS = {byte: character for character, byte in BYTE_ALPHABET.items()}
_LATIN = dict.fromkeys(range(256), "\uffff") | {ord(character): byte for character, byte in BYTE_ALPHABET.items()}
"""For `str.translate`: a character of the byte alphabet -> its byte. Other characters leave Latin-1."""


def byte_level_bytes(token: str) -> bytes:
    """Return the bytes that a byte-level BPE token stands for (`Ġthe` -> ``b" the"``).

    A token with a character outside the byte alphabet was added by hand. It stands for its own text.
    """
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode("utf-8", "surrogatepass")


def byte_level_token(token_bytes: bytes) -> str:
    """Return the byte-level BPE spelling of some bytes. The inverse of `byte_level_bytes`."""
    return "".join(_BYTE_CHARACTERS[byte] for byte in token_bytes)


def sentencepiece_bytes(token: str) -> bytes:
    """Return the bytes that a SentencePiece piece stands for (`▁the` -> ``b" the"``, `<0x41>` -> ``b"A"``)."""
    byte = _BYTE_PIECE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode("utf-8", "surrogatepass")


def wordpiece_bytes(token: str, prefix: str = "##") -> bytes:
    """Return the bytes of a WordPiece token. The start of a word has a leading space, a continuation has none."""
    text = token[len(prefix) :] if prefix and token.startswith(prefix) else " " + token
    return text.encode("utf-8", "surrogatepass")


def is_byte_piece(token: str) -> bool:
    """Return whether a SentencePiece piece is spelled as a byte (`<0x41>`)."""
    return _BYTE_PIECE.fullmatch(token) is not None


def is_reserved(token: str) -> bool:
    """Return whether a token is a reserved slot (`<unused7>`, `<|reserved_special_token_3|>`)."""
    return _UNUSED.fullmatch(token) is not None


def script_of(token_bytes: bytes) -> str:
    """Return the script of a token's first letter. Without letters: digits, white space, symbols or partial UTF-8."""
    try:
        text = token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return "partial UTF-8"
    for character in text:
        if character.isalpha():
            return _script_of_letter(character)
    if any(character.isdigit() for character in text):
        return "digits"
    return "white space" if not text.strip() else "symbols"


@cache
def _script_of_letter(character: str) -> str:
    # Unicode names begin with the script: LATIN SMALL LETTER A, CJK UNIFIED IDEOGRAPH-4E00. A compatibility form
    # (full-width, mathematical) counts as the letter that it stands for.
    letter = unicodedata.normalize("NFKC", character)[0]
    return unicodedata.name(letter, "OTHER").split()[0].capitalize().replace("Cjk", "CJK")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer by id.

    Attributes:
        text: Each token as its tokenizer spells it; "" for an id that the tokenizer does not define.
        token_bytes: The canonical bytes of each token; the text itself for a special token.
        kind: The `Kind` of each token (uint8 [V]).
        roles: Role -> id, for the roles that the tokenizer has (see `ROLES`).
        unproduced: Ids of model tokens that no text is tokenized into, whatever other tokens there are: those that
            contain an added token, and those that are not written as the model writes text.
        apart: Ids of WordPiece tokens that stand for a character with and without a space before it (`.`).
    """

    text: Sequence[str]
    token_bytes: Sequence[bytes]
    kind: np.ndarray
    roles: Mapping[str, int] = field(default_factory=dict)
    unproduced: frozenset[int] = frozenset()
    apart: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not len(self.text) == len(self.token_bytes) == len(self.kind):
            raise ValueError("text, token_bytes and kind must have one entry per token")
        if any(not 0 <= token < len(self.text) for token in self.roles.values()):
            raise ValueError("a role names an id outside the vocabulary")

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """Token bytes -> id. Of several ids with the same bytes, it is the one that text is tokenized into.

        A normal piece outranks a byte-fallback piece, and both outrank `unproduced` tokens.
        """
        unproduced = np.zeros(len(self), bool)
        unproduced[list(self.unproduced)] = True
        byte, normal = self.kind == Kind.BYTE, self.kind == Kind.NORMAL
        ids: dict[bytes, int] = {}
        for group in ((byte | normal) & unproduced, byte & ~unproduced, normal & ~unproduced):
            for token in np.flatnonzero(group)[::-1].tolist():
                ids[self.token_bytes[token]] = token
        return ids

    @cached_property
    def produced(self) -> dict[bytes, int]:
        """`id_of` without `unproduced` tokens: the ids that text is tokenized into, whose rows a model has learnt."""
        found = {token_bytes: token for token_bytes, token in self.id_of.items() if token not in self.unproduced}
        return found | {self.token_bytes[token].removeprefix(b" "): token for token in self.apart}

    @cached_property
    def unreachable(self) -> np.ndarray:
        """Whether each id stands for text, but is never produced (bool [V]).

        Such are byte-fallback pieces of bytes that have a normal piece, and `unproduced` tokens.
        """
        found = self.kind == Kind.BYTE
        found[list(self.produced.values())] = False
        found[list(self.unproduced)] = True
        return np.asarray(found)

    @property
    def pieces(self) -> np.ndarray:
        """Whether each id is a piece of text that is produced, and no byte-fallback piece (bool [V])."""
        return np.asarray((self.kind == Kind.NORMAL) & ~self.unreachable)

    @cached_property
    def byte_piece_of(self) -> dict[bytes, int]:
        """Token bytes -> id of the byte-fallback piece. Empty for a vocabulary without byte fallback."""
        return {self.token_bytes[token]: token for token in np.flatnonzero(self.kind == Kind.BYTE).tolist()}

    @cached_property
    def id_of_text(self) -> dict[str, int]:
        """Token, as its tokenizer spells it -> id."""
        return {text: token for token, text in enumerate(self.text) if text}

    def find(self, text: str) -> int | None:
        """Find the token that a user names.

        Args:
            text: The token as its tokenizer spells it, or else the text that it stands for.

        Returns:
            The id, or None if there is no such token.
        """
        found = self.id_of_text.get(text)
        # The command line passes bytes that are not UTF-8 as surrogates.
        return self.id_of.get(text.encode("utf-8", "surrogateescape")) if found is None else found

    def groups(self) -> list[str]:
        """Return the group of each id: the script of a normal token (see `script_of`), the kind of any other."""
        return [
            script_of(token_bytes) if kind == Kind.NORMAL else _GROUP_OF_KIND[kind]
            for token_bytes, kind in zip(self.token_bytes, self.kind.tolist(), strict=True)
        ]

    def roles_of(self, token: int) -> list[str]:
        """Return the roles of one id, in the order of `ROLES`."""
        return [role for role in ROLES if self.roles.get(role) == token]

    def readable(self, token: int) -> str:
        """Return a token for people to read: its text in quotes, or its spelling if it does not stand for text."""
        if self.kind[token] != Kind.NORMAL:
            return self.text[token]
        try:
            return repr(self.token_bytes[token].decode("utf-8"))
        except UnicodeDecodeError:
            return repr(self.token_bytes[token])
