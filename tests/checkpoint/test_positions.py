from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run
from makers import copy_model, edit_json, read_json

from tokswap.checkpoint.positions import POSITIONS_FOLLOW_PAD, fitting_length, positions_follow_pad

Make = Callable[..., Path]
LLAMA = {"vocab_size": 9, "max_position_embeddings": 64, "rope_theta": 1e4}
GPT2 = {"vocab_size": 9, "n_positions": 64}
ROBERTA = {"vocab_size": 9, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 514}
UNLIMITED = int(1e30)


@pytest.mark.parametrize(
    ("config", "length", "expected"),
    [
        (GPT2, 1000, 64),
        (GPT2, 32, 32),
        (GPT2, UNLIMITED, 64),
        (GPT2, None, 64),
        (LLAMA, 1000, 64),
        (LLAMA, UNLIMITED, UNLIMITED),
        (LLAMA, None, None),
        ({**LLAMA, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 64}}, 256, 256),
        ({**LLAMA, "rope_scaling": {"factor": 2.0, "type": "linear"}}, 256, 128),
        ({"vocab_size": 9, "rope_theta": 1e4}, 1000, 1000),
        (ROBERTA, 1000, 512),
        ({"text_config": LLAMA, "vision_config": {"max_position_embeddings": 5}}, 1000, 64),
        ({"vocab_size": 9, "n_positions": 512, "relative_attention_num_buckets": 32}, UNLIMITED, UNLIMITED),
    ],
)
def test_the_maximum_length_fits_the_model(config: dict[str, Any], length: int | None, expected: int | None) -> None:
    settings = {} if length is None else {"model_max_length": length}
    fitted, notes = fitting_length(settings, config)
    assert fitted.get("model_max_length") == expected
    assert len(notes) == (expected != length)


def test_truncation_protects_the_result(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = model_of("gpt2", vocab_size=640)
    positions = read_json(source / "config.json")["n_positions"]
    target = copy_model(tokenizer_of("sentencepiece", vocab_size=700), tmp_path / "target")
    edit_json(target / "tokenizer_config.json", model_max_length=131072)
    out = tmp_path / "out"
    result = run("transplant", "--model", source, "--tokenizer", target, "--init", "mean", "--out", out)
    assert f"`model_max_length` of the tokenizer is now {positions:,}, not 131,072" in result.stderr
    ids = AutoTokenizer.from_pretrained(out)("Bread is mostly patience. " * 900, truncation=True, return_tensors="pt")
    AutoModelForCausalLM.from_pretrained(out)(**ids)


def test_objects_get_the_length_too(model_of: Make, tokenizer_of: Make) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import tokswap

    folder = model_of("gpt2", vocab_size=640)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    target = AutoTokenizer.from_pretrained(tokenizer_of("sentencepiece", vocab_size=700))
    report = tokswap.transplant_tokenizer((model, tokenizer), target, init="mean")
    assert report.load()[1].model_max_length == model.config.n_positions
    assert target.model_max_length > 1e29


SETTLED = {
    "trocr": "where its config turns learned positions off, see the next test",
    "pp_doclayout_v2": "no text",
    "idefics": "the padding of its images",
    "evolla": "the padding of its proteins, which have a vocabulary of their own",
    "diffusion_gemma": "the padding of its embeddings alone",
}


def test_every_architecture_that_counts_positions_from_its_pad_is_known() -> None:
    """A transplant that moved the pad id of LayoutLMv3 or CLAP gave each token the embedding of another position."""
    import transformers

    missing = []
    for code in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        text = code.read_text(encoding="utf-8")
        if not re.search(r"padding_idx \+ 1|\+ padding_idx|padding_idx=self\.padding_idx", text):
            continue
        configs = (path.read_text(encoding="utf-8") for path in code.parent.glob("configuration_*.py"))
        types = {name for config in configs for name in re.findall(r'model_type(?:: str)? = "([^"]+)"', config)}
        texts = {name for name in types if not re.search("vision|audio|hifigan", name)}
        if not texts & {*POSITIONS_FOLLOW_PAD, *SETTLED}:
            missing.append(sorted(types))
    assert missing == []


@pytest.mark.parametrize(("learned", "follow"), [(False, True), (True, False), (None, False)])
def test_the_positions_of_trocr_may_be_computed(learned: bool | None, follow: bool) -> None:
    config = {"model_type": "trocr"} | ({} if learned is None else {"use_learned_position_embeddings": learned})
    assert positions_follow_pad(config) == follow
