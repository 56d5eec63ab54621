"""llama.cpp with a draft, through xllamacpp, in a process of its own: a draft that it does not like can abort it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CODE = """
import json, os, sys, time, urllib.request, xllamacpp
asked = json.load(open(sys.argv[1]))
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.port, settings.warmup = asked["model"], 512, 0, True
settings.n_parallel = settings.cpuparams.n_threads = settings.n_threads_http = 1
if asked["draft"]:
    drafting = settings.speculative.draft
    drafting.mparams.path, drafting.p_min = asked["draft"], 0.0
    drafting.n_max = drafting.n_min = asked["proposed"]
    drafting.cpuparams.n_threads = 1
    settings.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
server = xllamacpp.Server(settings)
found = []
for prompt in asked["prompts"]:
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "samplers": ["temperature"], "ignore_eos": True}
    seconds = []
    for count in (1, asked["count"]):  # the first request reads the prompt, the second finds it in the cache
        body |= {"n_predict": count, "return_tokens": True, "cache_prompt": True}
        request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        begin = time.process_time()
        answer = json.load(urllib.request.urlopen(request))
        seconds.append(time.process_time() - begin)
    timings = answer["timings"]
    found.append({"ids": answer["tokens"], "proposed": timings.get("draft_n") or 0,
                  "accepted": timings.get("draft_n_accepted") or 0, "cpu_seconds": seconds[1]})
json.dump(found, open(sys.argv[2], "w"))
os._exit(0)
"""


def llama_cpp(
    model: Path, prompts: Sequence[Sequence[int]], *, draft: Path | None, count: int, proposed: int
) -> list[dict[str, Any]]:
    """Let llama.cpp continue prompts greedily on one thread.

    Args:
        model: The target's .gguf file.
        prompts: Ids to continue, bos included.
        draft: The draft's .gguf file, None for the target alone.
        count: New tokens per prompt.
        proposed: Tokens that the draft proposes in a round.

    Returns:
        For each prompt `ids`, `proposed`, `accepted` and `cpu_seconds`.

    Raises:
        RuntimeError: where llama.cpp fails.
    """
    asked = {"model": str(model), "draft": str(draft or ""), "prompts": list(prompts), "count": count}
    with tempfile.TemporaryDirectory() as work:
        question, answer = Path(work) / "asked.json", Path(work) / "answered.json"
        question.write_text(json.dumps({**asked, "proposed": proposed}))
        done = subprocess.run(
            [sys.executable, "-c", _CODE, str(question), str(answer)], capture_output=True, text=True, timeout=3600
        )
        if not answer.is_file():
            raise RuntimeError(f"llama.cpp ended with {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")
        found: list[dict[str, Any]] = json.loads(answer.read_text())
    return found
