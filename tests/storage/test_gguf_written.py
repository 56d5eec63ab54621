"""Results as GGUF files: llama.cpp tokenizes and continues text as transformers does with the folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from engines import PROMPTS, greedy, llama_cpp, llama_cpp_run
from gguf_files import differing, llama_cpp_ids, transformers_ids
from transformers import AutoTokenizer
from varied_texts import varied_texts

import tokswap
from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.storage.gguf.architectures import find_architecture
from tokswap.storage.gguf.convert import dequantised
from tokswap.storage.gguf.keys import template_keys
from tokswap.storage.gguf.metadata import read_metadata

pytest.importorskip("gguf", reason="the `gguf` extra is not installed")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def results(model_of: Make, work: Path) -> dict[str, Path]:
    """Name of a result -> its folder; its GGUF file lies beside it."""

    def transplant(name: str, model: Path, tokenizer: Path, **options: Any) -> Path:
        out = work / name
        tokswap.transplant_tokenizer(model, tokenizer, out=out, gguf=work / f"{name}.gguf", init="subword", **options)
        return out

    byte_level, pieces = model_of("gpt2", vocab_size=700), model_of("gemma3", vocab_size=720)
    made = {
        "byte-level": transplant("byte-level", model_of("llama", vocab_size=640, adds_bos=True), byte_level),
        "byte-level without bos": transplant("plain", model_of("qwen2", vocab_size=640), byte_level),
        "no tokenizer of its class": transplant("other", model_of("qwen2", vocab_size=640), pieces),
        "sentencepiece": transplant("sentencepiece", model_of("llama-tied", vocab_size=640), pieces),
        "sentencepiece with bos": transplant("gemma", model_of("gemma3", vocab_size=640, adds_bos=True), pieces),
        "scores": transplant("scores", model_of("llama", vocab_size=640), _all_pairs(pieces, work / "pairs")),
        "positions": transplant("positions", model_of("gpt2", vocab_size=640), pieces),
        "padded": transplant("padded", model_of("llama", vocab_size=640), byte_level, pad_to_multiple=64),
    }
    text = work / "german.txt"
    text.write_text(makers.shipped_text("german"))
    for name, family in (("trim", "byte-level"), ("trimmed pieces", "sentencepiece")):
        model = model_of("llama", family=family, vocab_size=700)
        tokswap.trim_vocabulary(model, corpora=[str(text)], out=work / name, gguf=work / f"{name}.gguf")
        made[name] = work / name
    big = model_of("gpt2", vocab_size=700, rows=720, chat_template=makers.CHAT_TEMPLATE)
    small = model_of("llama", vocab_size=640, adds_bos=True)
    tokswap.make_draft(small, big, init="subword", out=work / "draft", gguf=work / "draft.gguf")
    made["draft"] = work / "draft"
    return made


def _all_pairs(folder: Path, to: Path) -> Path:
    """The tokenizer with the merges that transformers makes of a SentencePiece model: every pair that makes a token."""
    copy = makers.copy_model(folder, to)
    spec = makers.read_json(copy / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    merges = [
        [text[:at], text[at:]]
        for text in vocab
        for at in range(1, len(text))
        if text[:at] in vocab and text[at:] in vocab
    ]
    spec["model"]["merges"] = merges
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, spec["normalizer"]],
    }
    makers.write_json(copy / "tokenizer.json", spec)
    return copy


def gguf_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".gguf")


def special(folder: Path) -> list[str]:
    added = makers.read_json(folder / "tokenizer.json")["added_tokens"]
    return [entry["content"] for entry in added][:8]


@llama_cpp
def test_llama_cpp_gives_the_ids_of_transformers(results: dict[str, Path], tmp_path: Path) -> None:
    texts = {name: varied_texts(special(folder)) for name, folder in results.items()}
    answers = llama_cpp_ids([(gguf_of(folder), texts[name]) for name, folder in results.items()], tmp_path)
    wrong = {
        name: differing(transformers_ids(folder, texts[name]), theirs, texts[name])
        for (name, folder), theirs in zip(results.items(), answers, strict=True)
    }
    assert {name: len(found) for name, found in wrong.items() if found} == {}
    assert {len(found) for found in texts.values()} == {769}


@llama_cpp
@pytest.mark.slow
def test_llama_cpp_writes_the_text_of_transformers(results: dict[str, Path], tmp_path: Path) -> None:
    for folder in results.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
        same_text(folder, gguf_of(folder), prompts, tmp_path)


def same_text(folder: Path, file: Path, prompts: list[list[int]], work: Path) -> None:
    """Continue prompts greedily with both engines, up to the first id that llama.cpp ends a text with."""
    stops = makers.read_json(folder / "generation_config.json").get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    answer = llama_cpp_run(file, prompts, work, count=24)
    assert answer.status == 0, (folder.name, answer.output[-500:])
    for ours, theirs in zip(greedy(folder, prompts, 24), answer.ids, strict=True):
        end = next((n for n, token in enumerate(ours) if token in stops), len(ours))
        assert theirs[:end] == ours[:end], folder.name


_SMALL = {
    "vocab_size": 700,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
_GEMMA3 = {
    "model_type": "gemma3_text",
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 16},
    "gemma3 in full": {**_GEMMA3, "layer_types": ["full_attention"] * 2},
    "gemma3 of 62 layers": {**_GEMMA3, "num_hidden_layers": 62, "query_pre_attn_scalar": 8, "head_dim": 16},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "phi3": {"model_type": "phi3", "sliding_window": 100},
    "phi3 in part": {"model_type": "phi3", "sliding_window": None, "partial_rotary_factor": 0.5},
    "phi3 as transformers 5 saves it": {
        "model_type": "phi3",
        "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama3 scaling": {"model_type": "llama", "rope_parameters": _LLAMA3},
    "linear scaling": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    },
    "yarn scaling": {
        "model_type": "qwen2",
        "rope_parameters": _YARN,
    },
}


@llama_cpp
@pytest.mark.parametrize("name", _CONFIGS)
def test_architectures(name: str, model_of: Make, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**_SMALL, **_CONFIGS[name]}
    folder = makers.copy_model(model_of("gpt2", vocab_size=700), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    makers._randomise(model)
    model.eval().save_pretrained(folder)
    report = tokswap.transplant_tokenizer(
        folder, folder, out=tmp_path / "out", gguf=tmp_path / "out.gguf", init="subword"
    )
    assert any("sliding window" in note for note in report.plan.notes) == (name == "phi3")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    same_text(tmp_path / "out", tmp_path / "out.gguf", [tokenizer(text)["input_ids"] for text in PROMPTS], tmp_path)


def test_our_reader_reads_it_back(results: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the `gguf` extra is not installed")
    qwen2 = ("byte-level without bos", "no tokenizer of its class")  # transformers has one tokenizer for all of these
    for name in ("byte-level", *qwen2, "sentencepiece with bos", "scores", "positions", "draft"):
        folder = results[name]
        again = dequantised(gguf_of(folder), tmp_path)
        texts = varied_texts(special(folder), 200)
        assert differing(transformers_ids(again, texts), transformers_ids(folder, texts), texts) == [], name
        if "gemma" in folder.name:  # transformers reads every Gemma 3 with the layer pattern of the real ones
            continue
        first, second = (_logits(one, [5, 6, 7, 8]) for one in (folder, again))
        np.testing.assert_allclose(second, first, atol=0.1)  # the reader keeps bfloat16


def _logits(folder: Path, prompt: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return np.asarray(model(torch.tensor([prompt])).logits[0, -1].numpy())


@llama_cpp
@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_types_of_matrices(dtype: str, model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640)
    tokswap.transplant_tokenizer(
        source, source, out=tmp_path / "out", gguf=tmp_path / "out.gguf", gguf_type=dtype, init="subword"
    )
    import gguf

    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds["token_embd.weight"] == dtype.upper()
    assert kinds["output_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_down.weight"] == ("F16" if dtype == "q8_0" else dtype.upper()), "48 values are not 32n"
    answer = llama_cpp_run(tmp_path / "out.gguf", [[5, 6, 7]], tmp_path, count=1)
    assert answer.status == 0
    tolerance = {"f16": 0.02, "bf16": 0.2, "q8_0": 0.5}[dtype]
    logits = _logits(tmp_path / "out", [5, 6, 7])
    assert logits.max() - logits[answer.ids[0][0]] < tolerance


@llama_cpp
def test_text_that_is_not_normalised_gets_other_ids_and_a_note(model_of: Make, tmp_path: Path) -> None:
    target = makers.copy_model(model_of("gpt2", vocab_size=700), tmp_path / "target")
    spec = makers.read_json(target / "tokenizer.json")
    makers.write_json(target / "tokenizer.json", {**spec, "normalizer": {"type": "NFC"}})
    out = tmp_path / "out"
    report = tokswap.transplant_tokenizer(
        model_of("llama", vocab_size=640), target, out=out, gguf=tmp_path / "out.gguf", init="subword"
    )
    assert any("does not normalise" in note for note in report.plan.notes)
    texts = varied_texts(special(out))
    [theirs] = llama_cpp_ids([(tmp_path / "out.gguf", texts)], tmp_path)
    wrong = differing(transformers_ids(out, texts), theirs, texts)
    assert wrong
    assert all(unicodedata.normalize("NFC", text) != text for text in wrong)


def edited(folder: Path, to: Path, **changes: Any) -> Path:
    """Copy a tokenizer with other parts in its tokenizer.json."""
    copy = makers.copy_model(folder, to)
    makers.edit_json(copy / "tokenizer.json", **changes)
    return copy


@llama_cpp
def test_a_space_that_is_put_once_gets_a_note(results: dict[str, Path], model_of: Make, tmp_path: Path) -> None:
    """Llama 2 in transformers 5: no second space before a text that begins with one. llama.cpp puts two."""
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    target = edited(results["scores"], tmp_path / "target", normalizer=None, pre_tokenizer=metaspace)
    out = tmp_path / "out"
    report = tokswap.transplant_tokenizer(
        model_of("llama", vocab_size=640), target, out=out, gguf=tmp_path / "out.gguf", init="subword"
    )
    assert any("begin with a space" in note for note in report.plan.notes)
    texts, added = varied_texts(special(out)), special(out)
    [theirs] = llama_cpp_ids([(tmp_path / "out.gguf", texts)], tmp_path)
    wrong = differing(transformers_ids(out, texts), theirs, texts)
    begins = tuple(f"{token}{space}" for token in added for space in " ▁")
    assert wrong
    assert all(text.startswith((" ", "▁")) or any(part in text for part in begins) for text in wrong)


@llama_cpp
@pytest.mark.parametrize("fallback", [False, True])
def test_unigram(fallback: bool, model_of: Make, tmp_path: Path) -> None:
    """A tokenizer that falls back to bytes and has no byte tokens reads unknown characters as llama.cpp does."""
    target, out = makers.make_tokenizer("unigram", tmp_path / "unigram", vocab_size=700), tmp_path / "out"
    spec = makers.read_json(target / "tokenizer.json")
    makers.edit_json(target / "tokenizer.json", model={**spec["model"], "byte_fallback": fallback})
    tokswap.transplant_tokenizer(
        model_of("llama", vocab_size=640), target, out=out, gguf=tmp_path / "out.gguf", init="subword"
    )
    texts = [text for text in varied_texts([]) if unicodedata.normalize("NFKC", text) == text]
    [theirs] = llama_cpp_ids([(tmp_path / "out.gguf", texts)], tmp_path)
    wrong = differing(transformers_ids(out, texts), theirs, texts)
    assert wrong
    assert all(text.startswith((" ", "▁")) for text in wrong), wrong


@llama_cpp
def test_whole_words_are_kept_where_merges_make_them_too(
    results: dict[str, Path], model_of: Make, tmp_path: Path
) -> None:
    source = results["byte-level"]
    spec = makers.read_json(source / "tokenizer.json")
    target = edited(source, tmp_path / "target", model={**spec["model"], "ignore_merges": True})
    out = tmp_path / "out"
    tokswap.transplant_tokenizer(
        model_of("llama", vocab_size=640), target, out=out, gguf=tmp_path / "out.gguf", init="subword"
    )
    texts = varied_texts(special(out))
    [theirs] = llama_cpp_ids([(tmp_path / "out.gguf", texts)], tmp_path)
    assert differing(transformers_ids(out, texts), theirs, texts) == []
    merges = [merge for merge in spec["model"]["merges"] if "".join(merge) != "Ġthe"]
    broken = edited(source, tmp_path / "broken", model={**spec["model"], "ignore_merges": True, "merges": merges})
    assert refused(model_of("llama", vocab_size=640), broken, tmp_path / "work").code == "gguf-tokenizer"


def test_what_stands_around_a_text(results: dict[str, Path], model_of: Make, tmp_path: Path) -> None:
    """One token first is bos to llama.cpp, whatever its role; two are too many."""
    source, model = results["byte-level"], model_of("llama", vocab_size=640)
    text = {"Sequence": {"id": "A", "type_id": 0}}
    first = {"<|endoftext|>": 0, "<|im_start|>": 1}
    known = {token: {"id": token, "ids": [n], "tokens": [token]} for token, n in first.items()}

    def framed(name: str, *tokens: str) -> Path:
        parts = [*({"SpecialToken": {"id": token, "type_id": 0}} for token in tokens), text]
        pair = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
        used = {token: known[token] for token in tokens}
        frame = {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": used}
        return edited(source, tmp_path / name, post_processor=frame)

    one = framed("one", "<|endoftext|>")
    tokswap.transplant_tokenizer(model, one, out=tmp_path / "made", gguf=tmp_path / "made.gguf", init="subword")
    keys = read_metadata(tmp_path / "made.gguf")
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.add_bos_token"]) == (0, True)
    error = refused(model, framed("two", "<|endoftext|>", "<|im_start|>"), tmp_path / "work")
    assert error.code == "gguf-tokenizer"
    assert "<|endoftext|> <|im_start|>" in error.message


def test_templates_have_the_names_that_llama_cpp_looks_for() -> None:
    from gguf import Keys

    found = template_keys({"default": "a", "tool_use": "b"})
    assert found == {Keys.Tokenizer.CHAT_TEMPLATE: "a", Keys.Tokenizer.CHAT_TEMPLATE_N.format(name="tool_use"): "b"}


def test_keys_of_a_gguf_target_are_copied(results: dict[str, Path], model_of: Make, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the `gguf` extra is not installed")
    target = gguf_of(results["scores"])
    small = model_of("llama", vocab_size=640)
    tokswap.make_draft(small, target, init="subword", out=tmp_path / "out", gguf=tmp_path / "out.gguf")
    ours, theirs = read_metadata(tmp_path / "out.gguf"), read_metadata(target)
    for key in ("model", "tokens", "token_type", "scores", "add_bos_token", "add_space_prefix", "eos_token_id"):
        assert np.array_equal(ours[f"tokenizer.ggml.{key}"], theirs[f"tokenizer.ggml.{key}"]), key


# What cannot be.


def refused(model: Path, tokenizer: Path, work: Path, **options: Any) -> TokswapError:
    with pytest.raises(TokswapError) as caught:
        tokswap.transplant_tokenizer(
            model, tokenizer, **{"out": work / "out", "gguf": work / "out.gguf", "init": "subword", **options}
        )
    assert not list(work.glob("out*"))
    assert not list(work.glob(".out*"))
    return caught.value


def test_other_architectures_are_refused(model_of: Make, tmp_path: Path) -> None:
    error = refused(model_of("gpt-neox"), model_of("gpt2"), tmp_path)
    assert error.code == "gguf-architecture"
    assert "gpt_neox" in error.message
    assert "qwen3" in error.message
    assert refused(model_of("bert"), model_of("bert"), tmp_path).code == "gguf-architecture"


def test_what_llama_cpp_computes_otherwise_is_refused(model_of: Make, tmp_path: Path) -> None:
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "relu": ("llama", {"hidden_act": "relu"}),
        "head size": ("gemma3", {"query_pre_attn_scalar": 99}),
        "softcapping": ("gemma3", {"final_logit_softcapping": 30.0}),
        "RoPE scaling": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        "its factor alone": ("llama", {"rope_parameters": {**_YARN, "attention_factor": 1.5}}),
        "beta_fast": ("llama", {"rope_parameters": {**_YARN, "beta_fast": 8}}),
        "truncate": ("llama", {"rope_parameters": {**_YARN, "truncate": False}}),
        "sliding window": ("gemma3", {"rope_parameters": {"sliding_attention": {**_YARN, "rope_type": "linear"}}}),
        "bidirectional": ("gemma3", {"use_bidirectional_attention": True}),
        "attention of GPT-2": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        "scales the attention": ("gpt2", {"scale_attn_weights": False}),
    }
    for words, (architecture, change) in changes.items():
        model = makers.copy_model(model_of(architecture), tmp_path / words.replace(" ", "-"))
        makers.edit_json(model / "config.json", **change)
        error = refused(model, model, tmp_path)
        assert error.code == "gguf-architecture"
        assert words in error.message


def test_gemma3_of_62_layers_is_the_27b_to_llama_cpp() -> None:
    """It scales by width / heads there, and says so of no other number of layers."""
    config = {**_SMALL, **_GEMMA3, "num_hidden_layers": 62}
    architecture, filled = find_architecture(config)
    with pytest.raises(InputError, match="by the head size 8, the config by 16"):
        architecture.keys(filled)


def test_biases_that_llama_cpp_does_not_know_are_refused(model_of: Make, tmp_path: Path) -> None:
    """It would not load the file."""
    from safetensors.torch import save_file

    model = makers.copy_model(model_of("gemma3"), tmp_path / "model")
    tensors = tools.weights(model)
    tensors["model.layers.0.self_attn.q_proj.bias"] = tensors["model.layers.0.self_attn.q_proj.weight"][:, 0].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    error = refused(model, model, tmp_path)
    assert error.code == "gguf-architecture"
    assert "self_attn.q_proj.bias" in error.message


def test_other_tokenizers_are_refused(model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama", vocab_size=640)
    tokenizer = makers.make_tokenizer("wordpiece", tmp_path / "wordpiece")
    assert refused(model, tokenizer, tmp_path).code == "gguf-tokenizer"
    odd = makers.copy_model(model_of("gpt2", vocab_size=700), tmp_path / "odd")
    spec = makers.read_json(odd / "tokenizer.json")
    split = {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated", "invert": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spec["pre_tokenizer"]]}
    makers.write_json(odd / "tokenizer.json", spec)
    error = refused(model, odd, tmp_path)
    assert error.code == "gguf-tokenizer"
    assert "pre-tokenizer" in error.message


@pytest.mark.parametrize(("text", "code"), [("\0", None), ("e\0x", "gguf-tokenizer")])
def test_a_token_with_a_nul(text: str, code: str | None, model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """llama.cpp reads it up to there, and aborts where that is another token."""
    model = model_of("llama", vocab_size=640)
    target = makers.copy_model(tokenizer_of("sentencepiece"), tmp_path / "target")
    spec = makers.read_json(target / "tokenizer.json")
    spec["model"]["vocab"][text] = len(spec["model"]["vocab"])
    makers.write_json(target / "tokenizer.json", spec)
    if code is None:
        job = tokswap.plan_transplant(model, target, gguf=tmp_path / "out.gguf", init="subword", out=tmp_path / "out")
        assert "up to its NUL" in " ".join(job.plan.notes)
    else:
        assert refused(model, target, tmp_path).code == code


def test_paths_that_cannot_be(model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama", vocab_size=640)
    assert refused(model, model, tmp_path, gguf=tmp_path / "out.bin").code == "bad-gguf-path"
    assert refused(model, model, tmp_path, gguf=tmp_path / "out" / "a.gguf").code == "bad-gguf-path"
    with pytest.raises(UsageError, match="gguf-type"):
        tokswap.plan_transplant(model, model, gguf=tmp_path / "out.gguf", gguf_type="q4_0")
    (tmp_path / "there.gguf").write_bytes(b"old")
    assert refused(model, model, tmp_path, gguf=tmp_path / "there.gguf").code == "output-exists"
    assert (tmp_path / "there.gguf").read_bytes() == b"old"
    tokswap.transplant_tokenizer(
        model, model, out=tmp_path / "new", gguf=tmp_path / "there.gguf", init="subword", force=True
    )
    assert (tmp_path / "there.gguf").read_bytes()[:4] == b"GGUF"


def test_a_failure_leaves_nothing(model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokswap.checkpoint import gguf_file

    def fail(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(gguf_file, "write_model", fail)
    model = model_of("llama", vocab_size=640)
    error = refused(model, model, tmp_path)
    assert isinstance(error, OutputError)
    assert error.code == "disk-full"
    assert "--gguf" in error.hint


def test_the_package_is_not_installed(model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    model = model_of("llama", vocab_size=640)
    error = refused(model, model, tmp_path)
    assert isinstance(error, InputError)
    assert error.code == "missing-extra"


def test_objects_in_memory_need_a_folder(model_of: Make, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = model_of("llama", vocab_size=640)
    pair = (AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    with pytest.raises(UsageError, match="written result"):
        tokswap.transplant_tokenizer(pair, folder, gguf=tmp_path / "out.gguf", init="subword")
    tokswap.transplant_tokenizer(pair, folder, out=tmp_path / "out", gguf=tmp_path / "out.gguf", init="subword")
    assert (tmp_path / "out.gguf").is_file()
