"""The donor: the model that owns the target tokenizer and lends its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokswap.checkpoint.loaded import Loaded, ModelLike, as_loaded, loaded_checkpoint
from tokswap.checkpoint.reader import Checkpoint, has_weights, open_checkpoint
from tokswap.checkpoint.rowless import with_rows
from tokswap.checkpoint.source import TargetTokenizer
from tokswap.errors import InputError, count_of
from tokswap.init.base import Initializer
from tokswap.storage.resolve import resolve_model, user_aliases
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

NOT_USED = "--donor is not used: no method of this run needs a donor"
WITHOUT_WEIGHTS = "the tokenizer comes without weights, so no donor is used; name one with --donor MODEL"


@dataclass(frozen=True)
class Donor:
    """The donor of a run.

    Attributes:
        checkpoint: Its weights.
        rows: Its row of each target token, int64 [V]; None where it is the token's id.
    """

    checkpoint: Checkpoint
    rows: np.ndarray | None = None


def find_donor(
    named: ModelLike | None, methods: Sequence[Initializer], target: TargetTokenizer
) -> tuple[Donor | None, tuple[str, ...]]:
    """Find the donor of a transplant.

    Args:
        named: What the user named; None for the model that the tokenizer came with, "none" for no donor.
        methods: The methods of the run.
        target: The target tokenizer.

    Returns:
        The donor, None where no method reads one; and notes.

    Raises:
        InputError: missing-donor, donor-too-small, donor-mismatch.
    """
    uses = {method.donor_use() for method in methods}
    if uses == {"none"}:
        return None, (NOT_USED,) if named not in (None, "none") else ()
    chosen = _default(target) if named is None else named
    if chosen is None or chosen == "none":
        if "required" in uses:
            raise _missing(target, asked=named is not None)
        return None, (WITHOUT_WEIGHTS,) if named is None else ()
    loaded = as_loaded(chosen)
    checkpoint = loaded_checkpoint(loaded.model) if loaded else open_checkpoint(resolve_model(str(chosen)))
    same = loaded is not None or (target.path is not None and checkpoint.folder.resolve() == target.path.resolve())
    check_donor(checkpoint, target.tokenizer, same_folder=same)
    return Donor(checkpoint), tuple(f"donor: {note}" for note in checkpoint.notes)


def _default(target: TargetTokenizer) -> ModelLike | None:
    """The model that the tokenizer came with."""
    if target.path is None:
        return target.loaded if isinstance(target.loaded, Loaded) else None
    if target.path.is_dir() and has_weights(target.path):
        return str(target.path)
    if not Path(user_aliases().get(target.name, target.name)).expanduser().exists():
        return target.name  # a hub id, or an alias for one: only its tokenizer has been downloaded so far
    return None


def _missing(target: TargetTokenizer, *, asked: bool) -> InputError:
    return InputError(
        "missing-donor",
        "`--donor none` leaves no donor, and the method needs the donor's embeddings"
        if asked
        else "the target tokenizer comes without weights, and the method needs the donor's embeddings",
        "name the donor with --donor MODEL, or use a method that needs none: --init auto, tokenadapt, subword",
        tokenizer=target.path or target.name,
    )


def check_donor(donor: Checkpoint, tokenizer: Tokenizer, *, same_folder: bool) -> None:
    """Check that a donor belongs to a target tokenizer.

    Args:
        donor: The donor.
        tokenizer: The target tokenizer. It may have tokens without a row that no text needs.
        same_folder: Whether the target tokenizer was read from the donor's folder.

    Raises:
        InputError: donor-too-small, donor-mismatch.
    """
    matrix = donor.matrix("input")
    rows = matrix.rows if matrix is not None else 0
    target = with_rows(tokenizer, rows, donor.config, donor.generation_config).tokenizer.vocabulary
    if rows < len(target):
        raise InputError(
            "donor-too-small",
            f"the donor has {rows:,} rows, and the target tokenizer {len(target):,} ids",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )
    if same_folder or not (donor.folder / "tokenizer.json").is_file():
        return
    own = read_tokenizer(donor.folder).vocabulary
    wrong = [n for n, text in enumerate(target.text) if text and (n >= len(own) or own.text[n] != text)]
    if wrong:
        raise InputError(
            "donor-mismatch",
            f"the donor and the target tokenizer differ in {count_of(len(wrong), 'id')}, the first is {wrong[0]}",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )
