"""Tiny .gguf files with random weights, and what llama.cpp makes of texts under such a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Keys = Mapping[str, Any]
"""Keys of the file without `tokenizer.`: `{"ggml.model": "gpt2", "ggml.tokens": [...], ...}`."""


def write_gguf(path: Path, keys: Keys, name: str = "") -> Path:
    """Write a tiny Llama with the `gguf` package, and the keys of its tokenizer."""
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    width, inner, rows = 32, 64, len(keys["ggml.tokens"])
    writer = gguf.GGUFWriter(path, "llama")
    if name:
        writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_rope_freq_base(50000.0)
    writer.add_vocab_size(rows)
    for name, value in keys.items():
        _add_key(writer, f"tokenizer.{name}", value)
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (rows, width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_key(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    else:
        writer.add_array(name, value)


_SERVER = """
import http.client, json, os, sys, urllib.parse, xllamacpp
kept = []  # the end of a server can wait for ever for one of its threads
def ids(server, text, parse):
    body = json.dumps({"content": text, "add_special": True, "parse_special": parse}).encode()
    server.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(server.getresponse())["tokens"]
def answer(path, texts):
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.port, settings.warmup = path, 64, 0, False
    settings.n_parallel = settings.cpuparams.n_threads = settings.n_threads_http = 1
    server = xllamacpp.Server(settings)
    kept.append(server)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.listening_address).netloc)
    return [[ids(connection, text, parse) for parse in (True, False)] for text in texts]
with open(sys.argv[1]) as file:
    found = [answer(path, texts) for path, texts in json.load(file)]
with open(sys.argv[2], "w") as file:
    json.dump(found, file)
os._exit(0)
"""

Ids = list[list[list[int]]]
"""For each text its ids, with special tokens parsed and not."""


def llama_cpp_ids(asked: Sequence[tuple[Path, Sequence[str]]], work: Path) -> list[Ids]:
    """Return the ids of the texts of each file in llama.cpp, which runs in a process of its own: it can abort."""
    question, answer = work / "texts.json", work / "ids.json"
    question.write_text(json.dumps([(str(path), list(texts)) for path, texts in asked]))
    command = [sys.executable, "-c", _SERVER, str(question), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[Ids] = json.loads(answer.read_text())
    return found


def transformers_ids(folder: Path, texts: Sequence[str]) -> Ids:
    """Return the ids of texts under the tokenizer that `AutoTokenizer` loads from a folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [[tokenizer(text, split_special_tokens=split)["input_ids"] for split in (False, True)] for text in texts]


def differing(first: Ids, second: Ids, texts: Sequence[str]) -> list[str]:
    """Return the texts whose ids differ."""
    return [text for text, one, other in zip(texts, first, second, strict=True) if one != other]
