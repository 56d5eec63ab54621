"""Whisper computes times from ids, in its own code: a new token after the timestamps became one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest

import tokswap
from tokswap.checkpoint.timestamps import check_timestamps
from tokswap.errors import InputError
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

Make = Callable[..., Path]
WHISPER = "a b <|en|> <|notimestamps|> <|0.00|> <|0.02|> <|0.04|>"


def vocabulary(words: str) -> Vocabulary:
    texts = words.split()
    return Vocabulary(texts, [text.encode() for text in texts], np.full(len(texts), Kind.NORMAL, np.uint8), {})


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (WHISPER, WHISPER),
        (WHISPER, "b <|en|> c <|notimestamps|> <|0.00|> <|0.02|> <|0.04|>"),
        (WHISPER, "a b <|en|> <|notimestamps|> <|0.00|>"),
        (WHISPER, "a b <|en|>"),
        ("a b", "b a c"),
        ("a <|notimestamps|>", "a <|notimestamps|> b"),
        (f"{WHISPER} c", f"{WHISPER} d"),
    ],
)
def test_times_that_stay(source: str, target: str) -> None:
    check_timestamps(vocabulary(source), vocabulary(target))


@pytest.mark.parametrize(
    ("target", "token"),
    [
        (f"{WHISPER} ferry", "'ferry'"),
        ("a <|notimestamps|> ferry <|0.00|> <|0.02|> <|0.04|>", "'ferry'"),
        ("a <|notimestamps|> <|0.00|> <|0.04|>", "'<|0.04|>'"),
        ("a <|notimestamps|> <|0.00|> <|0.02|> b", "'b'"),
    ],
)
def test_tokens_that_would_be_times(target: str, token: str) -> None:
    with pytest.raises(InputError, match="would be one of them") as caught:
        check_timestamps(vocabulary(WHISPER), vocabulary(target))
    assert caught.value.code == "timestamps-not-last"
    assert token in caught.value.message


def test_trim_and_extend(tmp_path: Path, tokenizer_of: Make) -> None:
    from transformers import AutoTokenizer, WhisperConfig, WhisperForConditionalGeneration

    source = tmp_path / "source"
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of("byte-level"))
    times = [f"<|{n * 0.02:.2f}|>" for n in range(4)]
    tokenizer.add_tokens(["<|notimestamps|>"], special_tokens=True)
    tokenizer.add_tokens(times)
    tokenizer.save_pretrained(source)
    parts = {f"{part}_{key}": 1 for part in ("encoder", "decoder") for key in ("layers", "attention_heads", "ffn_dim")}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=len(tokenizer), d_model=16, max_target_positions=64, **parts, **ids)
    WhisperForConditionalGeneration(config).save_pretrained(source)
    terms = tmp_path / "terms.txt"
    terms.write_text("butterington\n")
    with pytest.raises(InputError) as caught:
        tokswap.extend_model(str(source), tokens=[terms], out=tmp_path / "out")
    assert caught.value.code == "timestamps-not-last"
    tokswap.trim_vocabulary(str(source), corpora=[makers.TEXTS / "english.txt"], out=tmp_path / "out")
    trimmed = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert trimmed.convert_tokens_to_ids(times) == list(range(len(trimmed) - 4, len(trimmed)))
