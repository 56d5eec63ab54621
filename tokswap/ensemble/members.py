"""ensemble.json: which folders are the members of an ensemble, what they weigh, and what they were made from."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, OutputError, UsageError
from tokswap.options.kinds import typed
from tokswap.report.record import versions
from tokswap.storage.atomic import replace_file
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import input_path
from tokswap.tokenizer.vocabulary import Vocabulary

FILE = "ensemble.json"


@dataclass(frozen=True)
class Member:
    """One member of an ensemble.

    Attributes:
        name: Its name, which is the name of its folder.
        weight: Its weight in the average.
        model: The model that it was made from.
        made: Number of initialised rows, None if unknown.
        plan: A digest of the request.
        source_files: Name -> SHA-256 of the source's weights.
        files: Name -> SHA-256 of everything in its folder; {} until it exists.
    """

    name: str
    weight: float
    model: str = ""
    made: int | None = None
    plan: str = ""
    source_files: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ensemble:
    """The members of a folder. Their weights add up to 1.

    Attributes:
        folder: The folder.
        members: The members.
        tokenizer: Where the shared tokenizer came from.
        vocabulary: A digest of it, "" in a file written by hand.
        choice: How the tokenizer was chosen, {} where the user named it.
        unfinished: Names of the members that are still to be made.
    """

    folder: Path
    members: tuple[Member, ...]
    tokenizer: str = ""
    vocabulary: str = ""
    choice: Mapping[str, Any] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each member."""
        return tuple(member.weight for member in self.members)

    def path_of(self, member: Member) -> Path:
        """Return the folder of a member."""
        return self.folder / member.name

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `read_ensemble` reads it back."""
        members = [
            {
                "folder": member.name,
                "weight": member.weight,
                "model": member.model,
                "made": member.made,
                "plan": member.plan,
                "source_files": dict(member.source_files),
                "files": dict(member.files),
            }
            for member in self.members
        ]
        return {
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary,
            "choice": dict(self.choice),
            "unfinished": list(self.unfinished),
            "members": members,
            "versions": versions(),
        }

    def write(self) -> None:
        """Write ensemble.json in one step. Raises OutputError cannot-write."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
            replace_file(self.folder / FILE, text.encode("utf-8", "surrogatepass"))
        except OSError as error:
            message = f"{FILE} could not be written: {error}"
            raise OutputError("cannot-write", message, "choose another --out", folder=self.folder) from error


@typed
def read_ensemble(folder: str | Path, *, unfinished: bool = False) -> Ensemble:
    """Read ensemble.json. A file written by hand needs no more than {"members": [{"folder": "a"}, {"folder": "b"}]}.

    Args:
        folder: The folder with the file and the members.
        unfinished: Whether members may be missing.

    Raises:
        UsageError: bad-model.
        InputError: missing-ensemble, bad-ensemble, outside-member, missing-member, unfinished-ensemble.
    """
    folder = input_path(folder)
    path = folder / FILE
    if not path.is_file():
        hint = "`tokswap ensemble prepare` writes one, a list of folders by hand will do; one model: `tokswap generate`"
        message = f"there is no {FILE} in this folder" if folder.is_dir() else "there is no such folder"
        raise InputError("missing-ensemble", message, hint, folder=folder)
    whole = read_json(path, "ensemble")
    try:
        members = tuple(_member(entry, path) for entry in whole["members"])
        choice, left = dict(whole.get("choice") or {}), tuple(map(str, whole.get("unfinished") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its list of members is damaged ({type(error).__name__}: {error})") from error
    names = [member.name for member in members]
    if not members or len(set(names)) < len(names):
        raise _damaged(path, "it names no member" if not members else "it names a member twice")
    if left and not unfinished:
        hint = "run the same `tokswap ensemble prepare` again; it goes on where it stopped"
        raise InputError("unfinished-ensemble", f"members are missing: {', '.join(left)}", hint, file=path)
    if not unfinished:
        for name in names:
            _check_folder(folder, name, path)
    weights = read_weights([member.weight for member in members], len(members))
    members = tuple(replace(member, weight=weight) for member, weight in zip(members, weights, strict=True))
    return Ensemble(
        folder=folder,
        members=members,
        tokenizer=str(whole.get("tokenizer") or ""),
        vocabulary=str(whole.get("vocabulary") or ""),
        choice=choice,
        unfinished=left,
    )


def _member(entry: Any, path: Path) -> Member:
    name = entry["folder"]
    if not isinstance(name, str):
        raise _damaged(path, "a member's `folder` is no name")
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise _outside(name, path)
    weight, made = entry.get("weight", 1.0), entry.get("made")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise _damaged(path, f"the weight of {name} is no number")
    return Member(
        name=name,
        weight=float(weight),
        model=str(entry.get("model") or ""),
        made=made if type(made) is int else None,
        plan=str(entry.get("plan") or ""),
        source_files=dict(entry.get("source_files") or {}),
        files=dict(entry.get("files") or {}),
    )


def _check_folder(folder: Path, name: str, path: Path) -> None:
    place = folder / name
    if place.resolve().parent != folder.resolve():
        raise _outside(name, path)
    if not place.is_dir():
        hint = "run `tokswap ensemble prepare` again, or correct the list"
        raise InputError(
            "missing-member", f"{FILE} names the member `{name}`, and there is no such folder", hint, file=path
        )


def _outside(name: str, path: Path) -> InputError:
    hint = "every member must lie beside ensemble.json"
    return InputError("outside-member", f"{FILE} names a folder that is not in its own: {name!r}", hint, file=path)


def _damaged(path: Path, problem: str) -> InputError:
    return InputError("bad-ensemble", f"this {FILE} cannot be used: {problem}", file=path)


def read_weights(weights: str | Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return `count` weights that add up to 1; equal ones for None. A string is a list with commas.

    Raises UsageError bad-weights.
    """
    if weights is None:
        return (1 / max(count, 1),) * count
    try:
        values = [float(part) for part in (weights.split(",") if isinstance(weights, str) else weights)]
    except ValueError as error:
        raise UsageError("bad-weights", f"these are not weights: {weights!r}", "write numbers: 0.7,0.3") from error
    if len(values) != count:
        raise UsageError(
            "bad-weights",
            f"there are {count} members and {len(values)} weights",
            "give one weight a member, in their order",
        )
    if not all(math.isfinite(value) and value > 0 for value in values):
        hint = "leave out a member that is to have no say"
        raise UsageError("bad-weights", f"every weight must be above 0: {', '.join(map(str, values))}", hint)
    return tuple(value / sum(values) for value in values)


def vocabulary_digest(vocabulary: Vocabulary) -> str:
    """Return a digest of what each id means: its text and its kind."""
    content = json.dumps([list(vocabulary.text), vocabulary.kind.tolist()], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
