from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import copy_model, read_json, write_json

import tokswap
from tokswap.errors import InputError
from tokswap.tokenizer.describe import describe_tokenizer, digit_scheme, whitespace_scheme
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]


def test_a_model(model_of: Make) -> None:
    folder = model_of("llama", vocab_size=640, rows=677, shards=3, dtype="bfloat16")
    facts = tokswap.inspect_checkpoint(folder)
    assert json.loads(json.dumps(facts))["path"] == str(folder)
    assert facts["model"] == {
        "architecture": "LlamaForCausalLM",
        # two vocabulary matrices, two layers (q k v o, gate up down, two norms), the last norm
        "parameters": 2 * 677 * 32 + 2 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 48 + 2 * 32) + 32,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "shards": len(list(folder.glob("*.safetensors"))),
        "tied": False,
    }
    keys = ("role", "rows", "width", "padding", "dtype", "names")
    assert [tuple(matrix[key] for key in keys) for matrix in facts["tables"]] == [
        ("input", 677, 32, 37, "BF16", ("model.embed_tokens.weight",)),
        ("output", 677, 32, 37, "BF16", ("lm_head.weight",)),
    ]


def test_a_tied_model_with_a_bias(model_of: Make) -> None:
    facts = tokswap.inspect_checkpoint(model_of("bart", vocab_size=640))
    assert facts["model"]["tied"]
    assert [(matrix["role"], matrix["rows"], matrix["width"]) for matrix in facts["tables"]] == [
        ("input", 640, 32),
        ("bias", 640, 1),
    ]


FAMILIES: list[tuple[str, str, dict[str, int], dict[str, tuple[int, str]]]] = [
    (
        "byte-level",
        "byte-level BPE",
        {"normal": 593, "special": 3, "byte": 0, "unused": 4},
        {"bos": (1, "<|im_start|>"), "eos": (2, "<|im_end|>"), "pad": (2, "<|im_end|>")},
    ),
    (
        "sentencepiece",
        "SentencePiece BPE",
        {"normal": 334, "special": 4, "byte": 256, "unused": 6},
        {"bos": (2, "<bos>"), "eos": (1, "<eos>"), "pad": (0, "<pad>"), "unk": (3, "<unk>")},
    ),
    (
        "unigram",
        "Unigram",
        {"normal": 596, "special": 4, "byte": 0, "unused": 0},
        {"bos": (0, "<s>"), "eos": (2, "</s>"), "pad": (1, "<pad>"), "unk": (3, "<unk>")},
    ),
    (
        "wordpiece",
        "WordPiece",
        {"normal": 595, "special": 5, "byte": 0, "unused": 0},
        {"pad": (0, "[PAD]"), "unk": (1, "[UNK]"), "sep": (3, "[SEP]"), "cls": (2, "[CLS]"), "mask": (4, "[MASK]")},
    ),
]


@pytest.mark.parametrize(("family", "name", "kinds", "roles"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_a_tokenizer(
    family: str, name: str, kinds: dict[str, int], roles: dict[str, tuple[int, str]], tokenizer_of: Make
) -> None:
    facts = tokswap.inspect_checkpoint(tokenizer_of(family))
    assert set(facts) == {"path", "tokenizer"}
    described = facts["tokenizer"]
    assert described["family"] == name
    assert described["ids"] == sum(kinds.values()) == 600
    assert described["kinds"] == kinds
    assert described["roles"] == {role: {"id": token, "token": text} for role, (token, text) in roles.items()}
    assert len(described["specials"]) == kinds["special"]
    assert not described["begins_with_bos"]
    assert not described["chat_template"]
    assert tokswap.inspect_checkpoint(tokenizer_of(family) / "tokenizer.json")["tokenizer"] == described


def test_bos_and_chat_template(tokenizer_of: Make) -> None:
    described = describe_tokenizer(
        read_tokenizer(tokenizer_of("sentencepiece", adds_bos=True, chat_template="{{ x }}"))
    )
    assert described["begins_with_bos"]
    assert described["chat_template"]


NUMBERS = ["\n".join([*"0123456789", *(f"{n:02}" for n in range(100)), *(f"{n:03}" for n in range(1000))])]
"""Every number of up to three digits, so that each is a token."""


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _with_digits(folder: Path, before: list[dict[str, Any]]) -> tokswap.Tokenizer:
    """Put pre-tokenizers in front of a byte-level tokenizer's own."""
    spec = read_json(folder / "tokenizer.json")
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*before, spec["pre_tokenizer"]]}
    write_json(folder / "tokenizer.json", spec)
    return read_tokenizer(folder)


DIGITS: list[tuple[str, list[dict[str, Any]]]] = [
    ("single digits", [{"type": "Digits", "individual_digits": True}]),
    ("threes from the left", [_split(r"\p{N}{1,3}")]),
    ("threes from the right", [_split(r"\p{N}{1,3}(?=(\p{N}{3})*\b)")]),
    ("free", []),
]


@pytest.mark.parametrize(("scheme", "before"), DIGITS, ids=[row[0] for row in DIGITS])
def test_digits(scheme: str, before: list[dict[str, Any]], tokenizer_of: Make, tmp_path: Path) -> None:
    folder = copy_model(tokenizer_of("byte-level", vocab_size=2000, seed_text=NUMBERS), tmp_path / "t")
    assert digit_scheme(_with_digits(folder, before)) == scheme


def test_digits_of_a_tokenizer_that_never_saw_numbers(tokenizer_of: Make) -> None:
    """Its byte pieces are single digits, whatever the pre-tokenizer would split."""
    assert (
        digit_scheme(read_tokenizer(tokenizer_of("sentencepiece", seed_text=["only words here"] * 3)))
        == "single digits"
    )


def test_whitespace(tokenizer_of: Make) -> None:
    code = ["def f(x):\n        return x\n\n\nclass A:\n\tdef g(self):\n\t\tpass\n"] * 20
    folder = tokenizer_of("byte-level", vocab_size=400, seed_text=code)
    runs = {
        blank: max(
            len(token) for token in read_json(folder / "tokenizer.json")["model"]["vocab"] if set(token) == {blank}
        )
        for blank in "ĠĊĉ"
    }
    assert runs["Ġ"] > 2
    assert whitespace_scheme(read_tokenizer(folder)) == {
        "longest_spaces": runs["Ġ"],
        "longest_newlines": runs["Ċ"],
        "longest_tabs": runs["ĉ"],
        "newline_with_indent": True,
    }
    assert whitespace_scheme(read_tokenizer(tokenizer_of("wordpiece", seed_text=code))) == {
        "longest_spaces": 0,
        "longest_newlines": 0,
        "longest_tabs": 0,
        "newline_with_indent": False,
    }


def test_what_is_neither_a_model_nor_a_tokenizer(tmp_path: Path, model_of: Make) -> None:
    with pytest.raises(InputError) as caught:
        tokswap.inspect_checkpoint(tmp_path)
    assert caught.value.code == "missing-tokenizer"
    copy = copy_model(model_of("llama", vocab_size=640), tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError) as caught:
        tokswap.inspect_checkpoint(copy)
    assert caught.value.code in ("truncated-weights", "bad-header")
