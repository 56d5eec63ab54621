"""What a run will do: plain data, known before a weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from tokswap.checkpoint.edit import MatrixEdit
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Names:
    """What the user named, as it was typed, and where the result goes."""

    model: str
    tokenizer: str
    donor: str | None
    out: str


@dataclass(frozen=True)
class Request:
    """The method and options of a run.

    Attributes:
        method: Name of the method; "" for a trim.
        settings: Its settings.
        output_method: Another method for lm_head, None for the same.
        output_settings: Settings of that one.
        options: All other options that decide the result.
    """

    method: str
    settings: Mapping[str, object]
    output_method: str | None = None
    output_settings: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class VocabularyChange:
    """The tokenizer families before and after, and what else changes about the vocabulary.

    Attributes:
        family_before: Family of the source tokenizer.
        family_after: Family of the target tokenizer.
        bos_added: Whether the target tokenizer is made to begin texts with bos.
        tied: Whether input embeddings and lm_head are one matrix in the result.
    """

    family_before: str
    family_after: str
    bos_added: bool
    tied: bool


@dataclass(frozen=True)
class MatrixPlan:
    """One vocabulary matrix before and after; a shape is None where the matrix does not exist."""

    names: tuple[str, ...]
    role: str
    dtype: str
    shape_before: tuple[int, ...] | None
    shape_after: tuple[int, ...] | None


@dataclass(frozen=True)
class Sizes:
    """Parameters and bytes of the weights before and after; bytes_written counts new bytes on disk."""

    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    bytes_written: int


@dataclass(frozen=True)
class Estimate:
    """About how much memory (bytes) and time (seconds) a run takes."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class TrimFacts:
    """What a trim counted.

    Attributes:
        corpora: Facts about each corpus, as plain dataclasses.
        least: Rows that no choice of tokens could do without.
    """

    corpora: tuple[Any, ...]
    least: int


@dataclass(frozen=True)
class Saving:
    """What the first new tokens of an extension save.

    Attributes:
        tokens: Number of new tokens.
        used: Share of the tokens that they save on the text that they were chosen by.
        held_out: The same on held-out text.
        per_thousand: What the last of these tokens save of the held-out text, for each thousand of them.
    """

    tokens: int
    used: float
    held_out: float
    per_thousand: float


@dataclass(frozen=True)
class ExtendFacts:
    """What an extension adds.

    Attributes:
        added: Id, token and the tokens whose place it takes, for each new token.
        intermediate: How many of them only lie on the way to others.
        skipped: Term -> why it is not added.
        dropped: How many old tokens make room.
        text_bytes: Bytes of the text that tokens were chosen by, and of the held-out text; 0 without a corpus.
        saving: What the new tokens save, by their number.
        cost: Share of the compute for a token that a thousand new rows add.
        pays: The number of new tokens up to which they save more compute than they cost; None without a corpus.
    """

    added: tuple[tuple[int, str, tuple[str, ...]], ...]
    intermediate: int
    skipped: Mapping[str, str]
    dropped: int = 0
    text_bytes: tuple[int, int] = (0, 0)
    saving: tuple[Saving, ...] = ()
    cost: float = 0.0
    pays: int | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, known before a weight is read. `--dry-run` prints it.

    Attributes:
        operation: transplant, trim, extend or draft.
        names: What the user named.
        request: Method and options.
        change: Tokenizer families, bos and tying.
        coverage: Reason -> rows of the result.
        matrices: Every vocabulary matrix before and after.
        sizes: Parameters and bytes.
        estimate: Memory and time.
        notes: What the user should know before it runs.
        counted: What a trim counted, or what an extension adds; None for other operations.
    """

    operation: str
    names: Names
    request: Request
    change: VocabularyChange
    coverage: Mapping[str, int]
    matrices: tuple[MatrixPlan, ...]
    sizes: Sizes
    estimate: Estimate
    notes: tuple[str, ...] = ()
    counted: TrimFacts | ExtendFacts | None = None

    def __post_init__(self) -> None:
        """Say every note once: config.json and generation_config.json name the same tokens."""
        object.__setattr__(self, "notes", tuple(dict.fromkeys(self.notes)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, flat."""
        return {
            "operation": self.operation,
            **asdict(self.names),
            **asdict(self.request),
            **asdict(self.change),
            **asdict(self.sizes),
            **asdict(self.estimate),
            **(asdict(self.counted) if self.counted else {}),
            "coverage": dict(self.coverage),
            "tables": [asdict(matrix) for matrix in self.matrices],
            "notes": self.notes,
        }


def matrix_plans(source: Checkpoint, edits: Sequence[MatrixEdit]) -> tuple[MatrixPlan, ...]:
    """Return what becomes of each matrix; those that the result does not have come last."""
    written = {name for edit in edits for name in edit.names}
    dropped = [matrix for matrix in source.matrices if not written.intersection(matrix.names)]
    return (
        *(
            MatrixPlan(
                names=edit.names,
                role=edit.matrix.role,
                dtype=edit.matrix.dtype,
                shape_before=edit.matrix.shape if edit.name in source.tensors else None,
                shape_after=edit.shape,
            )
            for edit in edits
        ),
        *(
            MatrixPlan(names=m.names, role=m.role, dtype=m.dtype, shape_before=m.shape, shape_after=None)
            for m in dropped
        ),
    )


def sizes_of(source: Checkpoint, layout: Layout, link: bool) -> Sizes:
    """Return the sizes of a result. link: whether untouched weight files are hard-linked."""
    return Sizes(
        parameters_before=sum(prod(info.shape) for info in source.tensors.values()),
        parameters_after=layout.parameters,
        bytes_before=source.nbytes,
        bytes_after=layout.nbytes,
        bytes_written=layout.written(link),
    )
