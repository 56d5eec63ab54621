"""Exact next-byte probabilities of a token model: the cover encodings of what it has read (arXiv 2410.09303).

A model of tokens gives a text x a probability through every canonical token sequence that covers it: the sequence's bytes
begin with x, and without the last token they are shorter than x. So with c(i) the canonical encoding of the first i bytes,

    Q(x) = sum over i < |x| of P(c(i)) * sum of P(t | c(i)) over the tokens t that spell x[i:] and perhaps more,

where c(i), t must be canonical. What follows x is byte b with probability Q(xb), or the end with probability
P(c(|x|)) * P(eos | c(|x|)), divided by the sum of all 257. What a model gives to sequences that no tokenizer makes is left
out; it was trained on none, and gives them next to nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from tokswap.ensemble.bytewise import utf8
from tokswap.ensemble.bytewise.canonical import Canonical
from tokswap.ensemble.bytewise.tree import Tree
from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind

END = 256
"""The place of the end of text in a distribution over 257 outcomes."""
_CHUNK = 32
_SETTLED, _TAIL = 192, 96


class ByteModel:
    """A causal language model, read byte by byte.

    model: as transformers loads it. tokenizer: `read_tokenizer` of its folder. tolerance: the share of the probability,
    the least likely tokens of it, that is taken as canonical without asking the tokenizer; 0 asks about every token, which
    is slow. window, overlap: a text of more than `window` tokens is read on from its last `overlap` ones.

    Every text begins with the ids that the tokenizer puts first, else with bos, else with eos. eos is the end: that of the
    tokenizer and those of the generation config. Other control tokens are no text, and their probability is left out.
    Raises InputError not-bytewise, UsageError bad-window.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, tolerance: float = 1e-3, window: int = 512, overlap: int = 128
    ) -> None:
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < 2 * window:
            window = max(1, positions // 2)  # one chunk of bytes may go past the window
            overlap = min(overlap, window // 2)
        if not 0 < overlap <= window // 2:  # what is read again is cut anew, perhaps into more tokens
            raise UsageError("bad-window", f"windows of {window} tokens with an overlap of {overlap} do not get on")
        self.model, self.tokenizer, self.tolerance, self.window, self.overlap = (
            model,
            tokenizer,
            tolerance,
            window,
            overlap,
        )
        self.canonical = Canonical(tokenizer)
        vocabulary = tokenizer.vocabulary
        roles = vocabulary.roles
        self.start = [*tokenizer.leading] or [roles[role] for role in ("bos", "eos") if role in roles][:1]
        if not self.start:
            raise InputError(
                "not-bytewise",
                "this tokenizer has no token that a text could begin with: it needs bos or eos",
                tokenizer=tokenizer.path,
            )
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self.ends = sorted({token for token in [*ends, roles.get("eos")] if token is not None})
        surface, kind = vocabulary.token_bytes, vocabulary.kind
        text = [n for n in np.flatnonzero((kind == Kind.NORMAL) | (kind == Kind.BYTE)).tolist() if surface[n]]
        text.sort(key=surface.__getitem__)
        self.order = np.array(text, np.int64)
        """The text tokens by their bytes, so that those with a common beginning are neighbours."""
        self.sorted = [surface[n] for n in text]
        self._flat = np.frombuffer(b"".join(self.sorted) + b"\0", np.uint8)
        self._lengths = np.array([len(one) for one in self.sorted])
        self._begins = np.array(list(accumulate((len(one) for one in self.sorted), initial=0)))[:-1]

    def range(self, begin: bytes) -> tuple[int, int]:
        """Return the places in `order` of the tokens that begin with these bytes and are longer."""
        low = bisect_right(self.sorted, begin)
        after = begin.rstrip(b"\xff")
        high = bisect_left(self.sorted, after[:-1] + bytes([after[-1] + 1]), low) if after else len(self.sorted)
        return low, high

    def next_bytes(self, low: int, high: int, depth: int) -> np.ndarray:
        """Return uint8[high - low], the byte at a depth of each token in a range; all must be longer."""
        found: np.ndarray = self._flat[self._begins[low:high] + depth]
        return found

    @cached_property
    def prefix(self) -> bytes:
        """What the tokenizer puts before a text as if it were text: a space, or nothing."""
        ids = self.tokenizer.encode("a")
        spelt = b"".join(self.tokenizer.vocabulary.token_bytes[token] for token in ids)
        return spelt[:-1] if spelt.endswith(b"a") and not spelt[:-1].strip(b" ") else b""

    def read(self, text: bytes = b"") -> Reader:
        """Return a reader that has read a beginning of a text."""
        reader = Reader(self)
        reader.advance(text, wanted=False)
        return reader


@dataclass
class _Cover:
    """The tokens that may begin at one boundary and go past what has been read.

    at: the boundary, in bytes. node: where the context c ends in the tree. log: log P(c). last: its last token. rest: the
    beginning of a character that it ends with. probabilities: float32[T] by place in `order`; 0 for tokens known not to be
    canonical here. asked: bool[T]. end: P(eos | c). low, high: the places of the tokens that spell what has been read since.
    """

    at: int
    node: int
    log: float
    last: int | None
    rest: bytes
    probabilities: np.ndarray
    asked: np.ndarray
    end: float
    low: int
    high: int


class Reader:
    """A text that a `ByteModel` has read, and what it expects after it.

    `distribution()` is float64[257]: the probability of each byte, and last of the end. `advance` reads more.
    """

    _data: bytes
    """What has been read in this window."""
    _settled: list[int]
    _length: int
    """The first tokens, which are not cut again, and their bytes."""
    _known: np.ndarray | None
    _nodes: dict[tuple[int, int], int]
    """(node, token) -> the node under it."""
    _after: dict[int, np.ndarray]
    """Node -> the log probabilities after it, as long as they may be needed."""
    _logs: dict[int, float]
    """Node -> the log probability of its path."""
    _covers: list[_Cover]

    def __init__(self, model: ByteModel) -> None:
        self.model = model
        self._tree = Tree(model.model, model.start)
        self._begin(b"")

    def distribution(self) -> np.ndarray:
        """Return float64[257]: the probability of each next byte, and of the end; 0 where UTF-8 allows no such byte."""
        if self._known is None:
            self._known = self._distribution()
        return self._known

    def advance(self, data: bytes, *, wanted: bool = True) -> np.ndarray:
        """Read bytes; returns float64[len(data), 257], what was expected before each of them ([0, 257] if not wanted).

        Raises InputError bad-text where the bytes cannot go on as UTF-8.
        """
        found = []
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            if max(self._tree.depth) - len(self.model.start) >= self.model.window:
                self._restart()
            contexts = self._contexts(chunk)
            for n in range(len(chunk)):
                if wanted:
                    found.append(self.distribution())
                self._step(chunk[n], contexts[n])
            live = {cover.node for cover in self._covers}
            self._after = {node: after for node, after in self._after.items() if node in live}
            if len(self._tree) > 2 * max(self._tree.depth) + 4 * _CHUNK:
                self._prune()
        return np.array(found).reshape(-1, 257)

    def _begin(self, data: bytes) -> None:
        """Start anew with some bytes, which are read and not predicted; the model's own prefix comes before the first text."""
        self._data = b""
        self._settled = []
        self._length = 0
        self._known = None
        self._nodes = {}
        self._after = {}
        self._covers = []
        after = self._tree.reset()
        self._after[self._tree.root] = after
        self._logs = {self._tree.root: 0.0}
        self._add_cover(0, self._tree.root, None, b"")
        self.advance(data or self.model.prefix, wanted=False)

    def _restart(self) -> None:
        """Read on from the last tokens of a text that has grown too long, beginning with a whole character."""
        rest = self._rest()
        whole = self._data[: len(self._data) - len(rest)]
        found = self._encodings(whole)
        surface = self.model.canonical.token_bytes
        size = sum(len(surface[token]) for token in found[0][-self.model.overlap :]) if found else self.model.overlap
        self._begin(whole[-size:].lstrip(bytes(range(0x80, 0xC0))) + rest)

    def _contexts(self, chunk: bytes) -> list[list[tuple[int, int | None]]]:
        """Have the model read the encodings of every beginning that the chunk adds; returns (node, last token) of each."""
        wanted: list[list[list[int]]] = []
        for n in range(1, len(chunk) + 1):
            data = self._data + chunk[:n]
            if (
                utf8.split(data[max(0, self._length - 4) :] if self._length else data) is None
                and utf8.split(data) is None
            ):
                raise InputError("bad-text", f"these bytes are no UTF-8 text: {data[-8:]!r}")
            wanted.append(self._encodings(data))
        parents: list[int] = []
        tokens: list[int] = []
        first = len(self._tree)
        paths = []
        for encodings in wanted:
            ends = []
            for ids in encodings:
                node = self._tree.root
                for token in ids:
                    key = (node, token)
                    if key not in self._nodes:
                        self._nodes[key] = first + len(tokens)
                        parents.append(node)
                        tokens.append(token)
                    node = self._nodes[key]
                ends.append((node, ids[-1] if ids else None))
            paths.append(ends)
        if tokens:
            after = self._tree.extend(parents, tokens)
            for n, (parent, token) in enumerate(zip(parents, tokens, strict=True)):
                self._after[first + n] = after[n]
                self._logs[first + n] = self._logs[parent] + float(self._expected(parent)[token])
        return paths

    def _expected(self, node: int) -> np.ndarray:
        """The log probabilities after a node; read again where they are no longer known."""
        if node not in self._after:
            self._after[node] = self._tree.extend([self._tree.parent[node]], [self._tree.token[node]])[0]
        found: np.ndarray = self._after[node]
        return found

    def _encodings(self, data: bytes) -> list[list[int]]:
        """The encodings of all bytes of this window, of which only the last ones are cut again.

        The pair at the seam must be canonical, so that the whole is.
        """
        canonical = self.model.canonical
        if len(data) - self._length > _SETTLED:
            self._settle(data)
        found = canonical.encodings(data[self._length :])
        if self._settled:
            last = self._settled[-1]
            seams = np.array([ids[0] for ids in found if ids], np.int64)
            if not canonical.may_follow(last, b"", seams).all():
                self._settled, self._length = [], 0
                return canonical.encodings(data)
        return [[*self._settled, *ids] for ids in found]

    def _settle(self, data: bytes) -> None:
        whole = utf8.split(data[self._length :])
        found = self.model.canonical.encodings(whole[0]) if whole else []
        if not found:
            return
        at = self._length
        for token in found[0]:
            size = len(self.model.canonical.token_bytes[token])
            if at + size > len(data) - _TAIL:
                break
            self._settled.append(token)
            at += size
        while self._settled and utf8.split(data[:at]) is not None and utf8.split(data[:at])[1]:  # type: ignore[index]
            at -= len(self.model.canonical.token_bytes[self._settled.pop()])  # not inside a character
        self._length = at

    def _add_cover(self, at: int, node: int, last: int | None, rest: bytes) -> None:
        logs = self._expected(node)
        probabilities = np.exp(logs)
        self._covers.append(
            _Cover(
                at,
                node,
                self._logs[node],
                last,
                rest,
                probabilities[self.model.order],
                np.zeros(len(self.model.order), bool),
                float(probabilities[self.model.ends].sum()),
                0,
                len(self.model.order),
            )
        )

    def _step(self, byte: int, contexts: Sequence[tuple[int, int | None]]) -> None:
        """Take one byte into what has been read."""
        self._data += bytes([byte])
        self._known = None
        size = len(self._data)
        kept = []
        for cover in self._covers:
            cover.low, cover.high = self.model.range(self._data[cover.at : size])
            if cover.low < cover.high:
                kept.append(cover)
        self._covers = kept
        rest = self._rest()
        for node, last in contexts:
            self._add_cover(size, node, last, rest)

    def _prune(self) -> None:
        """Forget the nodes that no cover comes from."""
        live = {cover.node for cover in self._covers}
        new_of = self._tree.keep(sorted(live))
        self._nodes = {
            (new_of[parent], token): new_of[node]
            for (parent, token), node in self._nodes.items()
            if parent in new_of and node in new_of
        }
        self._after = {new_of[node]: after for node, after in self._after.items() if node in new_of}
        self._logs = {new_of[node]: log for node, log in self._logs.items() if node in new_of}
        for cover in self._covers:
            cover.node = new_of[cover.node]

    def _distribution(self) -> np.ndarray:
        """Add up the covers of what has been read, byte by byte."""
        size = len(self._data)
        top = max((cover.log for cover in self._covers), default=0.0)
        scales = [float(np.exp(cover.log - top)) for cover in self._covers]
        self._ask(scales)
        weights = np.zeros(257)
        for cover, scale in zip(self._covers, scales, strict=True):
            depth = size - cover.at
            values = self.model.next_bytes(cover.low, cover.high, depth)
            weights[:256] += scale * np.bincount(values, cover.probabilities[cover.low : cover.high], 256)
            weights[END] += 0.0 if depth else scale * cover.end
        rest = self._rest()
        weights *= utf8.may_follow(rest)
        total = weights.sum()
        if not total > 0:  # nothing in the vocabulary spells what has been read
            weights = utf8.may_follow(rest).astype(np.float64)
            total = weights.sum()
        found: np.ndarray = weights / total
        return found

    def _rest(self) -> bytes:
        """The beginning of a character that the text ends with."""
        for n in (1, 2, 3):
            parts = utf8.split(self._data[-n:])
            if parts is not None and parts[1] and len(parts[0]) == 0:
                return parts[1]
        return b""

    def _ask(self, scales: Iterable[float]) -> None:
        """Set the probability of tokens that are not canonical to 0, the likeliest first, down to the tolerance."""
        tolerance = self.model.tolerance
        masses, owners = [], []
        for n, (cover, scale) in enumerate(zip(self._covers, scales, strict=True)):
            masses.append(scale * cover.probabilities[cover.low : cover.high].astype(np.float64))
            owners.append(np.full(cover.high - cover.low, n))
        if not masses:
            return
        mass, owner = np.concatenate(masses), np.concatenate(owners)
        place = np.concatenate([np.arange(cover.low, cover.high) for cover in self._covers])
        asked = np.concatenate([cover.asked[cover.low : cover.high] for cover in self._covers])
        limit = tolerance * float(mass.sum())
        count = min(512, len(mass))
        while True:
            best = np.argpartition(-mass, count - 1)[:count] if count < len(mass) else np.arange(len(mass))
            if count == len(mass) or float(mass.sum() - mass[best].sum()) <= limit:
                break
            count = min(4 * count, len(mass))
        best = best[np.argsort(-mass[best], kind="stable")]
        beyond = float(mass.sum() - mass[best].sum())
        left = beyond + np.cumsum(mass[best][::-1])[::-1] - mass[best]  # what lies after each
        needed = best if tolerance == 0 else best[: 1 + int(np.searchsorted(-left, -limit))]
        needed = needed[~asked[needed]]
        for n in np.unique(owner[needed]).tolist():
            cover = self._covers[n]
            places = place[needed[owner[needed] == n]]
            fine = self.model.canonical.may_follow(cover.last, cover.rest, self.model.order[places])
            cover.probabilities[places[~fine]] = 0.0
            cover.asked[places] = True
