"""Damaged JSON is refused where it is read: each case here once ended in a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest

import tokswap
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.schema import check_config
from tokswap.errors import InputError, TokswapError, UsageError
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.tokenizer.schema import check_tokenizer, check_tokenizer_config
from tokswap.tokenizer.tokenizer import read_tokenizer

HERE = Path("file.json")


def code_of(function: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(TokswapError) as caught:
        function(*arguments, **options)
    return caught.value.code


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", 3),
        ("architectures", [None]),
        ("architectures", "LlamaForCausalLM"),
        ("model_type", []),
        ("model_type", 7),
        ("dtype", 32),
        ("torch_dtype", ["float32"]),
        ("vocab_size", 1 << 40),
        ("vocab_size", "300"),
        ("vocab_size_per_layer_input", 1 << 40),
        ("suppress_tokens", [[1, 2]]),
        ("begin_suppress_tokens", 4),
        ("bad_words_ids", 3),
        ("bad_words_ids", [[{}]]),
        ("bad_words_ids", [4]),
        ("sequence_bias", [[1, 2.0]]),
        ("sequence_bias", [[[1], "a"]]),
        ("force_words_ids", [1]),
        ("force_words_ids", 1),
        ("forced_decoder_ids", [[1]]),
        ("forced_decoder_ids", [[1, "a"]]),
    ],
)
def test_a_config_of_other_kinds(key: str, value: object) -> None:
    for config in ({"vocab_size": 5, key: value}, {"vocab_size": 5, "text_config": {key: value}}):
        with pytest.raises(InputError, match=key) as caught:
            check_config(config, HERE)
        assert caught.value.code == "bad-config"


def test_configs_as_they_are() -> None:
    check_config({"vocab_size": 5, "architectures": None, "model_type": "bert", "suppress_tokens": None}, HERE)
    check_config({"forced_decoder_ids": [[1, None], [2, 50360]], "bad_words_ids": [[1, 2], []]}, HERE)
    check_config({"sequence_bias": [[[1, 2], -1.0]], "force_words_ids": [[1], [[1, 2], [3]]]}, HERE)
    check_config({"sequence_bias": {"(1, 2)": 3}}, HERE)
    check_config({"dtype": "bfloat16", "torch_dtype": None, "text_config": {"dtype": {"": "float32"}}}, HERE)


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TEMPLATE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
}
SPEC: dict[str, Any] = {
    "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL]},
    "post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]},
    "padding": None,
    "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"], "unk_token": None},
}


def test_tokenizers_as_they_are() -> None:
    check_tokenizer(SPEC, HERE)
    check_tokenizer({"model": {**SPEC["model"], "merges": [["a", "b"]]}}, HERE)
    check_tokenizer({"model": {"vocab": [["a", -1], ["b", -2.5]], "unk_id": None}}, HERE)
    check_tokenizer(
        {"model": {"vocab": {"a": 0}}, "post_processor": {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", 0]}},
        HERE,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"vocab": 3, "merges": []}},
        {"model": {**SPEC["model"], "vocab": {"a": float("inf")}}},
        {"model": {**SPEC["model"], "vocab": {"a": True}}},
        {"model": {**SPEC["model"], "merges": 3}},
        {"model": {**SPEC["model"], "merges": ["abc"]}},
        {"model": {**SPEC["model"], "merges": [["a", 3]]}},
        {"model": {**SPEC["model"], "unk_token": {}}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0, 1]]}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 1}},
        {"model": {**SPEC["model"], "type": []}},
        {"added_tokens": 5},
        {"added_tokens": True},
        {"added_tokens": [None]},
        {"added_tokens": [{"id": 1.0, "content": "x"}]},
        {"added_tokens": [{"id": 1, "content": 4}]},
        {"padding": "a"},
        {"truncation": [1]},
        {"normalizer": {"type": {}}},
        {"pre_tokenizer": {"type": []}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [3]}},
        {"decoder": "x"},
        {"pre_tokenizer": {"type": "Sequence"}},
        {"post_processor": {**TEMPLATE, "special_tokens": []}},
        {"post_processor": {**TEMPLATE, "special_tokens": {}}},
        {"post_processor": {**TEMPLATE, "single": None}},
        {"post_processor": {**TEMPLATE, "pair": [{"Sequence": ["A", 0]}]}},
        {"post_processor": {**TEMPLATE, "special_tokens": {"<s>": {"ids": ["0"]}}}},
        {"post_processor": {"type": "RobertaProcessing", "cls": "<s>", "sep": ["</s>", 1]}},
    ],
)
def test_a_tokenizer_of_other_parts(change: dict[str, Any]) -> None:
    assert code_of(check_tokenizer, {**SPEC, **change}, HERE) == "bad-tokenizer"


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": 3},
        {"added_tokens_decoder": {"x": {}}},
        {"additional_special_tokens": [[]]},
        {"additional_special_tokens": [{"content": 3}]},
        {"extra_special_tokens": {"image": []}},
    ],
)
def test_a_tokenizer_config_of_other_kinds(config: dict[str, Any]) -> None:
    assert code_of(check_tokenizer_config, config, HERE) == "bad-tokenizer"


@pytest.mark.parametrize("levels", [100, 5000, 200_000])
def test_json_that_is_nested_too_deep(levels: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ' * levels + "1" + "}" * levels)
    assert code_of(read_json, tmp_path / "config.json", "config") == "bad-config"


def test_half_a_surrogate_pair_is_written_as_it_came(model_of: Callable[..., Path], tmp_path: Path) -> None:
    model = makers.copy_model(model_of("qwen2"), tmp_path / "model")
    config = makers.read_json(model / "config.json")
    (model / "config.json").write_text(json.dumps({**config, "note": "\ud800 and ü"}))
    tokswap.transplant_tokenizer(str(model), str(model_of("llama")), init="mean", out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["note"] == "\ud800 and ü"
    assert json_bytes({"a": "ü"}) == '{\n  "a": "ü"\n}'.encode()


def test_an_index_with_other_metadata_or_impossible_names(model_of: Callable[..., Path], tmp_path: Path) -> None:
    model = makers.copy_model(model_of("qwen2", shards=2), tmp_path / "model")
    path = model / "model.safetensors.index.json"
    index = makers.read_json(path)
    for metadata in (3, [1], "ab"):
        makers.write_json(path, {**index, "metadata": metadata})
        assert code_of(open_checkpoint, model) == "bad-index"
    for name in ("a" * 3000, "a\0b"):
        makers.write_json(path, {**index, "weight_map": dict.fromkeys(index["weight_map"], name)})
        assert code_of(open_checkpoint, model) == "missing-shard"


def test_a_vocabulary_of_impossible_size(model_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than any vocabulary"):
        tokswap.transplant_tokenizer(
            str(model_of("qwen2")), str(model_of("llama")), init="mean", out=tmp_path / "out", vocab_size=1 << 50
        )
    for number in (0, 1 << 50):
        with pytest.raises(UsageError, match="pad-to-multiple"):
            tokswap.trim_vocabulary(
                str(model_of("qwen2")), scripts=["Latin"], out=tmp_path / "out", pad_to_multiple=number
            )


def test_what_the_tokenizers_library_raises_while_it_tokenizes(
    tokenizer_of: Callable[..., Path], tmp_path: Path
) -> None:
    """WordPiece without its unknown token raises a bare Exception, at the first word that it does not know."""
    folder = makers.copy_model(tokenizer_of("wordpiece"), tmp_path / "tokenizer")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["unk_token"] = "[NONE]"
    makers.write_json(folder / "tokenizer.json", spec)
    tokenizer = read_tokenizer(folder)
    assert code_of(tokenizer.encode, "日本 \u1234") == "bad-tokenizer"
    assert code_of(tokenizer.encode_batch, ["日本 \u1234"]) == "bad-tokenizer"


def test_a_chat_template_that_is_no_text(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = makers.copy_model(tokenizer_of("byte-level"), tmp_path / "tokenizer")
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}\xff")
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    assert code_of(lambda: tokenizer.chat_templates) == "bad-tokenizer"
    assert code_of(read_tokenizer, folder) == "bad-tokenizer"
