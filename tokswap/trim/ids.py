"""Where every id goes: the rows of the result, the ids of its configs, and the map that adapters can follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.configs import IdMap
from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.schema import MOST_IDS

MAP_NAME = "vocab_map.json"


@dataclass(frozen=True)
class KeptIds(IdMap):
    """An IdMap that changes no meaning: every id becomes the new id of the same token. new_of: old id -> new id."""

    new_of: Mapping[int, int] = field(default_factory=dict)

    def role(self, role: str) -> int | None:
        """Return None: a config that names another token than the tokenizer does goes on naming it."""
        return None

    def has(self, token: int) -> bool:
        """Return whether a number is an id of the source, or a row past its tokenizer that is kept."""
        return super().has(token) or token in self.new_of

    def translate(self, token: int, wanted: str | None = None) -> int | None:
        """Return the new id of a token."""
        return self.new_of.get(token)

    def words(self, key: str, value: Any) -> Any:
        """Follow lists of words; a word with a token that is gone cannot occur any more."""
        if key == "forced_decoder_ids":
            return [[place, None if token is None else self.new_of[token]] for place, token in value]
        if key == "bad_words_ids":
            kept = [word for word in value if all(token in self.new_of for token in word)]
            return [[self.new_of[token] for token in word] for word in kept] or None
        return super().words(key, value)


def rows_of(
    kept: np.ndarray, reason: np.ndarray, extra: list[int], vocabulary: int, old_rows: int, multiple: int | None
) -> Alignment:
    """Return where the rows of the result come from.

    kept, reason: of the tokens. extra: old rows past the tokenizer's ids that the config names; they follow the tokens.
    multiple: rows are filled up to a multiple of it, with copies of the source's own padding where it has some.
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


def map_file(source_of: np.ndarray, old_rows: int) -> bytes:
    """Return vocab_map.json: the new id of each old one that is kept. Padding rows are no ids, and not in it."""
    pairs = {str(old): new for new, old in enumerate(source_of.tolist())}
    body = {"rows_before": old_rows, "rows_after": len(source_of), "new_id_of": pairs}
    return json.dumps(body, separators=(",", ":")).encode()


def read_map(folder: Path) -> tuple[dict[int, int], int, int]:
    """Read the vocab_map.json of a trimmed model: old id -> new id, and the rows before and after.

    Raises InputError missing-map, bad-map.
    """
    path = folder / MAP_NAME
    value = read_json(path, "map")
    try:
        found = {int(old): int(new) for old, new in value["new_id_of"].items()}
        before, after = int(value["rows_before"]), int(value["rows_after"])
        if not (
            max(before, after) <= MOST_IDS
            and set(found) <= set(range(before))
            and set(found.values()) <= set(range(after))
        ):
            raise ValueError("an id has no row")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError("bad-map", f"this is no {MAP_NAME} of a trim", file=path) from error
    return found, before, after
