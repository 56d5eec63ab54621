"""What sentence-transformers keeps beside a model follows its vocabulary: ids, prompts, and the size of SPLADE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import pytest

from tokswap.errors import InputError
from tokswap.evaluation.verify import verify_checkpoint
from tokswap.extend.plan import extend_model, plan_extend
from tokswap.transplant.plan import plan_transplant, transplant_tokenizer
from tokswap.trim.plan import plan_trim, trim_vocabulary

RUSSIAN = makers.TEXTS / "russian.txt"
ENGLISH = makers.TEXTS / "english.txt"


def reranker(model: Path, folder: Path) -> tuple[Path, list[str]]:
    """A causal model that scores by the logits of two tokens; returns their names, too."""
    from transformers import AutoTokenizer

    source = makers.copy_model(model, folder)
    (source / "1_LogitScore").mkdir()
    names = [token for token in ("ing", "ation", "ly") if AutoTokenizer.from_pretrained(source).vocab.get(token)][:2]
    ids = AutoTokenizer.from_pretrained(source).convert_tokens_to_ids(names)
    makers.write_json(source / "1_LogitScore" / "config.json", dict(zip(KEYS, ids, strict=True)))
    makers.write_json(source / "1_LogitScore" / "other.json", {"kept": True})
    return source, names


KEYS = ("true_token_id", "false_token_id")


def scored(folder: Path) -> list[str]:
    from transformers import AutoTokenizer

    config = makers.read_json(folder / "1_LogitScore" / "config.json")
    return list(AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens([config[key] for key in KEYS]))


def test_the_tokens_of_a_score(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source, names = reranker(model_of("llama", family="byte-level"), tmp_path / "source")
    out = trim_vocabulary(str(source), corpora=[RUSSIAN], out=tmp_path / "trimmed").path
    assert out is not None
    assert scored(out) == names
    assert makers.read_json(out / "1_LogitScore" / "other.json") == {"kept": True}
    assert all(check.ok for check in verify_checkpoint(str(out), against=str(source)))
    stale = makers.read_json(source / "1_LogitScore" / "config.json")
    makers.write_json(out / "1_LogitScore" / "config.json", stale)
    assert "config roles" in [c.name for c in verify_checkpoint(str(out), against=str(source)) if not c.ok]


def test_the_tokens_of_a_score_in_another_vocabulary(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source, names = reranker(model_of("llama", family="byte-level"), tmp_path / "source")
    target = makers.make_tokenizer("sentencepiece", tmp_path / "target", vocab_size=800)
    lacks = makers.make_tokenizer("byte-level", tmp_path / "lacks", seed_text=["привет"], vocab_size=266)
    out = transplant_tokenizer(str(source), str(target), init="subword", out=tmp_path / "out").path
    assert out is not None
    assert scored(out) == names
    with pytest.raises(InputError) as caught:
        transplant_tokenizer(str(source), str(lacks), init="subword", out=tmp_path / "none")
    assert caught.value.code == "unmapped-id"
    assert "true_token_id" in caught.value.message


def test_splade_has_a_dimension_for_each_token(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("bert"), tmp_path / "source")
    (source / "1_SpladePooling").mkdir()
    size = makers.read_json(source / "config.json")["vocab_size"]
    settings = {"pooling_strategy": "max", "word_embedding_dimension": size}
    makers.write_json(source / "1_SpladePooling" / "config.json", settings)
    trim_vocabulary(str(source), corpora=[RUSSIAN], out=tmp_path / "trimmed")
    (tmp_path / "terms.txt").write_text("harbourmaster\n")
    extend_model(str(source), tokens=[tmp_path / "terms.txt"], init="subword", out=tmp_path / "extended")
    for out in (tmp_path / "trimmed", tmp_path / "extended"):
        rows = makers.read_json(out / "config.json")["vocab_size"]
        assert rows != size
        assert makers.read_json(out / "1_SpladePooling" / "config.json")["word_embedding_dimension"] == rows


@pytest.mark.parametrize("kind", ["words", "weights", "tokenizer"])
def test_a_module_with_something_for_each_token(model_of: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    """WordWeights weighs tokens by their ids: those of the result are others, and the weights were the old ones."""
    import torch
    from safetensors.torch import save_file

    source = makers.copy_model(model_of("bert"), tmp_path / "source")
    place = source / "1_WordWeights"
    place.mkdir()
    makers.write_json(place / "config.json", {"vocab": ["a", "b"]} if kind == "words" else {"dropout": 0.1})
    size = makers.read_json(source / "config.json")["vocab_size"] if kind == "weights" else 7
    save_file({"emb_layer.weight": torch.ones(size, 1)}, place / "model.safetensors")
    if kind == "tokenizer":
        (place / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (tmp_path / "terms.txt").write_text("harbourmaster\n")
    for job in (
        lambda: plan_trim(str(source), corpora=[RUSSIAN], out=tmp_path / "out"),
        lambda: plan_extend(str(source), tokens=[tmp_path / "terms.txt"], init="mean", out=tmp_path / "out"),
        lambda: plan_transplant(str(source), str(model_of("gpt2")), init="mean", out=tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="the module 1_WordWeights") as caught:
            job()
        assert caught.value.code == "unknown-vocab-tensor"
    (place / "config.json").write_text("{}")
    (place / "tokenizer.json").unlink(missing_ok=True)
    save_file({"linear.weight": torch.ones(8, 32)}, place / "model.safetensors")
    plan_trim(str(source), corpora=[RUSSIAN], out=tmp_path / "out")


PROMPTS = ["query: the harbour ", "passage: "]


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_prompts_stay_whole(model_of: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    """A model has read every text after such a prompt, and no corpus contains it."""
    from transformers import AutoTokenizer

    source = makers.copy_model(model_of(architecture), tmp_path / "source")
    if architecture == "t5":
        tasks = {str(n): {"prefix": prompt} for n, prompt in enumerate(PROMPTS)}
        makers.edit_json(source / "config.json", task_specific_params=tasks)
    else:
        prompts = {"query": PROMPTS[0], "passage": PROMPTS[1]}
        makers.write_json(source / "config_sentence_transformers.json", {"prompts": prompts})
    trim_vocabulary(str(source), corpora=[RUSSIAN], out=tmp_path / "out")
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("source", "out"))
    assert [after.tokenize(text) for text in PROMPTS] == [before.tokenize(text) for text in PROMPTS]


def test_markers_that_no_text_can_spell(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """ColBERT's `[unused0]` is no added token; sentence-transformers makes it one if the vocabulary has it."""
    source = makers.copy_model(model_of("bert", rows=700), tmp_path / "source")
    spec = makers.read_json(source / "tokenizer.json")
    size = len(spec["model"]["vocab"])
    spec["model"]["vocab"] |= {"[unused0]": size, "[unused1]": size + 1, "[unused2]": size + 2}
    makers.write_json(source / "tokenizer.json", spec)
    makers.edit_json(source / "config.json", architectures=["HF_ColBERT"])
    makers.write_json(source / "artifact.metadata", {"query_token_id": "[unused0]", "doc_token_id": "[unused2]"})
    trim_vocabulary(str(source), corpora=[RUSSIAN], check="tokens", out=tmp_path / "out")
    kept = makers.read_json(tmp_path / "out" / "tokenizer.json")["model"]["vocab"]
    assert {"[unused0]", "[unused1]", "[unused2]"} <= set(kept)
    assert (tmp_path / "out" / "artifact.metadata").is_file()
