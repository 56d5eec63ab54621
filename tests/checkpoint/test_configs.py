from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tokswap.checkpoint.configs import edit_config, edit_generation_config, needed_ids
from tokswap.checkpoint.id_map import AlignedIds, KeptIds
from tokswap.checkpoint.nested_configs import token_ids
from tokswap.errors import InputError
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

SPECIALS = ("<", "[")


def vocabulary(tokens: str, **roles: str) -> Vocabulary:
    """A vocabulary from words between blanks; those that begin with a bracket are special."""
    words = tokens.split()
    kinds = [Kind.SPECIAL if word.startswith(SPECIALS) else Kind.NORMAL for word in words]
    return Vocabulary(
        words,
        [word.encode() for word in words],
        np.array(kinds, np.uint8),
        {role: words.index(word) for role, word in roles.items()},
    )


#                     0     1   2    3     4       5    6    7     8
SOURCE = vocabulary("<pad> <s> </s> <unk> <image> <en> <end> hello x", pad="<pad>", bos="<s>", eos="</s>", unk="<unk>")
#                     0  1     2     3     4     5     6     7       8
TARGET = vocabulary("x hello [BOS] [EOS] [PAD] <end> <en> <image> other", bos="[BOS]", eos="[EOS]", pad="[PAD]")
ROWS = 16


def ids(source: Vocabulary = SOURCE, target: Vocabulary = TARGET, **options: Any) -> AlignedIds:
    mapped = options.pop("mapped", None)
    return AlignedIds(align(target, source, rows=ROWS, mapped=mapped), source, target, **options)


def edited(config: dict[str, Any], map_: AlignedIds | None = None) -> dict[str, Any]:
    return edit_config({"vocab_size": 9, **config}, map_ or ids(), ROWS).config


def noted(config: dict[str, Any], map_: AlignedIds | None = None) -> tuple[str, ...]:
    return edit_config({"vocab_size": 9, **config}, map_ or ids(), ROWS).notes


# Sizes.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"vocab_size": 9}, {"vocab_size": 16}),
        ({"text_config": {"vocab_size": 9}}, {"text_config": {"vocab_size": 16}}),
        ({"vocab_size": 9, "text_config": {"vocab_size": 9}}, {"vocab_size": 16, "text_config": {"vocab_size": 16}}),
        ({"a": {"b": {"vocab_size": 9}}}, {"a": {"b": {"vocab_size": 16}}}),
        (
            {"encoder": {"vocab_size": 9}, "decoder": {"vocab_size": 9}},
            {"encoder": {"vocab_size": 16}, "decoder": {"vocab_size": 16}},
        ),
        ({"vocab_size": 9, "decoder_vocab_size": 9}, {"vocab_size": 16, "decoder_vocab_size": 16}),
        ({"vocab_size": 9, "n_words": 9}, {"vocab_size": 16, "n_words": 16}),
        ({"vocab_size": 9, "type_vocab_size": 9}, {"vocab_size": 16, "type_vocab_size": 9}),
        ({"vocab_size": 9, "hidden_size": 9}, {"vocab_size": 16, "hidden_size": 9}),
        (
            {"vocab_size": 9, "vocab_size_per_layer_input": 7},
            {"vocab_size": 16, "vocab_size_per_layer_input": 16},
        ),
        (
            {"text_config": {"vocab_size": 9}, "vision_config": {"vocab_size": 9}, "audio_config": {"vocab_size": 9}},
            {"text_config": {"vocab_size": 16}, "vision_config": {"vocab_size": 9}, "audio_config": {"vocab_size": 9}},
        ),
        ({"vocab_size": 9, "other_config": {"vocab_size": 5}}, {"vocab_size": 16, "other_config": {"vocab_size": 5}}),
    ],
)
def test_sizes_at_every_level(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert edit_config(before, ids(), ROWS).config == after


def test_logits_end_after_the_new_tokens() -> None:
    """Inkling computes padded logits and discards them; the tokenizer has as many tokens as it keeps."""
    assert edited({"unpadded_vocab_size": 9})["unpadded_vocab_size"] == len(TARGET)
    assert edited({"unpadded_vocab_size": None})["unpadded_vocab_size"] is None


def test_pieces_of_pictures_follow_their_tokens() -> None:
    """Emu3 and Chameleon list the ids of their picture tokens."""
    assert edited({"vocabulary_map": {"<image>": 4, "<gone>": 2000}})["vocabulary_map"] == {"<image>": 7}
    assert needed_ids({"vocab_size": 9, "vocabulary_map": {"<image>": 4}}).keys() >= {4}


def test_languages_and_texts_of_ids_of_seamless() -> None:
    """Its generate takes the id of a language, and the letters of each token, from generation_config.json."""
    before = {"text_decoder_lang_to_code_id": {"eng": 5}, "t2u_lang_code_to_id": {"eng": 5}, "id_to_text": {"8": "▁x"}}
    after = edit_generation_config(before, ids()).config
    assert after["text_decoder_lang_to_code_id"] == {"eng": 6}
    assert after["t2u_lang_code_to_id"] == {"eng": 5}
    assert after["id_to_text"] == {**{str(n): text for n, text in enumerate(TARGET.text)}, "0": "▁x"}
    assert needed_ids(before).keys() == {5}


def test_ids_of_units_of_sound_stay() -> None:
    units = {"t2u_eos_token_id": 2, "t2u_pad_token_id": 1, "codebook_eos_token_id": 0, "codec_eos_token_id": 4}
    assert edited(units) == {"vocab_size": ROWS, **units}


def test_a_config_inside_with_another_vocabulary_stays() -> None:
    """Evolla reads proteins with a vocabulary of their own."""
    protein = {"vocab_size": 4, "pad_token_id": 1, "mask_token_id": 3, "inner": {"eos_token_id": 2}}
    assert edited({"protein_encoder_config": protein})["protein_encoder_config"] == protein
    assert needed_ids({"vocab_size": 9, "protein_encoder_config": protein}) == {}


def test_nothing_else_changes_and_nothing_in_place() -> None:
    config = {
        "vocab_size": 9,
        "hidden_size": 4,
        "rope_scaling": {"factor": 2.0, "type": "linear"},
        "layer_types": ["a"],
        "torch_dtype": "bfloat16",
        "id2label": {"0": "LABEL_0"},
        "eos_token_id": [2, 6],
    }
    before = repr(config)
    result = edit_config(config, ids(), ROWS).config
    assert repr(config) == before
    assert {**result, "vocab_size": 9, "eos_token_id": [2, 6]} == config


# Ids, in config.json and generation_config.json alike.

IDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bos by its role": ({"bos_token_id": 1}, {"bos_token_id": 2}),
    "eos by its role": ({"eos_token_id": 2}, {"eos_token_id": 3}),
    "pad by its role": ({"pad_token_id": 0}, {"pad_token_id": 4}),
    "another token as bos gives way to the target's own": ({"bos_token_id": 6}, {"bos_token_id": 2}),
    "another token as pad gives way to the target's own": ({"pad_token_id": 6}, {"pad_token_id": 4}),
    "a null takes the target's token": ({"pad_token_id": None}, {"pad_token_id": 4}),
    "an eos list keeps what can be kept": ({"eos_token_id": [2, 6]}, {"eos_token_id": [3, 5]}),
    "an eos list of one stays a list": ({"eos_token_id": [2]}, {"eos_token_id": [3]}),
    "a further eos joins the target's own": ({"eos_token_id": 6}, {"eos_token_id": [3, 5]}),
    "an id past the vocabulary is dropped from a list": ({"eos_token_id": [2, 99]}, {"eos_token_id": [3]}),
    "a placeholder becomes the target's pad": ({"pad_token_id": -1}, {"pad_token_id": 4}),
    "decoder start is translated through its role": ({"decoder_start_token_id": 2}, {"decoder_start_token_id": 3}),
    "decoder start may be the pad": ({"decoder_start_token_id": 0}, {"decoder_start_token_id": 4}),
    "forced bos is a language": ({"forced_bos_token_id": 5}, {"forced_bos_token_id": 6}),
    "forced eos": ({"forced_eos_token_id": 2}, {"forced_eos_token_id": 3}),
    "forced bos may be null": ({"forced_bos_token_id": None}, {"forced_bos_token_id": None}),
    "a list of other ids": ({"some_token_ids": [5, 4]}, {"some_token_ids": [6, 7]}),
    "an image token": ({"image_token_id": 4}, {"image_token_id": 7}),
    "an image token under its older name": ({"image_token_index": 4}, {"image_token_index": 7}),
    "suppressed tokens": ({"suppress_tokens": [7, 3, 8]}, {"suppress_tokens": [1, 0]}),
    "tokens suppressed at the beginning": ({"begin_suppress_tokens": [8, 2]}, {"begin_suppress_tokens": [0, 3]}),
    "no id at all": ({"no_repeat_ngram_size": 3, "token_healing": False}, None),
}


@pytest.mark.parametrize("case", IDS)
@pytest.mark.parametrize("where", ["config", "text_config", "deep", "generation"])
def test_token_ids(case: str, where: str) -> None:
    before, after = IDS[case]
    expected = before if after is None else after
    if where == "config":
        assert edited(before) == {"vocab_size": ROWS, **expected}
    elif where == "text_config":
        assert edited({"text_config": before})["text_config"] == expected
    elif where == "deep":
        assert edited({"task_specific_params": {"summarization": before}})["task_specific_params"] == {
            "summarization": expected
        }
    else:
        assert edit_generation_config(before, ids()).config == expected


def test_each_level_is_edited_by_itself() -> None:
    before = {"eos_token_id": 2, "text_config": {"eos_token_id": [2, 6], "bos_token_id": 1}}
    assert edited(before) == {
        "vocab_size": ROWS,
        "eos_token_id": 3,
        "text_config": {"eos_token_id": [3, 5], "bos_token_id": 2},
    }


@pytest.mark.parametrize("path", ["vision_config", "audio_config", "speech_config", "codec_config", "vq_config"])
def test_configs_of_pictures_and_sound_stay(path: str) -> None:
    inner = {"vocab_size": 9, "pad_token_id": 0, "eos_token_id": 2, "inner": {"bos_token_id": 1}}
    assert edited({path: inner})[path] == inner


def test_a_role_that_the_target_lacks_is_unset_with_a_note() -> None:
    target = vocabulary("x hello [BOS] [EOS] <end>", bos="[BOS]", eos="[EOS]")
    map_ = ids(target=target)
    assert edited({"pad_token_id": 0}, map_)["pad_token_id"] is None
    assert noted({"pad_token_id": 0}, map_) == ("`pad_token_id` is now unset: the target tokenizer has no such token",)
    assert edited({"eos_token_id": [0]}, ids(target=target))["eos_token_id"] == [3]


def test_an_unset_role_makes_no_note() -> None:
    map_ = ids(target=vocabulary("x hello"))
    assert edited({"pad_token_id": None}, map_)["pad_token_id"] is None
    assert noted({"pad_token_id": None}, map_) == ()


def test_a_pad_that_only_the_target_model_knows_is_kept() -> None:
    """Many tokenizer files name no pad token, and the config of their model does."""
    target = vocabulary("x hello [BOS] [EOS] <end>", bos="[BOS]", eos="[EOS]")
    map_ = ids(target=target, target_config={"pad_token_id": 4, "eos_token_id": [3, 4]})
    assert edited({"pad_token_id": 0}, map_)["pad_token_id"] == 4
    assert edited({"decoder_start_token_id": 0}, map_)["decoder_start_token_id"] == 4
    assert noted({"pad_token_id": 0, "decoder_start_token_id": 0}, map_) == ()
    assert map_.role("eos") == 3


@pytest.mark.parametrize("pad", [-1, 99, None, [], "4"])
def test_an_impossible_id_in_the_target_config_is_ignored(pad: object) -> None:
    target = vocabulary("x hello [BOS] [EOS] <end>", bos="[BOS]", eos="[EOS]")
    assert ids(target=target, target_config={"pad_token_id": pad}).role("pad") is None


def test_numbers_that_are_no_ids_of_the_source() -> None:
    """-1 stands for nothing, and ids past the vocabulary have no row: no token of the target is meant."""
    lacks = ids(target=vocabulary("x hello <new> [BOS] [EOS]", bos="[BOS]", eos="[EOS]"))
    result = edit_generation_config({"suppress_tokens": [-1, 0, 999], "lang_to_id": {"de": -1}}, lacks)
    assert result.config["suppress_tokens"] == [token for token in [lacks.translate(0)] if token is not None]
    assert result.config["lang_to_id"] == {}


def test_ids_under_other_names() -> None:
    """MiniCPM-V and HunYuan-VL leave out the word token, XLM calls the pad id an index, which cannot be null."""
    assert edited({"im_start_id": 4, "pad_index": 0}) == {
        "vocab_size": ROWS,
        "im_start_id": edited({"image_token_id": 4})["image_token_id"],
        "pad_index": edited({"pad_token_id": 0})["pad_token_id"],
    }
    lacks = ids(target=vocabulary("x hello"))
    assert edited({"pad_index": 0}, lacks)["pad_index"] == 0
    assert noted({"pad_index": 0}, lacks) == ()


def test_the_pad_that_idefics_saves_under_its_inner_name() -> None:
    """transformers writes 128,002 there, whatever the model is: the new vocabulary may have a row of that id."""
    assert edited({"_pad_token_id": 12})["_pad_token_id"] == TARGET.roles["pad"]
    assert edited({"_pad_token_id": 8})["_pad_token_id"] == TARGET.roles["pad"]
    lacks = ids(target=vocabulary("hello [BOS] [EOS]", bos="[BOS]", eos="[EOS]"))
    assert edited({"_pad_token_id": 8}, lacks)["_pad_token_id"] is None


def test_lists_of_ids_that_are_no_tokens() -> None:
    """A model that reads images lost those past its rows, silently: it found its images no more."""
    reads = {"vision_config": {}, "image_token_ids": [30, 4, 31]}
    assert edited(reads)["image_token_ids"] == [30, edited({"image_token_id": 4})["image_token_id"], 31]
    assert "the id 30 (`image_token_ids`), past the model's rows" in " ".join(noted(reads))
    with pytest.raises(InputError, match="another row there") as caught:
        edited({"vision_config": {}, "image_token_ids": [ROWS - 1]})
    assert caught.value.code == "unmapped-id"
    assert edited({"image_token_ids": [30]})["image_token_ids"] is None
    assert edited({"image_token_ids": [4, 30]})["image_token_ids"] == [edited({"image_token_id": 4})["image_token_id"]]
    kept = KeptIds(SOURCE, TARGET, {4: 7})
    config = {"vocab_size": 9, **reads}
    assert edit_config(config, kept, ROWS).config["image_token_ids"] == [30, 7, 31]
    assert edited({"eos_token_id": [2, 30], "suppress_tokens": [4, 30]}) == {
        "vocab_size": ROWS,
        "eos_token_id": [TARGET.roles["eos"]],
        "suppress_tokens": [edited({"image_token_id": 4})["image_token_id"]],
    }


def test_a_model_that_hashes_its_ids() -> None:
    """The n-gram embeddings of Qwen4-Exp became those of other texts, without a sign."""
    hashes = {"vocab_size": 9, "ple_layer_ids": [1], "ngram_size": 3}
    with pytest.raises(InputError, match="a hash of their ids") as caught:
        edited(hashes)
    assert caught.value.code == "hashed-ids"
    assert edited({**hashes, "ple_layer_ids": []})["vocab_size"] == ROWS
    same = KeptIds(SOURCE, SOURCE, {token: token for token in range(9)})
    assert edit_config(hashes, same, ROWS).config["vocab_size"] == ROWS


def test_sizes_under_other_names() -> None:
    assert edited({"padded_vocab_size": 9, "type_vocab_size": 2})["padded_vocab_size"] == ROWS


def test_ids_that_are_counted_from_an_offset() -> None:
    """Gemma-3n: ids past the text are rows of other matrices."""
    edited({"vision_config": {"vocab_offset": 0}})
    with pytest.raises(InputError, match=r"vision_config\.vocab_offset") as caught:
        edited({"vision_config": {"vocab_offset": 9}})
    assert caught.value.code == "unmapped-id"


def test_an_id_that_was_mapped_by_hand() -> None:
    assert edited({"image_token_id": 4}, ids(mapped={7: 8, 8: 4}))["image_token_id"] == 8


@pytest.mark.parametrize("config", [{}, {"text_config": {"vocab_size": 4}, "vision_config": {}}])
def test_new_ids_that_the_source_does_not_have(config: dict[str, Any]) -> None:
    """The larger vocabulary has the token further back. The id counted as no token of the source."""
    map_ = ids(source=vocabulary("<pad> </s> <image> x", pad="<pad>", eos="</s>"))
    found = edit_config({"vocab_size": 4, "image_token_id": 2, "decoder_start_token_id": 0, **config}, map_, ROWS)
    assert (found.config["image_token_id"], found.config["decoder_start_token_id"]) == (7, 4)
    assert found.notes == ()


# What cannot be translated.


@pytest.mark.parametrize("key", ["image_token_id", "image_token_index", "some_token_ids", "decoder_start_token_id"])
def test_a_token_that_the_model_needs_and_the_target_lacks(key: str) -> None:
    target = vocabulary("x hello [BOS] [EOS]", bos="[BOS]", eos="[EOS]")
    with pytest.raises(InputError) as caught:
        edited({key: [4] if key.endswith("ids") else 4}, ids(target=target))
    assert caught.value.code == "unmapped-id"
    assert "'<image>'" in caught.value.message
    assert f"`{key}`" in caught.value.message
    assert "--map-token 'TARGET=<image>'" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("bad_words_ids", [[7]], None),
        ("bad_words_ids", [[7], [4], [4, 7], [2, 6]], [[7], [3, 5]]),
        ("forced_decoder_ids", [[1, 5]], [[1, 6]]),
        ("forced_decoder_ids", [[1, None], [2, 7], [3, 4]], [[1, None], [3, 7]]),
        ("sequence_bias", {"7": 1.0}, None),
        ("sequence_bias", [[[4], 1.0], [[7], 2.0]], [[[7], 1.0]]),
        ("force_words_ids", [[7, 8]], None),
        ("force_words_ids", [[[4], [7]]], [[[7]]]),
    ],
)
def test_words_of_text_are_dropped_with_a_note_and_those_of_special_tokens_follow(
    key: str, value: Any, kept: object
) -> None:
    """Marian must not write its pad, Idefics no pictures; the text of other words has other ids in the target."""
    result = edit_generation_config({key: value}, ids())
    assert result.config == {key: kept}
    lost = len(value) - len(kept or ())  # type: ignore[arg-type]
    note = f"`{key}`: dropped {lost} of {len(value)} words, which are ids of the old tokenizer"
    assert result.notes == ((note,) if lost else ())


@pytest.mark.parametrize("value", [None, [], {}])
def test_an_empty_list_of_words_needs_no_note(value: object) -> None:
    result = edit_generation_config({"bad_words_ids": value}, ids())
    assert result.config == {"bad_words_ids": value}
    assert result.notes == ()


# Positions that are counted from the pad id.


@pytest.mark.parametrize(
    "model_type", ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "m2m_100", "xglm"]
)
def test_a_pad_that_defines_positions_must_stay(model_type: str) -> None:
    with pytest.raises(InputError) as caught:
        edited({"model_type": model_type, "pad_token_id": 0})
    assert caught.value.code == "pad-defines-positions"
    assert "from 0 to 4" in caught.value.message


@pytest.mark.parametrize("model_type", ["bert", "llama", None])
def test_a_pad_that_defines_nothing_may_move(model_type: str | None) -> None:
    assert edited({"model_type": model_type, "pad_token_id": 0})["pad_token_id"] == 4


def test_a_pad_that_defines_positions_and_stays() -> None:
    target = vocabulary("[PAD] x hello", pad="[PAD]")
    assert edited({"model_type": "roberta", "pad_token_id": 0}, ids(target=target))["pad_token_id"] == 0


# generation_config.json.


def test_sampling_settings_are_kept() -> None:
    settings = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "max_new_tokens": 9,
        "transformers_version": "5.0",
        "repetition_penalty": 1.1,
    }
    result = edit_generation_config({**settings, "eos_token_id": 2, "bos_token_id": 1}, ids())
    assert result.config == {**settings, "eos_token_id": 3, "bos_token_id": 2}


def test_no_generation_config_stays_none() -> None:
    assert edit_generation_config({}, ids()).config == {}
    assert edit_generation_config({}, ids(), [5], {"eos_token_id": [5, 6]}).config == {}


def test_a_generation_config_is_made_for_eos_ids_that_the_config_does_not_know() -> None:
    config = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    assert edit_generation_config({}, ids(), [2, 5], config).config == {"bos_token_id": 1, "eos_token_id": [2, 5]}


@pytest.mark.parametrize(
    ("before", "also", "after"),
    [
        ({"eos_token_id": 2}, [], 3),
        ({"eos_token_id": 2}, [3], 3),
        ({"eos_token_id": 2}, [5], [3, 5]),
        ({"eos_token_id": [2, 6]}, [5, 3, 8], [3, 5, 8]),
        ({"eos_token_id": [2]}, [], [3]),
        ({"top_k": 5}, [5], 5),
        ({"eos_token_id": None}, [5], [3, 5]),
    ],
)
def test_a_text_ends_at_every_eos(before: dict[str, Any], also: list[int], after: object) -> None:
    assert edit_generation_config(before, ids(), also).config["eos_token_id"] == after


@pytest.mark.parametrize(
    ("value", "expected"), [(3, [3]), ([3, 4], [3, 4]), (None, []), ("3", []), (True, []), ([3, None], [3])]
)
def test_token_ids_of_a_field(value: object, expected: list[int]) -> None:
    assert token_ids({"eos_token_id": value}, "eos_token_id") == expected
    assert token_ids({}, "eos_token_id") == []


def test_ids_that_a_config_needs() -> None:
    config = {
        "eos_token_id": [1, 2],
        "text_config": {"image_token_index": 7, "pad_token_id": None},
        "forced_decoder_ids": [[1, 9]],
        "lang_to_id": {"<|de|>": 11},
        "vision_config": {"pad_token_id": 99},
        "num_layers": 5,
    }
    assert needed_ids(config) == {
        1: "eos_token_id",
        2: "eos_token_id",
        7: "image_token_index",
        9: "forced_decoder_ids",
        11: "lang_to_id",
    }
    assert set(needed_ids({"model_type": "xlm-roberta", "pad_token_id": 3})) == {0, 1, 2, 3}
    assert set(needed_ids({"model_type": "llama", "pad_token_id": 3})) == {3}
