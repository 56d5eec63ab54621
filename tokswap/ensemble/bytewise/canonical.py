"""Canonical encodings of bytes: what a tokenizer makes of a text, for any beginning of one, and which tokens may come next.

A sequence of tokens is *canonical* where the tokenizer itself makes it of some text, or it is the beginning of such a
sequence. A model is trained on nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from tokswap.ensemble.bytewise import utf8
from tokswap.errors import InputError
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, byte_level_token

_CONTEXTS = 256
"""So many last tokens have their answers kept."""
_NEAR = 40
"""Bytes before a character that are cut again with it."""


def check_family(tokenizer: Tokenizer) -> None:
    """Raise InputError not-bytewise for a tokenizer whose canonical encodings cannot be told from pairs of tokens."""
    if tokenizer.family not in (BYTE_LEVEL, SENTENCEPIECE):
        raise InputError(
            "not-bytewise",
            f"exact bytes are for BPE tokenizers, and this one is {tokenizer.family}",
            "transplant the model to a BPE tokenizer first: tokswap transplant",
            tokenizer=tokenizer.path,
        )


class Canonical:
    """The canonical encodings of one BPE tokenizer, byte-level or SentencePiece with byte fallback.

    What may follow is asked of the tokenizer itself: a BPE encoding is canonical exactly where every pair of neighbours
    is, so that (a, t) may stand together if cutting the bytes of both gives a, t again. This includes the rules by which a
    pre-tokenizer splits, as far as they depend on two tokens. Where a byte-level token ends inside a character, examples
    of the characters that it may become are tried.

    Raises InputError not-bytewise for other families.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        check_family(tokenizer)
        vocabulary = tokenizer.vocabulary
        self.tokenizer = tokenizer
        self.token_bytes = vocabulary.token_bytes
        self.byte_level = tokenizer.family == BYTE_LEVEL
        self.is_byte = vocabulary.kind == Kind.BYTE
        self._pieces = vocabulary.byte_piece_of
        self._backend = tokenizer.literal()
        self._known: dict[bytes, int] = {}  # beginning of a character -> characters of the vocabulary that have it
        if not self.byte_level:
            for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist():
                character = self.token_bytes[token]
                if 0 < len(character) < 5 and len(character.decode("utf-8", "replace")) == 1:
                    for end in range(1, len(character) + 1):
                        self._known[character[:end]] = self._known.get(character[:end], 0) + 1
        self._pairs: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()

    def encodings(self, data: bytes) -> list[list[int]]:
        """Return the canonical encodings of a beginning of a text.

        There is one for whole characters. Bytes that end inside a character may have two, one where the character joins
        the word before it and one where it does not; none where the vocabulary cannot spell them.
        """
        parts = utf8.split(data)
        if parts is None:
            return []
        whole, rest = parts
        text = whole.decode("utf-8")
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if not rest:
            found = [ids]
        elif self.byte_level:
            found = self._half(text, ids, rest)
        elif self._unknown(rest) and all(bytes([byte]) in self._pieces for byte in rest):
            found = [[*ids, *(self._pieces[bytes([byte])] for byte in rest)]]
        else:
            found = []
        return [one for one in found if b"".join(self.token_bytes[token] for token in one) == data]

    def may_follow(self, last: int | None, rest: bytes, tokens: np.ndarray) -> np.ndarray:
        """Return bool[n]: whether each token makes a canonical sequence after a context.

        last: the context's last token, None for an empty one. rest: the beginning of a character that it ends with.
        """
        key = (-1 if last is None else last, rest)
        known = self._pairs.get(key)
        if known is None:
            known = self._pairs[key] = np.full(len(self.token_bytes), -1, np.int8)
            if len(self._pairs) > _CONTEXTS:
                self._pairs.popitem(last=False)
        self._pairs.move_to_end(key)
        asked = tokens[known[tokens] < 0]
        if len(asked):
            known[asked] = self._ask(last, rest, asked.tolist())
        fine: np.ndarray = known[tokens] == 1
        return fine

    def _ask(self, last: int | None, rest: bytes, tokens: Sequence[int]) -> list[bool]:
        answers = dict.fromkeys(tokens, False)
        before = b"" if last is None else self.token_bytes[last]
        if not self.byte_level and last is not None and self.is_byte[last]:
            before, last = b"", None  # nothing merges with a byte piece
        lead = [] if last is None else [last]
        texts: dict[int, str] = {}
        for token in tokens:
            surface = self.token_bytes[token]
            if not self.byte_level and self.is_byte[token]:
                answers[token] = self._unknown(rest + surface)
            elif utf8.split(rest + surface) is None or (rest and not self.byte_level):
                continue
            else:
                try:
                    texts[token] = (before + surface).decode("utf-8")
                except UnicodeDecodeError:
                    answers[token] = self._merged(before + surface) == [*lead, token] or (
                        not rest and self._merged(surface) == [token] and self._breaks(before, surface)
                    )
        encoded = self._backend.encode_batch_fast(list(texts.values()), add_special_tokens=False)
        for token, encoding in zip(texts, encoded, strict=True):
            answers[token] = encoding.ids == [*lead, token]
        return list(answers.values())

    def _unknown(self, rest: bytes) -> bool:
        """Whether some character that begins with these bytes is not in the vocabulary, so that it is spelled in bytes."""
        return utf8.completions(rest) > self._known.get(rest, 0)

    def _merged(self, data: bytes) -> list[int]:
        """Cut bytes by the merges alone."""
        return [piece.id for piece in self._backend.model.tokenize(byte_level_token(data))]

    def _half(self, text: str, ids: list[int], rest: bytes) -> list[list[int]]:
        """The encodings of a text and the beginning of a character, as the characters that it may become lead to them.

        Most often there is one. There are several where the character may join the word before it or not, and none where
        no token ends there.
        """
        at, whole = len(ids), text.encode("utf-8")
        begin = len(whole)
        while at and (len(whole) - begin < _NEAR or utf8.split(whole[:begin]) != (whole[:begin], b"")):
            at -= 1
            begin -= len(self.token_bytes[ids[at]])
        tail = whole[begin:].decode("utf-8")
        end = len(whole) - begin + len(rest)
        texts = [tail + character for character in utf8.examples(rest)]
        found: dict[tuple[int, ...], None] = {}
        for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False):
            place = self._place(encoding.ids, end)
            if place is not None:
                found[tuple(encoding.ids[:place])] = None
        return [[*ids[:at], *one] for one in found]

    def _breaks(self, before: bytes, surface: bytes) -> bool:
        """Whether a word may end between two tokens, of which one may hold a part of a character at its outer end.

        What the first begins inside of is taken for a letter.
        """
        parts = utf8.split(surface)
        split = self._backend.pre_tokenizer
        if split is None or parts is None:
            return False
        begun = before.lstrip(bytes(range(0x80, 0xC0)))
        head = "字" * (begun != before) + begun.decode("utf-8", "ignore")
        texts = (head + parts[0].decode("utf-8") + character for character in utf8.examples(parts[1])[::4])
        return any(len(head) in (begin for _, (begin, _) in split.pre_tokenize_str(text)) for text in texts if head)

    def _place(self, ids: Sequence[int], end: int) -> int | None:
        """How many tokens spell the first `end` bytes; None where no token ends there."""
        at = 0
        for n, token in enumerate(ids):
            if at == end:
                return n
            at += len(self.token_bytes[token])
        return len(ids) if at == end else None
