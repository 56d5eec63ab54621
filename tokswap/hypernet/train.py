"""Training (arXiv 2405.07883), on one process or several.

In the first stage the network learns to reproduce the source embeddings. In the main stage the frozen model reads text
under a sampled tokenizer, with predicted embeddings, and its loss trains the network. Each step samples its own.
Everything random follows from the seed and the step, so a run that resumes after a kill comes to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from tokswap.errors import InputError
from tokswap.hypernet.checkpoints import add_metrics, begin, check_free, identity_of, save_checkpoint
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.steps import StepResult, Trainer
from tokswap.options.kinds import typed
from tokswap.storage.atomic import held, write_error
from tokswap.storage.resolve import output_path


@typed
def train(
    model: str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    progress: bool = False,
    each_step: Callable[[int], None] | None = None,
) -> Path:
    """Train a hypernetwork for a model.

    The subfolder `training` holds checkpoints, settings and metrics.jsonl. After each checkpoint, `out` is a
    hypernetwork that can be used.

    Args:
        model: The model to train for: a folder, hub id, alias or .gguf file.
        texts: Files, folders or patterns: plain text, JSON lines, parquet, also packed as .gz.
        out: Where to write the hypernetwork.
        settings: The settings; None for the defaults.
        resume: Whether to go on from the last checkpoint in `out`, if there is one.
        progress: Whether to show a progress bar.
        each_step: Called with the number of each step that is done.

    Returns:
        The folder `out`.

    Raises:
        UsageError: bad-setting, settings-changed, cannot-shard.
        InputError: training-diverged, bad-text, empty-text, missing-extra, not-byte-level, unsupported-base,
            not-causal, bad-checkpoint.
        OutputError: output-exists, output-in-use, cannot-write, disk-full.
    """
    settings, out = settings or TrainSettings(), output_path(out)
    check_free(out, resume)
    trainer = prepare(str(model), texts, settings)
    main_process = trainer.accelerator.is_main_process
    try:
        # One process holds the folder for all of them, so that no other run writes into it.
        with held(out, wait=False) if main_process else nullcontext():
            if main_process:
                check_free(out, resume)
            first = begin(trainer.accelerator, out, identity_of(str(model), texts, settings))
            _run(trainer, out, first, progress=progress, each_step=each_step)
    except OSError as error:
        raise write_error(error, out) from error
    return out


def _run(trainer: Trainer, out: Path, first: int, *, progress: bool, each_step: Callable[[int], None] | None) -> None:
    from tqdm.auto import tqdm

    settings, accelerator = trainer.settings, trainer.accelerator
    trainer.batches.warm_up(max(first - settings.identity_steps, 0))
    saved = first
    trainer.laps.take()  # the time before the first step is none of its own
    hidden = None if progress and accelerator.is_main_process else True
    with tqdm(total=settings.all_steps, initial=first, desc="train", disable=hidden) as bar:
        for step in range(first, settings.all_steps):
            result = trainer.compute(step)
            if not result.finite:
                raise InputError(
                    "training-diverged",
                    f"the loss or its gradient is non-finite at step {step}",
                    f"the checkpoint of step {saved} is kept; train with a lower --rate",
                    out=out,
                )
            trainer.optimizer.step()
            if accelerator.is_main_process:
                add_metrics(out, _metrics(trainer, step, result))
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.all_steps:
                saved = step + 1
                save_checkpoint(trainer, out, saved)
            bar.set_postfix(loss=f"{result.loss:.3f}", refresh=False)
            bar.update()
            if each_step is not None:
                each_step(step)


def _metrics(trainer: Trainer, step: int, result: StepResult) -> dict[str, object]:
    return {
        "step": step,
        "stage": result.stage,
        "loss": result.loss,
        **result.figures,
        "norm": result.norm,
        "rate": trainer.settings.rate_at(step),
        **trainer.laps.take(),
    }
