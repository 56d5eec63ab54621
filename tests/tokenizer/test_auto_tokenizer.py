"""A folder is what AutoTokenizer makes of it: these tests compare with plain transformers, not with our own reader."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools

import tokswap
from tokswap.errors import InputError
from tokswap.tokenizer.loaded import read_loaded, to_transformers
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import ROLES

Edit = Callable[..., Path]
TEXTS = [
    "the ferry",
    " 12 boats  in 1999, isn't it?",
    "  two  spaces\n\n",
    "Fähre über 日本 ☕",
    "<|im_start|>user",
    "",
]
TOKENS = ["<|user|>", "<|bot|>"]
ENTRY = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def ids_of(loaded: Any, text: str, *, framed: bool = True) -> list[int]:
    """Tokenize a text. LayoutLM's classes take words and boxes only; their backend takes the text."""
    if "LayoutLM" in type(loaded).__name__:
        return list(loaded.backend_tokenizer.encode(text, add_special_tokens=framed).ids)
    return list(loaded.encode(text, add_special_tokens=framed))


def same_as_loaded(tokenizer: Tokenizer, folder: Path) -> None:
    """Compare tokens, ids, roles and tokenization with what AutoTokenizer gives."""
    loaded = load(folder)
    vocabulary = tokenizer.vocabulary
    assert {text: token for token, text in enumerate(vocabulary.text) if text} == loaded.get_vocab()
    named = {role: loaded.special_tokens_map.get(f"{role}_token") for role in ROLES}
    ids = {role: loaded.convert_tokens_to_ids(token) for role, token in named.items() if token is not None}
    assert ids.items() <= vocabulary.roles.items()
    for text in TEXTS:
        assert tokenizer.encode(text) == ids_of(loaded, text, framed=False)
    begins = ids_of(loaded, "a")[: -len(ids_of(loaded, "a", framed=False)) or None]
    assert tokenizer.leading == tuple(begins[:1]) or not tokenizer.leading


def result_of(tokenizer: Tokenizer, out: Path) -> Path:
    out.mkdir()
    for name, content in tokenizer.output_files().items():
        if isinstance(content, Path):
            shutil.copy(content, out / name)
        else:
            (out / name).write_bytes(content)
    return out


def loads_alike(one: Path, other: Path) -> None:
    first, second = load(one), load(other)
    assert first.get_vocab() == second.get_vocab()
    assert first.special_tokens_map == second.special_tokens_map
    assert list(first.model_input_names) == list(second.model_input_names)
    for text in TEXTS:
        assert ids_of(first, text) == ids_of(second, text)
        assert first.decode(ids_of(first, text)) == second.decode(ids_of(second, text))


@pytest.mark.parametrize(
    ("family", "model_type"),
    [("byte-level", "gpt2"), ("wordpiece", "bert"), ("byte-level", "roberta"), ("unigram", "xlm-roberta")],
)
def test_a_bare_folder_has_the_roles_of_its_class(edited: Edit, tmp_path: Path, family: str, model_type: str) -> None:
    folder = edited(family, lambda spec: None)
    makers.write_json(folder / "tokenizer_config.json", {"model_max_length": 128})
    makers.write_json(folder / "config.json", {"model_type": model_type})
    tokenizer = read_tokenizer(folder)
    assert tokenizer.vocabulary.roles
    same_as_loaded(tokenizer, folder)
    loads_alike(folder, result_of(tokenizer, tmp_path / "out"))


def in_decoder(folder: Path, first: int) -> None:
    entries = {str(first + n): {"content": token, **ENTRY} for n, token in enumerate(TOKENS)}
    makers.edit_json(folder / "tokenizer_config.json", added_tokens_decoder=entries)


OUTSIDE: dict[str, Callable[[Path, int], Any]] = {
    "added_tokens_decoder": in_decoder,
    "additional_special_tokens": lambda folder, first: makers.edit_json(
        folder / "tokenizer_config.json", additional_special_tokens=TOKENS
    ),
    "extra_special_tokens": lambda folder, first: makers.edit_json(
        folder / "tokenizer_config.json", extra_special_tokens={"user_token": TOKENS[0], "bot_token": TOKENS[1]}
    ),
    "special_tokens_map": lambda folder, first: makers.write_json(
        folder / "special_tokens_map.json", {"additional_special_tokens": TOKENS}
    ),
    "pad_token": lambda folder, first: makers.edit_json(folder / "tokenizer_config.json", pad_token="[PAD]"),
    "added_tokens": lambda folder, first: makers.write_json(
        folder / "added_tokens.json", {token: first + n for n, token in enumerate(TOKENS)}
    ),
    "boi_token": lambda folder, first: makers.edit_json(folder / "tokenizer_config.json", boi_token="<boi>"),
}


@pytest.mark.parametrize("place", OUTSIDE)
def test_tokens_that_tokenizer_json_lacks_are_in_the_vocabulary(edited: Edit, tmp_path: Path, place: str) -> None:
    folder = edited("byte-level", lambda spec: None)
    OUTSIDE[place](folder, 600)
    tokenizer = read_tokenizer(folder)
    same_as_loaded(tokenizer, folder)
    grown = len(load(folder)) > 600
    assert grown == any("not in tokenizer.json" in note for note in tokenizer.notes)
    assert grown or place in ("added_tokens", "boi_token")  # each release reads these two in some classes only
    loads_alike(folder, result_of(tokenizer, tmp_path / "out"))
    assert len(read_tokenizer(folder / "tokenizer.json").vocabulary) == 600


def digits(spec: dict[str, Any]) -> None:
    parts = [{"type": "Digits", "individual_digits": True}, spec["pre_tokenizer"]]
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


CLASSES = [
    ("byte-level", "GPT2Tokenizer"),
    ("byte-level", "Qwen2Tokenizer"),
    ("sentencepiece", "LlamaTokenizer"),
    ("sentencepiece", "GemmaTokenizer"),
    ("unigram", "T5Tokenizer"),
    ("unigram", "XLMRobertaTokenizer"),
    ("wordpiece", "BertTokenizer"),
    ("wordpiece", "LayoutLMv2Tokenizer"),
    ("byte-level", "LayoutLMv3Tokenizer"),
]


@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_what_the_class_makes_of_it_counts(edited: Edit, tmp_path: Path, family: str, name: str) -> None:
    folder = edited(family, digits if family == "byte-level" else lambda spec: None)
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class=name)
    tokenizer = read_tokenizer(folder)
    same_as_loaded(tokenizer, folder)
    loads_alike(folder, result_of(tokenizer, tmp_path / "out"))


@tools.needs_release_5
def test_a_class_that_builds_its_own_pre_tokenizer_is_named_in_a_note(edited: Edit, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    folder = edited("byte-level", digits)
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    own = Library.from_file(str(folder / "tokenizer.json"))
    text = "in 1999 and 2024"
    assert own.encode(text).tokens != load(folder).tokenize(text)
    by_class, by_file = read_tokenizer(folder), read_tokenizer(folder, prefer_file=True)
    assert all("GPT2Tokenizer" in tokenizer.notes[0] for tokenizer in (by_class, by_file))
    assert load(result_of(by_class, tmp_path / "class")).tokenize(text) == load(folder).tokenize(text)
    assert load(result_of(by_file, tmp_path / "file")).tokenize(text) == own.encode(text).tokens
    assert by_file.encode(text) == own.encode(text).ids


@pytest.mark.parametrize("flags", [{"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}])
def test_flags_of_the_config_put_tokens_around_a_text(edited: Edit, tmp_path: Path, flags: dict[str, bool]) -> None:
    folder = edited("sentencepiece", lambda spec: None, adds_bos=False)
    makers.edit_json(folder / "tokenizer_config.json", **flags)
    tokenizer = read_tokenizer(folder)
    loaded, bare = load(folder), load(folder).encode("the ferry", add_special_tokens=False)
    assert tokenizer.adds_bos == (loaded.encode("the ferry")[:1] == [loaded.bos_token_id])
    assert tokenizer.adds_eos == (loaded.encode("the ferry") != bare and not tokenizer.adds_bos)
    loads_alike(folder, result_of(tokenizer, tmp_path / "out"))


@tools.needs_release_5
def test_a_byte_level_tokenizer_under_the_class_of_llama(edited: Edit, tmp_path: Path) -> None:
    """DeepSeek's are so, and transformers takes the plain class for them, but not where a config names code."""
    folder = edited("byte-level", lambda spec: None)
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    tokenizer = read_tokenizer(folder)
    same_as_loaded(tokenizer, folder)
    assert tokenizer.output_config()["tokenizer_class"] == "PreTrainedTokenizerFast"


def old_metaspace(spec: dict[str, Any]) -> None:
    old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    spec |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, old]}, "decoder": old}


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "T5Tokenizer"])
def test_a_metaspace_of_before_prepend_scheme(edited: Edit, tmp_path: Path, name: str) -> None:
    from tokenizers import Tokenizer as Library

    folder = edited("unigram", old_metaspace)
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class=name)
    for tokenizer in (read_tokenizer(folder), read_tokenizer(folder / "tokenizer.json")):
        inside = tokenizer.tokenize_bytes([b"the", b" the"])
        ids = Library.from_file(str(folder / "tokenizer.json")).encode("a the", add_special_tokens=False).ids
        assert inside[1] == ids[-len(inside[1]) :]
        assert inside[0] != inside[1]
    same_as_loaded(read_tokenizer(folder), folder)
    loads_alike(folder, result_of(read_tokenizer(folder), tmp_path / "out"))


@pytest.mark.parametrize("lone", [False, True])
def test_dropout_is_left_out(edited: Edit, tmp_path: Path, lone: bool) -> None:
    folder = edited("byte-level", lambda spec: spec["model"].update(dropout=0.5))
    tokenizer = read_tokenizer(folder / "tokenizer.json" if lone else folder)
    assert "dropout of 0.5" in tokenizer.notes[0]
    text = makers.shipped_text("english")
    assert tokenizer.encode(text) == tokenizer.encode(text)
    assert json.loads(result_of(tokenizer, tmp_path / "out").joinpath("tokenizer.json").read_bytes())["model"][
        "dropout"
    ] in (None, 0)
    makers.copy_model(folder, tmp_path / "exact")
    spec = makers.read_json(folder / "tokenizer.json")
    spec["model"]["dropout"] = None
    makers.write_json(tmp_path / "exact" / "tokenizer.json", spec)
    assert tokenizer.encode(text) == load(tmp_path / "exact").encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", ["EsmTokenizer", "CTRLTokenizer", "ByT5Tokenizer"])
def test_classes_without_a_backend_are_refused_with_a_way_on(tmp_path: Path, name: str) -> None:
    (tmp_path / "vocab.txt").write_text("<cls>\n<pad>\n<eos>\n<unk>\nA\nC\n<mask>")
    makers.write_json(tmp_path / "vocab.json", {"a": 0, "b</w>": 1, "<unk>": 2})
    (tmp_path / "merges.txt").write_text("#version\na b</w>\n")
    if name == "ByT5Tokenizer":
        for file in tmp_path.iterdir():
            file.unlink()
    makers.write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": name})
    assert load(tmp_path)
    with pytest.raises(InputError) as caught:
        read_tokenizer(tmp_path)
    assert caught.value.code == "unsupported-tokenizer"
    assert name in caught.value.message
    assert caught.value.hint
    with pytest.raises(InputError, match="no fast backend"):
        read_loaded(load(tmp_path))


def test_a_class_and_no_vocabulary_is_no_tokenizer(tmp_path: Path) -> None:
    makers.write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    with pytest.raises(InputError) as caught:
        read_tokenizer(tmp_path)
    assert caught.value.code == "missing-tokenizer"


def test_code_of_a_tokenizer_is_not_run_without_trust(edited: Edit, tmp_path: Path) -> None:
    folder = edited("byte-level", lambda spec: None)
    makers.edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
    )
    (folder / "own.py").write_text("raise SystemExit('run')\n")
    tokenizer = read_tokenizer(folder)
    assert "--trust-remote-code" in tokenizer.notes[0]
    out = result_of(tokenizer, tmp_path / "out")
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", auto_map=...)
    assert "auto_map" not in makers.read_json(out / "tokenizer_config.json")
    loads_alike(folder, out)
    (folder / "tokenizer.json").unlink()
    makers.write_json(folder / "vocab.json", {"a": 0})
    code = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=code)
    with pytest.raises(InputError) as caught:
        read_tokenizer(folder)
    assert caught.value.code == "remote-code"


def ranks(folder: Path, tokenizer: Path) -> list[bytes]:
    """Return the tokens of a byte-level tokenizer in the order of a tiktoken file: bytes first."""
    vocabulary = read_tokenizer(tokenizer).vocabulary
    longer = [text for text in vocabulary.token_bytes if len(text) > 1 and not text.startswith(b"<|")]
    return [*(bytes([byte]) for byte in range(256)), *longer]


@tools.needs_release_5
@pytest.mark.parametrize("model_type", [None, "mistral"])
def test_a_tekken_json(tokenizer_of: Callable[..., Path], tmp_path: Path, model_type: str | None) -> None:
    tokens = ranks(tmp_path, tokenizer_of("byte-level"))
    size = makers.write_tekken(tmp_path, tokens)
    if model_type:
        makers.write_json(tmp_path / "config.json", {"model_type": model_type})
    tokenizer = read_tokenizer(tmp_path)
    assert len(tokenizer.vocabulary) == size
    for text in TEXTS[:4]:
        assert tokenizer.encode(text) == list(load(tmp_path).encode(text, add_special_tokens=False))
    assert "tekken.json" not in tokenizer.output_files()


@pytest.mark.parametrize("name", ["tiktoken.model", "qwen.tiktoken", "mine.tiktoken", "tokenizer.model"])
def test_files_that_need_a_package(tokenizer_of: Callable[..., Path], tmp_path: Path, name: str) -> None:
    tokens = ranks(tmp_path, tokenizer_of("byte-level"))
    lines = [f"{base64.b64encode(token).decode()} {n}\n" for n, token in enumerate(tokens)]
    (tmp_path / name).write_text("".join(lines))
    makers.write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    try:
        import tiktoken
    except ImportError:
        with pytest.raises(InputError) as caught:
            read_tokenizer(tmp_path)
        assert caught.value.code == "missing-extra"
        assert "tokswap[tokenizers]" in caught.value.hint
        return
    tokenizer = read_tokenizer(tmp_path)
    pattern = r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"
    word = "ferry"
    expected = tiktoken.Encoding(
        "t", pat_str=pattern, mergeable_ranks={t: n for n, t in enumerate(tokens)}, special_tokens={}
    )
    assert tokenizer.encode(word) == expected.encode(word)
    assert bool(tokenizer.notes) == name.endswith(".tiktoken")


def test_a_loaded_tokenizer_has_the_roles_of_its_class(edited: Edit) -> None:
    folder = edited("byte-level", lambda spec: spec["model"].update(dropout=0.5))
    makers.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    loaded = load(folder)
    tokenizer = read_loaded(loaded)
    assert tokenizer.vocabulary.roles["eos"] == loaded.eos_token_id
    assert tokenizer.spec["model"]["dropout"] in (None, 0)


@tools.needs_release_5
def test_a_transplant_follows_tokenizer_json_and_a_trim_the_class(
    model_of: Callable[..., Path], edited: Edit, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer as Library

    target = edited("byte-level", digits)
    makers.edit_json(target / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    text = "in 1999 and 2024"
    out = tmp_path / "transplant"
    report = tokswap.transplant_tokenizer(str(model_of("llama")), str(target), init="mean", out=out)
    assert any("GPT2Tokenizer" in note for note in report.plan.notes)
    assert load(out).tokenize(text) == Library.from_file(str(target / "tokenizer.json")).encode(text).tokens
    source = makers.copy_model(model_of("llama-tied"), tmp_path / "source")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(target / name, source)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text)
    report = tokswap.trim_vocabulary(str(source), corpora=[str(corpus)], out=tmp_path / "trim")
    assert any("GPT2Tokenizer" in note for note in report.plan.notes)
    assert load(tmp_path / "trim").tokenize(text) == load(source).tokenize(text)


def test_a_result_gives_its_model_what_the_source_gave(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """BERT's tokenizer gives types of tokens, which other models refuse."""
    target = makers.copy_model(model_of("bert"), tmp_path / "bert")
    makers.edit_json(target / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    tokswap.transplant_tokenizer(str(model_of("llama")), str(target), init="mean", out=tmp_path / "out")
    assert "token_type_ids" in load(target)("the ferry")
    assert set(load(tmp_path / "out")("the ferry")) == set(load(model_of("llama"))("the ferry"))


CODES = ["en_XX", "de_DE", "ru_RU"]


def translator(folder: Path) -> Path:
    """A tiny mBART, whose class builds another pre-tokenizer than its tokenizer.json has."""
    from transformers import MBartConfig, MBartForConditionalGeneration

    makers.make_tokenizer("unigram", folder)
    spec = makers.read_json(folder / "tokenizer.json")
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [entry for entry in spec["model"]["vocab"] if entry[0] not in first]
    vocab = [*([token, 0.0] for token in first), *pieces]
    spec["model"] |= {"vocab": vocab, "unk_id": 3}
    more = enumerate([*CODES, "<mask>"], len(vocab))
    spec["added_tokens"] = [{"id": n, "content": token, **ENTRY} for n, token in [*enumerate(first), *more]]
    spec["added_tokens"][-1]["lstrip"] = True
    makers.write_json(folder / "tokenizer.json", spec)
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    settings = {"tokenizer_class": "MBartTokenizer", "src_lang": "en_XX", "additional_special_tokens": CODES, **roles}
    makers.write_json(folder / "tokenizer_config.json", settings)
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = MBartConfig(
        vocab_size=len(vocab) + 4, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, decoder_start_token_id=2, **size
    )
    MBartForConditionalGeneration(config).save_pretrained(folder)
    return folder


@tools.needs_release_5
def test_a_class_that_switches_languages_stays(tmp_path: Path) -> None:
    """With the plain class, `src_lang` would do nothing, and every text would be said to be English."""
    from transformers import AutoModelForSeq2SeqLM

    source = translator(tmp_path / "source")
    text = makers.TEXTS / "german.txt"
    tokswap.trim_vocabulary(str(source), corpora=[text], out=tmp_path / "trimmed")
    target = tmp_path / "trimmed"
    model = makers.make_model("t5", tmp_path / "t5")
    tokswap.transplant_tokenizer(str(model), str(source), init="subword", out=tmp_path / "onto")
    pair = AutoModelForSeq2SeqLM.from_pretrained(source), load(source)
    t5 = AutoModelForSeq2SeqLM.from_pretrained(model), load(model)
    in_memory = [
        tokswap.trim_vocabulary(pair, corpora=[text]),
        tokswap.transplant_tokenizer(t5, str(source), init="subword"),
        tokswap.transplant_tokenizer(t5, pair[1], init="subword"),
    ]
    folders = (source, target, tmp_path / "onto")
    for loaded in (*map(load, folders), *(result.load()[1] for result in in_memory)):
        for code in CODES:
            loaded.src_lang = code
            assert loaded.convert_ids_to_tokens(loaded("der")["input_ids"])[-2:] == ["</s>", code]
    assert load(target).tokenize("der Hafen") == load(source).tokenize("der Hafen")


@tools.needs_release_5
def test_a_language_that_a_user_has_set_stays(tmp_path: Path) -> None:
    """The attribute counts, not what the tokenizer was loaded with."""
    from transformers import AutoModelForSeq2SeqLM

    source = translator(tmp_path / "source")
    tokenizer = load(source)
    tokenizer.src_lang = "ru_RU"
    pair = AutoModelForSeq2SeqLM.from_pretrained(source), tokenizer
    made = tokswap.trim_vocabulary(pair, corpora=[makers.TEXTS / "german.txt"]).load()[1]
    assert made.src_lang == "ru_RU"
    assert made.convert_ids_to_tokens(made("der")["input_ids"])[-2:] == ["</s>", "ru_RU"]


@tools.needs_release_5
def test_whisper_in_memory_keeps_its_language_and_spellings(tmp_path: Path) -> None:
    source = makers.make_tokenizer("byte-level", tmp_path / "source")
    spec = makers.read_json(source / "tokenizer.json")
    added = [
        "<|startoftranscript|>",
        "<|en|>",
        "<|zh|>",
        "<|de|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    spec["added_tokens"] += [{"id": 600 + n, "content": token, **ENTRY} for n, token in enumerate(added)]
    makers.write_json(source / "tokenizer.json", spec)
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class="WhisperTokenizer", language="en", task=None)
    makers.write_json(source / "normalizer.json", {"colour": "color"})
    original = load(source)
    original.set_prefix_tokens(language="de", task="transcribe")
    for read in (read_loaded(original), read_tokenizer(source)):
        made = to_transformers(read, read.config, bos=None)
        assert made.normalize("colour") == "color"
        assert made("der")["input_ids"] == (original if not read.files else load(source))("der")["input_ids"]
    assert json.loads(read_loaded(original).output_files()["normalizer.json"]) == {"colour": "color"}


@tools.needs_release_5
def test_languages_that_only_a_class_names(tmp_path: Path) -> None:
    """NLLB's class adds its 202 languages where no list says which there are. Those without a row stay away."""
    source = makers.make_model("t5", tmp_path / "source", family="sentencepiece", rows=602)
    spec = makers.read_json(source / "tokenizer.json")
    spec["added_tokens"] += [
        {"id": 600 + n, "content": code, **ENTRY} for n, code in enumerate(["eng_Latn", "deu_Latn"])
    ]
    makers.write_json(source / "tokenizer.json", spec)
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class="NllbTokenizer", src_lang="eng_Latn")
    out = tmp_path / "out"
    tokswap.trim_vocabulary(str(source), corpora=[makers.TEXTS / "german.txt"], check="tokens", out=out)
    assert len(load(source)) > 700
    assert len(load(out)) == makers.tokenizer_size(out) == makers.read_json(out / "config.json")["vocab_size"]


@tools.needs_release_5
def test_special_tokens_that_only_a_class_names(tmp_path: Path) -> None:
    """T5's class names its sentinels; the plain class of the result must be told."""
    folder = makers.make_tokenizer("unigram", tmp_path / "t5")
    sentinels = [f"<extra_id_{n}>" for n in range(3)]
    spec = makers.read_json(folder / "tokenizer.json")
    size = len(spec["model"]["vocab"])
    spec["added_tokens"] += [{"id": size + n, "content": token, **ENTRY} for n, token in enumerate(sentinels)]
    makers.write_json(folder / "tokenizer.json", spec)
    makers.edit_json(folder / "tokenizer_config.json", tokenizer_class="T5Tokenizer", extra_ids=3)
    tokenizer = read_tokenizer(folder)
    assert tokenizer.config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert set(sentinels) <= set(tokenizer.config["additional_special_tokens"])


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_config_that_transformers_cannot_read_is_named(
    key: str, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = makers.copy_model(model_of("llama"), tmp_path / "model")
    makers.edit_json(folder / "config.json", dtype=None, torch_dtype=None)
    makers.edit_json(folder / "config.json", **{key: "torch.float32"})
    with pytest.raises(InputError) as caught:
        read_tokenizer(folder)
    assert caught.value.code == "bad-config"
    assert "'torch.float32'" in caught.value.message


def test_the_type_of_a_model_beside_a_tokenizer_does_not_matter(tokenizer_of: Edit, tmp_path: Path) -> None:
    """transformers warns of types that it does not have, such as that of a hypernetwork."""
    folder = makers.copy_model(tokenizer_of("byte-level"), tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").unlink()
    makers.write_json(folder / "config.json", {"model_type": "zett_hypernetwork"})
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.configuration_utils")
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        load(folder)
        assert len(said) == 1
        read_tokenizer(folder)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert len(said) == 1
    assert logger.filters == []
