"""Everything that takes a tokenizer takes one whose tokens cross spaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from sequences import everything, is_canonical

import tokswap
from tokswap.ensemble.bytewise import END
from tokswap.ensemble.bytewise.reader import ByteModel
from tokswap.tokenizer.tokenizer import read_tokenizer

PHRASES = "of the sea, it is in the end of the day. and the sea is not at the end; in 1234 of the sea\n" * 40
TEXT = "it is in the end of the day. and 1234 of the sea, it is not"
FAMILIES = ("byte-level", "sentencepiece")


def text_of(token: str) -> str:
    return token.replace("Ġ", " ").replace("▁", " ")


@pytest.fixture(scope="module")
def superwords(tokenizer_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a superword tokenizer of a family, made once."""
    made: dict[str, Path] = {}

    def find(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("superwords")
            (folder / "corpus.txt").write_text(PHRASES + makers.shipped_text("english"), encoding="utf-8")
            size = {"byte-level": 420, "sentencepiece": 440}[family]
            like = tokenizer_of(family, adds_bos=True)
            out = folder / "out"
            tokswap.train_tokenizer(
                [folder / "corpus.txt"], size=size, like=like, superwords=True, word_share=0.5, out=out
            )
            made[family] = out
        return made[family]

    return find


@pytest.fixture(scope="module")
def moved(
    model_of: Callable[..., Path], superwords: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a model with the superword tokenizer of a family, made once."""
    made: dict[str, Path] = {}

    def find(family: str) -> Path:
        if family not in made:
            out = tmp_path_factory.mktemp("moved") / "out"
            source = model_of("llama-tied", vocab_size=640, adds_bos=True)
            tokswap.transplant_tokenizer(source, superwords(family), init="subword", out=out)
            made[family] = out
        return made[family]

    return find


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_superword_is_the_mean_of_its_pieces_across_spaces(
    model_of: Callable[..., Path], moved: Callable[[str], Path], family: str
) -> None:
    from transformers import AutoTokenizer

    source = model_of("llama-tied", vocab_size=640, adds_bos=True)
    before, after = (tools.weights(path)["model.embed_tokens.weight"] for path in (source, moved(family)))
    old, new = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(moved(family))
    crossing = {text_of(t): n for t, n in new.get_vocab().items() if " " in text_of(t).strip(" ")}
    assert len(crossing) > 10
    for text, token in crossing.items():
        ids = old.encode(text, add_special_tokens=False)
        assert len(ids) > 1
        np.testing.assert_allclose(after[token].numpy(), before[ids].mean(0).numpy(), atol=1e-6, err_msg=text)
    ids = new.encode(TEXT, add_special_tokens=False)
    assert {*crossing.values()} & {*ids}
    assert new.decode(ids) == TEXT
    model = tools.load(moved(family), "llama-tied")[0]
    assert tools.logits(model, ids).isfinite().all()


def test_an_encoder_reads_whole_phrases(
    model_of: Callable[..., Path], superwords: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokswap.init.resources import disk as module

    read: list[str] = []

    def encode(name: str, lists: Any, **more: Any) -> list[np.ndarray]:
        read.extend(text for texts in lists for text in texts)
        draw = np.random.default_rng(0)
        return [draw.standard_normal((len(texts), 8)).astype(np.float32) for texts in lists]

    monkeypatch.setattr(module, "encode", encode)
    monkeypatch.setattr(module, "find_encoder", lambda name: tmp_path)
    source = model_of("llama-tied", vocab_size=640, adds_bos=True)
    tokswap.transplant_tokenizer(
        source, superwords("byte-level"), init="tokenadapt(encoder=phrases)", out=tmp_path / "out"
    )
    assert {"it is", "of the sea"} & {*read}


def test_word_vectors_reach_phrases(
    model_of: Callable[..., Path], superwords: Callable[[str], Path], tmp_path: Path
) -> None:
    """With one word in the file, each phrase of that word has its vector, and so the row of its nearest token."""
    source = model_of("llama-tied", vocab_size=640, adds_bos=True)
    (tmp_path / "a.vec").write_text("the 1 0\n", encoding="utf-8")
    method = f"wechsel(vectors={tmp_path / 'a.vec'}, k=1)"
    result = tokswap.transplant_tokenizer(source, superwords("byte-level"), init=method, out=tmp_path / "out")
    rows = result.load()[0].get_input_embeddings().weight.detach().numpy()
    tokens = read_tokenizer(tmp_path / "out").vocabulary.token_bytes
    phrases = [n for n, text in enumerate(tokens) if b" the " in text.strip() and b" " in text.strip()]
    assert len(phrases) > 1
    assert len({rows[n].tobytes() for n in phrases}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_trim_keeps_superwords_and_their_parts(moved: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "a.txt").write_text(TEXT * 3, encoding="utf-8")
    report = tokswap.trim_vocabulary(moved(family), corpora=[str(tmp_path / "a.txt")], out=tmp_path / "out")
    assert report.checks["failed"] == []
    old, new = AutoTokenizer.from_pretrained(moved(family)), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(new) < len(old)
    assert new.tokenize(TEXT) == old.tokenize(TEXT)


@pytest.mark.parametrize("family", FAMILIES)
def test_eval_and_verify(model_of: Callable[..., Path], moved: Callable[[str], Path], family: str) -> None:
    source = model_of("llama-tied", vocab_size=640, adds_bos=True)
    found = tokswap.evaluate_models([source, moved(family)], {"a": TEXT * 3}, window=32, overlap=16)
    assert all(np.isfinite(judged.score.bits_per_byte) for judged in found.models)
    assert [check for check in tokswap.verify_checkpoint(moved(family), against=source) if not check.ok] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_draft_has_the_superwords_of_its_target(
    model_of: Callable[..., Path], moved: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    """transformers takes the draft as one of the same vocabulary, and assisted text is the target's own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    small = model_of("llama", vocab_size=500, seed=7)
    tokswap.make_draft(str(small), str(moved(family)), init="subword", out=tmp_path / "draft")
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "draft", moved(family)))
    ids = theirs(TEXT, return_tensors="pt")["input_ids"]
    assert any(" " in theirs.decode([token]).strip() for token in ids[0].tolist())
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours(TEXT)["input_ids"] == ids[0].tolist()
    target, draft = (
        AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (moved(family), tmp_path / "draft")
    )
    assert draft.config.vocab_size == target.config.vocab_size
    plain = target.generate(ids, do_sample=False, max_new_tokens=12)
    assisted = target.generate(ids, do_sample=False, max_new_tokens=12, assistant_model=draft)
    assert assisted.tolist() == plain.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_exact(moved: Callable[[str], Path], family: str) -> None:
    """Against the sum over every canonical token sequence, before and inside words, spaces and numbers."""
    import torch

    model, tokenizer = tools.load(moved(family), "llama-tied")[0], read_tokenizer(moved(family))
    token_bytes = tokenizer.vocabulary.token_bytes
    exact = ByteModel(model, tokenizer, tolerance=0)
    logs: dict[tuple[int, ...], np.ndarray] = {}

    def after(ids: list[int]) -> np.ndarray:
        if tuple(ids) not in logs:
            with torch.inference_mode():
                logits = model(torch.tensor([[*exact.start, *ids]])).logits[0, -1].double()
            logs[tuple(ids)] = torch.log_softmax(logits, -1).numpy()
        return logs[tuple(ids)]

    def chance(ids: list[int]) -> float:
        return float(np.exp(sum(after(ids[:n])[token] for n, token in enumerate(ids))))

    for data in (b"", b"t i", b" 12"):
        weights = np.zeros(257)
        canonical = [ids for ids in everything(tokenizer, data) if is_canonical(tokenizer, ids)]
        for ids in canonical:
            weights[b"".join(token_bytes[token] for token in ids)[len(data)]] += chance(ids)
        whole = tokenizer.encode(data.decode())
        weights[END] = chance(whole) * np.exp(after(whole)[exact.ends]).sum()
        np.testing.assert_allclose(exact.read(data).distribution(), weights / weights.sum(), atol=2e-6)
