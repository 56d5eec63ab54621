"""Verifies a written checkpoint: transformers loads it and its source, and nothing of tokswap's own reading is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from tokswap.checkpoint.loaded import ModelLike, as_folder
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.errors import TokswapError
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.models import check_device
from tokswap.evaluation.verify.chats import chat_check
from tokswap.evaluation.verify.configs import length_check, range_check, role_check
from tokswap.evaluation.verify.corpora import corpus_check
from tokswap.evaluation.verify.extension import alive_check
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.model import expected_ends, running_checks
from tokswap.evaluation.verify.processors import processor_check
from tokswap.evaluation.verify.reference import Reference, TokenizerLike, find_reference
from tokswap.evaluation.verify.rows import row_checks
from tokswap.evaluation.verify.tensors import source_checks
from tokswap.evaluation.verify.tokens import own_checks, reference_checks
from tokswap.evaluation.verify.twins import copy_check, twins
from tokswap.evaluation.verify.weights import Weights
from tokswap.options.kinds import typed
from tokswap.report.provenance import Provenance, read_provenance


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        folder: The result, or a model alone.
        source: Its source model, None if it is not given.
        reference: What its tokenizer should be, None if unknown.
        provenance: Where its rows come from, as it says itself.
    """

    folder: Folder
    source: Folder | None
    reference: Reference | None
    provenance: Provenance


@typed
def verify_checkpoint(
    model: ModelLike,
    *,
    against: ModelLike | None = None,
    tokenizer: TokenizerLike | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> list[Check]:
    """Test the invariants of a checkpoint, as transformers loads it.

    tokswap.json and vocab_map.json say which row and token is from where. Everything else is compared with the source
    model and the target tokenizer, which transformers loads too.

    Args:
        model: The checkpoint: a folder, hub id, alias or .gguf file; or a loaded model with its tokenizer, which is
            tested as it would be saved.
        against: The source model, given in the same way.
        tokenizer: The target tokenizer of a transplant; by default the one that tokswap.json names, if it is there.
        device: Where torch computes.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The checks. One that cannot be made says so and holds.

    Raises:
        UsageError: bad-device.
        InputError: if the folder is not a checkpoint at all.
    """
    check_device(device)
    with ExitStack() as stack:
        folder = Folder(stack.enter_context(as_folder(model)), trust_remote_code)
        source = Folder(stack.enter_context(as_folder(against)), trust_remote_code) if against is not None else None
        for side in (folder, source) if source is not None else (folder,):
            open_checkpoint(side.path)  # refuses what is no checkpoint, or not safe to load
        provenance = read_provenance(folder.path)
        reference, notes = find_reference(folder, source, provenance.plan, tokenizer)
        sides = Sides(folder, source, reference=reference, provenance=provenance)
        return [*_checks(sides, device), *notes]


def _checks(sides: Sides, device: str) -> Iterator[Check]:
    folder, source = sides.folder, sides.source
    before, found = _load(source, "source model loads") if source is not None else (None, [])
    after, loads = _load(folder, "model loads", unless=before.missing if before else frozenset())
    yield from (check for check in found if not check.ok)
    try:
        yield Check("AutoTokenizer", True, f"{type(folder.tokenizer).__name__}, {len(folder.vocabulary):,} ids")
    except Exception as error:  # a class that does not fit the files may fail in any way
        yield Check("AutoTokenizer", False, f"fails: {error}")
        yield from loads
        return
    yield from loads
    rows = after.rows if after is not None else folder.config_rows or len(folder.vocabulary)
    yield range_check(folder, rows)
    yield from _tokenizer_checks(sides, rows)
    if after is not None:
        yield length_check(folder, source, after.model)
        yield from _model_checks(sides, after, before, device)


def _tokenizer_checks(sides: Sides, rows: int) -> Iterator[Check]:
    """The checks that read no weights."""
    folder, source, reference = sides.folder, sides.source, sides.reference
    yield from _tried("tokenizer", sides, lambda: own_checks(folder, reference, rows))
    if reference is None:
        return
    yield from _tried("tokenization", sides, lambda: reference_checks(folder, reference))
    yield chat_check(folder, reference)
    if source is not None:
        yield role_check(folder, source, reference)
        found = processor_check(folder, source, reference)
        yield from [found] if found is not None else []
    if reference.trim:
        yield from _tried("trimmed texts", sides, lambda: corpus_check(folder, reference, sides.provenance.plan))


def _model_checks(sides: Sides, after: Weights, before: Weights | None, device: str) -> Iterator[Check]:
    """The checks on rows, tensors and outputs."""
    folder, source, reference, provenance = sides.folder, sides.source, sides.reference, sides.provenance
    yield from row_checks(folder, after, provenance)
    same: dict[int, int] = {}
    if before is not None and source is not None:
        yield from source_checks(after, before, provenance, (folder, source))
        if reference is not None and not reference.trim and not reference.added:
            same = twins(folder)
            yield copy_check(folder, source, after, provenance, same)
    models = (after.model, before.model if before is not None else None)
    if before is not None and source is not None and reference is not None and reference.added:
        yield from alive_check((folder, source), (after.model, before.model), reference, provenance.plan)
    ends = expected_ends(models, (folder, source), reference)
    computed = provenance.source_of < 0
    padding = np.flatnonzero(computed[len(folder.vocabulary) :]) + len(folder.vocabulary)
    neutral = np.flatnonzero(provenance.never_predicted)
    unpredicted = np.unique(np.concatenate([padding, neutral, [*same]]))
    yield from running_checks(after.model, folder, unpredicted.astype(np.int64), ends, device)


def _tried(name: str, sides: Sides, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """Run checks that tokenize texts. A tokenizer that reads no plain text, but words and boxes, cannot be tried."""
    try:
        return list(checks())
    except Exception as error:  # whatever the tokenizer's own class raises
        whole = sides.reference.folder if sides.reference is not None else sides.folder
        return [Check(name, not whole.reads_text, f"not tried: {type(error).__name__}: {error}")]


def _load(folder: Folder, name: str, unless: frozenset[str] = frozenset()) -> tuple[Weights | None, list[Check]]:
    """Load a model, and test that its files hold every tensor, unless the source's files lack it too."""
    try:
        loaded = folder.load_model()
    except TokswapError:
        raise
    except Exception as error:  # whatever transformers says about the checkpoint is the result
        return None, [Check(name, False, f"{folder.classes[-1]}: {error}")]
    wrong = [*sorted(loaded.missing - unless), *loaded.mismatched]
    return loaded, [check_empty(name, "tensors missing or of another shape", wrong, type(loaded.model).__name__)]
