from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tools
from makers import copy_model, read_json, shipped_text, write_json

from tokswap.errors import InputError, UsageError
from tokswap.evaluation.continuations import greedy
from tokswap.evaluation.losses import Score, bits_per_byte, token_losses
from tokswap.evaluation.models import load_model

Make = Callable[..., Path]

LONG = shipped_text("english")[:900] + shipped_text("german")[:400] + shipped_text("japanese")[:150]
SHORT = "The old bridge was closed."


@pytest.fixture(scope="module")
def loaded(model_of: Make) -> Callable[..., tuple[Any, Any]]:
    made: dict[str, tuple[Any, Any]] = {}

    def find(architecture: str, **options: Any) -> tuple[Any, Any]:
        key = repr((architecture, options))
        if key not in made:
            made[key] = load_model(model_of(architecture, **options))
        return made[key]

    return find


def direct(model: Any, lead: list[int], ids: list[int], windows: list[tuple[int, int, int]]) -> float:
    """Bits of ids[scored:end] in each window (begin, scored, end), one token at a time."""
    import torch

    bits = 0.0
    for begin, scored, end in windows:
        row = torch.tensor([lead + ids[begin:end]])
        with torch.inference_mode():
            chances = model(row).logits[0].double().log_softmax(dim=-1)
        for place in range(scored, end):
            at = len(lead) + place - begin
            bits -= float(chances[at - 1, row[0, at]]) / math.log(2)
    return bits


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_text_within_one_window(architecture: str, adds_bos: bool, loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded(architecture, vocab_size=640, adds_bos=adds_bos)
    ids = tokenizer(SHORT, add_special_tokens=False)["input_ids"]
    lead = tokenizer(SHORT)["input_ids"][: len(tokenizer(SHORT)["input_ids"]) - len(ids)]
    assert len(lead) == adds_bos
    score = bits_per_byte(model, tokenizer, SHORT, window=64, overlap=16)
    unseen = 0 if adds_bos else len(tokenizer.decode(ids[:1]))
    assert score.tokens == len(ids)
    assert score.bytes == len(SHORT) - unseen
    assert score.bits == pytest.approx(direct(model, lead, ids, [(0, 0 if lead else 1, len(ids))]), rel=1e-5)
    assert score.bits_per_byte == score.bits / score.bytes
    assert score.tokens_per_byte == score.tokens / score.bytes


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize(("window", "overlap"), [(48, 16), (32, 0), (50, 49), (2, 1)])
def test_a_text_of_many_windows(
    adds_bos: bool, window: int, overlap: int, loaded: Callable[..., tuple[Any, Any]]
) -> None:
    model, tokenizer = loaded("llama", vocab_size=640, adds_bos=adds_bos)
    text = LONG[: {2: 60, 50: 500}.get(window, len(LONG))]  # windows that begin at every token are many
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    lead = [2] if adds_bos else []
    windows, scored = [], 0 if adds_bos else 1
    while scored < len(ids):
        begin = max(0, scored - overlap)
        # Without a bos the first token of a window has nothing before it that could predict it.
        begin -= int(not lead and begin == scored)
        end = min(begin + window, len(ids))
        windows.append((begin, scored, end))
        scored = end
    assert len(windows) > 5
    score = bits_per_byte(model, tokenizer, text, window=window, overlap=overlap)
    assert score.bits == pytest.approx(direct(model, lead, ids, windows), rel=1e-5)
    assert score.tokens == len(ids)
    first = 0 if adds_bos else len(tokenizer.decode(ids[:1]).encode())
    assert score.bytes == len(text.encode()) - first


def test_the_loss_of_each_token(loaded: Callable[..., tuple[Any, Any]]) -> None:
    import torch

    model, tokenizer = loaded("llama", vocab_size=640, adds_bos=True)
    seen: list[int] = []
    losses = token_losses(model, tokenizer, LONG, window=48, overlap=16, done=seen.append)
    ids, offsets, bits = losses
    assert ids.tolist() == tokenizer(LONG, add_special_tokens=False)["input_ids"]
    assert (offsets[0], offsets[-1]) == (0, len(LONG.encode()))
    assert bits.dtype == "float64"
    assert len(seen) > 5
    assert sum(seen) == len(LONG.encode())
    assert len(bits) == len(ids)
    assert losses.score == bits_per_byte(model, tokenizer, LONG, window=48, overlap=16)
    assert losses.score.bits == pytest.approx(bits.sum())
    with torch.inference_mode():
        chances = model(torch.tensor([[2, *ids.tolist()[:40]]])).logits[0].double().log_softmax(dim=-1)
    alone = [-float(chances[n, ids[n]]) / math.log(2) for n in range(40)]
    assert bits[:40] == pytest.approx(alone, rel=1e-4)


def test_what_is_only_read_has_no_loss(loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded("gpt2", vocab_size=640)
    seen: list[int] = []
    losses = token_losses(model, tokenizer, "橋 is a bridge", done=seen.append)
    assert losses.read > 1
    assert (losses.bits[: losses.read] == 0).all()
    assert (losses.bits[losses.read :] > 0).all()
    assert losses.offsets[losses.read] == len("橋".encode())
    assert sum(seen) == len("橋 is a bridge".encode())


def test_windows_that_cannot_advance_are_refused(loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded("llama", vocab_size=640)
    for window, overlap in ((16, 16), (16, 40), (0, 0), (1, 0), (8, -1)):
        with pytest.raises(UsageError) as caught:
            bits_per_byte(model, tokenizer, LONG, window=window, overlap=overlap)
        assert caught.value.code == "bad-window"


def test_a_window_beyond_the_models_positions_is_shortened(loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded("gpt2", vocab_size=640)
    assert model.config.max_position_embeddings == 128
    wide = bits_per_byte(model, tokenizer, LONG, window=512, overlap=16)
    assert wide == bits_per_byte(model, tokenizer, LONG, window=128, overlap=16)
    model, tokenizer = loaded("gpt2", vocab_size=640, adds_bos=True)
    wide = bits_per_byte(model, tokenizer, LONG, window=512, overlap=16)
    assert wide == bits_per_byte(model, tokenizer, LONG, window=127, overlap=16)  # and one for bos


def test_a_template_that_appends_eos_does_not_count(
    loaded: Callable[..., tuple[Any, Any]], model_of: Make, tmp_path: Path
) -> None:
    for adds_bos in (True, False):
        folder = copy_model(model_of("llama", vocab_size=640, adds_bos=adds_bos), tmp_path / f"eos-{adds_bos}")
        spec = read_json(folder / "tokenizer.json")
        bos = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}] if adds_bos else []
        template = [*bos, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}]
        known = {token: {"id": token, "ids": [n], "tokens": [token]} for token, n in (("<bos>", 2), ("<eos>", 1))}
        post = {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": known}
        write_json(folder / "tokenizer.json", spec | {"post_processor": post})
        model, tokenizer = load_model(folder)
        assert tokenizer("hello")["input_ids"][-1] == 1
        plain = bits_per_byte(*loaded("llama", vocab_size=640, adds_bos=adds_bos), SHORT)
        assert bits_per_byte(model, tokenizer, SHORT) == plain


def test_a_first_character_of_several_tokens_is_read_whole(loaded: Callable[..., tuple[Any, Any]]) -> None:
    """Part of a character decodes to U+FFFD, whose three bytes are not the text's."""
    model, tokenizer = loaded("gpt2", vocab_size=640)
    text = "橋 is a bridge"
    ids = tokenizer(text)["input_ids"]
    read = next(n for n in range(1, len(ids)) if tokenizer.decode(ids[:n]) == "橋")
    assert read > 1
    score = bits_per_byte(model, tokenizer, text)
    assert score.bytes == len(" is a bridge")
    assert score.bits == pytest.approx(direct(model, [], ids, [(0, read, len(ids))]), rel=1e-5)


@pytest.mark.parametrize(("text", "adds_bos"), [("", True), ("", False), ("e", False)])
def test_nothing_to_predict(text: str, adds_bos: bool, loaded: Callable[..., tuple[Any, Any]]) -> None:
    with pytest.raises(InputError) as caught:
        bits_per_byte(*loaded("llama", vocab_size=640, adds_bos=adds_bos), text)
    assert caught.value.code == "empty-text"


def test_a_text_without_a_token_is_refused(loaded: Callable[..., tuple[Any, Any]]) -> None:
    with pytest.raises(InputError) as caught:
        bits_per_byte(*loaded("llama", family="wordpiece"), " \n ")
    assert caught.value.code == "empty-text"


def test_a_single_token_counts_after_a_bos(loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded("llama", vocab_size=640, adds_bos=True)
    ids = tokenizer("e", add_special_tokens=False)["input_ids"]
    score = bits_per_byte(model, tokenizer, "e")
    assert (score.tokens, score.bytes) == (1, 1)
    assert score.bits == pytest.approx(direct(model, [2], ids, [(0, 0, 1)]), rel=1e-5)


def test_a_model_without_knowledge_has_the_loss_of_a_uniform_guess(
    loaded: Callable[..., tuple[Any, Any]], model_of: Make, tmp_path: Path
) -> None:
    folder = copy_model(model_of("llama", vocab_size=640, adds_bos=True), tmp_path / "even")
    tools.rewrite(folder, lambda tensors: tensors["lm_head.weight"].zero_())
    score = bits_per_byte(*load_model(folder), SHORT)
    assert score.bits == pytest.approx(score.tokens * math.log2(640), rel=1e-6)


def test_score() -> None:
    assert Score(bits=24.0, bytes=16, tokens=4).bits_per_byte == 1.5
    assert Score(bits=24.0, bytes=16, tokens=4).tokens_per_byte == 0.25


def test_greedy_takes_the_most_likely_token_each_time(loaded: Callable[..., tuple[Any, Any]]) -> None:
    model, tokenizer = loaded("llama", vocab_size=640, adds_bos=True)
    ids = tokenizer("The old")["input_ids"]
    begin = len(ids)
    for _ in range(6):
        ids.append(int(tools.logits(model, ids)[-1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert greedy(model, tokenizer, "The old", tokens=6) == tokenizer.decode(ids[begin:], skip_special_tokens=True)
