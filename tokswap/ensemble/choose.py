"""Which member's tokenizer costs the ensemble least: each is tried on a text, with the transplants that it needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.ensemble.members import FILE, read_ensemble
from tokswap.ensemble.prepare import MemberJob, plan_members
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
    models: Sequence[str],
    texts: Mapping[str, str],
    out: Path,
    *,
    force: bool = False,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Try the tokenizer of each model for all of them, and return what each costs on the texts.

    The transplants are made in a temporary folder beside `out`, one at a time. What an ensemble.json in `out` has as the answer
    to the same question is taken as it is; a damaged one is an error without force. options: of `plan_ensemble`. Returns
    "tokenizer", the one with the least excess summed over the models; "tried", for each tokenizer its excess in bits per byte by
    model, their sum, the rows that were made, and seconds; "texts"; and "request", a digest of the question.

    Raises UsageError missing-text, InputError bad-ensemble, and what a transplant or a judgement raises.
    """
    if not texts:
        message = "the tokenizer that costs least is found on a text"
        raise UsageError("missing-text", message, "give one with --text, of the kind that the ensemble is for")
    asked = [list(models), dict(texts), {k: str(options[k]) for k in sorted(options)}, versions()]
    request = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    before = _answered(out, force)
    if before.get("request") == request:
        return before
    tried: list[dict[str, Any]] = []
    for tokenizer in candidates(models):
        begin = time.perf_counter()
        with scratch(out.with_name(f"{out.name}-candidates")) as work:
            jobs = plan_members(models, tokenizer, work / "members", **options)
            excess = {job.name: _excess(job, texts, options, progress) for job in jobs}
        made = {job.name: job.job.plan.coverage.get("missing", 0) for job in jobs}
        tried.append(
            {
                "tokenizer": tokenizer,
                "total": sum(excess.values()),
                "excess": excess,
                "made": made,
                "seconds": round(time.perf_counter() - begin, 1),
            }
        )
    tried.sort(key=lambda one: float(one["total"]))
    return {"tokenizer": tried[0]["tokenizer"], "tried": tried, "texts": list(texts), "request": request}


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


def _excess(job: MemberJob, texts: Mapping[str, str], options: Mapping[str, Any], progress: bool) -> float:
    """What a member loses, in bits per byte; its files are gone afterwards."""
    plan = job.job.plan
    if not job.moved and not plan.bos_added:
        return 0.0
    job.job.run(progress=progress)
    judged = evaluate_models(
        [plan.out],
        texts,
        against=job.model,
        tokens=0,
        device=options.get("device", "cpu"),
        progress=progress,
        trust_remote_code=options.get("trust_remote_code", False),
    )
    shutil.rmtree(plan.out)
    excess = judged.models[1].verdict.excess
    assert excess is not None
    return excess
