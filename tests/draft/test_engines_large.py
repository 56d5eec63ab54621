"""Engines that `make engines` installs, several GB: vLLM on CPU and CTranslate2. Elsewhere these tests are skipped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engines import greedy
from makers import make_model
from transformers import AutoConfig, AutoModelForCausalLM

import tokswap

vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make engines")
ctranslate2 = pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="CTranslate2 is not installed: make engines"
)
PROMPTS = [[5, 6, 7, 300], [400, 650, 12]]

_CTRANSLATE2 = """
import json, sys
import ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer
folder, out, prompts, count = json.loads(sys.argv[1])
TransformersConverter(folder).convert(out, force=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
generator = ctranslate2.Generator(out, compute_type="float32")
found = []
for prompt in prompts:
    tokens = tokenizer.convert_ids_to_tokens(prompt)
    [result] = generator.generate_batch([tokens], max_length=count, include_prompt_in_result=False, end_token=[])
    found.append(result.sequences_ids[0])
print(json.dumps(found))
"""

_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
folder, drafting, prompts, count = json.loads(sys.argv[1])
config = {"method": "draft_model", "num_speculative_tokens": 3, **drafting} if drafting else None
cache = 1 << 28  # by itself it asks for 92 % of the machine's memory
shape = {"dtype": "float32", "max_model_len": 64, "enforce_eager": True, "kv_cache_memory_bytes": cache}
engine = LLM(folder, speculative_config=config, **shape)
settings = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
answers = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], settings)
print(json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""


def asked(code: str, *question: object) -> list[list[int]]:
    """Run an engine in a process of its own; the line that begins with two brackets is the answer."""
    command = [sys.executable, "-c", code, json.dumps(question)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    causes = [line for line in (done.stdout + done.stderr).splitlines() if "Error: " in line]  # vLLM's first is far up
    assert done.returncode == 0, "\n".join([*causes, done.stderr[-2000:]])
    [answer] = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    found: list[list[int]] = json.loads(answer)
    return found


def wide_heads(folder: Path) -> Path:
    """Give a tiny model heads of 32 numbers, the least that vLLM has on CPU; CTranslate2 takes hidden size / heads."""
    shape = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    config = AutoConfig.from_pretrained(folder, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data *= 10 if parameter.dim() > 1 else 1  # so that texts differ
    model.save_pretrained(folder)
    return folder


@pytest.mark.skipif("TOKSWAP_ENGINES" not in os.environ, reason="`make engines` alone needs every engine")
@pytest.mark.parametrize("engine", ["xllamacpp", "mlx_lm", "ctranslate2", "vllm"])
def test_every_engine_loads(engine: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {engine}"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target and a draft for it."""
    work = tmp_path_factory.mktemp("pair")
    target = wide_heads(make_model("llama", work / "target", family="byte-level", vocab_size=700, rows=720))
    small = wide_heads(make_model("llama", work / "small", vocab_size=640))
    tokswap.make_draft(small, target, init="subword", out=work / "draft")
    return target, work / "draft"


@ctranslate2
def test_ctranslate2_gives_the_text_of_transformers(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in pair:
        found = asked(_CTRANSLATE2, str(folder), str(tmp_path / folder.name), PROMPTS, 12)
        assert found == greedy(folder, PROMPTS), folder.name


@vllm
def test_vllm_gives_the_text_of_transformers(pair: tuple[Path, Path]) -> None:
    target, draft = pair
    alone = greedy(target, PROMPTS)
    assert asked(_VLLM, str(target), None, PROMPTS, 12) == alone
    assert asked(_VLLM, str(target), {"model": str(draft)}, PROMPTS, 12) == alone
    assert asked(_VLLM, str(draft), None, PROMPTS, 12) == greedy(draft, PROMPTS)


@vllm
def test_vllm_takes_a_draft_with_another_vocabulary_only_where_it_is_told_to(pair: tuple[Path, Path]) -> None:
    target, small = pair[0], pair[0].parent / "small"
    with pytest.raises(AssertionError, match="should have the same vocabulary size"):
        asked(_VLLM, str(target), {"model": str(small)}, PROMPTS, 12)
    told = {"model": str(small), "use_heterogeneous_vocab": True}
    assert asked(_VLLM, str(target), told, PROMPTS, 12) == greedy(target, PROMPTS)
