"""The tokenizer that a result should have: that of the target after a transplant, else that of the source."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, TokswapError, UsageError
from tokswap.evaluation.checks import Check
from tokswap.evaluation.verify.folder import Folder
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_tokenizer

_MAP_NAME = "vocab_map.json"
_DIGIT = re.compile("[0-9]")
_BYTE_PIECE = re.compile("^<0x(?!3[0-9])..>$")
"""The name of a byte that is no digit."""

TokenizerLike = str | Path | Any
"""A folder, hub id, alias or tokenizer.json, or a transformers tokenizer."""


@dataclass(frozen=True)
class Reference:
    """The tokenizer that a result should have: the target's after a transplant, the source's after a trim or extension.

    Attributes:
        folder: Where it is.
        trim: Whether the result is a trim of it, whose own vocabulary is smaller.
        new_of: Its id -> id of the result; None for a result with the same ids.
        rows: Number of rows of its own model, None where it has none.
        bos_added: Whether the result is made to begin texts with bos.
        dropped: Patterns of the tokens that the user dropped by name.
        added: The ids that an extension has added to it.
        digits: How the result is made to split numbers, None where it splits them as this does.
    """

    folder: Folder
    trim: bool = False
    new_of: Mapping[int, int] | None = None
    rows: int | None = None
    bos_added: bool = False
    dropped: frozenset[str] = frozenset()
    added: frozenset[int] = frozenset()
    digits: str | None = None

    def new(self, token: int) -> int | None:
        """Return the id of the result, None for a token that it does not have."""
        return token if self.new_of is None else self.new_of.get(token)

    def translate(self, ids: Sequence[int]) -> list[int] | None:
        """Return ids of the result.

        None where it lacks one of them, its own model has no row for one, or one has a digit that the result may split.
        """
        if self.digits is not None and not self._with_digits.isdisjoint(ids):
            return None
        found = [None if self.rows is not None and token >= self.rows else self.new(token) for token in ids]
        return None if None in found else [token for token in found if token is not None]

    @cached_property
    def _with_digits(self) -> frozenset[int]:
        """The ids of the text tokens that have a digit."""
        added = self.folder.added
        return frozenset(
            token
            for token, text in enumerate(self.folder.vocabulary)
            if text is not None and text not in added and _DIGIT.search(_BYTE_PIECE.sub("", text))
        )

    def may_lack(self, token: int) -> bool:
        """Return whether the result need not have an id: it has no row, or the user dropped it."""
        text = self.folder.vocabulary[token] if token < len(self.folder.vocabulary) else None
        return (text is not None and self.was_dropped(text)) or (self.rows is not None and token >= self.rows)

    def was_dropped(self, text: str) -> bool:
        """Return whether the user dropped the token of a text by name."""
        return any(fnmatchcase(text, name) for name in self.dropped)

    @property
    def needed_added(self) -> list[str]:
        """The added tokens that the result must have."""
        return [text for text, token in self.folder.added.items() if not self.may_lack(token)]


def find_reference(
    folder: Folder, source: Folder | None, plan: Mapping[str, Any], tokenizer: TokenizerLike | None
) -> tuple[Reference | None, list[Check]]:
    """Find the tokenizer that a result should have.

    Args:
        folder: The result.
        source: Its source model, None if it is not given.
        plan: What tokswap.json says was planned, {} without one.
        tokenizer: The target tokenizer; None for the one that the plan names.

    Returns:
        The reference, None without one; and a check that says why there is none, if the result has a target.

    Raises:
        InputError: bad-map; what a `tokenizer` that is given raises.
    """
    new_of = _read_map(folder.path / _MAP_NAME)
    if tokenizer is None and plan.get("operation") == "extend":
        return (_before_extension(source, plan, new_of), []) if source is not None else (None, [])
    trim = tokenizer is None and plan.get("operation", "trim" if new_of is not None else "") == "trim"
    if trim:
        if source is None or new_of is None:
            return None, []
        dropped = frozenset(map(_pattern, dict(plan.get("options") or {}).get("drop_tokens") or ()))
        return Reference(source, trim=True, new_of=new_of, rows=source.config_rows, dropped=dropped), []
    try:
        target = _target(folder, source, plan, tokenizer)
        if target is None:
            return None, []
        target.vocabulary  # noqa: B018  a tokenizer that cannot be loaded must fail here
    except Exception as error:  # transformers raises whatever the tokenizer's own code raises
        if tokenizer is not None:
            raise
        said = error.message if isinstance(error, TokswapError) else f"{type(error).__name__}: {error}"
        return None, [Check("target tokenizer", True, f"not compared; name it with --tokenizer: {said}")]
    bos = bool(plan.get("bos_added"))
    digits = dict(plan.get("options") or {}).get("digits")
    return Reference(target, new_of=new_of, rows=target.config_rows, bos_added=bos, digits=digits), []


def _before_extension(source: Folder, plan: Mapping[str, Any], new_of: Mapping[int, int] | None) -> Reference:
    """The reference of an extension. Where old tokens have made room, it is a trim too."""
    added = frozenset(int(token) for token, *_ in plan.get("added") or ())
    trim = bool(plan.get("dropped"))
    return Reference(source, trim=trim, new_of=new_of if trim else None, rows=source.config_rows, added=added)


def _target(
    folder: Folder, source: Folder | None, plan: Mapping[str, Any], tokenizer: TokenizerLike | None
) -> Folder | None:
    """The target tokenizer; None where nothing names one. The hub is only asked where the user names a model too."""
    trust = folder.trust_remote_code
    if tokenizer is not None and not isinstance(tokenizer, (str, Path)):
        return Folder(folder.path.parent / "given", trust, given=_checked(tokenizer))
    name = str(tokenizer if tokenizer is not None else plan.get("tokenizer") or "")
    if tokenizer is None and not name:
        return None
    if tokenizer is None and source is None and not Path(name).exists():
        raise InputError("unknown-tokenizer", f"there is no `{name}` here")
    return Folder(resolve_tokenizer(name), trust)


def _checked(tokenizer: Any) -> Any:
    """Return a transformers tokenizer. Raises UsageError bad-tokenizer for anything else."""
    if hasattr(tokenizer, "convert_tokens_to_ids") and hasattr(tokenizer, "special_tokens_map"):
        return tokenizer
    message = f"this is not a tokenizer: {type(tokenizer).__name__}"
    raise UsageError("bad-tokenizer", message, "give a name, a Path, or a transformers tokenizer")


def _read_map(path: Path) -> dict[int, int] | None:
    if not path.is_file():
        return None
    try:
        return {int(old): int(new) for old, new in read_json(path, "map")["new_id_of"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("bad-map", f"this is not a {_MAP_NAME} of a trim", file=path) from error


def _pattern(name: object) -> str:
    """The pattern of fnmatch for a name that the user has typed: `*` stands for any characters."""
    return glob.escape(str(name)).replace("[*]", "*")
