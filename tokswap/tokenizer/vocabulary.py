"""What the tokens of a vocabulary are: canonical bytes and a kind for every id. Pure: no files, no tokenizer library.

Tokenizer families spell the same text differently: `Ġthe` (byte-level BPE), `▁the` (SentencePiece) and `the` with its
continuation form `##the` (WordPiece). The *canonical bytes* of a token are the bytes of text that it
stands for, so that tokens of different families can be compared: all three above are ``b" the"``.
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
"""The jobs that a special token may have; one token may have several."""


class Kind(IntEnum):
    """What a token id is for."""

    NORMAL = 0
    """A piece of text."""
    SPECIAL = 1
    """A control token: matched by role and by name, never by its bytes."""
    BYTE = 2
    """A byte-fallback piece such as `<0x41>`: used only where no normal piece covers the byte."""
    UNUSED = 3
    """A reserved id, or one that the tokenizer does not define: never produced, never trained."""


_KIND_NAMES = {Kind.SPECIAL: "control tokens", Kind.BYTE: "byte pieces", Kind.UNUSED: "reserved"}

_UNUSED = re.compile(
    r"<unused[_-]?\d+>|\[unused\d+\]|<\|?reserved[_a-z]*\d+\|?>|<SPECIAL_\d+>|<\|extra_\d+\|>|\[control_\d+\]"
)
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, turned round: character -> byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


BYTE_ALPHABET = _byte_alphabet()
_BYTE_CHARACTERS = {byte: character for character, byte in BYTE_ALPHABET.items()}
_LATIN = dict.fromkeys(range(256), "\uffff") | {ord(character): byte for character, byte in BYTE_ALPHABET.items()}
"""For `str.translate`: each character of the byte alphabet becomes the code point of its byte, others nothing in Latin-1."""


def byte_level_bytes(token: str) -> bytes:
    """Return the bytes that a byte-level BPE token stands for (`Ġthe` -> ``b" the"``).

    A token with a character outside the byte alphabet was added by hand and stands for its own text.
    """
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode("utf-8", "surrogatepass")


def byte_level_token(surface: bytes) -> str:
    """Return the byte-level BPE spelling of some bytes; the inverse of `byte_level_bytes`."""
    return "".join(_BYTE_CHARACTERS[byte] for byte in surface)


def sentencepiece_bytes(token: str) -> bytes:
    """Return the bytes that a SentencePiece piece stands for (`▁the` -> ``b" the"``, `<0x41>` -> ``b"A"``)."""
    byte = _BYTE_PIECE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode("utf-8", "surrogatepass")


def wordpiece_bytes(token: str, prefix: str = "##") -> bytes:
    """Return the bytes of a WordPiece token: a word start carries a leading space, a continuation does not."""
    text = token[len(prefix) :] if prefix and token.startswith(prefix) else " " + token
    return text.encode("utf-8", "surrogatepass")


def is_byte_piece(token: str) -> bool:
    """Return whether a SentencePiece piece is spelled as a byte (`<0x41>`)."""
    return _BYTE_PIECE.fullmatch(token) is not None


def is_reserved(token: str) -> bool:
    """Return whether a control token is a reserved slot (`<unused7>`, `<|reserved_special_token_3|>`)."""
    return _UNUSED.fullmatch(token) is not None


def script_of(surface: bytes) -> str:
    """Return the script of a token: that of its first letter, else digits, space, symbols or partial UTF-8."""
    try:
        text = surface.decode("utf-8")
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
    # Unicode names begin with the script: LATIN SMALL LETTER A, CJK UNIFIED IDEOGRAPH-4E00. Compatibility forms
    # (full-width, mathematical) count as the letter that they stand for.
    letter = unicodedata.normalize("NFKC", character)[0]
    return unicodedata.name(letter, "OTHER").split()[0].capitalize().replace("Cjk", "CJK")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer by id.

    text: the token as its tokenizer spells it; "" for an id that the tokenizer does not define.
    token_bytes: canonical bytes, for every kind (the text itself for a special token).
    kind: uint8[V], see `Kind`.
    roles: role -> id, for the roles that the tokenizer has (see `ROLES`).
    """

    text: Sequence[str]
    token_bytes: Sequence[bytes]
    kind: np.ndarray
    roles: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.text) == len(self.token_bytes) == len(self.kind):
            raise ValueError("text, token_bytes and kind must have one entry a token")
        if any(not 0 <= token < len(self.text) for token in self.roles.values()):
            raise ValueError("a role names an id outside the vocabulary")

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """Token bytes -> id. Where several ids share their bytes a normal piece outranks a byte-fallback piece."""
        ids: dict[bytes, int] = {}
        for kind in (Kind.BYTE, Kind.NORMAL):
            for token in np.flatnonzero(self.kind == kind)[::-1].tolist():
                ids[self.token_bytes[token]] = token
        return ids

    @cached_property
    def byte_piece_of(self) -> dict[bytes, int]:
        """Token bytes -> id of the byte-fallback piece, for the vocabularies that have them."""
        return {self.token_bytes[token]: token for token in np.flatnonzero(self.kind == Kind.BYTE).tolist()}

    @cached_property
    def id_of_text(self) -> dict[str, int]:
        """The token as its tokenizer spells it -> id."""
        return {text: token for token, text in enumerate(self.text) if text}

    def groups(self) -> list[str]:
        """Return what each id belongs to: the script of a normal token (see `script_of`), the kind of any other."""
        return [
            script_of(surface) if kind == Kind.NORMAL else _KIND_NAMES[kind]
            for surface, kind in zip(self.token_bytes, self.kind.tolist(), strict=True)
        ]

    def roles_of(self, token: int) -> list[str]:
        """Return the roles of one id, in the order of `ROLES`."""
        return [role for role in ROLES if self.roles.get(role) == token]

    def readable(self, token: int) -> str:
        """Return one id as a person reads it: its text in quotes, or the spelling of what is no text."""
        if self.kind[token] != Kind.NORMAL:
            return self.text[token]
        try:
            return repr(self.token_bytes[token].decode("utf-8"))
        except UnicodeDecodeError:
            return repr(self.token_bytes[token])
