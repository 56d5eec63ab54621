"""Exact next-byte probabilities of a token model: the cover encodings of what it has read.

A model of tokens gives a text x a probability through every canonical token sequence that covers it: the sequence's
bytes begin with x, and without the last token they are shorter than x. So with c(i) the canonical encoding of the first
i bytes,

    Q(x) = sum over i < |x| of P(c(i)) * sum of P(t | c(i)) over the tokens t that spell x[i:] and perhaps more,

where c(i), t must be canonical. After x comes byte b with probability Q(xb), or the end with probability
P(c(|x|)) * P(eos | c(|x|)), divided by the sum of all 257. Sequences that no tokenizer makes are left out. A model is
trained on none of them and gives them almost no probability.

Reference:
    arXiv 2410.09303 (cover encodings).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tokswap.checkpoint.positions import longest_input_of
from tokswap.ensemble.bytewise import utf8
from tokswap.ensemble.bytewise.canonical import Canonical
from tokswap.ensemble.bytewise.covers import END, Covers
from tokswap.ensemble.bytewise.encoder import GrowingEncoder
from tokswap.ensemble.bytewise.order import TokenOrder
from tokswap.ensemble.bytewise.paths import End, Paths
from tokswap.ensemble.bytewise.tree import Tree, check_tree
from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.tokenizer import Tokenizer

_CHUNK = 32
"""Bytes that are predicted in one pass of the model: it reads the encodings of all their beginnings."""
_SKIPPED = 128
"""Bytes that are read in one pass where only what follows them is predicted."""
_INSIDE = bytes(range(0x80, 0xC0))
"""The bytes that continue a character."""


class ByteModel:
    """A causal language model, read byte by byte.

    Every text begins with the ids that the tokenizer puts first; without such ids it begins with bos, and without a bos
    with eos. A text ends with the eos of the tokenizer or one of those of the generation config. Other special tokens
    are not text, and their probability is left out.

    Args:
        model: The model as transformers loads it.
        tokenizer: `read_tokenizer` of its folder.
        tolerance: Share of the probability, that of the least likely tokens, that counts as canonical without asking
            the tokenizer. 0 asks about every token, which is slow.
        window: Longest text, in tokens, that the model reads at once.
        overlap: Tokens of a longer text that the next window begins with.

    Raises:
        InputError: not-bytewise.
        UsageError: bad-window.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, tolerance: float = 1e-3, window: int = 512, overlap: int = 128
    ) -> None:
        positions = longest_input_of(model)
        if positions is not None and 0 < positions < 2 * window:
            window = max(1, positions // 2)  # one chunk of bytes may go past the window
            overlap = min(overlap, window // 2)
        if not 0 < overlap <= window // 2:  # tokenized anew, the overlap may take more tokens
            raise UsageError("bad-window", f"overlap ({overlap}) must be from 1 to half of window ({window})")
        self.model, self.tokenizer, self.tolerance = model, tokenizer, tolerance
        self.window, self.overlap = window, overlap
        self.canonical = Canonical(tokenizer)
        self.order = TokenOrder(tokenizer.vocabulary)
        self.start = _start(tokenizer)
        self.ends = text_ends(model, tokenizer)
        check_tree(model, self.start, nodes=2 * window + 4 * _CHUNK)

    @cached_property
    def prefix(self) -> bytes:
        """What the tokenizer puts before a text as if it were text: a space, or nothing."""
        ids = self.tokenizer.encode("a")
        spelt = b"".join(self.tokenizer.vocabulary.token_bytes[token] for token in ids)
        return spelt[:-1] if spelt.endswith(b"a") and not spelt[:-1].strip(b" ") else b""

    def read(self, text: bytes = b"") -> Reader:
        """Return a reader that has read the beginning of a text."""
        reader = Reader(self)
        reader.advance(text, wanted=False)
        return reader


def _start(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that every text begins with."""
    roles = tokenizer.vocabulary.roles
    start = [*tokenizer.leading] or [roles[role] for role in ("bos", "eos") if role in roles][:1]
    if not start:
        message = "this tokenizer has no token that a text could begin with: it needs bos or eos"
        raise InputError("not-bytewise", message, tokenizer=tokenizer.path)
    return start


def text_ends(model: Any, tokenizer: Tokenizer) -> list[int]:
    """Return the ids that end a text, in ascending order."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in [*ends, tokenizer.vocabulary.roles.get("eos")] if token is not None})


class Reader:
    """A text that a `ByteModel` has read, and what it expects after it."""

    _data: bytes
    """What has been read in this window."""
    _known: np.ndarray | None
    """The distribution after it, once it was asked for."""
    _ahead: list[tuple[int, list[End]]]
    """The bytes that the model has read ahead and that have not been taken, with the ends of each."""

    def __init__(self, model: ByteModel) -> None:
        self.model = model
        self._encoder = GrowingEncoder(model.canonical)
        self._paths = Paths(Tree(model.model, model.start))
        self._covers = Covers(model.order, model.canonical, ends=model.ends, tolerance=model.tolerance)
        self._begin_window(model.prefix)

    def distribution(self) -> np.ndarray:
        """Return the probability of each next byte and, last, of the end of text.

        Returns:
            float64 [257], 0 for bytes that UTF-8 does not allow here.
        """
        if self._known is None:
            self._known = self._distribution()
        return self._known

    def rough(self, tolerance: float) -> tuple[np.ndarray, float]:
        """Return an estimate of `distribution` that asks the tokenizer about fewer tokens.

        Args:
            tolerance: Used instead of the model's own if it is greater.

        Returns:
            The probabilities, of which some may be too high and the others are too low for it (float64 [257]); and
            the share that may have to be taken away.
        """
        allowed = utf8.may_follow(self._rest())
        weights = self._covers.weights(len(self._data), tolerance) * allowed
        total = float(weights.sum())
        return (weights / total, self._covers.unasked() / total) if total else (self.distribution(), 0.0)

    def advance(self, data: bytes, *, wanted: bool = True) -> np.ndarray:
        """Read bytes.

        Args:
            data: The bytes that come next.
            wanted: Whether to return what was expected before each of them.

        Returns:
            The distribution before each byte (float64 [n, 257]; [0, 257] if it is not wanted).

        Raises:
            InputError: bad-text, if the text does not go on as UTF-8.
        """
        found = []
        size = _CHUNK if wanted else min(_SKIPPED, max(_CHUNK, self.model.window))
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            self._make_room()
            if wanted:
                for byte, ends in zip(chunk, self._read(chunk), strict=True):
                    found.append(self.distribution())
                    self._step(byte, ends)
            else:
                self._skip(chunk)
            self._forget()
        return np.array(found).reshape(-1, 257)

    def foresee(self, more: bytes) -> np.ndarray:
        """Tell how the text goes on after some more bytes, as far as that is known without running the model.

        Args:
            more: Bytes that come next and have not been read.

        Returns:
            The probability of each byte after them and, last, of what is not known (float64 [257]).
        """
        weights = self._covers.foresee(self._data + more)
        weights[:END] *= utf8.may_follow(self._rest(more))[:END]
        total = float(weights.sum())
        return weights / total if total else np.eye(257)[END]

    def look_ahead(self, data: bytes) -> None:
        """Have the model read bytes that may or may not come next, in one pass. `leave` must be called after it.

        Args:
            data: At most 32 bytes.

        Raises:
            InputError: bad-text, if the text does not go on as UTF-8.
        """
        self._make_room()
        self._ahead = list(zip(data, self._read(data), strict=True))

    def take(self, count: int = 1) -> None:
        """Read the next of the bytes that were looked ahead."""
        for _ in range(count):
            self._step(*self._ahead.pop(0))

    def leave(self) -> None:
        """Forget the bytes that were looked ahead and not taken."""
        self._ahead = []
        self._forget()

    def _forget(self) -> None:
        """Forget what no cover needs."""
        needed = self._covers.nodes
        self._paths.forget_predictions(needed)
        if len(self._paths.tree) > 2 * self._paths.depth + 4 * _CHUNK:
            self._covers.renumber(self._paths.prune(needed))

    def _begin_window(self, data: bytes) -> None:
        """Begin with some bytes, which are read and not predicted."""
        self._data, self._ahead = b"", []
        self._known = None
        self._add_cover(0, self._paths.root, b"")
        self.advance(data, wanted=False)

    def _make_room(self) -> None:
        """Begin a new window where this one is full."""
        if self._paths.depth - len(self.model.start) >= self.model.window:
            self._restart()

    def _restart(self) -> None:
        """Begin a new window with the last tokens of a text that has grown too long, from a whole character on."""
        rest = self._rest()
        whole = self._data[: len(self._data) - len(rest)]
        found = self._encoder.encodings(whole)
        token_bytes, overlap = self.model.canonical.token_bytes, self.model.overlap
        size = sum(len(token_bytes[token]) for token in found[0][-overlap:]) if found else overlap
        self._encoder.reset()
        self._paths.reset()
        self._covers.clear()
        self._begin_window(whole[-size:].lstrip(_INSIDE) + rest or self.model.prefix)

    def _read(self, chunk: bytes) -> list[list[End]]:
        """Have the model read the encodings of every beginning that a chunk adds; return the ends of each."""
        encodings = []
        for n in range(1, len(chunk) + 1):
            data = self._data + chunk[:n]
            self._check_utf8(data)
            encodings.append(self._encoder.encodings(data))
        ends = iter(self._paths.add(ids for several in encodings for ids in several))
        return [[next(ends) for _ in several] for several in encodings]

    def _check_utf8(self, data: bytes) -> None:
        # The settled bytes end with a whole character and were checked before.
        if utf8.split(data[self._encoder.settled_bytes :]) is None:
            raise InputError("bad-text", f"these bytes are not UTF-8: {data[-8:]!r}")

    def _step(self, byte: int, ends: list[End]) -> None:
        """Add one byte to what has been read."""
        self._data += bytes([byte])
        self._known = None
        self._covers.narrow(self._data)
        rest = self._rest()
        for end in ends:
            self._add_cover(len(self._data), end, rest)

    def _skip(self, chunk: bytes) -> None:
        """Add bytes that are not predicted: the model reads the encodings up to where tokens may go past the last."""
        data = self._data + chunk
        self._check_utf8(data)
        longer = self.model.order.longer_than
        places = [n for n in range(len(self._data) + 1, len(data) + 1) if np.diff(longer(data[n:])) > 0]
        encodings = [(place, ids) for place in places for ids in self._encoder.encodings(data[:place])]
        ends = self._paths.add(ids for _, ids in encodings)
        self._data, self._known = data, None
        for (place, _), end in zip(encodings, ends, strict=True):
            self._add_cover(place, end, _begun(data[:place]))
        self._covers.narrow(data)

    def _add_cover(self, start: int, end: End, rest: bytes) -> None:
        after = self._paths.expected(end.node)
        self._covers.add(start, end, self._paths.log(end.node), rest, after)

    def _distribution(self) -> np.ndarray:
        allowed = utf8.may_follow(self._rest())
        weights = self._covers.weights(len(self._data)) * allowed
        if not weights.sum() > 0:  # no token of the vocabulary spells what has been read
            weights = allowed.astype(np.float64)
        found: np.ndarray = weights / weights.sum()
        return found

    def _rest(self, more: bytes = b"") -> bytes:
        """Return the incomplete character that the text ends with, and some more bytes."""
        return _begun(self._data[-3:] + more)


def _begun(data: bytes) -> bytes:
    """Return the incomplete character that some bytes end with."""
    for n in (1, 2, 3):
        parts = utf8.split(data[-n:])
        if parts is not None and parts[1] and len(parts[0]) == 0:
            return parts[1]
    return b""
