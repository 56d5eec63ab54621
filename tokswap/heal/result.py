"""What a healing will do and has done: plain data, and an object to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.report.plan import Estimate
from tokswap.report.record import FORMAT, REPORT_NAME, versions
from tokswap.report.result import Result
from tokswap.report.wording import duration, size
from tokswap.storage.json_files import read_json


@dataclass(frozen=True)
class HealPlan:
    """Everything that a healing will do, known before a weight is read. `--dry-run` prints it.

    Attributes:
        model: The model to heal, as the user named it.
        teacher: The model to learn from.
        out: Folder of the result, "" for one in memory.
        text: Bytes, tokens and passages to train on, and passages that are held out; all 0 before they are written.
        train: What learns, the parameters that do, the learning rate of the adapter or body, and the steps.
        estimate: Memory and time.
        options: All options that decide the result.
        notes: What the user should know before it runs.
    """

    model: str
    teacher: str
    out: str
    text: Mapping[str, int]
    train: Mapping[str, Any]
    estimate: Estimate
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"operation": "heal", **asdict(self)}


@dataclass(frozen=True, repr=False)
class HealReport(Result):
    """A healing that was carried out, and its result.

    `model, tokenizer = report` loads the result, and so does `report.load()`.

    Attributes:
        plan: What was planned.
        healing: What was measured: excess before and after, the course of the training, figures of the text.
        tensors: Tensors that changed.
        seconds: Stage -> measured time.
        origin: tokswap.json of the model before, {} without one.
        loaded: The changed model and tokenizer, where the run changed loaded objects.
        folder: Whole path of the result, None where nothing was written.
    """

    plan: HealPlan
    healing: Mapping[str, Any]
    tensors: tuple[str, ...]
    seconds: Mapping[str, float]
    origin: Mapping[str, Any] = field(default_factory=dict)
    loaded: tuple[Any, Any] | None = None
    folder: Path | None = field(init=False, default=None)

    @property
    def operation(self) -> str:
        """What the run was."""
        return "heal"

    @property
    def path(self) -> Path | None:
        """Folder of the result, None where nothing was written."""
        return Path(self.plan.out) if self.plan.out else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "plan": self.plan.as_dict(),
            "heal": dict(self.healing),
            "seconds": dict(self.seconds),
            "versions": versions(),
        }

    def summary(self) -> dict[str, Any]:
        """Return what `as_dict` does: there are no per-token parts."""
        return self.as_dict()

    def document(self) -> dict[str, Any]:
        """Return the content of tokswap.json: that of the model before, and under "heal" what has changed since."""
        whole = dict(self.origin) or {"format": FORMAT, "versions": versions()}
        if "plan" in whole:
            whole["plan"] = {**whole["plan"], "out": self.plan.out}
        healed = [*dict.fromkeys([*whole.get("healed", []), *self.tensors])]
        tokens = {"tokens": whole.pop("tokens")} if "tokens" in whole else {}
        plan = {key: value for key, value in self.plan.as_dict().items() if key != "operation"}
        return {**whole, "heal": {**plan, **self.healing, "seconds": dict(self.seconds)}, "healed": healed, **tokens}

    def facts(self) -> list[tuple[str, str]]:
        """Return the main figures by name."""
        before, after = (self.healing[f"excess_{when}"]["all"] for when in ("before", "after"))
        text, steps = self.healing["text"], count_of(self.healing["steps"], "step")
        return [
            ("excess", f"{before:.3f} -> {after:.3f} bits per byte on held-out text"),
            ("trained on", f"{size(text['bytes'])}, {count_of(text['tokens'], 'token')}, {steps}"),
            ("teacher", self.plan.teacher),
            ("time", duration(self.seconds.get("all", 0.0))),
            ("result", self.plan.out or "in memory"),
        ]


def origin_of(folder: Path) -> dict[str, Any]:
    """Return tokswap.json of a model folder, {} without one. Raises InputError bad-report."""
    path = folder / REPORT_NAME
    return read_json(path, "report") if path.is_file() else {}
