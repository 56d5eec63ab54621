"""Tokenize bytes as they stand inside a text: without special tokens, prefix space or stripping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokswap.tokenizer.backend import Backend, LazyBackend, text_backend
from tokswap.tokenizer.families import BYTE_LEVEL, WORDPIECE
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_token

_BATCH = 4096
"""Texts that are tokenized at a time. What the library returns for one takes more than a kilobyte."""
_CHANGE_CHARACTERS = ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Lowercase", "StripAccents")


@dataclass(frozen=True)
class ByteTokenizer:
    """Tokenizes bytes as one tokenizer would tokenize them inside a text.

    Attributes:
        family: The family of the tokenizer.
        vocabulary: Its vocabulary.
        backend: The backend of the whole tokenizer.
    """

    family: str
    vocabulary: Vocabulary
    backend: LazyBackend

    def tokenize(self, token_bytes: Sequence[bytes]) -> list[list[int]]:
        """Return the ids of each byte string, without bytes that the vocabulary cannot spell."""
        if self.family == WORDPIECE:
            return [self._wordpiece(whole) for whole in token_bytes]
        texts, rows = _split(token_bytes, keep_whole=self.family == BYTE_LEVEL)
        backend = self._text_backend
        text_ids: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            batch = backend.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
            text_ids += [encoding.ids for encoding in batch]
        unknown = self.vocabulary.roles.get("unk", -1)
        result = []
        for parts in rows:
            ids = [text_ids[part] if isinstance(part, int) else self._non_text(part, backend) for part in parts]
            result.append([token for part in ids for token in part if token != unknown])
        return result

    def literal(self) -> Backend:
        """Return a backend whose tokens spell exactly the text: it does not normalise characters either."""
        return self._make_text_backend(_CHANGE_CHARACTERS)

    @cached_property
    def _special_ids(self) -> set[int]:
        """Ids that do not stand for text."""
        return set(np.flatnonzero(np.isin(self.vocabulary.kind, (Kind.SPECIAL, Kind.UNUSED))).tolist())

    @cached_property
    def _text_backend(self) -> Backend:
        return self._make_text_backend()

    def _make_text_backend(self, without_normalizers: tuple[str, ...] = ()) -> Backend:
        return text_backend(self.backend, self._special_ids, without_normalizers)

    def _non_text(self, part: bytes, backend: Backend) -> list[int]:
        """Tokenize bytes that are not UTF-8."""
        if self.family == BYTE_LEVEL:
            return [piece.id for piece in backend.model.tokenize(byte_level_token(part))]
        pieces = self.vocabulary.byte_piece_of
        return [pieces[part[n : n + 1]] for n in range(len(part)) if part[n : n + 1] in pieces]

    def _wordpiece(self, whole: bytes) -> list[int]:
        """Tokenize greedily, the longest token first.

        A first word without a space before it is a continuation, unless it is a word of its own after a letter too, as
        punctuation is.
        """
        text = whole.decode("utf-8", "ignore")
        words, after_letter = self._words(text), self._words("a" + text)
        continues = not whole.startswith(b" ") and after_letter[:1] != ["a"]
        ids: list[int] = []
        for n, word in enumerate(words):
            rest = ("" if n == 0 and continues else " ") + word
            while rest.strip():
                for end in range(len(rest), 0, -1):
                    token = self.vocabulary.id_of.get(rest[:end].encode())
                    if token is not None and rest[:end] != " ":
                        ids.append(token)
                        break
                else:  # the vocabulary does not have the first character: leave it out
                    end = 2 if rest.startswith(" ") else 1
                rest = rest[end:]
        return ids

    def _words(self, text: str) -> list[str]:
        """Normalise a text and split it into the words that WordPiece gets."""
        backend = self.backend.loaded
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        split = backend.pre_tokenizer
        return text.split() if split is None else [word for word, _ in split.pre_tokenize_str(text)]


def _split(token_bytes: Sequence[bytes], *, keep_whole: bool) -> tuple[list[str], list[list[int | bytes]]]:
    """Split byte strings into UTF-8 texts and the bytes between them.

    Args:
        token_bytes: The byte strings.
        keep_whole: Whether a byte string that is not UTF-8 stays whole. This is right for byte-level BPE, which may
            merge across the edge of a character.

    Returns:
        All texts; and the parts of each byte string, each the index of a text, or bytes that are not UTF-8.
    """
    texts: list[str] = []
    rows: list[list[int | bytes]] = []
    for whole in token_bytes:
        runs = list(_utf8_runs(whole))
        if keep_whole and len(runs) > 1:
            runs = [(False, whole)]
        rows.append([])
        for is_text, run in runs:
            rows[-1].append(len(texts) if is_text else run)
            if is_text:
                texts.append(run.decode("utf-8"))
    return texts, rows


def _utf8_runs(whole: bytes) -> Iterator[tuple[bool, bytes]]:
    """Split bytes into the longest runs that are UTF-8 text, and the single bytes between them."""
    start = 0
    while start < len(whole):
        try:
            whole[start:].decode("utf-8")
            yield True, whole[start:]
            return
        except UnicodeDecodeError as error:
            if error.start:
                yield True, whole[start : start + error.start]
            yield False, whole[start + error.start : start + error.start + 1]
            start += error.start + 1
