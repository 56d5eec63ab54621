"""Good files of every kind that tokswap reads, to be damaged."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
from gguf_files import write_gguf


def model_files(architecture: str, **options: Any) -> Callable[[Path], object]:
    return lambda folder: makers.make_model(architecture, folder, vocab_size=300, **options)


def tokenizer_files(family: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        size = {"unigram": 120, "wordpiece": 120}.get(family, 300)
        architecture = {"unigram": "t5", "wordpiece": "bert", "sentencepiece": "gemma3"}.get(family, "qwen2")
        options = {"chat_template": makers.CHAT_TEMPLATE} if family == "byte-level" else {}
        makers.make_model(architecture, folder, family=family, vocab_size=size, **options)
        config = makers.read_json(folder / "tokenizer_config.json")
        roles = {key: value for key, value in config.items() if key.endswith("_token")}
        makers.write_json(folder / "special_tokens_map.json", {**roles, "additional_special_tokens": []})

    return make


def text_file(name: str) -> Callable[[Path], object]:
    lines = [line for line in makers.shipped_text("german").splitlines() if line][:12]
    plain = "\n".join(lines).encode()
    as_json_lines = "\n".join(json.dumps({"text": line, "id": n}) for n, line in enumerate(lines)).encode()

    def make(folder: Path) -> None:
        path = folder / name
        if name.endswith(".parquet"):
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table({"text": lines, "id": list(range(len(lines)))}), path)
            return
        data = as_json_lines if ".jsonl" in name else plain
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    return make


def vector_file(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        rows = np.arange(12, dtype=np.float32).reshape(4, 3)
        if name.endswith(".npz"):
            np.savez(folder / name, words=np.array(["a", "b", "c", "d"]), vectors=rows)
        else:
            body = "\n".join(f"word{n} " + " ".join(map(str, row)) for n, row in enumerate(rows.tolist()))
            (folder / name).write_text("4 3\n" + body)

    return make


def make_network(folder: Path) -> None:
    from hypernets import make_hypernet

    base = makers.make_model("qwen2", folder / "base", vocab_size=300)
    make_hypernet(base, folder)
    shutil.rmtree(folder / "base")


def make_flax(folder: Path) -> None:
    import msgpack
    from safetensors.numpy import load_file

    make_network(folder)
    tree: dict[str, Any] = {}
    for name, array in load_file(folder / "model.safetensors").items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        body = msgpack.packb((array.shape, array.dtype.name, array.tobytes()))
        node[last] = msgpack.ExtType(1, body)
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    (folder / "model.safetensors").unlink()


def make_adapter(folder: Path, rank: int = 2) -> None:
    """Write a trimmed model, and a LoRA adapter for the model before the trim."""
    import torch
    from safetensors.torch import save_file

    import tokswap

    (folder / "adapter").mkdir(parents=True)
    model = folder.parent / "model"
    tokswap.trim_vocabulary(str(model), scripts=["Latin"], keep_tokens=["e"], out=folder / "trimmed", check="tokens")
    rows = makers.read_json(folder / "trimmed" / "vocab_map.json")["rows_before"]
    name = "base_model.model.model.embed_tokens"
    tensors = {f"{name}.lora_embedding_A": torch.ones(rank, rows), f"{name}.lora_embedding_B": torch.ones(4, rank)}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "trainable_token_indices": {"embed_tokens": [0, 1]}}
    makers.write_json(folder / "adapter" / "adapter_config.json", settings)


def make_result(folder: Path) -> None:
    import tokswap

    root = folder.parent
    tokswap.transplant_tokenizer(str(root / "model"), str(root / "other"), init="subword", out=folder)


def make_ensemble(folder: Path) -> None:
    from tokswap.ensemble.prepare import prepare_ensemble

    root = folder.parent
    prepare_ensemble([str(root / "model"), str(root / "other")], str(root / "other"), folder, init="subword")


def make_gguf(folder: Path) -> None:
    """Write a tiny Llama with random weights and a byte-level tokenizer as a .gguf file."""
    spec = makers.read_json(
        makers.make_tokenizer("byte-level", folder / "tokenizer", vocab_size=300) / "tokenizer.json"
    )
    shutil.rmtree(folder / "tokenizer")
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    keys = {
        "ggml.model": "gpt2",
        "ggml.pre": "default",
        "ggml.tokens": sorted(vocab, key=vocab.__getitem__),
        "ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "ggml.token_type": [1] * len(vocab),
        **{f"ggml.{role}_token_id": 0 for role in ("bos", "eos", "padding")},
    }
    write_gguf(folder / "model.gguf", keys)


def make_full_configs(folder: Path) -> None:
    makers.make_model("qwen2", folder, vocab_size=300)
    (folder / "generation_config.json").write_text(
        '{"eos_token_id": [1, 2], "suppress_tokens": [3], "bad_words_ids": [[4, 5]]}'
    )
