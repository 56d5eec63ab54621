"""Transplanted drafts beside vLLM's `use_heterogeneous_vocab`, which takes a draft with a vocabulary of its own.

    .venv-engines/bin/python benchmarks/vllm_drafts.py [--rows ...] [--folder DIR] [--texts DIR]

It needs vLLM (`make engines`). Models, prompts and drafts are those of benchmarks/draft.py, which makes the drafts that
are not in the folder (the distilled ones need the extra `heal`).

vLLM runs without compilation, in float32, on one thread, greedily, with five proposed tokens a round, one prompt at a
time. The counts are its own: accepted tokens, and runs of the target that check proposals. Times are processor times of
its process, prompts included. Rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _draft_figures import ALONE, KINDS, Run, figures, finished, table
from _machine import keep, missing_rows, row_parser
from draft import DRAFTS, PROPOSED, fetch, make_draft, prompts

from tokswap.storage.resolve import resolve_model

RESULT = "vllm-drafts"
OTHER = "as it is, with use_heterogeneous_vocab"
ROWS = (ALONE, OTHER, *DRAFTS)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""One thread, 1 GiB for keys and values, and the engine in this process, where its processor time is counted."""


def models(name: str, given: argparse.Namespace) -> tuple[Path, Path]:
    """Return the draft of a row, made where it is not there yet, and the target."""
    small, big = (resolve_model(str(fetch(one))) for one in ("smollm2", "gemma"))
    return make_draft(name, given, small, big)[0] if name in DRAFTS else small, big


def speculative(name: str, draft: Path) -> dict[str, Any] | None:
    """Return vLLM's `speculative_config` of a row."""
    config = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": PROPOSED}
    return None if name == ALONE else config | ({"use_heterogeneous_vocab": True} if name == OTHER else {})


def counters(engine: Any) -> dict[str, int]:
    """Return vLLM's counters of speculative decoding, by the end of their names; none without a draft."""
    begin = "vllm:spec_decode_num_"
    return {
        one.name.removeprefix(begin): int(one.value)
        for one in engine.get_metrics()
        if one.name.startswith(begin) and hasattr(one, "value")
    }


def row(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Generate in vLLM, alone or with a draft. Returns figures by kind of text."""
    draft, big = models(name, given)
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(big),
        dtype="float32",
        max_model_len=1024,
        max_num_seqs=1,
        enforce_eager=True,
        disable_hybrid_kv_cache_manager=True,
        disable_log_stats=False,
        speculative_config=speculative(name, draft),
    )
    settings = SamplingParams(temperature=0, max_tokens=given.tokens, ignore_eos=True)
    engine.generate("Once", settings, use_tqdm=False)
    found: dict[str, Any] = {}
    for kind in KINDS:
        begin, runs = time.process_time(), []
        for prompt in prompts(kind, given):
            before = counters(engine)
            ids = engine.generate(prompt, settings, use_tqdm=False)[0].outputs[0].token_ids
            count = {key: value - before.get(key, 0) for key, value in counters(engine).items()}
            proposed, accepted = (count.get(key, 0) for key in ("draft_tokens", "accepted_tokens"))
            runs.append(Run(ids, proposed, accepted, len(ids) - accepted))
        found[kind] = figures(runs, time.process_time() - begin)
    return found


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-draft")
    parser.add_argument("--kilobytes", type=int, default=120)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=15, help="of each kind of text")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    if given.one:
        print(json.dumps(row(given.one, given)), flush=True)
        return
    settings = {"vllm": version("vllm-cpu"), "proposed_a_round": PROPOSED, "new_tokens": given.tokens}
    for name in given.rows:  # here: vLLM does not start in a process in which a draft was made
        models(name, given)
    rows = missing_rows(RESULT, given.rows, **settings)
    rows = finished({name: rows[name] for name in ROWS if name in rows}, beside=OTHER)
    keep(RESULT, {**settings, "rows": rows})
    print(*table("vLLM", rows), sep="\n")


if __name__ == "__main__":
    main()
