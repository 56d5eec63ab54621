"""Training (arXiv 2405.07883), on one process or several:

    accelerate launch -m tokswap.hypernet.train --model MODEL --text FILE --out DIR

The first stage teaches the network to give the source's own rows back; the main stage trains it on the loss of the
frozen model, on text cut by a tokenizer that is drawn anew at every step. Whatever is random follows from the seed and
the step alone, so that a run that was killed goes on as if nothing had happened, and every process knows the global
batch: each predicts all of its rows and runs the model on its share of the texts.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.hypernet.base import open_base
from tokswap.hypernet.config import HypernetConfig
from tokswap.hypernet.convert import save
from tokswap.hypernet.model import Network
from tokswap.hypernet.sampling import Sampler, Texts
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.steps import Trainer, trained_ids
from tokswap.hypernet.surface import Surface
from tokswap.storage.atomic import held, replace_file, write_error
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_model, short_name
from tokswap.tokenizer.byte_level import byte_level_spec
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

_STATE = "training"
_CHARACTERS = 4
"""Characters of a text for each of its tokens: enough to fill it, with little left over."""


def train(
    model: str,
    texts: Sequence[str | Path],
    out: str | Path,
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    progress: bool = False,
    each_step: Callable[[int], None] | None = None,
) -> Path:
    """Train a hypernetwork for a model and write it to `out`; returns that folder.

    Checkpoints, settings and metrics.jsonl lie in its subfolder `training`; each checkpoint also leaves a usable
    hypernetwork. resume: go on from the last checkpoint, if there is one. each_step: called after every step.
    Raises UsageError bad-setting, settings-changed; InputError training-diverged, bad-text, not-byte-level,
    unsupported-base, bad-checkpoint; OutputError output-exists, output-in-use, cannot-write, disk-full.
    """
    settings = settings or TrainSettings()
    out = Path(out)
    _check_free(out, resume)
    trainer, network = prepare(model, [Path(path) for path in texts], settings)
    try:
        # One process keeps the folder for all of them, so that no other run writes into it.
        with held(out, wait=False) if trainer.accelerator.is_main_process else nullcontext():
            if trainer.accelerator.is_main_process:
                _check_free(out, resume)
            return _run(trainer, network, out, _identity(model, texts, settings), progress, each_step)
    except OSError as error:
        raise write_error(error, out) from error


def _check_free(out: Path, resume: bool) -> None:
    """Raise OutputError output-exists where there is something that this run must not go on with."""
    known = out / _STATE / "settings.json"
    taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if taken and not (resume and known.is_file()):
        hint = "choose another --out" + ("; --resume goes on with it" if known.is_file() else "")
        raise OutputError("output-exists", "the output exists already", hint, out=out)


def prepare(model: str, texts: Sequence[Path], settings: TrainSettings) -> tuple[Trainer, Network]:
    """Check a training and make everything that it needs: the trainer, and the network that no process has wrapped."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        hint = "`pip install 'tokswap[hypernet]'`"
        raise InputError("missing-extra", "training needs accelerate", hint) from error

    pieces = Texts.read(texts, _CHARACTERS * settings.length, settings.seed)
    accelerator = Accelerator(mixed_precision="bf16" if settings.bf16 else "no")
    for name in ("batch", "identity_batch"):
        if getattr(settings, name) % accelerator.num_processes:
            flag = "--" + name.replace("_", "-")
            raise UsageError("bad-setting", f"{flag} must be a multiple of the {accelerator.num_processes} processes")
    base = open_base(resolve_model(model), bf16=settings.bf16, device=accelerator.device)
    positions = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < settings.length + 1:
        raise UsageError("bad-setting", f"--length must be below {positions}: the model has no more positions")
    spec = byte_level_spec(base.tokenizer, len(base.source))
    tokenizer = Tokenizer(base.folder, spec, {}, {})
    width = settings.hidden or 2 * base.width
    pad = pad_id(base.tokenizer.vocabulary, len(tokenizer.vocabulary))
    config = HypernetConfig(
        n_embd=base.width,
        original_vocab_size=len(base.source),
        hn_hidden_size=width,
        hn_intermediate_size=2 * width,
        hn_n_layers=settings.layers,
        hn_num_attention_heads=next(n for n in (width // 64, width // 32, 1) if n and width % n == 0),
        hn_surface_maxlen=settings.pieces,
        hn_n_extra_tokens=max(len(tokenizer.vocabulary), pad + 1) - len(base.source),
        pad_token_id=pad,
        separate_out_embeddings=base.names[1] is not None,
        hn_predict_bias=base.names[2] is not None,
        base_model=short_name(model),
    )
    torch.manual_seed(settings.seed)
    network = first_network(config, base.source[torch.from_numpy(trained_ids(base))])
    plain = [parameter for parameter in network.parameters() if parameter.ndim > 1 and len(parameter) > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim <= 1 or len(parameter) <= 1]
    groups = [{"params": plain, "weight_decay": settings.decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.95))
    wrapped, optimizer = accelerator.prepare(network, optimizer)
    sampler = Sampler(settings.vocabulary, settings.queue, (1e-5, settings.noise), settings.seed)
    surface = Surface(tokenizer, config)
    return Trainer(settings, base, surface, pieces, wrapped, accelerator, optimizer, sampler), network


def pad_id(vocabulary: Vocabulary, free: int) -> int:
    """Return an id that no text is ever cut into: a control or reserved token, else a new one, `free`."""
    if "pad" in vocabulary.roles:
        return vocabulary.roles["pad"]
    control = np.flatnonzero((vocabulary.kind == Kind.SPECIAL) | (vocabulary.kind == Kind.UNUSED))
    return int(control[0]) if len(control) else free


def first_network(config: HypernetConfig, rows: Tensor) -> Network:
    """Return a network with first weights: it reads rows of unit variance, and predicts rows of the source's moments."""
    network = Network(config)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0.0, 0.02)
        network.in_scaler.w.copy_(1.0 / deviation[None])
        network.in_scaler.b.copy_(-(mean / deviation)[None])
        for n, scaler in enumerate([network.scaler, *([network.out_scaler] if config.separate_out_embeddings else [])]):
            part = slice(n * config.n_embd, (n + 1) * config.n_embd)
            scaler.w.copy_(deviation[None, part])
            scaler.b.copy_(mean[None, part])
    return network


def _run(
    trainer: Trainer,
    network: Network,
    out: Path,
    identity: dict[str, Any],
    progress: bool,
    each_step: Callable[[int], None] | None,
) -> Path:
    from tqdm import tqdm

    settings, accelerator = trainer.settings, trainer.accelerator
    state = out / _STATE
    first = _start(accelerator, state, out, identity)
    main_begin = max(first - settings.identity_steps, 0)
    for step in range(main_begin, main_begin + settings.queue - 1):
        trainer.sampler.push(trainer.texts.batch(step, settings.batch))
    saved, spent = first, time.perf_counter()
    show = progress and accelerator.is_main_process
    with tqdm(total=settings.all_steps, initial=first, desc="train", disable=None if show else True) as bar:
        for step in range(first, settings.all_steps):
            main = step >= settings.identity_steps
            for group in trainer.optimizer.param_groups:
                group["lr"] = settings.rate_at(step)
            trainer.optimizer.zero_grad(set_to_none=True)
            loss, more = trainer.main_step(step - settings.identity_steps) if main else trainer.identity_step(step)
            norm = accelerator.clip_grad_norm_(network.parameters(), settings.clip or float("inf"))
            loss = accelerator.reduce(loss.detach(), "mean")
            if not bool(torch.isfinite(norm)) or not bool(torch.isfinite(loss)):
                raise InputError(
                    "training-diverged",
                    f"the loss or its gradient is not a finite number at step {step}",
                    f"the checkpoint of step {saved} is kept; go on from it with a lower rate",
                    out=out,
                )
            trainer.optimizer.step()
            if accelerator.is_main_process:
                now = time.perf_counter()
                line = {
                    "step": step,
                    "stage": "main" if main else "identity",
                    "loss": float(loss),
                    **more,
                    "norm": float(norm),
                    "rate": settings.rate_at(step),
                    "seconds": round(now - spent, 4),
                    **{f"{part}_seconds": round(value, 4) for part, value in trainer.seconds.items()},
                }
                spent, trainer.seconds = now, dict.fromkeys(trainer.seconds, 0.0)
                with open(state / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.all_steps:
                saved = step + 1
                _checkpoint(trainer, network, state, out, saved)
            bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            bar.update()
            if each_step is not None:
                each_step(step)
    return out


def _identity(model: str, texts: Sequence[str | Path], settings: TrainSettings) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    sizes = {str(path): Path(path).stat().st_size for path in texts if Path(path).exists()}
    values = {key: value for key, value in dataclasses.asdict(settings).items() if key != "save_every"}
    return {"model": model, "texts": sizes, "settings": values}


def _start(accelerator: Any, state: Path, out: Path, identity: dict[str, Any]) -> int:
    """Make the folders, or load the last checkpoint. Returns the number of steps that are done."""
    known = state / "settings.json"
    done = 0
    if known.is_file():
        before = read_json(known, "checkpoint")
        if before != identity:
            before = {"settings": {}, "model": None, "texts": None, **before}
            old, new = ({**run["settings"], "model": run["model"], "texts": run["texts"]} for run in (before, identity))
            changed = ", ".join(sorted(key for key in {*old, *new} if old.get(key) != new.get(key)))
            hint = "give the same ones, or start anew with another --out"
            raise UsageError("settings-changed", f"this training began with other settings: {changed}", hint, out=out)
        found = sorted(state.glob("step-*[0-9]"))
        if found:
            done = int(found[-1].name.removeprefix("step-"))
            try:
                accelerator.load_state(str(found[-1]))
            except Exception as error:  # whatever the libraries say about a damaged file
                hint = "remove that folder, to go on from the checkpoint before it"
                raise InputError(
                    "bad-checkpoint", f"this checkpoint cannot be read: {error}", hint, folder=found[-1]
                ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state.mkdir(parents=True, exist_ok=True)
        for partial in state.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        replace_file(known, (json.dumps(identity, indent=2) + "\n").encode())
        _keep_metrics(state / "metrics.jsonl", done)
    accelerator.wait_for_everyone()
    return done


def _keep_metrics(path: Path, done: int) -> None:
    """Forget the lines of steps that will be done again, and one that a kill cut short."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = []
    for line in lines:
        with suppress(ValueError):
            kept += [line] if json.loads(line)["step"] < done else []
    replace_file(path, "".join(line + "\n" for line in kept).encode())


def _checkpoint(trainer: Trainer, network: Network, state: Path, out: Path, done: int) -> None:
    """Save what a later run needs, under its name only when all of it is there; then the hypernetwork itself."""
    accelerator = trainer.accelerator
    partial = state / f"step-{done:08}.partial"
    try:
        accelerator.save_state(str(partial))
    except Exception as error:  # torch and safetensors each have a name of their own for a full disk
        message = f"the training cannot be written: {error}"
        raise OutputError("cannot-write", message, "free some space; --resume goes on", out=out) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        final = state / f"step-{done:08}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in sorted(state.glob("step-*[0-9]"))[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        save(network, trainer.surface, out)
    accelerator.wait_for_everyone()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a training from the command line of `accelerate launch -m`; `tokswap hypernet train` takes the same flags."""
    import argparse

    parser = argparse.ArgumentParser(prog="tokswap.hypernet.train", description="Train a hypernetwork for a model.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, action="append", type=Path, help="may be repeated")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainSettings):
        flag, about = "--" + field.name.replace("_", "-"), f"{field.metadata['help']} [{field.default}]"
        if isinstance(field.default, bool):
            parser.add_argument(flag, action="store_true", help=about)
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default, help=about)
    values = vars(parser.parse_args(arguments))
    model, texts, out, resume = (values.pop(name) for name in ("model", "text", "out", "resume"))
    try:
        train(model, texts, out, TrainSettings(**values), resume=resume, progress=True)
    except TokswapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
