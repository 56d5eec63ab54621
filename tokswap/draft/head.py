"""Reduced draft heads: an lm_head of the N tokens that matter, in EAGLE-3's layout, with SGLang's token map."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.source import named
from tokswap.draft.head_choice import HeadChoice, choose_head, read_texts
from tokswap.draft.head_layout import (
    HEAD,
    TO_DRAFT,
    TO_TARGET,
    HeadFiles,
    check_head,
    check_matrix,
    open_head,
    target_ids,
)
from tokswap.draft.options import DraftHeadOptions
from tokswap.draft.sides import Side, read_side
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.checks import Check
from tokswap.options.keywords import two_and_keywords
from tokswap.options.kinds import typed
from tokswap.report.provenance import read_provenance
from tokswap.storage.atomic import check_output, workspace
from tokswap.storage.json_files import json_bytes
from tokswap.storage.resolve import output_path

TOKEN_MAP, REPORT = "hot_token_ids.pt", "draft_head.json"
_SEEN = "coverage is told of the text that the tokens were chosen by: --held-out names other text"
_NEW = "{0:,} of {1:,} tokens do not occur in the corpus: a smaller head, or more text, would do"
_NEUTRAL = "{0:,} of {1:,} tokens are left out: their rows are neutral, so the model never proposes them"
_OWN = "the best corpus is text that the target has written: its own continuations, not its training text"


@dataclass(frozen=True)
class DraftHeadJob:
    """A reduced head that has been planned; from `plan_draft_head`.

    Attributes:
        source: The checkpoint whose head is reduced.
        target_size: The target's vocab_size.
        choice: The tokens of the new head.
        options: What the user asked for.
        out: The folder of the result.
        notes: What the user should know.
    """

    source: HeadFiles
    target_size: int
    choice: HeadChoice
    options: DraftHeadOptions
    out: Path
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "model": str(self.source.folder),
            "out": str(self.out),
            "tokens": len(self.choice.ids),
            "target_tokens": self.target_size,
            "tokens_that_occur": self.choice.counted,
            "coverage": {name: {str(n): share for n, share in of.items()} for name, of in self.choice.coverage.items()},
            "notes": list(self.notes),
        }

    def run(self) -> Path:
        """Write the head; returns its folder.

        Raises:
            OutputError: output-exists, disk-full, cannot-write. Nothing is written then.
        """
        import torch
        from safetensors.torch import save

        source, ids = self.source, torch.from_numpy(self.choice.ids)
        rows = np.searchsorted(target_ids(source), self.choice.ids)
        known = torch.zeros(self.target_size, dtype=torch.bool)
        known[ids] = True
        left = (
            [name for name in source.files if name not in (HEAD, TO_TARGET, TO_DRAFT)] if source.is_draft_head else []
        )
        tensors = {
            **{name: source.read(name) for name in left},
            HEAD: source.read(source.head)[torch.from_numpy(rows)].contiguous(),
            TO_TARGET: ids - torch.arange(len(ids)),
            TO_DRAFT: known,
        }
        token_map = io.BytesIO()
        torch.save(ids, token_map)
        with workspace(self.out, self.options.force) as work:
            (work / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
            (work / TOKEN_MAP).write_bytes(token_map.getvalue())
            (work / "config.json").write_bytes(json_bytes(self._config()))
            (work / REPORT).write_bytes(json_bytes(self.as_dict()))
        return self.out

    def _config(self) -> Mapping[str, Any]:
        """The config of a draft head with its new size; of a whole model only what describes a head."""
        sizes = {"vocab_size": self.target_size, "draft_vocab_size": len(self.choice.ids)}
        if self.source.is_draft_head:
            return {**self.source.config, **sizes}
        return {"hidden_size": self.source.shape(self.source.head)[1], **sizes}


@two_and_keywords(DraftHeadOptions)
def plan_draft_head(model: str | Path, target: str | Path, options: DraftHeadOptions) -> DraftHeadJob:
    """Choose the tokens of a reduced draft head and tell what they cover, without writing anything.

    Args:
        model: An EAGLE-3 head, or a model whose lm_head is taken: a folder, hub id or alias.
        target: The model to draft for; its tokenizer and configs are enough.
        options: See below.

    Raises:
        UsageError: bad-head-size.
        InputError: bad-draft-head, missing-corpus, empty-corpus, and what reading a tokenizer raises.
        OutputError: output-exists, output-is-source, disk-full, cannot-write.
    """
    return plan_with(model, target, options)


@two_and_keywords(DraftHeadOptions)
def reduce_draft_head(model: str | Path, target: str | Path, options: DraftHeadOptions) -> DraftHeadJob:
    """Write a draft head with the tokens that cover most of a corpus.

    Args:
        model: An EAGLE-3 head, or a model whose lm_head is taken: a folder, hub id or alias.
        target: The model to draft for; its tokenizer and configs are enough.
        options: See below.

    Returns:
        What was done: `.out` is the folder, `.choice` the tokens and their coverage.

    Raises:
        UsageError, InputError, OutputError: as `plan_draft_head`. Nothing is written then.
    """
    job = plan_with(model, target, options)
    job.run()
    return job


def plan_with(model: str | Path, target: str | Path, options: DraftHeadOptions) -> DraftHeadJob:
    """Do what `plan_draft_head` does, with an options object."""
    if not options.corpora:
        raise UsageError("nothing-to-keep", "--corpus is missing: it says which tokens the head needs", _OWN)
    head, side = open_head(model), read_side(target, trust_remote_code=options.trust_remote_code)
    out = output_path(f"{named(model)}-head-{options.size}" if options.out is None else options.out)
    check_output(out, sources=[head.folder], needed=0, force=options.force)
    known = _checked_ids(head, side)
    proposed = np.setdiff1d(known, _never_proposed(head))
    tokenizer = side.tokenizer
    corpora = read_texts(options.corpora, tokenizer, options.field)
    texts = read_texts(options.held_out, tokenizer, options.field) or corpora
    choice = choose_head(tokenizer, options.size, proposed, needed=side.stops(), texts=(corpora, texts))
    notes = [] if options.held_out else [_SEEN]
    if len(proposed) < len(known):
        notes.append(_NEUTRAL.format(len(known) - len(proposed), len(known)))
    if choice.unused:
        notes.append(_NEW.format(choice.unused, options.size))
    notes.append(_OWN)
    return DraftHeadJob(
        source=head, target_size=side.vocab_size, choice=choice, options=options, out=out, notes=tuple(notes)
    )


@typed
def check_draft_head(
    model: str | Path, target: str | Path | None = None, *, trust_remote_code: bool = False
) -> list[Check]:
    """Check that the maps of a reduced draft head hold together.

    Args:
        model: The head.
        target: The model to draft for; None to take the size that the head names.
        trust_remote_code: Whether code that comes with the target may run.

    Returns:
        The checks.

    Raises:
        InputError: bad-draft-head, and what reading the target raises.
    """
    size = None if target is None else read_side(target, trust_remote_code=trust_remote_code).vocab_size
    return check_head(open_head(model), size)


def _checked_ids(head: HeadFiles, side: Side) -> np.ndarray:
    """Return the target's ids that a head has rows for. Raises InputError bad-draft-head where they cannot be."""
    hint = "give the head that was made for this target"
    check_matrix(head)
    if head.reduced:
        wrong = [check for check in check_head(head, side.vocab_size) if not check.ok]
        if wrong:
            message = f"the maps of this head do not hold together: {'; '.join(check.detail for check in wrong)}"
            raise InputError("bad-draft-head", message, hint, folder=head.folder)
    ids = target_ids(head)
    if not head.reduced and len(ids) < len(side.vocabulary):
        message = f"lm_head has {len(ids):,} rows, and the target's tokenizer {len(side.vocabulary):,} ids"
        raise InputError("bad-draft-head", message, hint, folder=head.folder)
    return ids[ids < len(side.vocabulary)]


def _never_proposed(head: HeadFiles) -> np.ndarray:
    """Return the ids whose rows are neutral, as the tokswap.json of a result says. Raises InputError bad-report."""
    return np.flatnonzero(read_provenance(head.folder).never_predicted)
