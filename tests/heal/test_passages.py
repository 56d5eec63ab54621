from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from makers import shipped_text

from tokswap.heal.passages import read_passages
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
TEXT = shipped_text("english") + shipped_text("german")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((TEXT * 10)[:10_000], encoding="utf-8")
    return path


def test_passages_hold_the_whole_text(text: Path, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    passages = read_passages([text], tokenizer)
    assert sum(passage.bytes for passage in passages) == text.stat().st_size
    assert max(passage.bytes for passage in passages) <= 1000
    whole = b"".join(tokenizer.vocabulary.token_bytes[token] for passage in passages for token in passage.ids.tolist())
    assert whole == text.read_bytes()


def test_no_passage_is_longer_than_the_model_can_read(text: Path, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    passages = read_passages([text], tokenizer, 50)
    assert max(len(passage.ids) for passage in passages) <= 50
    # A piece of one token has nothing to predict and is left out.
    assert sum(passage.bytes for passage in passages) > 0.98 * text.stat().st_size


def test_text_without_a_space_is_split_between_characters(tokenizer_of: Make, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("日本" * 1000, encoding="utf-8")
    passages = read_passages([tmp_path / "text.txt"], read_tokenizer(tokenizer_of("byte-level")))
    assert sum(passage.bytes for passage in passages) == 6000
    assert all(passage.bytes % 3 == 0 for passage in passages)
