"""Trains a tokenizer, measures it, and writes it: a folder that `transplant --tokenizer` takes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import OutputError
from tokswap.options.keywords import one_and_keywords
from tokswap.report.clock import Clock
from tokswap.storage.atomic import check_output, workspace
from tokswap.storage.json_files import json_bytes
from tokswap.storage.resolve import output_path
from tokswap.tokenizer.auto import auto_tokenizer, backend_of
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.train.base import Base, base_like, crossing, new_base
from tokswap.train.make import Maker
from tokswap.train.measure import Measured, measure
from tokswap.train.options import TrainOptions
from tokswap.train.text import Text, open_text, sample

REPORT = "tokenizer_training.json"
_SEEN = "the corpus is too short to hold a part of it out: the figures are of the text that was trained on"
_RESERVED = "left out {0:,} reserved slots of the tokenizer that was taken over"


@dataclass(frozen=True)
class TrainJob:
    """A tokenizer that has been trained and measured; from `plan_tokenizer`.

    Attributes:
        tokenizer: The tokenizer of the size that was asked for, None where only sizes are compared.
        figures: The figures of each size, ascending.
        text: What it was trained on.
        options: What the user asked for.
        seconds: How long each step took.
        notes: What the user should know.
    """

    tokenizer: Tokenizer | None
    figures: tuple[Measured, ...]
    text: Text
    options: TrainOptions
    seconds: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def out(self) -> Path | None:
        """The folder of the result."""
        return output_path(self.options.out) if self.options.out is not None else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out) if self.out is not None else None,
            "family": self.tokenizer.family if self.tokenizer is not None else None,
            "corpora": [corpus.name for corpus in self.text.corpora],
            "corpus_bytes": self.text.nbytes,
            "options": self.options.recorded(),
            "sizes": [figures.as_dict() for figures in self.figures],
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }

    def run(self) -> Path:
        """Write the tokenizer and load it again; returns its folder.

        Raises:
            UsageError: bad-size, missing-out, where there is nothing to write or no place for it.
            OutputError: output-exists, disk-full, cannot-write; check-failed where AutoTokenizer does not do what was
                trained. Nothing is written then.
        """
        self.options.check_result()
        assert self.tokenizer is not None
        assert self.out is not None
        with workspace(self.out, self.options.force) as work:
            for name, content in self.tokenizer.output_files().items():
                if isinstance(content, bytes):
                    (work / name).write_bytes(content)
                elif content.is_dir():
                    shutil.copytree(content, work / name)
                else:
                    shutil.copyfile(content, work / name)
            (work / REPORT).write_bytes(json_bytes(self.as_dict()))
            _check_loaded(self.tokenizer, work)
        return self.out


@one_and_keywords(TrainOptions)
def plan_tokenizer(corpora: Sequence[str | Path], options: TrainOptions) -> TrainJob:
    """Train and measure a tokenizer without writing it.

    Args:
        corpora: The text to train on: files, folders or patterns.
        options: See below.

    Returns:
        A job: `job.tokenizer` is the tokenizer, `job.figures` what it does with held-out text, `job.run()` writes it.

    Raises:
        UsageError: bad-size, bad-family, bad-share, two-kinds, idle-option, missing-text, bad-minimum.
        InputError: small-corpus, not-bpe, missing-corpus, empty-corpus, bad-text, and what reading a tokenizer raises.
        OutputError: output-exists, output-is-source.
    """
    return plan_with(corpora, options)


@one_and_keywords(TrainOptions)
def train_tokenizer(corpora: Sequence[str | Path], options: TrainOptions) -> TrainJob:
    """Train a tokenizer on a corpus and write it to a folder.

    Args:
        corpora: The text to train on: files, folders or patterns.
        options: See below. `size` and `out` must be given.

    Returns:
        What was done: `.tokenizer` is the tokenizer, `.figures` what it does with held-out text, `.out` its folder.

    Raises:
        UsageError, InputError: as `plan_tokenizer`, and missing-out.
        OutputError: output-exists, disk-full, cannot-write, check-failed. Nothing is written then.
    """
    options.check_result()
    job = plan_with(corpora, options)
    job.run()
    return job


def plan_with(corpora: Sequence[str | Path], options: TrainOptions) -> TrainJob:
    """Do what `plan_tokenizer` does, with an options object."""
    options.check_kind()
    sizes = options.all_sizes()
    base = _base(options)
    for size in sizes:
        base.room(size)
    if options.out is not None:
        sources = [base.tokenizer.path] if options.like is not None and base.tokenizer.path.is_dir() else []
        check_output(output_path(options.out), sources=sources, needed=0, force=options.force)
    text = open_text(list(map(str, corpora)), options.held_out, field=options.field, binary=options.binary)
    clock = Clock()
    maker = Maker(base, text, options, say=_say(options.progress))
    made = {size: maker.make(size) for size in reversed(sizes)}
    clock.stop("train")
    held_out, trained = text.measured(), sample(text.training())
    notes = [] if held_out else [_SEEN]
    if base.reserved:
        notes.append(_RESERVED.format(base.reserved))
    maker.say("measuring")
    figures = tuple(measure(made[size], held_out or trained, trained, binary=options.binary) for size in sizes)
    clock.stop("measure")
    clock.end()
    tokenizer = made[options.size] if options.size is not None else None
    return TrainJob(tokenizer, figures, text=text, options=options, seconds=clock.seconds, notes=tuple(notes))


def _base(options: TrainOptions) -> Base:
    if options.like is not None:
        base = base_like(options.like, trust_remote_code=options.trust_remote_code)
    else:
        base = new_base(options.family)
    crosses = options.superwords or options.supertokens or options.binary
    return crossing(base, binary=options.binary) if crosses else base


def _say(progress: bool) -> Callable[[str], None]:
    """Return a function that shows the name of a stage on a terminal."""

    def say(stage: str) -> None:
        if progress and sys.stderr.isatty():
            print(f"{stage} ...", file=sys.stderr)

    return say


def _check_loaded(tokenizer: Tokenizer, folder: Path) -> None:
    """Check that AutoTokenizer tokenizes as what was trained. Raises OutputError check-failed."""
    loaded = backend_of(auto_tokenizer(folder), folder)
    wrong = [name for name, text in TEXTS.items() if loaded.encode(text).ids != tokenizer.backend.encode(text).ids]
    if wrong or loaded.get_vocab_size() != len(tokenizer.vocabulary):
        found = f"other ids for {', '.join(wrong)}" if wrong else "another number of ids"
        hint = "please report this, with the command; nothing was left of the result"
        raise OutputError("check-failed", f"AutoTokenizer gives {found} than what was trained", hint)
