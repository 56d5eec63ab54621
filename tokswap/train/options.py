"""The options of a tokenizer that is trained on a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.errors import UsageError
from tokswap.options.declare import Options, option, seed_option
from tokswap.options.groups import MOST_IDS, FieldOptions, TrustOptions


@dataclass(frozen=True, kw_only=True)
class TrainTextOptions(FieldOptions):
    """Which text to measure on, and how text is read."""

    held_out: Sequence[str] = option(
        (),
        "Text to measure on; repeat for more. [default: a twentieth of the corpus, which is then not trained on]",
        metavar="FILE",
        complete="files",
    )


@dataclass(frozen=True, kw_only=True)
class TrainSizeOptions(Options):
    """How many tokens."""

    size: int | None = option(
        None,
        "How many ids the tokenizer has, special tokens included.",
        metavar="N",
        least=1,
        most=MOST_IDS,
        code="bad-size",
    )
    sizes: Sequence[str | int] = option(
        (),
        "Measure tokenizers of these sizes too, and print a table: 4000,8000,16000.",
        flag="--size-sweep",
        metavar="N,N",
        kind="codes",
    )

    def all_sizes(self) -> tuple[int, ...]:
        """Return every size to train, ascending.

        Raises:
            UsageError: bad-size.
        """
        wrong = [text for text in self.sizes if not str(text).isdecimal() or not 1 <= int(text) <= MOST_IDS]
        if wrong:
            raise UsageError(
                "bad-size", f"--size-sweep takes numbers of ids, not {wrong[0]!r}", "write 4000,8000,16000"
            )
        found = {int(text) for text in self.sizes} | ({self.size} if self.size is not None else set())
        if not found:
            raise UsageError(
                "bad-size", "--size is missing: it says how many ids the tokenizer has", "add --size 32000"
            )
        return tuple(sorted(found))


@dataclass(frozen=True, kw_only=True)
class TrainKindOptions(Options):
    """What kind of tokens."""

    like: str | Path | None = option(
        None,
        "Tokenizer or model whose family, pre-tokenizer, normalizer, special tokens and chat template to take over.",
        metavar="M",
        complete="models",
    )
    family: str = option(
        "bpe",
        "Without --like: `bpe` (byte-level) or `unigram` (with byte fallback).",
        choices=("bpe", "unigram"),
        code="bad-family",
    )
    superwords: bool = option(False, "Train tokens that cross spaces, after tokens within words (SuperBPE).")
    supertokens: bool = option(False, "Train on random pieces of 4 to 23 characters instead of words (TokenAdapt).")
    binary: bool = option(False, "Read files as bytes, whether they are UTF-8 or not (Binary BPE).")
    word_share: float = option(
        0.8,
        "With --superwords: share of the ids that is trained within words.",
        metavar="SHARE",
        least=0.05,
        most=0.99,
        code="bad-share",
        needs="superwords",
    )
    seed: int = seed_option("Seed of the random pieces of --supertokens.", needs="supertokens")

    def check_kind(self) -> None:
        """Check that the options name one kind of tokens.

        Raises:
            UsageError: two-kinds, idle-option.
        """
        if self.like is not None and self.family != "bpe":
            message = "--family has no effect with --like, whose family the tokenizer has"
            raise UsageError("idle-option", message, "leave out one of the two")
        named = [flag for flag in ("superwords", "supertokens", "binary") if getattr(self, flag)]
        if len(named) > 1:
            raise UsageError("two-kinds", f"--{named[0]} and --{named[1]} train different tokens", "choose one of them")
        if named and self.like is None and self.family != "bpe":
            raise UsageError("two-kinds", f"--{named[0]} trains BPE, not {self.family}", "leave out --family")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainTextOptions, TrainSizeOptions, TrainKindOptions, TrustOptions):
    """Everything that a user can set for a trained tokenizer."""

    out: str | Path | None = option(None, "Output folder.", metavar="DIR", recorded=False)
    force: bool = option(False, "Replace an existing folder.", recorded=False)
    progress: bool = option(False, "Say which stage is running.", flag="", recorded=False)

    def check_kind(self) -> None:
        """Check that the options name one kind of tokens, and text that it reads.

        Raises:
            UsageError: two-kinds, idle-option.
        """
        super().check_kind()
        if self.binary and self.field != FieldOptions.field:
            message = "--field has no effect with --binary, which reads files as bytes"
            raise UsageError("idle-option", message, "leave out one of the two")

    def check_result(self) -> None:
        """Check that the options say what to write, and where.

        Raises:
            UsageError: bad-size, missing-out.
        """
        if self.size is None:
            raise UsageError(
                "bad-size", "--size is missing: it says which tokenizer to write", "add --size, or --dry-run"
            )
        if self.out is None:
            raise UsageError(
                "missing-out", "--out is missing: it says where to write the tokenizer", "add --out, or --dry-run"
            )
