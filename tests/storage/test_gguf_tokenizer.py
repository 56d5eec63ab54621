"""The tokenizer of a converted .gguf file is llama.cpp's: the same ids for every text."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import makers
import pytest
from gguf_files import Keys, differing, llama_cpp_ids, transformers_ids, write_gguf
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from varied_texts import varied_texts

from tokswap.errors import InputError
from tokswap.storage.gguf.convert import dequantised
from tokswap.storage.gguf.splits import SPLITS
from tokswap.storage.resolve import cache_folder

pytest.importorskip("gguf", reason="the `gguf` extra is not installed")
pytest.importorskip("accelerate", reason="the `gguf` extra is not installed")
USERS_CACHE = cache_folder()
"""Read while the tests are collected, before conftest gives them a cache of their own."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
llama_cpp = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


def learned(work: Path, family: str) -> dict[str, Any]:
    """Return a tokenizer.json of a family, learned from texts in several scripts."""
    return makers.read_json(makers.make_tokenizer(family, work / family, vocab_size=700) / "tokenizer.json")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A byte-level vocabulary with two control tokens, and user-defined tokens as llama.cpp writes them."""
    model = learned(tmp_path_factory.mktemp("learned"), "byte-level")["model"]
    added = {
        "<|one|>": CONTROL,
        "<|im_end|>": NORMAL,
        "<tool>": USER_DEFINED,
        "   ": USER_DEFINED,
        "\n\n": USER_DEFINED,
    }
    learned_tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens = [token for token in learned_tokens if token not in added]
    known = set(tokens)
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {
        "ggml.model": "gpt2",
        "ggml.tokens": [*added, *tokens],
        "ggml.token_type": [*added.values(), *[NORMAL] * len(tokens)],
        "ggml.merges": [" ".join(pair) for pair in merges if {*pair, "".join(pair)} <= known],
        "ggml.bos_token_id": 0,
        "ggml.eos_token_id": 1,
        "ggml.add_bos_token": False,
    }


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """SentencePiece as in Gemma: scores for merges, every byte, user-defined runs of spaces and newlines."""
    model = learned(tmp_path_factory.mktemp("learned"), "sentencepiece")["model"]
    special = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL, "<turn>": CONTROL}
    user = ["\n", "\n\n", "  ", "   ", "<h1>"]
    tokens = [token for token in sorted(model["vocab"], key=model["vocab"].__getitem__) if token[:1] != "<"]
    tokens = [token for token in tokens if token not in user]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    random.Random(0).shuffle(tokens)  # only the scores say in which order tokens were learned
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [*special.values(), *[USER_DEFINED] * len(user), *[BYTE] * 256, *[NORMAL] * len(tokens)]
    return {
        "ggml.model": "llama",
        "ggml.tokens": [*special, *user, *all_bytes, *tokens],
        "ggml.token_type": kinds,
        "ggml.scores": [*[-1000.0] * 9, *[0.0] * 256, *[float(-ranks[token]) for token in tokens]],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
    }


def converted(work: Path, keys: Keys) -> Path:
    return dequantised(write_gguf(work / "model.gguf", keys), work / "cache")


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[Any]:
    def convert(keys: Keys) -> InputError:
        with pytest.raises(InputError) as found:
            converted(tmp_path, keys)
        assert found.value.where["file"] == str(tmp_path / "model.gguf")
        assert not list(tmp_path.rglob("cache/*"))
        return found.value

    return convert


SPECIAL = {
    "byte_level": ["<|one|>", "<|im_end|>", "<tool>", "\n\n"],
    "sentencepiece": ["<s>", "</s>", "<turn>", "<unk>", "<h1>"],
}


@llama_cpp
def test_every_pre_tokenizer_gives_the_ids_of_llama_cpp(byte_level: Keys, tmp_path: Path) -> None:
    names = sorted({split: name for name, split in SPLITS.items() if split.byte_level}.values())
    texts = varied_texts(SPECIAL["byte_level"], 300)
    folders = {name: converted(tmp_path / name, {**byte_level, "ggml.pre": name}) for name in names}
    answers = llama_cpp_ids([(tmp_path / name / "model.gguf", texts) for name in names], tmp_path)
    wrong = {
        name: differing(transformers_ids(folders[name], texts), theirs, texts)
        for name, theirs in zip(names, answers, strict=True)
    }
    assert {name: texts for name, texts in wrong.items() if texts} == {}


@llama_cpp
@pytest.mark.parametrize("frame", ["plain", "prefix", "eos"])
def test_sentencepiece_gives_the_ids_of_llama_cpp(frame: str, sentencepiece: Keys, tmp_path: Path) -> None:
    settings = {"ggml.add_space_prefix": frame == "prefix", "ggml.add_eos_token": frame == "eos"}
    folder = converted(tmp_path, {**sentencepiece, **settings})
    texts = varied_texts(SPECIAL["sentencepiece"])
    [theirs] = llama_cpp_ids([(tmp_path / "model.gguf", texts)], tmp_path)
    assert differing(transformers_ids(folder, texts), theirs, texts) == []


@llama_cpp
@pytest.mark.parametrize("name", ["gemma4", "sarvam-moe"])
def test_merges_of_characters_give_the_ids_of_llama_cpp(name: str, sentencepiece: Keys, tmp_path: Path) -> None:
    """Gemma 4: SentencePiece tokens with merges in the file."""
    tokens = set(sentencepiece["ggml.tokens"])
    ranked = [token for token in sentencepiece["ggml.tokens"][265:] if len(token) > 1]
    splits = [(token[:at], token[at:]) for token in ranked for at in range(1, len(token))]
    merges = [" ".join(pair) for pair in splits if set(pair) <= tokens]
    model = {"ggml.model": "gemma4" if name == "gemma4" else "gpt2", "ggml.pre": name, "ggml.merges": merges}
    # llama.cpp puts bos first for Gemma 4 whatever its file says.
    folder = converted(tmp_path, {**sentencepiece, **model, "ggml.add_bos_token": False})
    texts = varied_texts(SPECIAL["sentencepiece"])
    [theirs] = llama_cpp_ids([(tmp_path / "model.gguf", texts)], tmp_path)
    assert differing(transformers_ids(folder, texts), theirs, texts) == []


@llama_cpp
@pytest.mark.parametrize("merges_spaces", [True, False])
def test_unigram_gives_the_ids_of_llama_cpp(merges_spaces: bool, tmp_path: Path) -> None:
    model = learned(tmp_path, "unigram")["model"]
    special = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN, "<h1>": USER_DEFINED}
    normal = [(token, score) for token, score in model["vocab"] if token not in special]
    keys = {
        "ggml.model": "t5",
        "ggml.tokens": [*special, *(token for token, _ in normal)],
        "ggml.token_type": [*special.values(), *[NORMAL] * len(normal)],
        "ggml.scores": [*[0.0] * len(special), *(float(score) for _, score in normal)],
        "ggml.add_space_prefix": True,
        "ggml.remove_extra_whitespaces": merges_spaces,
        "ggml.eos_token_id": 1,
        "ggml.unknown_token_id": 2,
    }
    folder = converted(tmp_path, keys)
    texts = [text for text in varied_texts(["</s>", "<h1>"]) if text.strip(" ")]
    [theirs] = llama_cpp_ids([(tmp_path / "model.gguf", texts)], tmp_path)
    assert differing(transformers_ids(folder, texts), theirs, texts) == []


def test_what_a_file_says_of_its_tokenizer_is_kept(byte_level: Keys, tmp_path: Path) -> None:
    """Without llama.cpp: digits one by one, user-defined tokens before the model, roles, bos, templates."""
    named = {"chat_template": "{{ messages }}", "chat_template.tool_use": "{{ tools }}"}
    keys = {**byte_level, **named, "ggml.pre": "smollm", "ggml.add_bos_token": True, "ggml.padding_token_id": 1}
    folder = converted(tmp_path, keys)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12 34")
    assert [piece for piece, _ in pieces] == ["1", "2", "Ġ", "3", "4"]
    assert tokenizer.tokenize("x<tool>\n\n   ")[1:] == ["<tool>", "\n\n", "   "]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|one|>", "<|im_end|>", "<|im_end|>")
    assert tokenizer("1")["input_ids"][0] == 0
    assert "<tool>" not in tokenizer.all_special_tokens
    assert tokenizer.chat_template == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    assert tokenizer.model_max_length == 64
    assert len(tokenizer) == len(keys["ggml.tokens"])
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == keys["ggml.tokens"]
    assert tokenizer.decode(tokenizer("x<tool>  y\n\nÄ")["input_ids"][1:]) == "x<tool>  y\n\nÄ"


@pytest.mark.parametrize(("named", "stops"), [({}, 1), ({"eot": 3}, [1, 3]), ({"eot": 1, "eom": 2}, [1, 2])])
def test_generation_stops_at_the_end_of_a_turn(
    named: dict[str, int], stops: int | list[int], byte_level: Keys, tmp_path: Path
) -> None:
    keys = {f"ggml.{role}_token_id": number for role, number in named.items()}
    folder = converted(tmp_path, {**byte_level, "ggml.pre": "gpt-2", **keys})
    assert GenerationConfig.from_pretrained(folder).eos_token_id == stops


def test_templates_cannot_leave_the_folder(byte_level: Keys, tmp_path: Path) -> None:
    folder = converted(tmp_path, {**byte_level, "ggml.pre": "gpt-2", "chat_template.../../x": "gone"})
    assert not list(tmp_path.rglob("x.jinja"))
    assert not (folder / "additional_chat_templates").exists()


def test_a_file_whose_scores_are_all_the_same(sentencepiece: Keys, tmp_path: Path) -> None:
    """A converter without a tokenizer.model knows no scores: ids give the order in which tokens were learned."""
    scores, tokens = sentencepiece["ggml.scores"], sentencepiece["ggml.tokens"]
    learned_order = [*range(265), *sorted(range(265, len(tokens)), key=lambda number: -scores[number])]
    keys = {**sentencepiece, "ggml.tokens": [tokens[number] for number in learned_order]}
    texts = varied_texts(SPECIAL["sentencepiece"])
    ranked = {**keys, "ggml.scores": [scores[number] for number in learned_order]}
    same = {**keys, "ggml.scores": [-1000.0] * len(tokens)}
    found = [transformers_ids(converted(tmp_path / name, made), texts) for name, made in (("a", ranked), ("b", same))]
    assert differing(*found, texts) == []


@pytest.mark.parametrize("key", ["model", "pre"])
def test_unknown_tokenizers_are_refused(key: str, byte_level: Keys, refused: Any) -> None:
    error = refused({**byte_level, f"ggml.{key}": "kimi-k2"})
    assert error.code == "unsupported-tokenizer"
    assert "kimi-k2" in error.message
    assert "folder of the model" in error.hint


def test_damaged_vocabularies_are_refused(byte_level: Keys, sentencepiece: Keys, refused: Any) -> None:
    tokens = byte_level["ggml.tokens"]
    without = {key: value for key, value in sentencepiece.items() if key != "ggml.scores"}
    wrong: dict[str, Keys] = {
        "twice": {**byte_level, "ggml.tokens": [*tokens[:-1], tokens[0]]},
        "do not fit": {**byte_level, "ggml.token_type": [1]},
        "no scores": without,
        "out of range": {**sentencepiece, "ggml.unknown_token_id": 1 << 30},
    }
    for words, keys in wrong.items():
        error = refused(keys)
        assert error.code == "bad-gguf"
        assert words in error.message


def test_the_base_of_rope_is_where_every_engine_looks(byte_level: Keys, tmp_path: Path) -> None:
    folder = converted(tmp_path, {**byte_level, "ggml.pre": "gpt-2"})
    assert json.loads((folder / "config.json").read_text())["rope_theta"] == 50000.0
    config = AutoConfig.from_pretrained(folder).to_dict()
    assert (config.get("rope_parameters") or config)["rope_theta"] == 50000.0


@llama_cpp
@pytest.mark.demo
@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("smollm2", ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"]),
        ("gemma", ["<bos>", "<eos>", "<start_of_turn>", "<unused5>", "<table>", "</h1>", "[multimodal]", "<unk>"]),
    ],
)
def test_demo_models_give_the_ids_of_llama_cpp(
    name: str, special: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first conversion of SmolLM2 gave other ids for 62 of these 769 texts, that of Gemma for 44."""
    monkeypatch.setenv("TOKSWAP_CACHE", str(USERS_CACHE))
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "examples"))
    from models import fetch

    try:
        path = fetch(name)
    except RuntimeError as error:
        pytest.skip(f"no demo model: {error}")
    texts = varied_texts(special)
    assert len(texts) == 769
    [theirs] = llama_cpp_ids([(path, texts)], tmp_path)
    assert differing(transformers_ids(dequantised(path, USERS_CACHE / "gguf"), texts), theirs, texts) == []
