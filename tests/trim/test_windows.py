"""Long texts are counted as the tokenizer tokenizes them whole, wherever they are cut and however they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import makers
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tokswap.errors import InputError
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.trim import windows as room
from tokswap.trim.corpora import count, find_corpus, read_sample
from tokswap.trim.windows import Window, encode_windows, windows

LINES = [line for text in makers.shipped_texts() for line in text.splitlines() if line]
WORDS = sorted({word for line in LINES for word in line.split()})
GAPS = [" ", " ", " ", "  ", "\n", "\n\n", "\t", ", ", ". ", "\u3000", "\r\n", " \n  ", "<mask>", " <mask>", "<mask> "]


def llama() -> dict[str, object]:
    """Llama 2's kind: no pre-tokenizer, so the whole text is one word, and a space before every text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁]+|▁+"), "isolated")
    special = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return json.loads(tokenizer.to_str())


def phrases() -> dict[str, object]:
    """Tokens that span words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return json.loads(tokenizer.to_str())


def digits_from_the_right() -> dict[str, object]:
    """A pattern that looks ahead."""
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r"\d{1,3}(?=(?:\d{3})*(?:\D|$))|[^\S\n]?\p{L}+|\s+(?!\S)|\s+|[^\s\p{L}\d]+\n*")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return json.loads(tokenizer.to_str())


MADE = {"llama": llama, "phrases": phrases, "digits": digits_from_the_right}


@pytest.fixture(scope="module", params=[*makers.FAMILIES, *MADE])
def folder(request: pytest.FixtureRequest, tokenizer_of: Callable[..., Path], tmp_path_factory: object) -> Path:
    """A tokenizer of a kind, with an added token that takes the white space around it."""
    target = tmp_path_factory.mktemp("windows") / "made"  # type: ignore[attr-defined]
    if request.param in makers.FAMILIES:
        makers.copy_model(tokenizer_of(request.param, vocab_size=1200), target)
        spec = makers.read_json(target / "tokenizer.json")
    else:
        target.mkdir()
        spec = MADE[request.param]()
        makers.write_json(target / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    vocab = spec["model"]["vocab"]
    flags = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}
    spec["added_tokens"].append({"id": len(vocab), "content": "<mask>", **flags})
    makers.write_json(target / "tokenizer.json", spec)
    return target


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows so small that a short text has many."""
    monkeypatch.setattr(room, "_SIZE", 150)
    monkeypatch.setattr(room, "_MOST", 150 * 64)


texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), min_size=20, max_size=250).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def parts(text: str, size: int) -> Iterator[tuple[str, bool]]:
    """A text as a file is read."""
    for start in range(0, len(text), size):
        yield text[start : start + size], False
    yield "", True


@pytest.mark.usefixtures("small")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many=st.lists(texts, min_size=1, max_size=3), size=st.integers(50, 5000))
def test_windows_are_tokenized_as_the_whole_text(folder: Path, many: list[str], size: int) -> None:
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = read_tokenizer(folder)
    found = list(windows((part for text in many for part in parts(text, size)), tokenizer))
    assert "".join(window.text for window in found) == "".join(many)
    ids = [token for row in encode_windows(tokenizer, found) for token in row]
    assert ids == [token for text in many for token in library.encode(text, add_special_tokens=False).ids]


def test_long_files_are_counted_exactly(folder: Path, tmp_path: Path) -> None:
    text = "\n".join(LINES) * 2 + "wordswithoutanyend" * 9000 + "\n" + " ".join(LINES) * 2
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    tokenizer = read_tokenizer(folder)
    want = np.bincount(
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids,
        minlength=len(tokenizer.vocabulary),
    )
    assert count(find_corpus(str(tmp_path / "a.txt")), tokenizer).counts.tolist() == want.tolist()
    sample = read_sample(find_corpus(str(tmp_path / "a.txt")), tokenizer)
    assert len(sample) > 1
    assert "".join(window.text for window in sample) == text


def test_chinese_without_spaces_is_cut(tokenizer_of: Callable[..., Path]) -> None:
    text = "渡船每天早上过河，码头上有很多人。\n" * 20_000
    tokenizer = read_tokenizer(tokenizer_of("byte-level", vocab_size=1200))
    found = list(windows([(text, True)], tokenizer))
    assert max(len(window.text) for window in found) < 5 * room._SIZE
    rows = encode_windows(tokenizer, found)
    assert [token for row in rows for token in row] == tokenizer.encode(text)


def test_a_text_without_an_edge_is_cut_all_the_same(tokenizer_of: Callable[..., Path]) -> None:
    """Memory is bounded; nothing is lost, though a token at the cut may differ."""
    tokenizer = read_tokenizer(tokenizer_of("byte-level", vocab_size=1200))
    text = "x" * (2 * room._MOST + 5000)
    found = list(windows([(text, True)], tokenizer))
    assert [len(window.text) for window in found][:2] == [room._MOST] * 2
    assert all(window.before == "" for window in found)
    pieces = (tokenizer.vocabulary.token_bytes[token] for row in encode_windows(tokenizer, found) for token in row)
    assert b"".join(pieces).decode() == text


def test_short_texts_stay_whole(tokenizer_of: Callable[..., Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_of("unigram"))
    assert list(windows([("a b", True), ("", True), ("c", False), (" d", True)], tokenizer)) == [
        Window("a b"),
        Window("c d"),
    ]


def test_a_folder_without_a_file_is_not_called_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        find_corpus(str(tmp_path))
    with pytest.raises(InputError, match="there is no corpus"):
        find_corpus(str(tmp_path / "other"))
