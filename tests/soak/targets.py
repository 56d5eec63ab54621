"""What is fuzzed: one row a kind of input. Each has a folder of good files, ways to damage one of them, and what reads it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import makers
import numpy as np

from soak.mutate import damage_bytes, damage_json, json_bytes
from tokswap.errors import TokswapError

Damage = Callable[[bytes, Random], bytes]
SECRET = "secret.safetensors"
"""A good weight file beside the folders that may be read: nothing may ever open it."""


@dataclass(frozen=True)
class Target:
    """make: writes good files into a folder. victims: file -> how it is damaged. run: reads them; returns how it ended.

    share: parts of all inputs, so that the slow kinds get fewer.
    """

    name: str
    make: Callable[[Path], object]
    victims: Mapping[str, Damage]
    run: Callable[[Path, Random], str]
    share: int


def cli(*arguments: object) -> str:
    """Run a command in this process. Returns "ok", "usage", "checks failed", or the code of an error."""
    import click

    from tokswap.cli import main

    out, said = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with redirect_stdout(out), redirect_stderr(said):
            status = main.main([str(argument) for argument in arguments], prog_name="tokswap", standalone_mode=False)
    except click.ClickException:
        return "usage"
    except SystemExit as end:
        return "ok" if not end.code else "checks failed"
    if not status:
        return "ok"
    first = said.buffer.getvalue().decode().split("error: ", 1)[-1].split("\n\n")[0]
    if "[" not in first:
        return "checks failed"
    return first.rsplit("  [", 1)[-1].split("]")[0]


def call(function: Callable[..., object], *arguments: Any) -> str:
    """Call a function of the package. Returns "ok" or the code of an error."""
    try:
        function(*arguments)
    except TokswapError as error:
        return error.code or "an error without a code"
    return "ok"


# How files are damaged.


def as_json(data: bytes, random: Random) -> bytes:
    return json_bytes(json.loads(data), random)


def as_header(data: bytes, random: Random) -> bytes:
    """Damage the header of a safetensors file, most often with a length that is right."""
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.7:
        text = json_bytes(json.loads(data[8 : 8 + length]), random)
        return len(text).to_bytes(8, "little") + text + data[8 + length :]
    return damage_bytes(data, random, spread=8 + length)


def as_lines(data: bytes, random: Random) -> bytes:
    """Damage one line of a file of JSON lines, or its bytes."""
    if random.random() < 0.4:
        return damage_bytes(data, random)
    lines = data.splitlines()
    at = random.randrange(len(lines))
    lines[at] = json_bytes(json.loads(lines[at]), random)
    return b"\n".join(lines)


def as_gzip(inner: Damage) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        if random.random() < 0.5:
            return damage_bytes(data, random)
        return gzip.compress(inner(gzip.decompress(data), random), 1)

    return damage


def as_npz(data: bytes, random: Random) -> bytes:
    """Damage the bytes of a .npz, or make one of arrays that do not fit."""
    if random.random() < 0.5:
        return damage_bytes(data, random)
    strange: list[Any] = [
        np.zeros((3, 2), np.float32),
        np.zeros(3, "<U2"),
        np.zeros((0, 2)),
        np.zeros(()),
        np.zeros((2, 2, 2)),
        np.array([b"a"]),
        np.full((3, 2), np.nan),
        np.zeros(3, [("a", "f4")]),
        np.zeros(3, "M8[s]"),
        np.zeros((3, 2), np.complex64),
        np.array([None, {}, "x"], object),
        np.zeros((3, 2), "<U3"),
        np.full((3, 2), 1e300),
        np.zeros((3, 0)),
    ]
    names = ["words", "vectors"] if random.random() < 0.8 else ["words", "rows"]
    out = io.BytesIO()
    np.savez(out, **{name: random.choice(strange) for name in names})
    return out.getvalue() if random.random() < 0.7 else _huge(out.getvalue(), random)


def _huge(data: bytes, random: Random) -> bytes:
    """Let the header of an array claim an impossible size."""
    return data.replace(b"(3,", random.choice((b"(9,", b"(0,", b"(-1"))).replace(
        b"'shape': (3", b"'shape': (" + b"9" * random.choice((1, 9, 18))
    )


def as_msgpack(data: bytes, random: Random) -> bytes:
    import msgpack

    if random.random() < 0.4:
        return damage_bytes(data, random)
    tree = msgpack.unpackb(
        data, ext_hook=lambda code, inner: ["ext", code, list(msgpack.unpackb(inner))], strict_map_key=False
    )

    def pack(node: Any) -> Any:
        if isinstance(node, list) and len(node) == 3 and node[0] == "ext":
            try:
                return msgpack.ExtType(node[1], msgpack.packb(node[2]))
            except (TypeError, ValueError, OverflowError):
                return None
        if isinstance(node, dict):
            return {key: pack(child) for key, child in node.items()}
        return [pack(child) for child in node] if isinstance(node, list) else node

    try:
        return bytes(msgpack.packb(pack(damage_json(tree, random))))
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return damage_bytes(data, random)


# What reads them. `in` is the damaged folder; beside it lie `other`, a good model, `text.txt`, and `out`, where results may go.


def _plans(folder: Path, random: Random) -> str:
    """Plan with a damaged model on either side, or describe it; now and then go all the way."""
    root, other = folder.parent, folder.parent / "other"
    out = root / "out" / "result"
    kind = random.randrange(160)
    if kind >= 40:
        return call(_read, folder)
    plain = ("--init", "subword", "--out", out, "-q")
    if kind < 10:
        return cli("transplant", "--model", folder, "--tokenizer", other, "--dry-run", *plain)
    if kind < 20:
        return cli(
            "transplant",
            "--model",
            other,
            "--tokenizer",
            folder,
            "--dry-run",
            *plain,
            *random.choice(((), ("--json",))),
        )
    if kind < 26:
        return cli("inspect", folder, *random.choice(((), ("--json",))))
    if kind < 30:
        return cli("compare", folder, other, *random.choice(((), ("--json",))))
    if kind < 36:
        return cli("trim", "--model", folder, "--corpus", root / "text.txt", "--dry-run", "--out", out, "-q")
    if kind < 37:
        return cli("transplant", "--model", folder, "--tokenizer", other, *plain)
    if kind < 38:
        return cli("transplant", "--model", other, "--tokenizer", folder, *plain)
    if kind < 39:
        return cli("trim", "--model", folder, "--corpus", root / "text.txt", "--out", out, "-q", "--check", "tokens")
    return cli("verify", folder)


def _read(folder: Path) -> None:
    """Read what a plan reads of a model folder, and cut a text."""
    from tokswap.checkpoint.configs import needed_ids
    from tokswap.checkpoint.reader import open_checkpoint
    from tokswap.tokenizer.tokenizer import read_tokenizer
    from tokswap.trim.rebuild import forced_ids

    checkpoint = open_checkpoint(folder)
    assert checkpoint.matrices
    needed_ids(checkpoint.config), needed_ids(checkpoint.generation_config)
    tokenizer = read_tokenizer(folder)
    forced_ids(tokenizer), tokenizer.merge_pairs(), tokenizer.adds_bos, tokenizer.chat_template
    tokenizer.tokenize_bytes([b" the", b"\xff", "\u00e9".encode()])
    tokenizer.encode("It costs 12,50 euros.")
    tokenizer.output_files()


def _weights(folder: Path, random: Random) -> str:
    from tokswap.checkpoint.reader import Checkpoint, open_checkpoint

    def read() -> None:
        checkpoint: Checkpoint = open_checkpoint(folder)
        for name in [name for table in checkpoint.matrices for name in table.names] or list(checkpoint.tensors)[:2]:
            for _ in checkpoint.blocks(name):
                pass

    if random.random() < 0.8:
        return call(read)
    out = folder.parent / "out" / "result"
    if random.random() < 0.8:
        return cli("inspect", folder)
    return cli(
        "transplant", "--model", folder, "--tokenizer", folder.parent / "other", "--init", "subword", "--out", out, "-q"
    )


def _corpus(folder: Path, random: Random) -> str:
    from tokswap.tokenizer.tokenizer import read_tokenizer
    from tokswap.trim.corpora import count, find_corpus

    file = next(folder.glob("text.*"))

    def run() -> None:
        count(find_corpus(str(file)), read_tokenizer(folder.parent / "other"))

    return call(run)


def _word_vectors(folder: Path, random: Random) -> str:
    from tokswap.init.resources.vectors import read_vectors

    return call(lambda: read_vectors(str(next(folder.glob("vectors.*"))), random.choice((2, 10_000))))


def _plain_text(folder: Path, random: Random) -> str:
    from tokswap.storage.texts import read_texts
    from tokswap.trim.words import read_words

    return call(read_words, folder / "text.txt") if random.random() < 0.5 else call(read_texts, [folder / "text.txt"])


def _hypernet(folder: Path, random: Random) -> str:
    from tokswap.hypernet import load_hypernet

    if random.random() < 0.8:
        return call(load_hypernet, folder)
    return cli("hypernet", "import", folder, "--out", folder.parent / "out" / "result")


def _adapter(folder: Path, random: Random) -> str:
    adapter, trimmed = folder / "adapter", folder / "trimmed"
    more = () if random.random() < 0.2 else ("--dry-run",)
    return cli("trim", "--model", adapter, "--like", trimmed, "--out", folder.parent / "out" / "result", *more)


def _like(folder: Path, random: Random) -> str:
    if random.random() < 0.5:
        return _adapter(folder, random)
    return cli(
        "trim",
        "--model",
        folder.parent / "model",
        "--like",
        folder / "trimmed",
        "--dry-run",
        "--out",
        folder.parent / "out" / "r",
    )


def _report(folder: Path, random: Random) -> str:
    from tokswap.report.record import read_origin

    return call(read_origin, folder) if random.random() < 0.9 else cli("verify", folder)


def _members(folder: Path) -> list[object]:
    root = folder.parent
    return ["--model", root / "model", "--model", root / "other", "--tokenizer", root / "other", "--init", "subword"]


def _ensemble(folder: Path, random: Random) -> str:
    from tokswap.ensemble.members import read_ensemble

    kind = random.random()
    if kind < 0.6:
        return call(read_ensemble, folder)
    if kind < 0.9:
        return cli("ensemble", "prepare", *_members(folder), "--dry-run", "--out", folder)
    return cli("ensemble", "check", folder)


def _aliases(folder: Path, random: Random) -> str:
    import os

    os.environ["TOKSWAP_HOME"] = str(folder)
    return cli("alias") if random.random() < 0.5 else cli("inspect", "mine")


def _gguf(folder: Path, random: Random) -> str:
    from tokswap.storage.gguf import dequantised

    cache = folder.parent / "out" / "gguf"
    try:
        return call(dequantised, folder / "model.gguf", cache)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


# Good files.


def _model(architecture: str, **options: Any) -> Callable[[Path], object]:
    return lambda folder: makers.make_model(architecture, folder, vocab_size=300, **options)


def _tokenizer(family: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        size = {"unigram": 120, "wordpiece": 120}.get(family, 300)
        architecture = {"unigram": "t5", "wordpiece": "bert", "sentencepiece": "gemma3"}.get(family, "qwen2")
        options = {"chat_template": makers.CHAT_TEMPLATE} if family == "byte-level" else {}
        makers.make_model(architecture, folder, family=family, vocab_size=size, **options)
        config = makers.read_json(folder / "tokenizer_config.json")
        roles = {key: value for key, value in config.items() if key.endswith("_token")}
        makers.write_json(folder / "special_tokens_map.json", {**roles, "additional_special_tokens": []})

    return make


def _text_file(name: str) -> Callable[[Path], object]:
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


def _vectors(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        rows = np.arange(12, dtype=np.float32).reshape(4, 3)
        if name.endswith(".npz"):
            np.savez(folder / name, words=np.array(["a", "b", "c", "d"]), vectors=rows)
        else:
            body = "\n".join(f"word{n} " + " ".join(map(str, row)) for n, row in enumerate(rows.tolist()))
            (folder / name).write_text("4 3\n" + body)

    return make


def _network(folder: Path) -> None:
    from hypernets import make_hypernet

    base = makers.make_model("qwen2", folder / "base", vocab_size=300)
    make_hypernet(base, folder)
    shutil.rmtree(folder / "base")


def _flax(folder: Path) -> None:
    import msgpack
    from safetensors.numpy import load_file

    _network(folder)
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
    """Write a trimmed model's map and tokenizer, and a LoRA adapter for the model before the trim."""
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


def _result(folder: Path) -> None:
    import tokswap

    root = folder.parent
    tokswap.transplant_tokenizer(str(root / "model"), str(root / "other"), init="subword", out=folder)


def _prepared(folder: Path) -> None:
    from tokswap.ensemble.prepare import prepare_ensemble

    root = folder.parent
    prepare_ensemble([str(root / "model"), str(root / "other")], str(root / "other"), folder, init="subword")


def make_gguf(folder: Path) -> None:
    """Write a tiny Llama with random weights and a byte-level tokenizer as a .gguf file."""
    import gguf

    folder.mkdir(parents=True, exist_ok=True)
    spec = makers.read_json(
        makers.make_tokenizer("byte-level", folder / "tokenizer", vocab_size=300) / "tokenizer.json"
    )
    shutil.rmtree(folder / "tokenizer")
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    tokens = sorted(vocab, key=vocab.__getitem__)
    width, inner, rows = 32, 64, len(tokens)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_token_types([1] * rows)
    for role in ("bos", "eos", "pad"):
        getattr(writer, f"add_{role}_token_id")(0)
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


def _as_gguf(data: bytes, random: Random) -> bytes:
    return damage_bytes(data, random, spread=random.choice((24, 400, 7000, len(data))))


def _merged(folder: Path) -> None:
    makers.make_model("qwen2", folder, vocab_size=300)
    (folder / "generation_config.json").write_text(
        '{"eos_token_id": [1, 2], "suppress_tokens": [3], "bad_words_ids": [[4, 5]]}'
    )


_FAMILIES = ("byte-level", "sentencepiece", "unigram", "wordpiece")

TARGETS: tuple[Target, ...] = (
    Target("safetensors header", _model("llama"), {"model.safetensors": as_header}, _weights, 360),
    Target("weight index", _model("llama", shards=3), {"model.safetensors.index.json": as_json}, _weights, 160),
    Target("config.json", _merged, {"config.json": as_json}, _plans, 40),
    Target("config.json, encoder and decoder", _model("t5"), {"config.json": as_json}, _plans, 10),
    Target("generation_config.json", _merged, {"generation_config.json": as_json}, _plans, 20),
    *(
        Target(f"tokenizer.json, {family}", _tokenizer(family), {"tokenizer.json": as_json}, _plans, 20)
        for family in _FAMILIES
    ),
    Target(
        "tokenizer companions",
        _tokenizer("byte-level"),
        {"tokenizer_config.json": as_json, "special_tokens_map.json": as_json, "chat_template.jinja": damage_bytes},
        _plans,
        25,
    ),
    Target("corpus, text", _text_file("text.txt"), {"text.txt": damage_bytes}, _corpus, 50),
    Target("corpus, JSON lines", _text_file("text.jsonl"), {"text.jsonl": as_lines}, _corpus, 50),
    Target("corpus, gzip", _text_file("text.jsonl.gz"), {"text.jsonl.gz": as_gzip(as_lines)}, _corpus, 50),
    Target("corpus, parquet", _text_file("text.parquet"), {"text.parquet": damage_bytes}, _corpus, 40),
    Target("texts and word lists", _text_file("text.txt"), {"text.txt": damage_bytes}, _plain_text, 70),
    Target("word vectors, .npz", _vectors("vectors.npz"), {"vectors.npz": as_npz}, _word_vectors, 80),
    Target("word vectors, .vec", _vectors("vectors.vec"), {"vectors.vec": damage_bytes}, _word_vectors, 50),
    Target(
        "hypernetwork",
        _network,
        {"config.json": as_json, "model.safetensors": as_header, "tokenizer.json": as_json},
        _hypernet,
        20,
    ),
    Target("hypernetwork, msgpack", _flax, {"flax_model.msgpack": as_msgpack}, _hypernet, 15),
    Target(
        "adapter",
        make_adapter,
        {"adapter/adapter_config.json": as_json, "adapter/adapter_model.safetensors": as_header},
        _adapter,
        30,
    ),
    Target("vocab_map.json", make_adapter, {"trimmed/vocab_map.json": as_json}, _like, 10),
    Target("tokswap.json", _result, {"tokswap.json": as_json}, _report, 30),
    Target("ensemble.json", _prepared, {"ensemble.json": as_json}, _ensemble, 10),
    Target(
        "aliases.json",
        lambda f: (f / "aliases.json").write_text('{"mine": "../other"}'),
        {"aliases.json": as_json},
        _aliases,
        20,
    ),
    Target("GGUF", make_gguf, {"model.gguf": _as_gguf}, _gguf, 3),
)
"""Every kind of input that is read. A new one is one row."""
