"""Where every id goes: the rows of the result, the ids of its configs, and the map that adapters follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokswap.checkpoint.result_files import MAP_NAME
from tokswap.errors import InputError
from tokswap.options.groups import MOST_IDS
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.alignment import Alignment, Reason


class VocabMap(NamedTuple):
    """What a vocab_map.json says.

    Attributes:
        new_of: Id of the source model -> id of the trimmed model.
        rows_before: Rows of the vocabulary matrices of the source model.
        rows_after: Rows of those of the trimmed model, without padding rows.
    """

    new_of: dict[int, int]
    rows_before: int
    rows_after: int


def rows_of(
    kept: np.ndarray, reason: np.ndarray, extra: list[int], vocabulary: int, old_rows: int, multiple: int | None
) -> Alignment:
    """Say where the rows of the result come from: the tokens, then the extra rows, then padding rows.

    Args:
        kept: Source id of each token of the result (int64 [n]).
        reason: Why each of them is kept (uint8 [n]), see `Reason`.
        extra: Source rows past the tokenizer's ids that the config names.
        vocabulary: Number of ids of the source tokenizer.
        old_rows: Number of rows of the source model.
        multiple: Fill up to a multiple of this number. The new rows copy padding rows of the source model if it has
            any.
    """
    rows = len(kept) + len(extra)
    padding = -rows % (multiple or 1)
    spare = sorted(set(range(vocabulary, old_rows)) - set(extra))
    fill = [spare[n % len(spare)] for n in range(padding)] if spare else [-1] * padding
    source_of = np.concatenate([kept, extra, fill]).astype(np.int32)
    reasons = np.concatenate(
        [reason, [Reason.FORCED] * len(extra), [Reason.FORCED if spare else Reason.PADDING] * padding]
    )
    return Alignment(source_of, reasons.astype(np.uint8))


def map_file(source_of: np.ndarray, old_rows: int, rows: int | None = None) -> bytes:
    """Return the content of vocab_map.json.

    Args:
        source_of: Source id of each row of the result, without padding rows (int [V_new]).
        old_rows: Number of rows of the source model.
        rows: Number of rows of the result where new tokens follow, without padding rows.
    """
    pairs = {str(old): new for new, old in enumerate(source_of.tolist())}
    body = {"rows_before": old_rows, "rows_after": rows or len(source_of), "new_id_of": pairs}
    return json.dumps(body, separators=(",", ":")).encode()


def read_map(folder: Path) -> VocabMap:
    """Read the vocab_map.json of a trimmed model.

    Args:
        folder: Folder of the model.

    Raises:
        InputError: missing-map, bad-map.
    """
    path = folder / MAP_NAME
    value = read_json(path, "map")
    try:
        new_of = {int(old): int(new) for old, new in value["new_id_of"].items()}
        found = VocabMap(new_of, int(value["rows_before"]), int(value["rows_after"]))
        if not (
            max(found.rows_before, found.rows_after) <= MOST_IDS
            and set(new_of) <= set(range(found.rows_before))
            and set(new_of.values()) <= set(range(found.rows_after))
        ):
            raise ValueError("an id has no row")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError("bad-map", f"this is not a {MAP_NAME} of a trim", file=path) from error
    return found
