"""Which member's tokenizer costs an ensemble least: each is tried on a text, with the transplants that it needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.ensemble.jobs import MemberJob, plan_members
from tokswap.ensemble.members import FILE, read_ensemble
from tokswap.ensemble.options import MemberOptions
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.evaluate import evaluate_models
from tokswap.report.record import versions
from tokswap.storage.atomic import scratch
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.tokenizer import read_tokenizer


def candidates(models: Sequence[str]) -> list[str]:
    """Return the models whose tokenizers are worth a try: one for each vocabulary."""
    found: dict[tuple[str, ...], str] = {}
    for model in models:
        found.setdefault(tuple(read_tokenizer(resolve_tokenizer(model)).vocabulary.text), model)
    return list(found.values())


def choose_tokenizer(
    models: Sequence[str], texts: Mapping[str, str], out: Path, options: MemberOptions, *, force: bool = False
) -> dict[str, Any]:
    """Try the tokenizer of each model for all of them, and return what each costs on the texts.

    The transplants are made in a temporary folder beside `out`, one at a time. An answer to the same question that an
    ensemble.json in `out` holds is used as it is.

    Args:
        models: The members.
        texts: Name -> text.
        out: Folder of the ensemble.
        options: How members are made.
        force: Whether to ignore a damaged ensemble.json.

    Returns:
        "tokenizer": the one with the least excess summed over the models. "tried": for each tokenizer its excess in
        bits per byte by model, their sum, the number of initialised rows, and seconds. "texts": their names.
        "request": a digest of the question.

    Raises:
        UsageError: missing-text.
        InputError: bad-ensemble, and what a transplant or an evaluation raises.
    """
    if not texts:
        message = "the tokenizer with the least excess is found on a text"
        raise UsageError("missing-text", message, "give one with --text, of the kind that the ensemble is for")
    asked = [list(models), dict(texts), options.recorded(), options.init, str(options.settings), versions()]
    request = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()
    before = _answered(out, force)
    if before.get("request") == request:
        return before
    tried = sorted(
        (_tried(tokenizer, models, texts, out, options) for tokenizer in candidates(models)),
        key=lambda one: float(one["total"]),
    )
    return {"tokenizer": tried[0]["tokenizer"], "tried": tried, "texts": list(texts), "request": request}


def _tried(
    tokenizer: str, models: Sequence[str], texts: Mapping[str, str], out: Path, options: MemberOptions
) -> dict[str, Any]:
    """What one tokenizer costs all models."""
    begin = time.perf_counter()
    with scratch(out.with_name(f"{out.name}-candidates")) as work:
        jobs = plan_members(models, tokenizer, work / "members", options)
        excess = {job.name: _excess(job, texts, options) for job in jobs}
    return {
        "tokenizer": tokenizer,
        "total": sum(excess.values()),
        "excess": excess,
        "made": {job.name: job.job.plan.coverage.get("missing", 0) for job in jobs},
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _answered(out: Path, force: bool) -> dict[str, Any]:
    """What an earlier run has found."""
    if not (out / FILE).is_file():
        return {}
    try:
        return dict(read_ensemble(out, unfinished=True).choice)
    except InputError:
        if force:
            return {}
        raise


def _excess(job: MemberJob, texts: Mapping[str, str], options: MemberOptions) -> float:
    """The excess of a member in bits per byte; its files are gone afterwards."""
    plan = job.job.plan
    if not job.changes and not plan.change.bos_added:
        return 0.0
    job.job.run()
    judged = evaluate_models(
        [plan.names.out],
        texts,
        against=job.model,
        tokens=0,
        device=options.device,
        progress=options.progress,
        trust_remote_code=options.trust_remote_code,
    )
    shutil.rmtree(plan.names.out)
    excess = judged.models[1].score.excess
    assert excess is not None
    return excess
