"""Canonical encodings: how a tokenizer encodes the beginning of a text, and which tokens may come next.

A sequence of tokens is *canonical* if it is the tokenizer's own encoding of some text, or the beginning of one. A model
is trained on nothing else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

import numpy as np

from tokswap.ensemble.bytewise import utf8
from tokswap.ensemble.bytewise.neighbours import NeighbourBytes
from tokswap.errors import InputError
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_token

_CONTEXTS = 256
"""Contexts whose answers are kept."""
_NEAR = 40
"""Bytes before an incomplete character that are tokenized again with it."""


def check_family(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer whose canonical encodings cannot be told from pairs of tokens.

    Raises:
        InputError: not-bytewise.
    """
    if tokenizer.family not in (BYTE_LEVEL, SENTENCEPIECE):
        raise InputError(
            "not-bytewise",
            f"exact next-byte probabilities need a BPE tokenizer, and this one is {tokenizer.family}",
            "transplant the model to a BPE tokenizer first: tokswap transplant",
            tokenizer=tokenizer.path,
        )


class Canonical:
    """The canonical encodings of one BPE tokenizer, byte-level or SentencePiece with byte fallback.

    The tokenizer itself says which token may follow. A BPE encoding is canonical exactly if every pair of neighbours
    is, so t may follow a if the bytes of both are tokenized as a, t. This includes the rules by which a pre-tokenizer
    splits, as far as they depend on two tokens. Where a byte-level token ends inside a character, some of the
    characters that it may become are tried.

    Args:
        tokenizer: The tokenizer.

    Attributes:
        tokenizer: The tokenizer.
        token_bytes: Bytes of each token.
        byte_level: Whether it is a byte-level one.
        is_byte: Whether each token is a byte-fallback piece (bool [V]).

    Raises:
        InputError: not-bytewise, for tokenizers of other families.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        check_family(tokenizer)
        vocabulary = tokenizer.vocabulary
        self.tokenizer = tokenizer
        self.token_bytes = vocabulary.token_bytes
        self.byte_level = tokenizer.family == BYTE_LEVEL
        self.is_byte = vocabulary.kind == Kind.BYTE
        self._byte_pieces = vocabulary.byte_piece_of
        self._backend = tokenizer.literal()
        self._characters = Counter() if self.byte_level else _beginnings_of_characters(vocabulary)
        self._pairs = NeighbourBytes(vocabulary)
        self._stand_ins: dict[int, int | None] = {}
        self._answers: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()

    def encodings(self, data: bytes) -> list[list[int]]:
        """Return the canonical encodings of the beginning of a text.

        Args:
            data: The bytes; they may end inside a character.

        Returns:
            Token ids of each encoding. There is one for whole characters. There may be two for bytes that end inside a
            character: one where the character joins the word before it, one where it does not. There is none where the
            vocabulary cannot spell the bytes.
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
            found = self._incomplete(text, ids, rest)
        elif self._may_be_unknown(rest) and all(bytes([byte]) in self._byte_pieces for byte in rest):
            found = [[*ids, *(self._byte_pieces[bytes([byte])] for byte in rest)]]
        else:
            found = []
        return [one for one in found if b"".join(self.token_bytes[token] for token in one) == data]

    def may_follow(self, last: int | None, rest: bytes, tokens: np.ndarray) -> np.ndarray:
        """Say which tokens make a canonical sequence after a context.

        Args:
            last: Last token of the context, None for an empty one.
            rest: The incomplete character that the context ends with.
            tokens: Token ids to test (int64 [n]).

        Returns:
            Whether each may follow (bool [n]).
        """
        alike = None if last is None or rest else self._alike(last)
        if last is None or alike is None:
            return self._known(last, rest, tokens)
        shared = self._pairs.apart(last, alike, tokens)
        fine: np.ndarray = np.zeros(len(tokens), bool)
        fine[shared] = self._known(alike, rest, tokens[shared])
        fine[~shared] = self._known(last, rest, tokens[~shared])
        return fine

    def _alike(self, last: int) -> int | None:
        """Return the token that stands for a context; None where there is none, or its own bytes are another token."""
        if last not in self._stand_ins:
            found = self._pairs.stands_for(last)
            alone = None if found is None else self.encodings(self.token_bytes[last])
            self._stand_ins[last] = found if alone == [[last]] else None
        return self._stand_ins[last]

    def _known(self, last: int | None, rest: bytes, tokens: np.ndarray) -> np.ndarray:
        """Answer as far as the answers are known, and ask the tokenizer for the others."""
        key = (-1 if last is None else last, rest)
        known = self._answers.get(key)
        if known is None:
            known = self._answers[key] = np.full(len(self.token_bytes), -1, np.int8)
            if len(self._answers) > _CONTEXTS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        asked = tokens[known[tokens] < 0]
        if len(asked):
            known[asked] = self._ask(last, rest, asked.tolist())
        fine: np.ndarray = known[tokens] == 1
        return fine

    def _ask(self, last: int | None, rest: bytes, tokens: Sequence[int]) -> list[bool]:
        """Ask the tokenizer about each token, in one batch as far as the bytes are whole characters."""
        answers = dict.fromkeys(tokens, False)
        before = b"" if last is None else self.token_bytes[last]
        if not self.byte_level and last is not None and self.is_byte[last]:
            before, last = b"", None  # nothing merges with a byte piece
        lead = [] if last is None else [last]
        texts: dict[int, str] = {}
        for token in tokens:
            own = self.token_bytes[token]
            if not self.byte_level and self.is_byte[token]:
                answers[token] = self._may_be_unknown(rest + own)
            elif utf8.split(rest + own) is None or (rest and not self.byte_level):
                continue
            else:
                try:
                    texts[token] = (before + own).decode("utf-8")
                except UnicodeDecodeError:
                    answers[token] = self._merged(before + own) == [*lead, token] or (
                        not rest and self._merged(own) == [token] and self._may_split(before, own)
                    )
        encoded = self._backend.encode_batch_fast(list(texts.values()), add_special_tokens=False)
        for token, encoding in zip(texts, encoded, strict=True):
            answers[token] = encoding.ids == [*lead, token]
        return list(answers.values())

    def _may_be_unknown(self, rest: bytes) -> bool:
        """Whether the vocabulary lacks some character that begins with these bytes, so that byte pieces spell it."""
        return utf8.completions(rest) > self._characters[rest]

    def _merged(self, data: bytes) -> list[int]:
        """Tokenize bytes by the merges alone, without the pre-tokenizer."""
        return [piece.id for piece in self._backend.model.tokenize(byte_level_token(data))]

    def _incomplete(self, text: str, ids: list[int], rest: bytes) -> list[list[int]]:
        """Return the encodings of a text and an incomplete character after it.

        Each of the characters that it may become is tokenized with the end of the text. Most often they all agree on
        the tokens before. There are two encodings where the character may join the word before it or not, and none
        where no token ends after `rest`.
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
            place = self._tokens_until(encoding.ids, end)
            if place is not None:
                found[tuple(encoding.ids[:place])] = None
        return [[*ids[:at], *one] for one in found]

    def _may_split(self, before: bytes, after: bytes) -> bool:
        """Whether the pre-tokenizer may split between two tokens; their outer ends may be parts of characters."""
        parts = utf8.split(after)
        split = self._backend.pre_tokenizer
        if split is None or parts is None:
            return False
        begun = before.lstrip(bytes(range(0x80, 0xC0)))
        head = "字" * (begun != before) + begun.decode("utf-8", "ignore")  # an incomplete character counts as a letter
        texts = (head + parts[0].decode("utf-8") + character for character in utf8.examples(parts[1])[::4])
        return any(len(head) in (begin for _, (begin, _) in split.pre_tokenize_str(text)) for text in texts if head)

    def _tokens_until(self, ids: Sequence[int], end: int) -> int | None:
        """Return how many tokens spell the first `end` bytes, None if no token ends there."""
        at = 0
        for n, token in enumerate(ids):
            if at == end:
                return n
            at += len(self.token_bytes[token])
        return len(ids) if at == end else None


def _beginnings_of_characters(vocabulary: Vocabulary) -> Counter[bytes]:
    """Count, for the beginnings of characters, the characters of the vocabulary that begin so."""
    found: Counter[bytes] = Counter()
    for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist():
        character = vocabulary.token_bytes[token]
        if 0 < len(character) < 5 and len(character.decode("utf-8", "replace")) == 1:
            found.update(character[:end] for end in range(1, len(character) + 1))
    return found
