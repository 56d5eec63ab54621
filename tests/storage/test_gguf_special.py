"""Added and special tokens in GGUF files: llama.cpp knows some by names, and what it does otherwise is said in notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
from engines import llama_cpp, llama_cpp_run
from gguf_files import differing, llama_cpp_ids, transformers_ids, write_gguf

import tokswap
from tokswap.errors import InputError
from tokswap.storage.gguf.convert import dequantised
from tokswap.storage.gguf.metadata import read_metadata
from tokswap.storage.gguf.strips import stripping_tokens, telling_name

pytest.importorskip("gguf", reason="the `gguf` extra is not installed")
Make = Callable[..., Path]
PHI3_KEEP, PHI3_STRIP = ("<unk>", "<s>", "<|endoftext|>"), ("</s>", "<|user|>", "<|end|>")


def added(folder: Path, to: Path, *texts: str, **flags: Any) -> Path:
    """Copy a tokenizer with more added tokens; those that are there get their flags too where they are named."""
    copy = makers.copy_model(folder, to)
    spec = makers.read_json(copy / "tokenizer.json")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known = {entry["content"] for entry in spec["added_tokens"]}
    size = makers.tokenizer_size(copy)
    new = [text for text in texts if text not in known]
    spec["added_tokens"] += [{"id": size + n, "content": text, **plain} for n, text in enumerate(new)]
    for entry in spec["added_tokens"]:
        entry.update(flags if entry["content"] in texts else {})
    makers.write_json(copy / "tokenizer.json", spec)
    return copy


def written(model: Path, target: Path, out: Path) -> list[str]:
    """Write a result and its GGUF file. Returns the notes on the file."""
    report = tokswap.transplant_tokenizer(model, target, out=out, gguf=out.with_suffix(".gguf"), init="subword")
    return [note.split(".gguf: ", 1)[1] for note in report.plan.notes if ".gguf: " in note]


def other_ids(out: Path, texts: list[str], work: Path) -> list[str]:
    [theirs] = llama_cpp_ids([(out.with_suffix(".gguf"), texts)], work)
    mine = transformers_ids(out, texts)
    return [text for text, one, other in zip(texts, mine, theirs, strict=True) if one[0] != other[0]]


def phi3(folder: Path, to: Path) -> Path:
    """The special tokens of Phi-3: all take the white space after them, but for three."""
    own = [entry["content"] for entry in makers.read_json(folder / "tokenizer.json")["added_tokens"]]
    strips = [text for text in (*own, *PHI3_STRIP) if text not in PHI3_KEEP]
    kept = added(folder, to.with_name(to.name + "-kept"), *PHI3_KEEP, special=True)
    return added(kept, to, *strips, rstrip=True, special=True)


@llama_cpp
@pytest.mark.parametrize("name", ["phi-3-mini", "my-Phi3", "modern-bert-2"])
def test_a_name_that_says_something_to_llama_cpp(name: str, model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """llama.cpp takes tokens of Phi-3 for granted where a name has it, and did not load the file without them."""
    target = added(tokenizer_of("byte-level", vocab_size=700), tmp_path / "target", "[MASK]", special=True)
    assert written(model_of("llama", vocab_size=640), target, tmp_path / name) == []
    assert other_ids(tmp_path / name, ["a [MASK] b", "a <|im_end|> b", "Hello"], tmp_path) == []


@llama_cpp
@pytest.mark.parametrize("name", ["phi-3-mini", "mine"])
def test_white_space_after_special_tokens_of_phi3(
    name: str, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    target = phi3(tokenizer_of("sentencepiece", vocab_size=700), tmp_path / "target")
    assert written(model_of("llama", vocab_size=640), target, tmp_path / name) == []
    assert "phi-3" in read_metadata(tmp_path / f"{name}.gguf")["general.name"]
    texts = ["<|user|>\nHello<|end|>\n<|user|> x", "<s> a </s> b", "a <|endoftext|>\nb"]
    assert other_ids(tmp_path / name, texts, tmp_path) == []


@llama_cpp
def test_a_file_of_phi3_is_read_with_its_white_space(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the `gguf` extra is not installed")
    special = [*PHI3_KEEP, *PHI3_STRIP]
    spec = makers.read_json(makers.make_tokenizer("byte-level", tmp_path / "made", vocab_size=600) / "tokenizer.json")
    model = spec["model"]
    tokens = [*special, *(text for text in model["vocab"] if text not in special)]
    keys = {
        "ggml.model": "gpt2",
        "ggml.pre": "gpt-2",
        "ggml.tokens": tokens,
        "ggml.token_type": [3] * len(special) + [1] * (len(tokens) - len(special)),
        "ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
    }
    texts = ["a <|user|>\n\n b", "x</s>  y <s> z", "<unk> <|end|> <|endoftext|> ."]
    for name in ("Phi3", "other"):
        file = write_gguf(tmp_path / f"{name}.gguf", keys, name=name)
        [theirs] = llama_cpp_ids([(file, texts)], tmp_path)
        folder = dequantised(file, tmp_path / "cache")
        assert differing(transformers_ids(folder, texts), theirs, texts) == [], name


def test_names_and_the_tokens_that_they_tell_of() -> None:
    special = ("<mask>", "[MASK]", "<s>", "<tool>")
    assert stripping_tokens("Phi-3", "jina-v2-de", special) == ({"<mask>"}, set())
    assert stripping_tokens("phi3 x", "gpt-2", special) == (set(), {"<mask>", "[MASK]", "<tool>"})
    assert stripping_tokens("x Modern-BERT", None, special) == ({"[MASK]"}, set())
    assert stripping_tokens("x", None, special) == (set(), set())
    mask = [{"content": "[MASK]", "lstrip": True}]
    assert telling_name("x", None, mask, ["[MASK]"]) == "x modern-bert"
    assert telling_name("PHI-3", None, [{"content": "</s>", "rstrip": True}], ["</s>"]) == "PHI 3", "tokens are missing"


@llama_cpp
def test_what_llama_cpp_takes_for_special_by_its_text(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """Qwen's vocabulary has `</s>`, learned from text."""
    target = makers.copy_model(tokenizer_of("byte-level", vocab_size=700), tmp_path / "target")
    spec = makers.read_json(target / "tokenizer.json")
    spec["model"]["vocab"] |= {"</s>": 700}
    makers.write_json(target / "tokenizer.json", spec)
    [note] = written(model_of("llama", vocab_size=640), target, tmp_path / "out")
    assert note == "llama.cpp takes `</s>` for special tokens: texts with them get other ids"
    assert other_ids(tmp_path / "out", ["a</s>", "a"], tmp_path) == ["a</s>"]


@llama_cpp
@pytest.mark.parametrize(
    ("texts", "differs", "note"),
    [
        (("abc", "bcde"), "abcde", "where 'abc' and 'bcde' overlap, in 'abcde'"),
        (("\n\n", "\n\n\n", "  ", "    ", "<a", "<a>", "<b>"), None, None),
    ],
)
def test_overlapping_added_tokens(
    texts: tuple[str, ...], differs: str | None, note: str | None, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    target = added(tokenizer_of("byte-level", vocab_size=700), tmp_path / "target", *texts)
    notes = written(model_of("llama", vocab_size=640), target, tmp_path / "out")
    assert len(notes) == bool(note)
    assert not note or note in notes[0]
    tried = ["abcde", "abc de", "\n\n\n\n\n", "     ", "<a<b>"]
    assert other_ids(tmp_path / "out", tried, tmp_path) == ([differs] if differs else [])


@llama_cpp
def test_added_tokens_that_are_normalised(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """Added to Llama 2 by `add_tokens`, they are looked for with a space in front. ChatGLM3's are such."""
    target = added(tokenizer_of("sentencepiece", vocab_size=700), tmp_path / "target", "<tool>", normalized=True)
    model = model_of("llama", vocab_size=640)
    assert written(model, target, tmp_path / "plain") == []
    assert other_ids(tmp_path / "plain", ["a<tool>b", "a <tool> b"], tmp_path) == []
    spec = makers.read_json(target / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    spec["model"]["merges"] = [
        [text[:at], text[at:]]
        for text in vocab
        for at in range(1, len(text))
        if text[:at] in vocab and text[at:] in vocab
    ]
    spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spec["normalizer"]]}
    makers.write_json(target / "tokenizer.json", spec)
    [note] = written(model, target, tmp_path / "prepended")
    assert note.startswith("llama.cpp finds `<tool>` in every text")
    assert other_ids(tmp_path / "prepended", ["a<tool>b", "a b"], tmp_path) == ["a<tool>b"]


@llama_cpp
def test_bytes_without_a_token(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    target = added(tokenizer_of("byte-level", vocab_size=700), tmp_path / "target", "<unk>", special=True)
    spec = makers.read_json(target / "tokenizer.json")
    del spec["model"]["vocab"]["ā"]  # byte 1, in no merge
    spec["model"]["vocab"]["<unk>"] = spec["added_tokens"][-1]["id"]
    spec["model"]["unk_token"] = "<unk>"
    makers.write_json(target / "tokenizer.json", spec)
    [note] = written(model_of("llama", vocab_size=640), target, tmp_path / "out")
    assert note == "llama.cpp leaves out bytes without a token, which this tokenizer makes <unk>"
    assert other_ids(tmp_path / "out", ["a\x01b", "ab"], tmp_path) == ["a\x01b"]


def test_an_added_token_that_cuts_characters_in_a_unigram_vocabulary(tmp_path: Path, model_of: Make) -> None:
    """llama.cpp takes the bytes that a text shares with a user-defined token out of the text: `ß` begins as `É` does."""
    target = added(makers.make_tokenizer("unigram", tmp_path / "unigram", vocab_size=700), tmp_path / "target", "É")
    with pytest.raises(InputError, match="added token 'É'") as caught:
        written(model_of("llama", vocab_size=640), target, tmp_path / "out")
    assert caught.value.code == "gguf-tokenizer"


@llama_cpp
def test_ends_of_a_text(model_of: Make, tmp_path: Path) -> None:
    """A file names three. What llama.cpp knows by its text needs no name."""
    model = makers.copy_model(model_of("gpt2", vocab_size=700), tmp_path / "model")
    makers.edit_json(model / "generation_config.json", eos_token_id=[2, 0, 3, 4])
    assert written(model, model, tmp_path / "four") == []
    keys = read_metadata(tmp_path / "four.gguf")
    assert [keys[f"tokenizer.ggml.{role}_token_id"] for role in ("eos", "eot", "eom")] == [2, 3, 4]
    makers.edit_json(model / "generation_config.json", eos_token_id=[2, 3, 4, 5])
    [note] = written(model, model, tmp_path / "more")
    assert note.endswith("`<|reserved_special_token_2|>` ends none in llama.cpp")
    for name in ("config.json", "generation_config.json"):
        makers.edit_json(model / name, eos_token_id=None, bos_token_id=None, pad_token_id=None)
    makers.edit_json(model / "tokenizer_config.json", eos_token=None, bos_token=None, pad_token=None)
    [note] = written(model, model, tmp_path / "none")
    assert note == "the model has no end of a text, and llama.cpp takes '%' (id 11) for one"


@llama_cpp
def test_names_of_rows_without_a_token_are_free(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    target = added(tokenizer_of("byte-level", vocab_size=700), tmp_path / "target", "[PAD702]")
    out = tmp_path / "out"
    model = model_of("llama", vocab_size=640)
    tokswap.transplant_tokenizer(model, target, out=out, gguf=tmp_path / "out.gguf", init="subword", vocab_size=704)
    assert other_ids(out, ["a[PAD702]b"], tmp_path) == []
    assert llama_cpp_run(tmp_path / "out.gguf", [[5, 6]], tmp_path, count=2).status == 0
