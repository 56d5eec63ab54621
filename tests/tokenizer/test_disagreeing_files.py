"""Folders whose files say different things about a token: what AutoTokenizer makes of them counts, also in a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest

import tokswap

Find = Callable[..., Path]
FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def decoder_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the `added_tokens_decoder` that says what tokenizer.json says."""
    added = makers.read_json(folder / "tokenizer.json")["added_tokens"]
    return {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in added}


def with_decoder(folder: Path) -> None:
    makers.edit_json(folder / "tokenizer_config.json", added_tokens_decoder=decoder_of(folder))


def with_map(folder: Path, **tokens: Any) -> None:
    makers.write_json(folder / "special_tokens_map.json", tokens)


def map_beside_a_decoder(folder: Path) -> None:
    """transformers does not read special_tokens_map.json where there is an `added_tokens_decoder`."""
    with_decoder(folder)
    with_map(folder, additional_special_tokens=["<old>"], image_token="<image>", sep_token="<sep>")


def roles_of_the_map_alone(folder: Path) -> None:
    makers.edit_json(folder / "tokenizer_config.json", pad_token=..., eos_token=...)
    with_map(folder, pad_token={"content": "<pad>", **FLAGS}, eos_token={"content": "<|im_end|>", **FLAGS})


def no_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with_map(folder, pad_token={"content": "<pad>", **FLAGS})


def special_in_one_file(folder: Path) -> None:
    """The library keeps a token special, and leaves it out of what it decodes, when it is added again otherwise."""
    decoder = decoder_of(folder)
    decoder["3"]["special"] = False
    makers.edit_json(folder / "tokenizer_config.json", added_tokens_decoder=decoder)


def split_special(folder: Path) -> None:
    makers.edit_json(folder / "tokenizer_config.json", split_special_tokens=True)


EDITS = (map_beside_a_decoder, roles_of_the_map_alone, no_config, special_in_one_file, split_special)


def alike(result: Path, source: Path, *, trim: bool) -> None:
    """Compare two folders as AutoTokenizer loads them. A trim has the same tokens under other ids."""
    new, old = load(result), load(source)
    tokens = set(new.get_vocab())
    assert tokens <= set(old.get_vocab()) if trim else new.get_vocab() == old.get_vocab()
    assert set(new.get_added_vocab()) == set(old.get_added_vocab())
    assert new.special_tokens_map == old.special_tokens_map
    assert sorted(new.all_special_tokens) == sorted(old.all_special_tokens)
    for text in ("the ferry", "<|im_end|>the<|reserved_special_token_0|> <|im_start|>", "<old><image><sep><pad>"):
        pieces = new.convert_ids_to_tokens(new(text)["input_ids"])
        assert pieces == old.convert_ids_to_tokens(old(text)["input_ids"])
        for skip in (False, True):
            decoded = [side.decode(side(text)["input_ids"], skip_special_tokens=skip) for side in (new, old)]
            assert decoded[0] == decoded[1]


@pytest.mark.parametrize("edit", EDITS)
def test_a_transplant(edit: Callable[[Path], None], tokenizer_of: Find, model_of: Find, tmp_path: Path) -> None:
    target = makers.copy_model(tokenizer_of("byte-level"), tmp_path / "target")
    edit(target)
    out = tmp_path / "out"
    tokswap.transplant_tokenizer(str(model_of("llama")), str(target), init="mean", out=out)
    alike(out, target, trim=False)
    rows = load_rows(out)
    assert rows == len(load(target))


@pytest.mark.parametrize("edit", EDITS)
def test_a_trim(edit: Callable[[Path], None], model_of: Find, tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama-tied", rows=640), tmp_path / "source")
    edit(source)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the ferry <|im_end|>the<|reserved_special_token_0|> <|im_start|> <old><image><sep><pad>")
    out = tmp_path / "out"
    tokswap.trim_vocabulary(str(source), corpora=[str(corpus)], out=out)
    alike(out, source, trim=True)
    assert load_rows(out) == len(load(out))


def load_rows(folder: Path) -> int:
    from transformers import AutoModelForCausalLM

    return int(AutoModelForCausalLM.from_pretrained(str(folder)).get_input_embeddings().weight.shape[0])
