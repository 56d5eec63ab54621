"""The ZeTT network against the original code's numbers and a second implementation; surface forms; the cache."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
from hypernets import make_hypernet, oracle, random_weights, reference, write_hypernet

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.errors import InputError, UsageError
from tokswap.hypernet import Hypernet, HypernetConfig, load_hypernet
from tokswap.hypernet.config import read_config
from tokswap.hypernet.convert import build
from tokswap.tokenizer.byte_alphabet import byte_alphabet_spec
from tokswap.tokenizer.tokenizer import read_tokenizer

HERE = Path()


def network(config: HypernetConfig, weights: dict[str, object]) -> Hypernet:
    """Return a hypernetwork without a tokenizer, for given surface forms."""
    import torch

    state = {name: torch.as_tensor(value) for name, value in weights.items()}
    return Hypernet(config, build(config, state, HERE), surface=None)  # type: ignore[arg-type]


def small(**changes: object) -> HypernetConfig:
    values = {
        "n_embd": 10,
        "original_vocab_size": 40,
        "hn_hidden_size": 12,
        "hn_intermediate_size": 20,
        "hn_n_layers": 2,
        "hn_num_attention_heads": 3,
        "hn_surface_maxlen": 5,
        "hn_n_extra_tokens": 6,
        "pad_token_id": 2,
    }
    return HypernetConfig(**{**values, **changes})  # type: ignore[arg-type]


def some_forms(config: HypernetConfig, count: int, seed: int = 0, *, empty: bool = False) -> np.ndarray:
    """Return forms of every length, with ids past the source's, and here and there a pad between ids."""
    draw = np.random.default_rng(seed)
    most = config.original_vocab_size + config.hn_n_extra_tokens
    forms = draw.integers(0, most, (count, config.hn_surface_maxlen))
    lengths = draw.integers(0 if empty else 1, config.hn_surface_maxlen + 1, count)
    forms[np.arange(config.hn_surface_maxlen)[None, :] >= lengths[:, None]] = config.pad_token_id
    first = forms[:, 0]
    if not empty:
        first[first == config.pad_token_id] = 0
    return forms


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_predictions_equal_those_of_the_original_code(name: str) -> None:
    values, weights, data = oracle(name)
    config = read_config(values, HERE)
    lang = int(data["lang"]) if data["lang"] >= 0 else None
    predicted = network(config, weights)(data["forms"], data["source"], lang)
    np.testing.assert_allclose(predicted.input, data["predicted_in"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(predicted.bias, data["predicted_bias"], rtol=0, atol=2e-5)
    if name == "untied":
        np.testing.assert_allclose(predicted.output, data["predicted_out"], rtol=0, atol=2e-5)
    again = reference(config, weights, data["forms"][:12], data["source"], lang)
    np.testing.assert_allclose(again[0], data["predicted_in"][:12], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("untied", "lang", "single", "rescale", "bias"), list(itertools.product([False, True], repeat=5))
)
def test_every_combination_of_the_config(untied: bool, lang: bool, single: bool, rescale: bool, bias: bool) -> None:
    config = small(
        separate_out_embeddings=untied,
        hn_embed_lang_id=lang,
        n_langs=3 * lang,
        hn_single_head=single,
        hn_rescale_embeddings=rescale,
        hn_predict_bias=bias,
    )
    weights = random_weights(config)
    forms = some_forms(config, 24, empty=lang)
    source = np.random.default_rng(1).standard_normal((40, config.n_in)).astype(np.float32)
    index = 2 if lang else None
    predicted = network(config, weights)(forms, source, index)
    wanted = reference(config, weights, forms, source, index)
    for mine, other in zip(predicted, wanted, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=2e-5)


def test_a_prediction_depends_on_its_own_form_alone() -> None:
    """Sorting by length, blocks and padding change nothing."""
    config = small(hn_predict_bias=True)
    predicted = network(config, random_weights(config))
    forms, source = some_forms(config, 64), np.random.default_rng(1).standard_normal((40, 10))
    whole = predicted(forms, source.astype(np.float32))
    for n in (0, 7, 63):
        length = int(np.flatnonzero(forms[n] != 2)[-1]) + 1
        alone = predicted(forms[n : n + 1, :length], source.astype(np.float32))
        np.testing.assert_allclose(alone.input[0], whole.input[n], rtol=0, atol=1e-5)
    assert predicted(forms[:0], source.astype(np.float32)).input.shape == (0, 10)


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import tokswap.hypernet.predict as predict

    config = small(separate_out_embeddings=True)
    predicted, forms = network(config, random_weights(config)), some_forms(config, 50)
    source = np.random.default_rng(1).standard_normal((40, 20)).astype(np.float32)
    whole = predicted(forms, source)
    monkeypatch.setattr(predict, "BLOCK", 7)
    again = predicted(forms, source)
    np.testing.assert_allclose(again.output, whole.output, rtol=0, atol=1e-5)  # type: ignore[arg-type]


def test_gradients_reach_every_parameter() -> None:
    """Distributed training waits for the gradient of each parameter."""
    import torch

    config = small(hn_predict_bias=True, separate_out_embeddings=True)
    net = network(config, random_weights(config)).network
    forms = torch.tensor([[1, 2, 2, 2, 2], [3, 4, 5, 6, 7]])
    sum(part.sum() for part in net(forms, torch.randn(40, 20)) if part is not None).backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("forms", "source"),
    [
        (np.zeros((3, 6), int), np.zeros((40, 10), np.float32)),
        (np.zeros(3, int), np.zeros((40, 10), np.float32)),
        (np.zeros((3, 5), int), np.zeros((39, 10), np.float32)),
        (np.zeros((3, 5), int), np.zeros((40, 11), np.float32)),
        (np.full((3, 5), 46), np.zeros((40, 10), np.float32)),
        (np.full((3, 5), -1), np.zeros((40, 10), np.float32)),
    ],
)
def test_wrong_shapes(forms: np.ndarray, source: np.ndarray) -> None:
    config = small()
    with pytest.raises(UsageError) as caught:
        network(config, random_weights(config))(forms, source)
    assert caught.value.code == "bad-surface-forms"


# Languages.


@pytest.mark.parametrize(
    ("changes", "lang", "says"),
    [
        ({}, "de", "not trained with languages"),
        ({"hn_embed_lang_id": True, "n_langs": 2, "languages": ("de", "en")}, "", "needs the language"),
        ({"hn_embed_lang_id": True, "n_langs": 2, "languages": ("de", "en")}, "fr", "de, en"),
        ({"hn_embed_lang_id": True, "n_langs": 2, "languages": ("de", "en")}, "dee", "Did you mean `de`?"),
        ({"hn_embed_lang_id": True, "n_langs": 2}, "de", "numbers 0 to 1"),
        ({"hn_embed_lang_id": True, "n_langs": 2}, "2", "no language 2"),
    ],
)
def test_languages_that_are_not_known(changes: dict[str, object], lang: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        small(**changes).language_index(lang)
    assert caught.value.code == "unknown-language"
    assert says in str(caught.value)


def test_languages_by_code_and_number() -> None:
    config = small(hn_embed_lang_id=True, n_langs=2, languages=("de", "en"))
    assert [config.language_index(lang) for lang in ("de", "en", "1")] == [0, 1, 1]


# Configs.


def test_configs_come_back() -> None:
    config = small(languages=("a", "b"), n_langs=2, hn_embed_lang_id=True, base_model="x")
    assert read_config(config.as_dict(), HERE) == config


def test_older_configs_name_no_heads() -> None:
    values = {**small(hn_hidden_size=192).as_dict(), "hn_num_attention_heads": None}
    assert read_config(values, HERE).hn_num_attention_heads == 3


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"hn_n_layer": 3}, "bad-hypernet", "Did you mean `hn_n_layers`?"),
        ({"n_embd": None}, "bad-hypernet", "`n_embd` is missing"),
        ({"n_embd": "10"}, "bad-hypernet", "not of type int"),
        ({"hn_hidden_size": "10", "hn_num_attention_heads": None}, "bad-hypernet", "not of type int"),
        ({"n_embd": 0}, "bad-hypernet", "`n_embd` is 0"),
        ({"hn_predict_bias": 1}, "bad-hypernet", "not of type bool"),
        ({"hn_num_attention_heads": 5}, "bad-hypernet", "do not divide"),
        ({"hn_embed_lang_id": True}, "bad-hypernet", "`n_langs` is 0"),
        ({"languages": ["de"]}, "bad-hypernet", "1 language codes for 0"),
        ({"languages": "de"}, "bad-hypernet", "not a list"),
        ({"pad_token_id": -1}, "bad-hypernet", "`pad_token_id` is -1"),
        ({"hn_add_inter_token_attention": True}, "unsupported-hypernet", "`hn_add_inter_token_attention`"),
        ({"hn_model_type": "t5"}, "unsupported-hypernet", "'t5'"),
    ],
)
def test_bad_configs(changes: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config({**small().as_dict(), **changes}, HERE)
    assert caught.value.code == code
    assert says in str(caught.value)


# Surface forms and base models.


def test_surface_forms(model_of: Callable[..., Path], tmp_path: Path) -> None:
    base = model_of("llama-tied")
    hypernet = load_hypernet(make_hypernet(base, tmp_path / "hn", hn_surface_maxlen=4))
    tokenizer = read_tokenizer(base)
    words = [b" the", b"zebra", b"\xff\xfe", b"", b"a long piece of text, longer than four pieces"]
    forms = hypernet.surface.forms(words)
    assert forms.shape == (5, 4)
    assert forms[0].tolist() == [tokenizer.vocabulary.id_of[b" the"], 0, 0, 0]
    assert forms[3].tolist() == [0, 0, 0, 0]
    for word, form in zip(words[:3], forms, strict=False):
        pieces = [tokenizer.vocabulary.token_bytes[n] for n in form.tolist()[: len(hypernet.surface.tokenize(word))]]
        assert b"".join(pieces) == word[: len(b"".join(pieces))]
    assert len(hypernet.surface.tokenize(words[4])) > 4


def test_the_wrong_base_model(model_of: Callable[..., Path], tmp_path: Path) -> None:
    base = model_of("llama-tied")
    surface = load_hypernet(make_hypernet(base, tmp_path / "hn", base_model="llama-tied")).surface
    own = read_tokenizer(base).vocabulary
    surface.check_base(own, 32, 600, tied=True)
    surface.check_base(own, 32, 640, tied=True)  # a fine-tune with more rows
    other = read_tokenizer(
        model_of("llama-tied", vocab_size=600, seed_text=[makers.shipped_text("russian")])
    ).vocabulary
    for vocabulary, width, rows, tied, says in (
        (own, 24, 600, True, "24 elements"),
        (own, 32, 599, True, "599 rows"),
        (own, 32, 600, False, "two matrices"),
        (other, 32, 600, True, "tokens are those"),
    ):
        with pytest.raises(InputError) as caught:
            surface.check_base(vocabulary, width, rows, tied=tied)
        assert caught.value.code == "wrong-base-model"
        assert says in str(caught.value)
        assert "trained for llama-tied" in str(caught.value)


def test_a_tokenizer_that_is_not_byte_level(model_of: Callable[..., Path], tmp_path: Path) -> None:
    base = model_of("llama")  # SentencePiece
    folder = make_hypernet(base, tmp_path / "hn")
    (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    with pytest.raises(InputError) as caught:
        load_hypernet(folder)
    assert caught.value.code == "not-byte-level"


def test_a_tokenizer_with_more_ids_than_rows(model_of: Callable[..., Path], tmp_path: Path) -> None:
    base = model_of("llama")
    spec = byte_alphabet_spec(read_tokenizer(base), open_checkpoint(base).matrices[0].rows)
    with pytest.raises(InputError) as caught:
        write_hypernet(tmp_path / "hn", small(original_vocab_size=600, hn_n_extra_tokens=0), spec)
    assert caught.value.code == "bad-hypernet"


def test_names_of_the_package() -> None:
    import tokswap

    assert tokswap.hypernet.Hypernet is Hypernet
    assert not hasattr(tokswap.hypernet, "Hypernetwork")


# The cache.


def test_predictions_are_kept(model_of: Callable[..., Path], tmp_path: Path) -> None:
    hypernet = load_hypernet(make_hypernet(model_of("llama"), tmp_path / "hn", hn_predict_bias=True))
    with pytest.raises(UsageError, match="attach"):
        hypernet.predict(["a"])
    source = np.random.default_rng(0).standard_normal((600, 64)).astype(np.float32)
    ready = hypernet.attach(source, cached_rows=3)
    calls: list[int] = []
    whole = type(hypernet).__call__

    def counted(self: Hypernet, forms: np.ndarray, *rest: object) -> object:
        calls.append(len(forms))
        return whole(self, forms, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hypernet, "__call__", counted)
        predicted = ready.predict([b" the", "zebra", b" the"])
        ready.predict(["zebra", b" the"])
        assert calls == [2]
        ready.predict(["one", "two"])  # the least recently used goes: zebra
        ready.predict([b" the"])
        assert calls == [2, 2]
        again = ready.predict(["zebra"])
        assert calls == [2, 2, 1]
        many = ready.predict([str(n) for n in range(9)])  # more at once than are kept
        assert len(many.input) == 9
    direct = ready(ready.surface.forms([b" the", b"zebra"]), source)
    np.testing.assert_allclose(predicted.input, direct.input[[0, 1, 0]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.output, direct.output[1:], rtol=0, atol=1e-6)  # type: ignore[index]
    np.testing.assert_allclose(predicted.bias, direct.bias[[0, 1, 0]], rtol=0, atol=1e-6)  # type: ignore[index]
    assert ready.predict([]).input.shape == (0, 32)
    assert dataclasses.replace(ready).config.hn_predict_bias
    read = hypernet.attach(lambda ids: source[ids]).predict([b" the", "zebra"])
    np.testing.assert_allclose(read.input, direct.input, rtol=0, atol=1e-6)
    for token in ("the", b"the"):  # each of its characters, or so many zero bytes, was a token
        with pytest.raises(UsageError, match="takes a list"):
            ready.predict(token)


@pytest.mark.parametrize("tied", [True, False])
def test_source_rows_are_read_as_they_are_needed(tied: bool) -> None:
    config = small(separate_out_embeddings=not tied)
    hypernet, forms = network(config, random_weights(config)), some_forms(config, 30, seed=3)
    source = np.random.default_rng(1).standard_normal((config.original_vocab_size, config.n_in), np.float32)
    forms[forms == 7] = 8
    read: set[int] = set()

    def rows(ids: np.ndarray) -> np.ndarray:
        read.update(ids.tolist())
        return source[ids]

    for found, wanted in zip(hypernet(forms, rows), hypernet(forms, source), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert read <= {*forms.ravel().tolist(), config.original_vocab_size - 1}
