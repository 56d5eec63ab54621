"""Groups of options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokswap.options.declare import Options, option, seed_option

MOST_IDS = 1 << 24
"""An upper bound: no vocabulary has so many ids."""
WORK_BYTES = 256 << 20
"""Default working memory of a method, in bytes."""


@dataclass(frozen=True, kw_only=True)
class TrustOptions(Options):
    """Whether code that comes with a model may run."""

    trust_remote_code: bool = option(
        False, "Let Python code that comes with the model run, and copy it to the result.", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class FieldOptions(Options):
    """Where text is in files of records."""

    field: str = option("text", "Name of the text field in JSON lines and parquet files.", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class PaddingOptions(Options):
    """How many rows the result has beyond its tokens."""

    pad_to_multiple: int | None = option(
        None,
        "Round the number of rows up to a multiple of N.",
        metavar="N",
        least=1,
        most=MOST_IDS,
        code="bad-vocab-size",
    )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where torch computes."""

    device: str = option("cpu", "Device for torch: cpu, cuda, mps, ...")
    progress: bool = option(False, "Show progress bars.", flag="", recorded=False)


@dataclass(frozen=True, kw_only=True)
class WritingOptions(Options):
    """How a prompt is continued."""

    tokens: int = option(64, "Tokens to write at most.", least=1, metavar="N")
    sample: bool = option(False, "Sample tokens instead of taking the most likely ones.")
    temperature: float | None = option(
        None, "Sample at this temperature. [default: 1 with --sample]", metavar="T", code="bad-temperature"
    )
    seed: int = seed_option("Seed of the sampling.", needs="sample or temperature")

    @property
    def drawn_at(self) -> float | None:
        """The temperature to sample at, None for the most likely tokens."""
        if self.temperature is None:
            return 1.0 if self.sample else None
        return float(self.temperature)  # transformers refuses whole numbers


@dataclass(frozen=True, kw_only=True)
class BackendOptions(Options):
    """Where work that splits into parts is done."""

    backend: str = option(
        "local",
        "Where to count corpora and compute `omp`: this process, or a Ray cluster (the one in RAY_ADDRESS, one that "
        "runs on this machine, or a new one).",
        choices=("local", "ray"),
        code="unknown-engine",
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(BackendOptions, DeviceOptions):
    """How new rows are computed."""

    seed: int = seed_option("Seed of methods that draw random numbers.")
    memory: int = option(
        WORK_BYTES,
        "Working memory for the method, excluding embedding matrices. More is faster.",
        kind="size",
        metavar="SIZE",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class InitOptions(Options):
    """Which method computes new rows."""

    init: str = option(
        "auto",
        "Method for new rows (see `tokswap methods`), or a weighted sum of methods.",
        metavar="METHOD",
        complete="methods",
        recorded=False,
    )
    settings: Mapping[str, object] = option(
        {},
        "Setting of the method; repeat for more.",
        flag="--set",
        kind="pairs",
        metavar="KEY=VALUE",
        complete="settings",
        recorded=False,
    )
    output_init: str | None = option(
        None,
        "Method for lm_head, where it is a matrix of its own. [default: as --init]",
        flag="--init-output",
        metavar="METHOD",
        complete="methods",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class LentOptions(Options):
    """What new rows are computed from besides the source model."""

    donor: str | Path | None = option(
        None,
        "Model that owns the new tokenizer and lends its embeddings, or `none`. [default: the tokenizer's own model]",
        metavar="MODEL",
        complete="models",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class MethodOptions(InitOptions, LentOptions):
    """How new rows are computed where another model owns the tokenizer."""


GGUF_TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
"""Types that the matrices of a GGUF file can have; `auto` is that of the input embeddings."""


@dataclass(frozen=True, kw_only=True)
class GgufOptions(Options):
    """Whether the result is written for llama.cpp too."""

    gguf: str | Path | None = option(
        None, "Write the result as this GGUF file too, for llama.cpp.", metavar="FILE", recorded=False
    )
    gguf_type: str = option(
        "auto",
        "Type of the matrices in the GGUF file: auto (that of the checkpoint), f32, f16, bf16 or q8_0.",
        metavar="TYPE",
        choices=GGUF_TYPES,
        code="bad-gguf-type",
        needs="gguf",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class WriteOptions(Options):
    """Where and how the result is written."""

    out: str | Path | None = option(
        None, "Output folder. [default: named after the inputs]", metavar="DIR", recorded=False
    )
    link: bool = option(False, "Hard-link weight files that do not change instead of copying them.")
    force: bool = option(False, "Replace an existing model folder.", recorded=False)
