"""Every kind of input that is fuzzed, one row each: good files, ways to damage one of them, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from soak import damage, good_files, readers
from soak.damage import Damage
from soak.mutate import damage_bytes

SECRET = "secret.safetensors"
"""A good weight file outside the folders that may be read. Nothing may ever open it."""


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: Its name in tables.
        make: Writes good files into a folder.
        victims: The files that may be damaged, and how.
        run: Reads the files, and returns how that ended.
        share: Its part of all inputs; slow kinds get a smaller one.
    """

    name: str
    make: Callable[[Path], object]
    victims: Mapping[str, Damage]
    run: Callable[[Path, Random], str]
    share: int


_FAMILIES = ("byte-level", "sentencepiece", "unigram", "wordpiece")

TARGETS: tuple[Target, ...] = (
    Target(
        "safetensors header",
        good_files.model_files("llama"),
        {"model.safetensors": damage.as_header},
        run=readers.read_weights,
        share=360,
    ),
    Target(
        "weight index",
        good_files.model_files("llama", shards=3),
        {"model.safetensors.index.json": damage.as_json},
        run=readers.read_weights,
        share=160,
    ),
    Target(
        "config.json", good_files.make_full_configs, {"config.json": damage.as_json}, run=readers.plan_or_read, share=40
    ),
    Target(
        "config.json, encoder and decoder",
        good_files.model_files("t5"),
        {"config.json": damage.as_json},
        run=readers.plan_or_read,
        share=10,
    ),
    Target(
        "generation_config.json",
        good_files.make_full_configs,
        {"generation_config.json": damage.as_json},
        run=readers.plan_or_read,
        share=20,
    ),
    *(
        Target(
            f"tokenizer.json, {family}",
            good_files.tokenizer_files(family),
            {"tokenizer.json": damage.as_json},
            run=readers.plan_or_read,
            share=20,
        )
        for family in _FAMILIES
    ),
    Target(
        "tokenizer companions",
        good_files.tokenizer_files("byte-level"),
        {
            "tokenizer_config.json": damage.as_json,
            "special_tokens_map.json": damage.as_json,
            "chat_template.jinja": damage_bytes,
        },
        run=readers.plan_or_read,
        share=25,
    ),
    Target(
        "corpus, text", good_files.text_file("text.txt"), {"text.txt": damage_bytes}, run=readers.read_corpus, share=50
    ),
    Target(
        "corpus, JSON lines",
        good_files.text_file("text.jsonl"),
        {"text.jsonl": damage.as_lines},
        run=readers.read_corpus,
        share=50,
    ),
    Target(
        "corpus, gzip",
        good_files.text_file("text.jsonl.gz"),
        {"text.jsonl.gz": damage.as_gzip(damage.as_lines)},
        run=readers.read_corpus,
        share=50,
    ),
    Target(
        "corpus, parquet",
        good_files.text_file("text.parquet"),
        {"text.parquet": damage_bytes},
        run=readers.read_corpus,
        share=40,
    ),
    Target(
        "texts and word lists",
        good_files.text_file("text.txt"),
        {"text.txt": damage_bytes},
        run=readers.read_plain_text,
        share=70,
    ),
    Target(
        "word vectors, .npz",
        good_files.vector_file("vectors.npz"),
        {"vectors.npz": damage.as_npz},
        run=readers.read_word_vectors,
        share=80,
    ),
    Target(
        "word vectors, .vec",
        good_files.vector_file("vectors.vec"),
        {"vectors.vec": damage_bytes},
        run=readers.read_word_vectors,
        share=50,
    ),
    Target(
        "hypernetwork",
        good_files.make_network,
        {"config.json": damage.as_json, "model.safetensors": damage.as_header, "tokenizer.json": damage.as_json},
        run=readers.read_hypernet,
        share=20,
    ),
    Target(
        "hypernetwork, msgpack",
        good_files.make_flax,
        {"flax_model.msgpack": damage.as_msgpack},
        run=readers.read_hypernet,
        share=15,
    ),
    Target(
        "adapter",
        good_files.make_adapter,
        {"adapter/adapter_config.json": damage.as_json, "adapter/adapter_model.safetensors": damage.as_header},
        run=readers.read_adapter,
        share=30,
    ),
    Target(
        "vocab_map.json",
        good_files.make_adapter,
        {"trimmed/vocab_map.json": damage.as_json},
        run=readers.read_like,
        share=10,
    ),
    Target("tokswap.json", good_files.make_result, {"tokswap.json": damage.as_json}, run=readers.read_report, share=30),
    Target(
        "ensemble.json",
        good_files.make_ensemble,
        {"ensemble.json": damage.as_json},
        run=readers.read_ensemble,
        share=10,
    ),
    Target(
        "aliases.json",
        lambda f: (f / "aliases.json").write_text('{"mine": "../other"}'),
        {"aliases.json": damage.as_json},
        run=readers.read_aliases,
        share=20,
    ),
    Target("GGUF", good_files.make_gguf, {"model.gguf": damage.as_gguf}, run=readers.read_gguf, share=3),
)
"""Every kind of input that tokswap reads. A new kind is one row."""
