"""Trimmed tokenizers tokenize as the whole ones do, whatever is kept: properties, on tokenizers of every family."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import makers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokswap.tokenizer.merges import merges_of
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind
from tokswap.trim.closure import closed, pruned
from tokswap.trim.rebuild import Trimmed, forced_ids, parts_of, rebuilt

WORDS = sorted({word for text in makers.shipped_texts() for word in text.split()})
LINES = [line for text in makers.shipped_texts() for line in text.splitlines() if line]


@pytest.fixture(scope="module", params=[*makers.FAMILIES, "llama-3's", "byte-level with strings"])
def tokenizer(
    request: pytest.FixtureRequest, tokenizer_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    if request.param in makers.FAMILIES:
        return read_tokenizer(tokenizer_of(request.param, vocab_size=1200))
    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=1200), tmp_path_factory.mktemp("t") / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    if request.param == "llama-3's":
        # Words that no merge leads to, whose parts merge in other ways: the tokenizer finds them only as whole words.
        spec["model"]["ignore_merges"] = True
        size = makers.tokenizer_size(folder)
        spec["model"]["vocab"] |= {"Ġ" + word: size + n for n, word in enumerate(("brücke", "harbour", "of!the"))}
    else:
        spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    makers.write_json(folder / "tokenizer.json", spec)
    return read_tokenizer(folder)


def trimmed_to(tokenizer: Tokenizer, keep: Iterable[int]) -> Trimmed:
    """Trim a tokenizer to some tokens, those that it cannot work without, and their merge dependencies."""
    wanted = set(keep) | forced_ids(tokenizer)
    return rebuilt(tokenizer, closed(parts_of(tokenizer, wanted), wanted))


def old_ids(trimmed: Trimmed, text: str) -> list[int]:
    """Tokenize a text with the trimmed tokenizer; return source ids."""
    return list(trimmed.kept[trimmed.tokenizer.encode(text)].tolist())


texts = st.lists(
    st.sampled_from(WORDS) | st.sampled_from([" ", "  ", "\n", "\n\n", "日本語", "!", "7", "é", "☕"]),
    min_size=1,
    max_size=12,
).map(" ".join)


@settings(max_examples=40)
@given(data=st.data(), seen=st.lists(st.sampled_from(LINES), min_size=1, max_size=4), more=st.lists(texts, max_size=6))
def test_texts_of_kept_tokens_keep_their_tokenization(
    tokenizer: Tokenizer, data: st.DataObject, seen: list[str], more: list[str]
) -> None:
    keep = {token for text in seen for token in tokenizer.encode(text)}
    keep |= set(data.draw(st.lists(st.integers(0, len(tokenizer.vocabulary) - 1), max_size=40)))
    trimmed = trimmed_to(tokenizer, keep)
    for text in seen:
        assert old_ids(trimmed, text) == tokenizer.encode(text)
    kept = set(trimmed.kept.tolist())
    unknown = tokenizer.vocabulary.roles.get("unk")
    for text in [*more, *(tokenizer.vocabulary.token_bytes[n].decode("utf-8", "ignore") for n in sorted(kept)[:200])]:
        before = tokenizer.encode(text)
        # WordPiece: a word that was unknown as a whole can have a known beginning now.
        if kept.issuperset(before) and not (tokenizer.family == "WordPiece" and unknown in before):
            assert old_ids(trimmed, text) == before


def test_a_plain_filter_would_not_do(tokenizer: Tokenizer) -> None:
    """What the tests above guard against is real: without merge dependencies, texts are tokenized differently."""
    if tokenizer.family in ("Unigram", "WordPiece"):
        pytest.skip("its pieces do not need each other")
    keep = {token for line in LINES for token in tokenizer.encode(line)}
    filtered = rebuilt(tokenizer, keep | forced_ids(tokenizer))
    assert any(old_ids(filtered, line) != tokenizer.encode(line) for line in LINES)
    assert all(old_ids(trimmed_to(tokenizer, keep), line) == tokenizer.encode(line) for line in LINES)


def test_keeping_all_changes_nothing_but_reserved_ids(tokenizer: Tokenizer) -> None:
    size = len(tokenizer.vocabulary)
    trimmed = trimmed_to(tokenizer, range(size))
    assert trimmed.kept.tolist() == list(range(size))
    assert trimmed.tokenizer.spec == {**tokenizer.spec, "model": trimmed.tokenizer.spec["model"]}
    assert json.dumps(trimmed.tokenizer.spec["model"], sort_keys=True) == json.dumps(
        tokenizer.spec["model"], sort_keys=True
    )


def test_kept_tokens_are_the_same_tokens(tokenizer: Tokenizer) -> None:
    trimmed = trimmed_to(tokenizer, tokenizer.encode(LINES[0]))
    old, new = tokenizer.vocabulary, trimmed.tokenizer.vocabulary
    assert len(new) == len(trimmed.kept) < len(old)
    assert (np.diff(trimmed.kept) > 0).all()
    for n, token in enumerate(trimmed.kept.tolist()):
        assert (new.text[n], new.token_bytes[n], new.kind[n]) == (
            old.text[token],
            old.token_bytes[token],
            old.kind[token],
        )
    assert {role: trimmed.kept[n] for role, n in new.roles.items()} == dict(old.roles)
    assert set(np.flatnonzero(old.kind == Kind.SPECIAL)) <= set(trimmed.kept.tolist())
    trimmed.tokenizer.check()


def test_new_of_is_the_inverse(tokenizer: Tokenizer) -> None:
    trimmed = trimmed_to(tokenizer, [5, 6, 7])
    new_of = trimmed.new_of(len(tokenizer.vocabulary))
    assert new_of[trimmed.kept].tolist() == list(range(len(trimmed.kept)))
    assert np.count_nonzero(new_of < 0) == len(tokenizer.vocabulary) - len(trimmed.kept)


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
def test_every_text_can_still_be_spelt(family: str, tokenizer_of: Callable[..., Path]) -> None:
    """A BPE model without a byte symbol silently leaves the byte out."""
    tokenizer = read_tokenizer(tokenizer_of(family, vocab_size=1200))
    trimmed = trimmed_to(tokenizer, [])
    for text in TEXTS.values():
        ids = trimmed.tokenizer.encode(text)
        assert trimmed.tokenizer.backend.decode(ids) == text
    if family == "byte-level":
        assert set(BYTE_ALPHABET) <= set(trimmed.tokenizer.spec["model"]["vocab"])


def test_merges_of_kept_symbols_stay_in_their_order(tokenizer: Tokenizer) -> None:
    if "merges" not in tokenizer.spec["model"]:
        pytest.skip("no merges")
    trimmed = trimmed_to(tokenizer, [n for line in LINES[:9] for n in tokenizer.encode(line)]).tokenizer
    old, new = (list(merges_of(one.spec["model"])) for one in (tokenizer, trimmed))
    vocab = trimmed.spec["model"]["vocab"]
    assert new == [(a, b) for a, b in old if a in vocab and b in vocab and a + b in vocab]
    assert 0 < len(new) < len(old)
    assert type(trimmed.spec["model"]["merges"][0]) is type(tokenizer.spec["model"]["merges"][0])


def test_whole_words_of_ignore_merges_need_no_parts(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=400), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["vocab"]["Ġqqqqq"] = 400
    makers.write_json(folder / "tokenizer.json", {**spec, "model": {**spec["model"], "ignore_merges": True}})
    tokenizer = read_tokenizer(folder)
    assert tokenizer.encode(" qqqqq") == [400]
    assert closed(parts_of(tokenizer, [400]), [400]) == {400}
    trimmed = trimmed_to(tokenizer, [400])
    assert old_ids(trimmed, " qqqqq") == [400]
    assert old_ids(trimmed, " qqqqqq") == tokenizer.encode(" qqqqqq")


def test_unigram_keeps_the_score_of_the_unknown_token(tokenizer_of: Callable[..., Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_of("unigram", vocab_size=1200))
    scores = [score for _, score in tokenizer.spec["model"]["vocab"]]
    model = trimmed_to(tokenizer, [20]).tokenizer.spec["model"]
    assert min(score for _, score in model["vocab"]) == min(scores)
    assert model["vocab"][model["unk_id"]][0] == "<unk>"


@pytest.mark.parametrize("family", ["unigram", "wordpiece"])
def test_words_of_known_characters_do_not_become_unknown(family: str, tokenizer_of: Callable[..., Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_of(family, vocab_size=1200))
    unknown = tokenizer.vocabulary.roles["unk"]
    lines = makers.shipped_text("english").splitlines()
    text = next(line for line in lines if unknown not in tokenizer.encode(line) and len(line) > 40)
    letters = sorted({c for c in text.lower() if c.isascii() and c.isalpha()})
    words = ["".join(letters[n % len(letters)] for n in range(start, start + 7)) for start in range(20)]
    known = [word for word in words if unknown not in tokenizer.encode(word)]
    assert len(known) > 5
    trimmed = trimmed_to(tokenizer, tokenizer.encode(text))
    assert all(unknown not in old_ids(trimmed, word) for word in known)


def test_ids_in_every_file_follow(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = makers.copy_model(tokenizer_of("wordpiece"), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    ids = {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    spec["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    size = makers.tokenizer_size(folder)
    # Reserved slots before the special tokens, as in BERT: all ids move.
    moved = {
        token: n
        for n, token in enumerate(
            ["[unused0]", "[unused1]", *sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)]
        )
    }
    spec["model"]["vocab"] = moved
    for entry in spec["added_tokens"]:
        entry["id"] += 2
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": size + 2, "content": "<extra>", "special": False})
    for entry in spec["post_processor"]["special_tokens"].values():
        entry["ids"] = [n + 2 for n in entry["ids"]]
    spec["padding"]["pad_id"] += 2
    makers.write_json(folder / "tokenizer.json", spec)
    decoder = {str(entry["id"]): {"content": entry["content"], "special": True} for entry in spec["added_tokens"]}
    makers.edit_json(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
    (folder / "vocab.txt").write_text("\n".join(moved), encoding="utf-8")
    tokenizer = read_tokenizer(folder)
    trimmed = trimmed_to(tokenizer, tokenizer.encode("the bridge")).tokenizer
    assert trimmed.spec["padding"]["pad_id"] == 0
    extra = len(trimmed.vocabulary) - 1
    assert [entry["id"] for entry in trimmed.spec["added_tokens"]] == [*range(len(ids)), extra]
    assert {name: entry["ids"] for name, entry in trimmed.spec["post_processor"]["special_tokens"].items()} == {
        "[CLS]": [2],
        "[SEP]": [3],
    }
    assert {n: entry["content"] for n, entry in trimmed.config["added_tokens_decoder"].items()} == {
        str(n): content for content, n in [*ids.items(), ("<extra>", extra)]
    }
    assert "vocab.txt" not in trimmed.files
    whole = trimmed.backend.encode("the bridge").ids
    assert whole[0] == 2
    assert whole[-1] == 3
    assert trimmed.encode("<extra>") == [extra]
    out = trimmed.output_files()
    assert isinstance(out["tokenizer.json"], bytes)
    assert json.loads(out["tokenizer.json"]) == trimmed.spec


def test_added_tokens_between_the_ids_of_the_model_keep_their_place(
    tokenizer_of: Callable[..., Path], tmp_path: Path
) -> None:
    """The library numbers an added token that the model lacks: after the model's tokens, wherever their ids end."""
    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=400), tmp_path / "made")
    spec = makers.read_json(folder / "tokenizer.json")
    last = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)[-20:]
    spec["model"]["vocab"] |= {text: 500 + n for n, text in enumerate(last)}
    free = len(spec["model"]["vocab"])
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": free, "content": "<between>"})
    makers.write_json(folder / "tokenizer.json", spec)
    tokenizer = read_tokenizer(folder)
    trimmed = trimmed_to(tokenizer, [500, 505, 519])
    assert trimmed.kept[-4:].tolist() == [free, 500, 505, 519]
    assert old_ids(trimmed, "a<between>b") == tokenizer.encode("a<between>b")


def test_roberta_processors_follow(tokenizer_of: Callable[..., Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    size = len(tokenizer.vocabulary)
    spec = dict(tokenizer.spec)
    processor = {
        "type": "RobertaProcessing",
        "sep": ["zz", size - 1],
        "cls": ["yy", size - 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    spec["post_processor"] = {"type": "Sequence", "processors": [processor]}
    trimmed = trimmed_to(dataclasses.replace(tokenizer, spec=spec), [])
    assert {size - 1, size - 2} <= set(trimmed.kept.tolist())
    new = trimmed.tokenizer.spec["post_processor"]["processors"][0]
    assert trimmed.kept[[new["cls"][1], new["sep"][1]]].tolist() == [size - 2, size - 1]


# The closure itself.


@settings(max_examples=60)
@given(data=st.data())
def test_pruning_leaves_closed_sets_of_every_size(tokenizer: Tokenizer, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    wanted = set(rng.choice(len(tokenizer.vocabulary), 150, replace=False).tolist())
    forced = set(rng.choice(len(tokenizer.vocabulary), 5, replace=False).tolist())
    parts = parts_of(tokenizer, wanted | forced)
    everything, least = closed(parts, wanted | forced), closed(parts, forced)
    score = rng.random(len(tokenizer.vocabulary))
    size = data.draw(st.integers(0, len(everything)))
    left = pruned(parts, everything, least, score, size)
    assert least <= left <= everything
    assert closed(parts, left) == left
    assert len(left) <= max(size, len(least))
    assert len(left) >= min(len(everything), size - 1), "twins go together, so at most one too many goes"


def test_pruning_takes_what_is_worth_least() -> None:
    parts = {0: (), 1: (), 2: (0, 1), 3: (2, 0), 4: ()}
    score = np.array([0, 0, 5, 1, 2.0])
    assert pruned(parts, {0, 1, 2, 3, 4}, set(), score, 4) == {0, 1, 2, 4}
    assert pruned(parts, {0, 1, 2, 3, 4}, set(), score, 3) == {0, 1, 2}
    assert pruned(parts, {0, 1, 2, 3, 4}, {4}, score, 2) == {0, 4} or pruned(parts, {0, 1, 2, 3, 4}, {4}, score, 2) == {
        1,
        4,
    }
    assert pruned(parts, {0, 1, 2, 3, 4}, {4}, score, 0) == {4}
