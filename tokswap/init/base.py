"""What a method is, what it is given and what it returns. No files, no command line.

A method is a frozen dataclass in a file of its own under `init/methods`, derived from `Initializer`. Its fields are its
hyperparameters, each declared with `option`; `--set`, `tokswap methods`, the docs and the Report read them from there.
To add one, write the file, add a line to `init.registry.METHODS` and a row to tests/test_methods.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from tokswap.checkpoint.embeddings import EmbeddingSpace, NewRows
from tokswap.distributed import LOCAL, Backend
from tokswap.init.resources.protocol import Resources
from tokswap.options.groups import WORK_BYTES
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

DonorUse = Literal["none", "optional", "required"]
"""Whether a method reads the donor's embeddings: never, where there is a donor, or always."""


@dataclass(frozen=True)
class Pieces:
    """The source tokens that spell each missing token: those of token m are ids[start[m]:start[m + 1]].

    Attributes:
        tokenize: Returns one list of source ids per token. It is called when the pieces are first needed, because
            tokenizing takes time and some methods never ask. A token that the source cannot spell has no pieces.
    """

    tokenize: Callable[[], list[list[int]]]

    @classmethod
    def from_lists(cls, lists: list[list[int]]) -> Pieces:
        """Pack one list of ids per token."""
        return cls(lambda: lists)

    @cached_property
    def _packed(self) -> tuple[np.ndarray, np.ndarray]:
        lists = self.tokenize()
        lengths = np.array([len(ids) for ids in lists], np.int64)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return start, np.array([token for ids in lists for token in ids], np.int64)

    @property
    def start(self) -> np.ndarray:
        """Where each token's ids begin, and the end of all, int64 [M + 1]."""
        return self._packed[0]

    @property
    def ids(self) -> np.ndarray:
        """All ids, one token's after the other's, int64 [P]."""
        return self._packed[1]

    def __getitem__(self, tokens: np.ndarray) -> Pieces:
        """Return the pieces of some of the tokens, int64 [n], in their order."""
        return Pieces(
            lambda: [self.ids[self.start[n] : self.start[n + 1]].tolist() for n in np.asarray(tokens).tolist()]
        )


class MergePairs(Protocol):
    """The merge pair of each token: an array, or an object that finds the pairs on demand."""

    def __getitem__(self, ids: np.ndarray, /) -> np.ndarray:
        """Return the two tokens that are merged into each token, int32 [n, 2] for source ids [n]; -1 for no pair."""
        ...


class SupportsEncode(Protocol):
    """What a method may ask of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        ...

    def tokenize_bytes(self, token_bytes: Sequence[bytes]) -> list[list[int]]:
        """Tokenize each byte string as it would be tokenized inside a text."""
        ...


@dataclass(frozen=True)
class Tokenizers:
    """Both tokenizers, for methods that read words or texts.

    Attributes:
        source: Tokenizer of the source model.
        target: The target tokenizer.
        merge_pairs: By source id, the two tokens that the source tokenizer merges into it. They show how the row of a
            shared token follows from the rows of its parts.
    """

    source: SupportsEncode
    target: SupportsEncode
    merge_pairs: MergePairs


@dataclass(frozen=True)
class Context:
    """How a method does its work.

    Attributes:
        seed: For methods that draw random numbers.
        device: Where torch computes.
        memory: Bytes that a method may use besides the embedding matrices.
        progress: Whether to show a progress bar.
        backend: Where work that splits into parts is done.
        resources: What the method needs from disk.
        cache: Shared by all problems of a run, for work that does not depend on the source rows. A key holds what the
            work depends on: the method's name, the method, and the donor's `name`.
    """

    seed: int = 0
    device: str = "cpu"
    memory: int = WORK_BYTES
    progress: bool = False
    backend: Backend = LOCAL
    resources: Resources | None = None
    cache: dict[object, Any] = field(default_factory=dict)

    def bar(self, total: int, title: str) -> Any:
        """Return a tqdm bar that counts tokens; it shows nothing without `progress` or a terminal."""
        from tqdm.auto import tqdm

        return tqdm(total=total, desc=title, unit=" tokens", disable=None if self.progress else True)


@dataclass(frozen=True)
class MatrixUse:
    """What the rows of a matrix are for.

    Attributes:
        role: "input", "output" or "per-layer".
        scores: Whether the rows score tokens: those of lm_head, or of input embeddings that are tied to it.
    """

    role: str = "input"
    scores: bool = False


@dataclass(frozen=True)
class Problem:
    """Everything that a method may look at.

    Attributes:
        source: Rows of one matrix of the source model, float32 [V, D] on demand.
        donor: Rows of the donor's matrix of the same role, None without a donor.
        target: The target vocabulary.
        alignment: Which source id each target id takes its row from.
        missing: Target ids whose rows are to be computed, int64 [M].
        pieces: The source tokens that spell each missing token.
        matrix: What the rows are for.
        tokenizers: Both tokenizers, None in tests of methods that do not need them.
        spaces: Rows of all matrices of the source by role, for a method that reads several to compute one.
        context: Seed, device, memory and resources.
    """

    source: EmbeddingSpace
    donor: EmbeddingSpace | None
    target: Vocabulary
    alignment: Alignment
    missing: np.ndarray
    pieces: Pieces
    matrix: MatrixUse = field(default_factory=MatrixUse)
    tokenizers: Tokenizers | None = None
    spaces: Mapping[str, EmbeddingSpace] = field(default_factory=dict)
    context: Context = field(default_factory=Context)

    @cached_property
    def anchors(self) -> np.ndarray:
        """Target ids of the shared tokens that may serve as dictionary atoms or training pairs, int64 [N].

        Special and reserved tokens are never anchors, nor are byte-fallback tokens, nor tokens whose row is zero or
        non-finite on either side.
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

    def merge_pairs(self, anchors: np.ndarray) -> np.ndarray:
        """Return the merge pairs of shared tokens as source ids, int [n, 2], of target ids [n]; -1 for no pair."""
        if self.tokenizers is None:
            return np.full((len(anchors), 2), -1, np.int32)
        return self.tokenizers.merge_pairs[self.alignment.source_of[anchors]]

    @cached_property
    def trained(self) -> np.ndarray:
        """Source ids that the model has learnt: all but reserved and unreachable tokens and padding rows, int64."""
        vocabulary = self.source.vocabulary
        return np.flatnonzero((vocabulary.kind != Kind.UNUSED) & ~vocabulary.unreachable)

    @cached_property
    def source_mean(self) -> np.ndarray:
        """Mean row of the trained source tokens, float32 [D]."""
        return self.source.mean(self.trained)


def _usable(norms: np.ndarray) -> np.ndarray:
    """Rows that are finite and not (nearly) zero; an untrained zero row has no direction to select by."""
    finite = np.isfinite(norms)
    typical = float(np.median(norms[finite])) if finite.any() else 0.0
    return np.asarray(finite & (norms > 1e-3 * typical))


@dataclass(frozen=True)
class Rows:
    """What a method returns.

    Attributes:
        made: float32 [M, D], in the order of `problem.missing`: an array, or `MadeRows`, which makes blocks of them as
            they are written. A method that holds an array holds a whole matrix in float32.
        diagnostics: Name -> one number per missing token, float [M], such as a residual. They go into the Report.
        evidence: Plain data that says why a method chose what it did. It goes into the Report.
        notes: Sentences for the user, such as what the method fell back to and for how many tokens.
    """

    made: NewRows
    diagnostics: Mapping[str, np.ndarray] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> np.ndarray:
        """All rows, float32 [M, D], in memory."""
        return self.made[: len(self.made)]


@dataclass(frozen=True)
class BaseModel:
    """The source model, for `Initializer.check`.

    Attributes:
        vocabulary: Vocabulary of the source model.
        width: Elements of a row of the input embeddings.
        rows: Rows of the input embeddings, padding rows included.
        tied: Whether the input embeddings are also lm_head; None for a model without one.
    """

    vocabulary: Vocabulary
    width: int
    rows: int
    tied: bool | None


TOKEN_BYTES = 1400
"""Measured with 250,000 tokens: what a token takes as text, bytes, parsed JSON and in the tokenizers library."""


@dataclass(frozen=True)
class Sizes:
    """What the memory of a method depends on.

    Attributes:
        vocabulary: V, the source tokens.
        missing: M, the rows to make.
        anchors: N, the shared tokens.
        width: D, the elements of a row.
        donor_width: D', those of a donor row; 0 without a donor.
        tied: Whether the model has no lm_head of its own.
        work: `Context.memory`.
        resources: `Context.resources`.
    """

    vocabulary: int
    missing: int
    anchors: int
    width: int
    donor_width: int
    tied: bool
    work: int
    resources: Resources | None = None


@dataclass(frozen=True)
class Initializer(ABC):
    """A method. Each subclass is a frozen dataclass whose fields are the method's hyperparameters."""

    summary: ClassVar[str]
    """One line for `tokswap methods`."""
    reference: ClassVar[str]
    """The paper or project that the method is from."""
    needs: ClassVar[str] = ""
    """What it needs besides both vocabularies and the source rows, where `donor_use` does not say it all."""

    @abstractmethod
    def __call__(self, problem: Problem) -> Rows:
        """Compute the rows of the missing tokens."""

    @abstractmethod
    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Return about how many floating-point operations a matrix costs, for the plan's estimate."""

    def held(self, sizes: Sizes) -> int:
        """Return about how many bytes a matrix takes besides blocks of its rows, for the plan's estimate."""
        return 0

    def donor_use(self) -> DonorUse:
        """Say whether the method reads the donor's embeddings."""
        return "none"

    def copies_shared(self) -> bool:
        """Say whether the rows of shared tokens are copied; else the method computes them too."""
        return True

    def check(self, base: BaseModel, resources: Resources) -> None:  # noqa: B027, most methods have nothing to check
        """Check settings and files before a weight is read.

        Raises:
            UsageError, InputError: where a setting cannot work or a file does not fit the model.
        """
