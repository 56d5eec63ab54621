"""The donor: the model that owns the target tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokswap.checkpoint.reader import Checkpoint, has_weights, open_checkpoint
from tokswap.errors import InputError
from tokswap.init.base import Initializer, wants_donor
from tokswap.storage.resolve import resolve_model, user_aliases
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary


def find_donor(
    name: str | None,
    methods: Sequence[Initializer],
    tokenizer: str,
    path: Path,
    target: Tokenizer,
    notes: list[str],
) -> Checkpoint | None:
    """Return the donor of a transplant, None where no method reads one.

    name: as the user gave it; without one the model that the tokenizer came with, "none" to do without. tokenizer, path:
    as the user gave the tokenizer, and where it lies. Raises InputError: missing-donor, donor-too-small, donor-mismatch.
    """
    if not any(map(wants_donor, methods)):
        if name not in (None, "none"):
            notes.append("--donor is not used: no method of this run needs a donor")
        return None
    given, name = name, _default(tokenizer, path) if name is None else name
    if name in (None, "none"):
        if any(method.needs_donor for method in methods):
            raise InputError(
                "missing-donor",
                "the target tokenizer comes without weights, and the method needs the donor's embeddings"
                if given is None
                else "there is to be no donor, and the method needs the donor's embeddings",
                "name them with --donor MODEL, or use a method that needs none: --init auto, tokenadapt, subword",
                tokenizer=path,
            )
        if given is None:
            notes.append(
                "the tokenizer comes without weights, so new rows are made without a donor; --donor MODEL names one"
            )
        return None
    assert name is not None
    donor = open_checkpoint(resolve_model(name))
    _check(donor, target.vocabulary, read=donor.folder.resolve() == path.resolve())
    return donor


def _default(tokenizer: str, path: Path) -> str | None:
    if path.is_dir() and has_weights(path):
        return str(path)
    if not Path(user_aliases().get(tokenizer, tokenizer)).expanduser().exists():
        return tokenizer  # a hub id, or an alias for one: only its tokenizer has been fetched so far
    return None


def _check(donor: Checkpoint, target: Vocabulary, read: bool) -> None:
    """read: whether the target tokenizer was read from the donor's folder."""
    table = donor.matrix("input")
    if table is None or table.rows < len(target):
        raise InputError(
            "donor-too-small",
            f"the donor has {table.rows if table else 0:,} rows, and the target tokenizer {len(target):,} ids",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )
    if read or not (donor.folder / "tokenizer.json").is_file():
        return
    own = read_tokenizer(donor.folder).vocabulary
    wrong = [n for n, text in enumerate(target.text) if text and (n >= len(own) or own.text[n] != text)]
    if wrong:
        raise InputError(
            "donor-mismatch",
            f"{len(wrong):,} ids mean different tokens to the donor and to the target tokenizer, the first is {wrong[0]}",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )
