"""The subfolder `training` of a run: settings, checkpoints and metrics, from which a later run goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, OutputError, UsageError
from tokswap.hypernet.convert import save
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.steps import Trainer
from tokswap.storage.atomic import replace_file
from tokswap.storage.documents import find_files
from tokswap.storage.json_files import json_bytes, read_json

STATE = "training"
_KEPT = 2
"""Checkpoints that are kept."""
_log = logging.getLogger("tokswap.hypernet")


def check_free(out: Path, resume: bool) -> None:
    """Check that a run may write to a folder.

    Raises:
        OutputError: output-exists, unless the folder is empty or holds a run that is to go on.
    """
    known = _settings_file(out).is_file()
    taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if taken and not (resume and known):
        hint = "choose another --out" + (", or continue this run with --resume" if known else "")
        raise OutputError("output-exists", "the output exists already", hint, out=out)


def identity_of(model: str, texts: Sequence[str | Path], settings: TrainSettings) -> dict[str, Any]:
    """Return what must be the same for a run to go on, as JSON data."""
    sizes = {str(path): path.stat().st_size for name in texts for path in find_files(str(name))}
    values = {key: value for key, value in dataclasses.asdict(settings).items() if key != "save_every"}
    return {"model": model, "texts": sizes, "settings": values}


def begin(accelerator: Any, out: Path, identity: Mapping[str, Any]) -> int:
    """Make the folder of a new run, or load the last checkpoint of an old one.

    Args:
        accelerator: The `Accelerator` that holds network and optimizer.
        out: The folder of the hypernetwork.
        identity: What `identity_of` returns for this run.

    Returns:
        The number of steps that are done.

    Raises:
        UsageError: settings-changed.
        InputError: bad-checkpoint.
    """
    state, known = out / STATE, _settings_file(out)
    done = 0
    if known.is_file():
        _check_same(read_json(known, "checkpoint"), identity, out)
        done = _load_last(accelerator, state)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state.mkdir(parents=True, exist_ok=True)
        for partial in state.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        replace_file(known, json_bytes(identity))
        _drop_metrics(state / "metrics.jsonl", done)
        _log.info("starting at step %d", done)
    accelerator.wait_for_everyone()
    return done


def save_checkpoint(trainer: Trainer, out: Path, done: int) -> None:
    """Save what a later run needs, then the hypernetwork itself.

    The checkpoint gets its name when it is complete.

    Args:
        trainer: The state of the run.
        out: The folder of the hypernetwork.
        done: The number of steps that are done.

    Raises:
        OutputError: cannot-write.
    """
    accelerator, state = trainer.accelerator, out / STATE
    final = state / f"step-{done:08}"
    partial = final.with_name(f"{final.name}.partial")
    try:
        accelerator.save_state(str(partial))
    except Exception as error:  # torch and safetensors each have a name of their own for a full disk
        message, hint = f"the checkpoint cannot be written: {error}", "free some space, then continue with --resume"
        raise OutputError("cannot-write", message, hint, out=out) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in _checkpoints(state)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        save(trainer.network, trainer.batches.surface, out)
        _log.info("saved the checkpoint of step %d", done)
    accelerator.wait_for_everyone()


def add_metrics(out: Path, line: Mapping[str, Any]) -> None:
    """Append a line to metrics.jsonl."""
    with open(out / STATE / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _settings_file(out: Path) -> Path:
    return out / STATE / "settings.json"


def _checkpoints(state: Path) -> list[Path]:
    return sorted(state.glob("step-*[0-9]"))


def _check_same(before: Mapping[str, Any], identity: Mapping[str, Any], out: Path) -> None:
    own = dataclasses.asdict(TrainSettings())  # what an older release did not know had its default
    before = {"model": None, "texts": None, **before}
    before["settings"] = {key: own[key] for key in identity["settings"]} | before.get("settings", {})
    old, new = ({**run["settings"], "model": run["model"], "texts": run["texts"]} for run in (before, identity))
    # As text, since the order of texts counts.
    changed = ", ".join(sorted(key for key in {*old, *new} if json.dumps(old.get(key)) != json.dumps(new.get(key))))
    if not changed:
        return
    hint = "use the same settings, or start a new run with another --out"
    raise UsageError("settings-changed", f"this run began with other settings: {changed}", hint, out=out)


def _load_last(accelerator: Any, state: Path) -> int:
    found = _checkpoints(state)
    if not found:
        return 0
    try:
        accelerator.load_state(str(found[-1]))
    except Exception as error:  # whatever the libraries say about a damaged file
        message, hint = f"this checkpoint cannot be read: {error}", "remove its folder to use the checkpoint before it"
        raise InputError("bad-checkpoint", message, hint, folder=found[-1]) from error
    return int(found[-1].name.removeprefix("step-"))


def _drop_metrics(path: Path, done: int) -> None:
    """Drop the lines of steps that will be done again, and a line that a kill has left incomplete."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = []
    for line in lines:
        with suppress(ValueError):
            kept += [line] if json.loads(line)["step"] < done else []
    replace_file(path, "".join(line + "\n" for line in kept).encode())
