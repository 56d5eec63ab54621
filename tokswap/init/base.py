"""Embedding initialisers: each makes rows for the tokens that the source model lacks. No files, no command line.

A method is a frozen dataclass in a file of its own. Its fields are its hyperparameters, each declared with `option`;
`--set`, `tokswap methods`, the docs and the Report read them from there. To add one, write the file, add a line to
METHODS and a row to tests/test_methods.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace
from tokswap.distributed import LOCAL, Backend
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

WORK_BYTES = 256 << 20
"""What a method may take for its work besides the tables, unless the user says otherwise."""


@dataclass(frozen=True)
class Pieces:
    """The source tokens that spell each missing token: those of token m are ids[start[m]:start[m + 1]].

    cut: returns one list of ids a token; called when they are first asked for, since it takes a tokenizer and some
    methods never ask. A token that the source cannot spell at all has none.
    """

    cut: Callable[[], list[list[int]]]

    @classmethod
    def from_lists(cls, lists: list[list[int]]) -> Pieces:
        """Pack one list of ids a token."""
        return cls(lambda: lists)

    @cached_property
    def _packed(self) -> tuple[np.ndarray, np.ndarray]:
        lists = self.cut()
        lengths = np.array([len(ids) for ids in lists], np.int64)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return start, np.array([token for ids in lists for token in ids], np.int64)

    @property
    def start(self) -> np.ndarray:
        """Where each token's ids begin, and the end of all, int64[M + 1]."""
        return self._packed[0]

    @property
    def ids(self) -> np.ndarray:
        """All ids, one token's after the other's, int64."""
        return self._packed[1]

    def __getitem__(self, tokens: np.ndarray) -> Pieces:
        """Return the pieces of some of the tokens, int64[n], in their order."""
        return Pieces(
            lambda: [self.ids[self.start[n] : self.start[n + 1]].tolist() for n in np.asarray(tokens).tolist()]
        )


class MergePairs(Protocol):
    """The two tokens that a tokenizer joins into each of some tokens: an array, or what finds them when it is asked."""

    def __getitem__(self, ids: np.ndarray, /) -> np.ndarray:
        """Return int32[n, 2] for source ids, -1 for a token that is no pair."""
        ...


class SupportsEncode(Protocol):
    """What a method may ask of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        ...

    def tokenize_bytes(self, surfaces: Sequence[bytes]) -> list[list[int]]:
        """Cut each byte string as it would be cut inside a text."""
        ...


@dataclass(frozen=True)
class Problem:
    """Everything a method may look at.

    source: the rows of one source table. donor: the rows of the donor's table of the same role, None without a
    donor. missing: int64[M], the target ids to make. pieces: what spells them in the source. role: "input",
    "output" or "per-layer". device: where torch does the heavy work. memory: bytes a method may take for its work
    besides the rows that it was given. progress: whether to show a bar.
    cache: shared by the problems of one run; a method may keep work here that does not depend on the source rows.
    details: a method may leave float arrays [M] here by name (a residual, say); they go into the Report.
    evidence: a method that chooses may leave plain data here that says why; it goes into the Report.
    scores: whether the rows score tokens: those of an output head, or of an input table that is the head too.
    notes: a method may leave sentences here that a user should read (what it fell back to, and for how many tokens).
    merge_pairs: by source id, int32[n, 2], the two tokens that the source's tokenizer joins into each of its tokens, -1 for none;
    None where that is not known. With them every shared token shows how a row follows from the rows of its parts.
    source_tokenizer, target_tokenizer: for methods that read a text or words; always there in a run.
    spaces: the rows of all the source's tables by role, for a method that reads several to make one.
    backend: where work that splits into parts is done.
    """

    source: EmbeddingSpace
    donor: EmbeddingSpace | None
    target: Vocabulary
    alignment: Alignment
    missing: np.ndarray
    pieces: Pieces
    role: str = "input"
    seed: int = 0
    device: str = "cpu"
    memory: int = WORK_BYTES
    progress: bool = False
    cache: dict[object, Any] = field(default_factory=dict)
    details: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    merge_pairs: MergePairs | None = None
    scores: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    source_tokenizer: SupportsEncode | None = None
    target_tokenizer: SupportsEncode | None = None
    spaces: Mapping[str, EmbeddingSpace] = field(default_factory=dict)
    backend: Backend = LOCAL

    @cached_property
    def anchors(self) -> np.ndarray:
        """Target ids of the shared text pieces, int64[N]: candidates for a dictionary or for training pairs.

        Control and reserved tokens are never anchors, nor are byte-fallback pieces, nor tokens whose row is zero or
        not finite on either side.
        """
        ids = np.flatnonzero((self.alignment.reason == Reason.BYTES)[: len(self.target)])
        ids = ids[self.target.kind[ids] == Kind.NORMAL]
        source_ids = self.alignment.source_of[ids]
        keep = self.source.vocabulary.kind[source_ids] == Kind.NORMAL
        ids, source_ids = ids[keep], source_ids[keep]
        keep = _usable(self.source.norms(source_ids))
        if self.donor is not None:
            keep &= _usable(self.donor.norms(ids))
        return np.asarray(ids[keep])

    @cached_property
    def trained(self) -> np.ndarray:
        """Source ids that the model has learnt: all but reserved and padding rows, int64."""
        return np.flatnonzero(self.source.vocabulary.kind != Kind.UNUSED)

    @cached_property
    def source_mean(self) -> np.ndarray:
        """The mean row of the source's trained tokens, float32[D]: what is known about a token nothing is known of."""
        return self.source.mean(self.trained)


def _usable(norms: np.ndarray) -> np.ndarray:
    """Rows that are finite and not (nearly) zero; an untrained zero row has no direction to select by."""
    finite = np.isfinite(norms)
    typical = float(np.median(norms[finite])) if finite.any() else 0.0
    return np.asarray(finite & (norms > 1e-3 * typical))


class Initializer(Protocol):
    """A method: makes float32[M, D] rows, in the order of `problem.missing`."""

    summary: ClassVar[str]
    """One line for `tokswap methods`."""
    source: ClassVar[str]
    """The paper or project that the method comes from. `needs`, another line of text, says what it needs where that
    is more than `needs_donor` can say."""

    @property
    def needs_donor(self) -> bool:
        """Whether it reads the donor's embeddings; a class attribute, or a property where its settings decide."""
        ...

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        ...

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Return about how many floating-point operations a table costs, for the plan's estimate."""
        ...


def wants_donor(initializer: Initializer) -> bool:
    """Return whether a method reads the donor's embeddings where there are some; most that want them need them."""
    return initializer.needs_donor or bool(getattr(initializer, "wants_donor", False))


@runtime_checkable
class Checked(Protocol):
    """A method with settings that name files: it can tell before the run whether they will do."""

    def check(self) -> None:
        """Raise UsageError or InputError where a setting cannot work."""
        ...


@runtime_checkable
class BaseBound(Protocol):
    """A method that was made for one base model: it can tell before the run whether a model is that one."""

    def check_base(self, base: Vocabulary, width: int, rows: int, tied: bool) -> None:
        """Raise UsageError or InputError where it is not. width, rows, tied: of the model's input table."""
        ...


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a hyperparameter: a dataclass field with its help text, and its range or the words that it may be."""
    return field(default=default, metadata={"help": help, "least": least, "most": most, "choices": choices})
