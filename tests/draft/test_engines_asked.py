"""The rules of inference engines, by the engines: what llama.cpp and mlx-lm do with a draft is what the verdict says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import Answer, greedy, llama_cpp, llama_cpp_run, mlx_lm, mlx_run
from makers import copy_model, edit_json, make_model, read_json, write_json
from verdicts import found

import tokswap
from tokswap.storage.gguf.architectures import find_architecture
from tokswap.storage.gguf.write import GgufModel, write_model
from tokswap.tokenizer.gguf_keys import gguf_tokenizer
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
Change = Callable[[Path], object]
PROMPTS = [[5, 6, 7, 300], [400, 650, 12]]
"""Ids that every draft here has."""


def as_gguf(folder: Path, work: Path) -> Path:
    """Write a folder as it is, as GGUF."""
    pytest.importorskip("gguf", reason="the `gguf` extra is not installed")
    config = read_json(folder / "config.json")
    architecture, filled = find_architecture(config)
    keys = gguf_tokenizer(read_tokenizer(folder), rows=config["vocab_size"]).keys
    path = work / f"{folder.name}.gguf"
    tied = bool(getattr(filled, "tie_word_embeddings", False))
    write_model(path, GgufModel(architecture, filled, folder.name, tokenizer=keys, tied=tied), folder)
    return path


def _spec(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(folder: Path) -> None:
        spec = read_json(folder / "tokenizer.json")
        change(spec)
        write_json(folder / "tokenizer.json", spec)

    return apply


def _rename(old: str) -> Change:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        vocab["<x>"] = vocab.pop(old)
        for entry in spec["added_tokens"]:
            entry["content"] = "<x>" if entry["content"] == old else entry["content"]

    return _spec(change)


def _frame(first: bool) -> Change:
    def change(spec: dict[str, Any]) -> None:
        token = "<|im_start|>" if first else "<|im_end|>"
        text, special = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}
        parts = [special, text] if first else [text, special]
        known = {token: {"id": token, "ids": [1 if first else 2], "tokens": [token]}}
        pair = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
        spec["post_processor"] = {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": known}

    return _spec(change)


def _role(role: str) -> Change:
    return lambda folder: edit_json(folder / "tokenizer_config.json", **{f"{role}_token": "<|endoftext|>"})


CHANGES: dict[str, tuple[int | None, Change | None, bool]] = {
    "nothing": (None, None, True),
    "one row more": (721, None, True),
    "128 rows more": (848, None, True),
    "129 rows more": (849, None, False),
    "other merges": (None, _spec(lambda spec: spec["model"]["merges"].reverse()), True),
    "a name below 5": (None, _rename("<|reserved_special_token_1|>"), True),
    "a name above 5": (None, _rename("<|reserved_special_token_2|>"), False),
    "bos that is not added": (None, _role("bos"), True),
    "eos that is not added": (None, _role("eos"), True),
    "adds bos": (None, _frame(True), False),
    "adds eos": (None, _frame(False), False),
}
"""Rows of the draft, a change to its files, and whether llama.cpp drafts with it."""


def changed(drafted: Path, rows: int | None, change: Change | None, work: Path) -> Path:
    folder = work / "changed"
    if rows is None:
        copy_model(drafted, folder)
    else:
        tokswap.transplant_tokenizer(drafted, drafted, vocab_size=rows, init="subword", out=folder)
    if change is not None:
        change(folder)
    return folder


@llama_cpp
@pytest.mark.parametrize("name", CHANGES)
def test_llama_cpp_does_what_the_verdict_says(name: str, drafted: Path, big: Path, tmp_path: Path) -> None:
    rows, change, drafts = CHANGES[name]
    draft = changed(drafted, rows, change, tmp_path)
    target_file, draft_file = as_gguf(big, tmp_path), as_gguf(draft, tmp_path)
    answer = llama_cpp_run(target_file, PROMPTS, tmp_path, draft=draft_file)
    assert answer.status == 0, answer.output[-500:]
    assert answer.drafts == drafts, "llama.cpp"
    assert found(draft, big)["llama.cpp"].ok == drafts, "the verdict"
    assert ("not compatible" in answer.output) == (not drafts)
    assert answer.ids == llama_cpp_run(target_file, PROMPTS, tmp_path).ids


@llama_cpp
@pytest.mark.parametrize("rows", [719, 700])
def test_llama_cpp_aborts_on_ids_that_a_draft_lacks(rows: int, drafted: Path, big: Path, tmp_path: Path) -> None:
    draft = changed(drafted, rows, None, tmp_path)
    target_file, draft_file = as_gguf(big, tmp_path), as_gguf(draft, tmp_path)
    assert llama_cpp_run(target_file, PROMPTS, tmp_path, draft=draft_file).drafts, "it is accepted"
    answer = llama_cpp_run(target_file, [[5, 719, 7]], tmp_path, draft=draft_file)
    assert answer.status < 0, "the process aborts"
    [reason] = found(draft, big)["llama.cpp"].reasons
    assert f"from {rows} on" in reason


@llama_cpp
def test_kinds_of_tokenizers(model_of: Make, small: Path, big: Path, tmp_path: Path) -> None:
    """SentencePiece with scores is no BPE to llama.cpp, and the verdict on a .gguf file is by what the file says."""
    scored = copy_model(small, tmp_path / "scored")
    spec = read_json(scored / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    splits = ((text[:at], text[at:]) for text in vocab for at in range(1, len(text)))
    spec["model"]["merges"] = [list(pair) for pair in splits if set(pair) <= set(vocab)]
    write_json(scored / "tokenizer.json", spec)
    target_file, draft_file = as_gguf(small, tmp_path), as_gguf(scored, tmp_path)
    assert not llama_cpp_run(target_file, PROMPTS[:1], tmp_path, draft=draft_file).drafts
    for draft, target in ((scored, small), (draft_file, target_file), (draft_file, small)):
        assert found(draft, target)["llama.cpp"].reasons == ("the tokenizer type is SPM, the target's BPE",)
    assert found(draft_file, draft_file)["llama.cpp"].ok


@pytest.fixture(scope="module")
def mlx_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama", tmp_path_factory.mktemp("mlx") / "target", family="byte-level", vocab_size=700, rows=720)


@mlx_lm
def test_mlx_lm_gives_the_text_of_transformers(small: Path, mlx_target: Path, tmp_path: Path) -> None:
    """A transplant, a trim and a draft; and the target's text with the draft."""
    tokswap.transplant_tokenizer(small, mlx_target, init="subword", out=tmp_path / "transplant")
    text = tmp_path / "text.txt"
    text.write_text("The old bridge was closed for repairs.\n" * 50)
    tokswap.trim_vocabulary(mlx_target, corpora=[str(text)], out=tmp_path / "trim")
    tokswap.make_draft(small, mlx_target, init="subword", out=tmp_path / "draft")
    for name in ("transplant", "trim", "draft"):
        prompt = [[5, 6, 7, 100]]
        answer = mlx_run(tmp_path / name, prompt, tmp_path)
        assert answer.status == 0, answer.output[-500:]
        assert answer.ids == greedy(tmp_path / name, prompt), name
    alone = greedy(mlx_target, PROMPTS)
    answer = mlx_run(mlx_target, PROMPTS, tmp_path, draft=tmp_path / "draft")
    assert answer.ids == alone
    assert answer.drafts


@mlx_lm
@pytest.mark.slow
def test_mlx_lm_refuses_on_its_command_line_only(small: Path, mlx_target: Path, tmp_path: Path) -> None:
    tokswap.make_draft(small, mlx_target, init="subword", out=tmp_path / "draft")
    for draft, takes in ((tmp_path / "draft", True), (small, False)):
        done = mlx_generate(mlx_target, draft)
        assert (done.status == 0) == takes, done.output[-500:]
        assert found(draft, mlx_target)["mlx-lm"].ok == takes
    assert mlx_run(mlx_target, PROMPTS, tmp_path, draft=small).drafts, "the Python API takes it"


def mlx_generate(model: Path, draft: Path) -> Answer:
    """Run the command line of mlx-lm."""
    import subprocess
    import sys

    options = ["--model", str(model), "--draft-model", str(draft), "--prompt", "hello", "--max-tokens", "4"]
    done = subprocess.run([sys.executable, "-m", "mlx_lm", "generate", *options], capture_output=True, text=True)
    return Answer(done.returncode, done.stdout + done.stderr, [])
