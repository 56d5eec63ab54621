"""What config.json leaves to its class follows the vocabulary too: transformers would go on with the old ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest

from tokswap.checkpoint.class_defaults import with_class_ids, with_class_size
from tokswap.errors import InputError
from tokswap.evaluation.verify import verify_checkpoint
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.transplant.plan import plan_transplant, transplant_tokenizer
from tokswap.trim.plan import trim_vocabulary

Make = Callable[..., Path]
GERMAN = makers.TEXTS / "german.txt"


def unnamed(folder: Path) -> Path:
    """Leave the roles of a Llama to its class, whose bos is 1 and eos 2, as the byte-level test tokenizer's are."""
    makers.edit_json(folder / "config.json", bos_token_id=..., eos_token_id=..., pad_token_id=...)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def roles(folder: Path) -> tuple[Any, ...]:
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return config.bos_token_id, config.eos_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id


def test_roles_follow_a_transplant(model_of: Make, tmp_path: Path) -> None:
    source = unnamed(makers.copy_model(model_of("llama", family="byte-level"), tmp_path / "source"))
    target = makers.make_tokenizer("sentencepiece", tmp_path / "target")
    transplant_tokenizer(str(source), str(target), init="subword", out=tmp_path / "out")
    assert roles(tmp_path / "out") == (2, 1, 2, 1)
    assert all(check.ok for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)))


def test_a_decoder_starts_with_an_id_that_the_source_does_not_have(model_of: Make, tmp_path: Path) -> None:
    """The target's eos is its last token. The new id counted as none of the source, and was unset."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    target = makers.make_tokenizer("byte-level", tmp_path / "target", vocab_size=700)
    spec, last = makers.read_json(target / "tokenizer.json"), makers.tokenizer_size(target)
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": last, "content": "<|last|>"})
    makers.write_json(target / "tokenizer.json", spec)
    makers.edit_json(target / "tokenizer_config.json", eos_token="<|last|>")
    transplant_tokenizer(model_of("bart"), target, init="mean", out=tmp_path / "out")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert (model.config.decoder_start_token_id, model.config.forced_eos_token_id) == (last, last)
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("the old bridge", return_tensors="pt")["input_ids"]
    assert model(ids, labels=ids).loss > 0


def test_roles_follow_a_trim(model_of: Make, tmp_path: Path) -> None:
    """Id 0 is a rare word here, and goes."""
    source = unnamed(makers.copy_model(model_of("llama", family="byte-level"), tmp_path / "source"))
    spec = makers.read_json(source / "tokenizer.json")
    vocab, last = spec["model"]["vocab"], len(spec["model"]["vocab"]) - 1
    rare = next(token for token, n in vocab.items() if n == last)
    vocab[rare], vocab["<|endoftext|>"] = 0, last
    spec["added_tokens"] = [{**entry, "id": entry["id"] or last} for entry in spec["added_tokens"]]
    spec["added_tokens"].sort(key=lambda entry: entry["id"])
    makers.write_json(source / "tokenizer.json", spec)
    trim_vocabulary(str(source), corpora=[GERMAN], target_size=290, out=tmp_path / "out")
    assert rare not in makers.read_json(tmp_path / "out" / "tokenizer.json")["model"]["vocab"]
    assert roles(tmp_path / "out") == (0, 1, 0, 1)


def test_ids_of_other_models_are_no_roles(model_of: Make) -> None:
    """Every small GPT-2 says 50,256 by default; every small SentencePiece Llama has other ids than its class."""
    for architecture in ("gpt2", "llama"):
        folder = model_of(architecture)
        config = makers.read_json(folder / "config.json")
        bare = {key: value for key, value in config.items() if not key.endswith("_token_id")}
        found = with_class_ids(bare, read_tokenizer(folder).vocabulary)
        assert {key for key in found if key not in bare} <= {"pad_token_id"}


def test_the_size_is_that_of_the_class(model_of: Make, tmp_path: Path) -> None:
    from transformers import AutoConfig

    source = makers.copy_model(model_of("llama", rows=32000), tmp_path / "source")
    makers.edit_json(source / "config.json", vocab_size=...)
    trim_vocabulary(str(source), corpora=[GERMAN], out=tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").vocab_size == makers.tokenizer_size(tmp_path / "out")
    plan = plan_transplant(str(model_of("llama")), str(source), init="subword", out=tmp_path / "none").plan
    assert plan.matrices[0].shape_after[0] == 32000


def test_nested_sizes_and_unknown_classes() -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": 8}, "vision_config": {"hidden_size": 8}}
    assert with_class_size(config)["text_config"] == {"hidden_size": 8, "vocab_size": 262208}
    for other in ({"model_type": "no-such-model"}, {}, {"model_type": "llama", "hidden_size": "x"}):
        assert with_class_size(other) == other


def test_a_class_without_a_vocabulary(model_of: Make, tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama"), tmp_path / "source")
    makers.edit_json(source / "config.json", vocab_size=..., model_type="vit")
    with pytest.raises(InputError) as caught:
        trim_vocabulary(str(source), corpora=[GERMAN], out=tmp_path / "out")
    assert caught.value.code == "bad-config"
