"""Inference engines that are asked in the tests, each in a process of its own: llama.cpp aborts, mlx can crash."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

llama_cpp = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
mlx_lm = pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed")
PROMPTS = ("The old bridge was closed", "def area(shapes):\n    total", "Der Zug fährt heute")

_LLAMA = """
import json, os, sys, urllib.request, xllamacpp
asked = json.load(open(sys.argv[1]))
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.port, settings.warmup = asked["model"], 128, 0, False
settings.n_parallel = settings.cpuparams.n_threads = settings.n_threads_http = 1
settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
if asked["draft"]:
    drafting = settings.speculative.draft
    drafting.mparams.path, drafting.n_max, drafting.n_min, drafting.p_min = asked["draft"], 4, 1, 0.0
    drafting.cpuparams.n_threads = 1
    drafting.cache_type_k = drafting.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
server = xllamacpp.Server(settings)
found = []
for prompt in asked["prompts"]:
    body = {"prompt": prompt, "n_predict": asked["count"], "temperature": 0, "return_tokens": True,
            "cache_prompt": False, "ignore_eos": True, "samplers": ["temperature"]}
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    drafted = [answer["timings"].get(key) for key in ("draft_n", "draft_n_accepted")]
    found.append({"ids": answer["tokens"], "text": answer["content"], "drafted": drafted})
json.dump(found, open(sys.argv[2], "w"))
os._exit(0)
"""

_MLX = """
import json, sys
import mlx.core as mx
from mlx_lm import load
from mlx_lm.generate import generate_step, speculative_generate_step
asked = json.load(open(sys.argv[1]))
model, tokenizer = load(asked["model"])
draft = load(asked["draft"])[0] if asked["draft"] else None
found = []
for prompt in asked["prompts"]:
    prompt, count = mx.array(prompt), asked["count"]
    if draft is None:
        ids, drafted = [int(step[0]) for step in generate_step(prompt, model, max_tokens=count)], [None, None]
    else:
        steps = list(speculative_generate_step(prompt, model, draft, max_tokens=count, num_draft_tokens=3))
        ids, drafted = [int(step[0]) for step in steps], [len(steps), sum(bool(step[2]) for step in steps)]
    found.append({"ids": ids, "text": tokenizer.decode(ids), "drafted": drafted})
json.dump(found, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Answer:
    """What an engine did: exit status of its process, and for each prompt ids, text, and tokens drafted and accepted."""

    status: int
    output: str
    found: list[dict[str, Any]]

    @property
    def drafts(self) -> bool:
        return bool(self.found) and all(one["drafted"][0] for one in self.found)

    @property
    def ids(self) -> list[list[int]]:
        return [one["ids"] for one in self.found]


def llama_cpp_run(
    model: Path, prompts: Sequence[Sequence[int]], work: Path, *, draft: Path | None = None, count: int = 12
) -> Answer:
    """Let llama.cpp continue prompts greedily in float32, with a draft or without."""
    return _run(_LLAMA, model, prompts, work, draft=draft, count=count)


def mlx_run(
    model: Path, prompts: Sequence[Sequence[int]], work: Path, *, draft: Path | None = None, count: int = 12
) -> Answer:
    """Let mlx-lm continue prompts greedily, with a draft or without."""
    return _run(_MLX, model, prompts, work, draft=draft, count=count)


def _run(
    code: str, model: Path, prompts: Sequence[Sequence[int]], work: Path, *, draft: Path | None, count: int
) -> Answer:
    question, answer = work / "asked.json", work / "answered.json"
    asked = {"model": str(model), "draft": str(draft) if draft else None, "prompts": list(prompts), "count": count}
    question.write_text(json.dumps(asked))
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-c", code, str(question), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = json.loads(answer.read_text()) if answer.is_file() else []
    return Answer(done.returncode, done.stdout + done.stderr, found)


def greedy(folder: Path, prompts: Sequence[Sequence[int]], count: int = 12) -> list[list[int]]:
    """Continue prompts greedily with transformers in float32, past eos."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    found = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(count):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        found.append(ids[len(prompt) :])
    return found
