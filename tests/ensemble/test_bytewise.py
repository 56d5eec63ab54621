"""Exact bytes of token models, against sums over every canonical token sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from makers import copy_model, shipped_text
from sequences import everything, is_canonical

from tokswap.ensemble.bytewise import END, ByteMixture, byte_mix, utf8
from tokswap.ensemble.bytewise.canonical import Canonical
from tokswap.ensemble.bytewise.reader import ByteModel, Reader
from tokswap.ensemble.bytewise.tree import Tree
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.models import load_model
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Kind

Make = Callable[..., Path]
ARCHITECTURES = {
    "byte-level": ("llama-tied", {"vocab_size": 330, "adds_bos": True}),
    "sentencepiece": ("gemma3", {"vocab_size": 420, "adds_bos": True}),
}


@pytest.fixture(scope="module")
def loaded(model_of: Make) -> Callable[[str], tuple[Any, Tokenizer]]:
    kept: dict[str, tuple[Any, Tokenizer]] = {}

    def find(family: str) -> tuple[Any, Tokenizer]:
        if family not in kept:
            architecture, options = ARCHITECTURES[family]
            folder = model_of(architecture, family=family, **options)
            kept[family] = tools.load(folder, architecture)[0], read_tokenizer(folder)
        return kept[family]

    return find


# UTF-8.


def test_what_may_follow_in_utf8() -> None:
    assert utf8.split("aé".encode()) == ("aé".encode(), b"")
    assert utf8.split(b"a\xe2\x82") == (b"a", b"\xe2\x82")
    assert utf8.split(b"a\xff") is utf8.split(b"\xe2\x82a") is utf8.split(b"\xed\xa0") is None
    assert [
        utf8.completions(rest) for rest in (b"a", b"\xc3", b"\xe0", b"\xed", b"\xf0", b"\xf4", b"\xc0", b"\xf5")
    ] == [
        1,
        64,
        2048,
        2048,
        3 * 65536,
        65536,
        0,
        0,
    ]
    assert sum(utf8.completions(bytes([lead])) for lead in range(256)) == 0x110000 - 0x800
    assert utf8.examples(b"") == [""]
    assert len(utf8.examples(b"\xed")) == len(utf8.examples(b"\xc3")) == 64
    assert utf8.may_follow(b"")[[0x41, 0x80, 0xC3, END]].tolist() == [True, False, True, True]
    assert np.flatnonzero(utf8.may_follow(b"\xe0")).tolist() == list(range(0xA0, 0xC0))


@pytest.mark.parametrize("text", ["a", "é", "€", "😀", "߿", "\ud7ff", "\ue000", "\U0010ffff"])
def test_beginnings_of_characters(text: str) -> None:
    data = text.encode()
    for end in range(1, len(data) + 1):
        low, high = utf8.span(data[:end])
        assert low <= ord(text) < high
        assert chr(low).encode("utf-8", "surrogatepass")[:end] == data[:end]
        assert chr(high - 1).encode("utf-8", "surrogatepass")[:end] == data[:end]


# The tree.


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_each_path_of_a_tree_is_read_as_if_alone(family: str, loaded: Any) -> None:
    """Past the sliding window too, which is 16 tokens wide here; and after nodes have been dropped."""
    import torch

    model, _ = loaded(family)
    random = np.random.default_rng(4)
    tree = Tree(model, [2])
    paths: dict[int, list[int]] = {0: [2]}

    def grow(count: int) -> None:
        parents, tokens = [], []
        first = len(tree)
        for n in range(count):
            parent = int(random.choice(sorted(paths)[-3:]))
            parents.append(parent)
            tokens.append(int(random.integers(10, 300)))
            paths[first + n] = [*paths[parent], tokens[-1]]
        after = tree.extend(parents, tokens)
        for n in range(count):
            with torch.inference_mode():
                alone = torch.log_softmax(model(torch.tensor([paths[first + n]])).logits[0, -1].float(), -1).numpy()
            np.testing.assert_allclose(after[n], alone, atol=2e-5)

    for count in (1, 7, 40):
        grow(count)
    keep = sorted(paths)[-4:]
    new_of = tree.keep(keep)
    assert len(tree) < 48
    old, paths = dict(paths), {}
    paths.update({new_of[node]: old[node] for node in new_of})
    assert max(map(len, paths.values())) > 18
    grow(5)


# Packed weights.


@pytest.mark.parametrize("bias", [False, True])
def test_packed_products(bias: bool) -> None:
    import torch

    from tokswap.ensemble.bytewise.packed import PackedLinear, can_pack

    if not can_pack():
        pytest.skip("torch has no oneDNN here")
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 70, bias=bias)
    packed = PackedLinear(layer)
    assert torch.equal(packed.weight, layer.weight)
    for shape in ((1, 48), (1, 3, 48), (2, 4, 48), (1, 33, 48)):
        rows = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(packed(rows), layer(rows), rtol=1e-5, atol=1e-5)


def test_models_by_name_are_packed(model_of: Make) -> None:
    import torch

    from tokswap.ensemble.bytewise.packed import can_pack

    if not can_pack():
        pytest.skip("torch has no oneDNN here")
    folder = model_of("gemma3", family="sentencepiece", vocab_size=420, adds_bos=True)
    member = byte_mix([str(folder)]).models[0].model
    kinds = {type(module).__name__ for module in member.modules()}
    assert "PackedLinear" in kinds
    assert "Linear" not in kinds
    ids = torch.arange(2, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(member(ids).logits, load_model(folder)[0](ids).logits, rtol=1e-4, atol=1e-5)
    half = byte_mix([str(folder)], dtype="bfloat16").models[0].model
    assert "Linear" in {type(module).__name__ for module in half.modules()}


# Canonical sequences.


PREFIXES = ["", "ther", "a  b", "= ", "ü"]
INCOMPLETE = {"byte-level": [b" \xd0"], "sentencepiece": [b"a\xc3", b"\xe2\x82"]}


@pytest.mark.parametrize("family", ["byte-level", pytest.param("sentencepiece", marks=pytest.mark.slow)])
def test_next_bytes_against_every_sequence(family: str, loaded: Any) -> None:
    import torch

    model, tokenizer = loaded(family)
    token_bytes = tokenizer.vocabulary.token_bytes
    exact = ByteModel(model, tokenizer, tolerance=0)
    for data in [*(text.encode() for text in PREFIXES), *INCOMPLETE[family]]:
        weights = np.zeros(257)
        logs: dict[tuple[int, ...], np.ndarray] = {}

        def after(ids: tuple[int, ...], logs: dict[tuple[int, ...], np.ndarray] = logs) -> np.ndarray:
            if ids not in logs:
                with torch.inference_mode():
                    found = model(torch.tensor([[*exact.start, *ids]])).logits[0, -1].double()
                logs[ids] = torch.log_softmax(found, -1).numpy()
            return logs[ids]

        def chance(ids: list[int], after: Any = after) -> float:
            return float(np.exp(sum(after(tuple(ids[:n]))[token] for n, token in enumerate(ids))))

        count = 0
        for ids in everything(tokenizer, data):
            if is_canonical(tokenizer, ids):
                weights[b"".join(token_bytes[token] for token in ids)[len(data)]] += chance(ids)
                count += 1
        parts = utf8.split(data)
        assert parts is not None
        if not parts[1]:
            whole = tokenizer.encode(parts[0].decode())
            weights[END] = chance(whole) * np.exp(after(tuple(whole))[exact.ends]).sum()
        assert count > 5
        np.testing.assert_allclose(
            exact.read(data).distribution(), weights / weights.sum(), atol=2e-6, err_msg=repr(data)
        )


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_canonical_sequences_make_less_than_all(family: str, loaded: Any) -> None:
    """The test above would not see a missing filter if every sequence were canonical."""
    _, tokenizer = loaded(family)
    found = [is_canonical(tokenizer, ids) for ids in everything(tokenizer, b"ther")]
    assert 0 < sum(found) < len(found)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_reading_in_one_go_or_byte_by_byte(family: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    text = (shipped_text("german")[:40] + " 日本 😀").encode()
    at_once = ByteModel(model, tokenizer).read()
    together = at_once.advance(text)
    assert together.shape == (len(text), 257)
    np.testing.assert_allclose(together.sum(axis=1), 1.0)
    one = ByteModel(model, tokenizer).read()
    apart = []
    for byte in text:
        apart.append(one.distribution())
        one.advance(bytes([byte]), wanted=False)
    np.testing.assert_allclose(together, np.array(apart), atol=1e-5)
    np.testing.assert_allclose(at_once.distribution(), one.distribution(), atol=1e-5)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_bytes_that_are_not_predicted_are_read_all_the_same(
    family: str, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded(family)
    text = "Die Fähre im Hafen, 日 😀 1234".encode()
    bytewise = ByteModel(model, tokenizer)
    read = bytewise.read()
    known = [*read.advance(text), read.distribution()]
    assert read._paths.depth < bytewise.window, "in one window"
    monkeypatch.setattr("tokswap.ensemble.bytewise.reader._SKIPPED", 16)
    for end in (1, 6, 7, 15, 16, 22, 23, 28, len(text)):
        np.testing.assert_allclose(bytewise.read(text[:end]).distribution(), known[end], atol=1e-5, err_msg=str(end))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_rough_probabilities_are_within_their_bound(family: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    shares = []
    for text in ("", "the ", "the old br", "für 12"):
        rough, share = ByteModel(model, tokenizer).read(text.encode()).rough(0.05)
        exact = ByteModel(model, tokenizer, tolerance=0.0).read(text.encode()).distribution()
        assert (rough - share <= exact + 1e-6).all()
        assert (exact * (1 - share) <= rough + 1e-6).all()
        shares.append(share)
    assert 0 < max(shares) < 0.2


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_tolerance_costs_little(family: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    text = b"the old bridge"
    found = [ByteModel(model, tokenizer, tolerance=tolerance).read().advance(text) for tolerance in (0.0, 1e-3)]
    assert np.abs(found[0] - found[1]).max() < 1e-3


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_encodings_of_a_growing_text_are_the_tokenizers(family: str, loaded: Any) -> None:
    """Settled tokens are not tokenized again. The result must not show it."""
    model, tokenizer = loaded(family)
    reader = ByteModel(model, tokenizer).read()
    text = shipped_text("english")[:250] + "   \n\n  " + shipped_text("code")[:150]
    data = text.encode()
    for end in range(1, len(data) + 1, 3):
        if utf8.split(data[:end]) == (data[:end], b""):
            assert reader._encoder.encodings(data[:end]) == [tokenizer.encode(data[:end].decode())]
    assert reader._encoder.settled_bytes > 200


@pytest.mark.parametrize("language", ["english", "japanese"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_text_longer_than_the_window(family: str, language: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    small = ByteModel(model, tokenizer, window=40, overlap=20)
    data = shipped_text(language)[:150].encode()
    found = small.read().advance(data)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    reader = small.read(data)
    assert reader._paths.depth < 128
    assert len(reader._data) < len(data)
    for end in (100, 101, 102):  # wherever in a character the text is left off
        assert small.read(data[:end]).distribution().sum() == pytest.approx(1)


def test_windows_fit_the_model(loaded: Any) -> None:
    model, tokenizer = loaded("byte-level")
    assert ByteModel(model, tokenizer).window == 64, "half of the 128 positions of this model"


def test_tokens_with_parts_of_characters(loaded: Any) -> None:
    """Every pair of tokens gets an answer, whatever part of a character each begins or ends with."""
    _, tokenizer = loaded("byte-level")
    token_bytes, ids = tokenizer.vocabulary.token_bytes, tokenizer.vocabulary.id_of
    canonical = Canonical(tokenizer)
    text = np.array([n for n, kind in enumerate(tokenizer.vocabulary.kind) if kind == Kind.NORMAL])
    for last in (b"\xa9", b"\xe2", b" "):
        rest = last if last == b"\xe2" else b""
        fine = [token_bytes[n] for n in text[canonical.may_follow(ids[last], rest, text)]]
        assert all(utf8.split(rest + one) is not None for one in fine)
        assert (b"\x82" in fine) == (b"\xc3" not in fine) == bool(rest)
    assert b"!" in [token_bytes[n] for n in text[canonical.may_follow(ids[b"\xa9"], b"", text)]]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_contexts_that_share_an_answer(family: str, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair gets the answer that the tokenizer gives for it."""
    _, tokenizer = loaded(family)
    shares, plain = Canonical(tokenizer), Canonical(tokenizer)
    monkeypatch.setattr(plain, "_alike", lambda last: None)
    kind, token_bytes = tokenizer.vocabulary.kind, tokenizer.vocabulary.token_bytes
    text = np.flatnonzero((kind == Kind.NORMAL) | (kind == Kind.BYTE))
    shared = 0
    for last in text[:: max(1, len(text) // 60)].tolist():
        rest = (utf8.split(token_bytes[last]) or (b"", b"-"))[1]
        if not rest:
            assert (shares.may_follow(last, b"", text) == plain.may_follow(last, b"", text)).all(), token_bytes[last]
            alike = shares._alike(last)
            shared += 0 if alike is None else int(shares._pairs.apart(last, alike, text).sum())
    assert shared > 500


def test_canonical_of_families(tokenizer_of: Make, loaded: Any) -> None:
    for family in ("unigram", "wordpiece"):
        with pytest.raises(InputError) as caught:
            Canonical(read_tokenizer(tokenizer_of(family)))
        assert caught.value.code == "not-bytewise"
    model, tokenizer = loaded("byte-level")
    with pytest.raises(UsageError) as usage:
        ByteModel(model, tokenizer, window=20, overlap=20)
    assert usage.value.code == "bad-window"
    with pytest.raises(InputError) as text:
        ByteModel(model, tokenizer).read(b"a\xff")
    assert text.value.code == "bad-text"


MIXES_UP = {
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "rwkv": {"attention_hidden_size": 32},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 256},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_attention_heads": 4, "num_key_value_heads": 2},
}


@pytest.mark.parametrize("model_type", MIXES_UP)
def test_a_model_that_mixes_continuations_up_is_refused(model_type: str, tokenizer_of: Make) -> None:
    """A recurrent state takes no mask, and some models compute positions of their own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **size, **MIXES_UP[model_type])).eval()
    with pytest.raises(InputError) as caught:
        ByteModel(model, read_tokenizer(tokenizer_of("byte-level")))
    assert caught.value.code == "not-bytewise"


# Mixtures.


@pytest.fixture(scope="module")
def mix(model_of: Make) -> ByteMixture:
    folders = [model_of(name, family=family, **options) for family, (name, options) in ARCHITECTURES.items()]
    return byte_mix([load_model(folder) for folder in folders], [3, 1])


def test_a_mixture_of_two_tokenizers(mix: ByteMixture) -> None:
    assert mix.weights == (0.75, 0.25)
    text = "für 12 ferries\n"
    data = text.encode()
    found = mix.score(text)
    parts = np.stack([model.read().advance(data)[np.arange(len(data)), list(data)] for model in mix.models])
    assert found.bytes == len(data)
    assert found.members == pytest.approx((-np.log2(parts).sum(axis=1)).tolist())
    assert found.bits == pytest.approx(-np.log2(np.array([0.75, 0.25]) @ parts).sum())
    assert -np.log2(parts.max(axis=0)).sum() <= found.bits <= np.dot(mix.weights, found.members)
    assert mix.distribution(mix.read(data)).sum() == pytest.approx(1)


def test_text_is_streamed_and_whole(mix: ByteMixture) -> None:
    greedy = list(mix.generate("the old", most=25))
    assert "".join(greedy).encode()
    assert list(mix.generate("the old", most=25)) == greedy
    readers = mix.read(b"the old" + "".join(greedy).encode()[:5])
    assert int(mix.distribution(readers).argmax()) == "".join(greedy).encode()[5]
    drawn = [list(mix.generate("the old", most=40, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(piece) == 1 for piece in drawn[0]), "a character at a time, however many bytes it takes"


@pytest.fixture(scope="module")
def exact(mix: ByteMixture) -> ByteMixture:
    """The same, and the tokenizer is asked about every token."""
    models = [ByteModel(model.model, model.tokenizer, tolerance=0.0) for model in mix.models]
    return ByteMixture(tuple(models), mix.weights)


def test_guesses_change_no_probability(exact: ByteMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte has the probabilities of a reader that reads one byte after the other, and nothing else."""
    prompt, before, passes = "für 12 ferries, für 12 f", [], []
    look_ahead, distribution = Reader.look_ahead, ByteMixture.distribution

    def counted(reader: Reader, data: bytes) -> None:
        passes.append(len(data))
        look_ahead(reader, data)

    def seen(self: ByteMixture, readers: Any) -> np.ndarray:
        before.append(distribution(self, readers))
        return before[-1]

    monkeypatch.setattr(Reader, "look_ahead", counted)
    monkeypatch.setattr(Reader, "rough", lambda reader, tolerance: (reader.distribution(), 1.0))
    monkeypatch.setattr(ByteMixture, "distribution", seen)
    for temperature in (0.0, 1.0):
        before.clear()
        text = "".join(exact.generate(prompt, most=24, temperature=temperature, seed=5)).encode()
        readers = exact.read(prompt.encode())
        assert len(text) > 5
        for byte, chances in zip(text, before, strict=False):
            assert np.allclose(chances, distribution(exact, readers), atol=1e-6)
            for reader in readers:
                reader.advance(bytes([byte]), wanted=False)
    assert max(passes) > 2, "several bytes are read in one pass"


@pytest.mark.parametrize(("first", "share", "asks"), [(0.60, 0.1, False), (0.50, 0.1, True), (0.60, 1.0, True)])
def test_the_likeliest_byte_is_certain_or_all_is_asked(
    first: float, share: float, asks: bool, mix: ByteMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, rough = np.zeros(257), np.zeros(257)
    exact[98], rough[97], rough[98] = 1, first, 0.45
    monkeypatch.setattr(Reader, "rough", lambda self, tolerance: (rough, share))
    monkeypatch.setattr(Reader, "distribution", lambda self: exact)
    assert mix._likeliest(mix.read()) == (98 if asks else 97)


def test_what_followed_before_is_guessed_again(mix: ByteMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = mix.read(b"a")
    known = {b"": b"i", b"i": b"e", b"ie": b"s"}
    sure = lambda self, more: np.eye(257)[ord(known[more[-2:]]) if more[-2:] in known else END]  # noqa: E731
    monkeypatch.setattr(Reader, "foresee", sure)
    text = b"nine ferries leave. nine ferr"
    assert mix._guess(readers, text, b"") == b"ies leave. nine ferries"
    assert mix._guess(readers, b"leave. five berr", b"") == b"ies"


def test_bytes_that_are_taken_back_leave_no_trace(exact: ByteMixture) -> None:
    for model in exact.models:
        reader, plain = model.read("für 12 f".encode()), model.read("für 12 ferr".encode())
        reader.look_ahead("erries\nü".encode())
        reader.take(3)
        assert np.allclose(reader.distribution(), plain.distribution(), atol=1e-6)
        reader.leave()
        assert np.allclose(reader.distribution(), plain.distribution(), atol=1e-6)
        more = "ough, then ünd".encode()
        assert np.allclose(reader.advance(more), plain.advance(more), atol=1e-6)


def test_an_end_ends_the_text(mix: ByteMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "rough", lambda self, tolerance: (np.eye(257)[END], 0.0))
    assert list(mix.generate("the old")) == []


def test_models_by_name(mix: ByteMixture, model_of: Make, tmp_path: Path) -> None:
    folders = [str(model_of(name, family=family, **options)) for family, (name, options) in ARCHITECTURES.items()]
    assert byte_mix(folders, [3, 1]).score("für 12").bits == pytest.approx(mix.score("für 12").bits)
    weightless = copy_model(model_of("t5"), tmp_path / "weightless")
    (weightless / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        byte_mix([folders[0], str(weightless)])
    assert caught.value.code == "not-bytewise", "before a weight is read"


def test_what_a_mixture_refuses(mix: ByteMixture) -> None:
    for weights in ([1.0], [1, -1], [0, 1], [1, float("nan")]):
        with pytest.raises(UsageError) as caught:
            byte_mix([(None, None), (None, None)], weights)
        assert caught.value.code == "bad-weights"
    with pytest.raises(UsageError) as heat:
        next(mix.generate("a", temperature=-1))
    assert heat.value.code == "bad-temperature"
    with pytest.raises(InputError) as empty:
        mix.score("")
    assert empty.value.code == "empty-text"
