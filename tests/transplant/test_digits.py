"""`--digits`: numbers are split as asked, other texts as before, as plain AutoTokenizer sees the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from makers import copy_model, edit_json, read_json, with_numbers, write_json
from varied_texts import varied_texts

import tokswap
from tokswap.errors import TokswapError
from tokswap.tokenizer.digits import with_digits
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
RUNS = {
    "single": lambda number: list(number),
    "groups": lambda number: [number[n : n + 3] for n in range(0, len(number), 3)],
    "right-to-left": lambda number: [number[max(0, n - 3) : n] for n in range(len(number), 0, -3)][::-1],
}
"""Scheme -> the parts of a number."""
OWN = {"free": None, "threes": r"\p{N}{1,3}| ?\p{L}+|\s+", "single": r"\p{N}"}
"""How the target splits numbers before: a pattern in front of its own."""
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""What Qwen2Tokenizer splits by, whatever the file says."""
NUMBERS = ["7", "42", "365", "1984", "27182", "314159", "1234567", "90817263", "4050607080"]


@pytest.fixture(scope="module")
def targets(tokenizer_of: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("targets")
    return {name: with_numbers(tokenizer_of("byte-level"), made / name, pattern) for name, pattern in OWN.items()}


@pytest.fixture(scope="module")
def source(model_of: Make) -> Path:
    return model_of("qwen2", vocab_size=700)


def loaded(folder: Path | str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def digit_runs(tokenizer: Any, text: str) -> list[list[str]]:
    """The pieces of each number of a text, by the offsets of the tokens."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    pieces = [(text[a:b].strip(), a, b) for a, b in encoded["offset_mapping"] if text[a:b].strip()]
    runs = groupby(pieces, key=lambda piece: re.search("[0-9]", piece[0]) is not None)
    return [[piece for piece, _, _ in run] for is_number, run in runs if is_number]


@pytest.mark.parametrize("scheme", RUNS)
@pytest.mark.parametrize("own", OWN)
def test_numbers_are_split_as_asked_and_other_texts_as_before(
    own: str, scheme: str, targets: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    report = tokswap.transplant_tokenizer(source, targets[own], out=tmp_path / "out", init="mean", digits=scheme)
    before, after = loaded(targets[own]), loaded(tmp_path / "out")
    assert before.get_vocab() == after.get_vocab()
    texts = [text for text in varied_texts([]) if not re.search("[0-9]", text)]
    assert len(texts) > 100
    assert [after(text)["input_ids"] for text in texts] == [before(text)["input_ids"] for text in texts]
    for number in NUMBERS:
        for form in ("{}", "x {} y", "a{}b", "({},", "  {}\n", "{} ½ {}"):
            text = form.format(number, number)
            assert digit_runs(after, text) == [RUNS[scheme](number)] * form.count("{}"), text
            assert after.decode(after(text, add_special_tokens=False)["input_ids"]) == text
    assert any(f"--digits {scheme}" in note for note in report.plan.notes)


def test_tokens_of_several_digits_are_never_predicted(targets: dict[str, Path], source: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    report = tokswap.transplant_tokenizer(source, targets["free"], out=tmp_path / "out", init="mean", digits="single")
    tokenizer = loaded(tmp_path / "out")
    lost = [tokenizer.convert_tokens_to_ids(text) for text in ("12", "999", "365")]
    assert report.plan.coverage["unreachable"] >= 1100
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        logits = model(**tokenizer(["2 + 2 = 1", "The bridge was"][1], return_tensors="pt")).logits[0, -1]
    rows = model.get_output_embeddings().weight[lost]
    assert torch.equal(rows[0], rows[1]), "all get the neutral row"
    assert not set(lost) & set(logits.topk(20).indices.tolist())


def test_a_result_of_a_family_class_is_loaded_as_its_file_says(
    targets: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    target = copy_model(targets["free"], tmp_path / "qwen")
    spec = read_json(target / "tokenizer.json")
    split = {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False}
    mapped = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    spec |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, mapped]}, "normalizer": {"type": "NFC"}}
    write_json(target / "tokenizer.json", spec)
    edit_json(target / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    assert digit_runs(loaded(target), "x 1234567") == [list("1234567")]
    tokswap.transplant_tokenizer(source, target, out=tmp_path / "out", init="mean", digits="right-to-left")
    assert digit_runs(loaded(tmp_path / "out"), "x 1234567") == [["1", "234", "567"]]


def test_a_model_in_memory_gets_it_too(targets: dict[str, Path], source: Path) -> None:
    from transformers import AutoModelForCausalLM

    pair = (AutoModelForCausalLM.from_pretrained(source), loaded(source))
    _, made = tokswap.transplant_tokenizer(pair, loaded(targets["free"]), init="mean", digits="groups").load()
    assert digit_runs(made, "x 1234567") == [["123", "456", "7"]]


@pytest.mark.parametrize(
    ("family", "scheme", "why"),
    [("wordpiece", "single", "WordPiece"), ("unigram", "single", "Unigram"), ("byte-level", "groups", "of the 1,000")],
)
def test_what_cannot_be_done_is_refused(family: str, scheme: str, why: str, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of(family))
    with pytest.raises(TokswapError, match=why) as error:
        with_digits(tokenizer, scheme)
    assert error.value.code == "digits-impossible"


def test_sentencepiece_numbers_become_single_digits(tokenizer_of: Make) -> None:
    numbers = " ".join(str(n) for n in range(1900, 2030)) * 3
    target = tokenizer_of("sentencepiece", vocab_size=700, seed_text=[numbers + " the bridge was closed"])
    before = read_tokenizer(target)
    assert any(len(before.vocabulary.token_bytes[token].strip()) > 1 for token in before.encode("x 1984"))
    after = with_digits(before, "single")
    pieces = [after.vocabulary.token_bytes[token].strip() for token in after.encode("x 1984")]
    assert [piece for piece in pieces if piece.isdigit()] == [b"1", b"9", b"8", b"4"]
    assert after.encode("the bridge was closed") == before.encode("the bridge was closed")


def test_the_plan_names_the_remedy_where_there_is_one(targets: dict[str, Path], model_of: Make) -> None:
    single = model_of("qwen2")
    assert "--digits single" in " ".join(tokswap.plan_transplant(single, targets["threes"], init="mean").plan.notes)
    wanted = tokswap.plan_transplant(single, targets["threes"], init="mean", digits="single").plan.notes
    assert not any("numbers are tokenized differently" in note for note in wanted)


def test_verify_knows_how_numbers_should_be_split(targets: dict[str, Path], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tokswap.transplant_tokenizer(source, targets["threes"], out=out, init="mean", digits="right-to-left")
    checks = {check.name: check for check in tokswap.verify_checkpoint(out, against=source)}
    assert all(check.ok for check in checks.values()), [check for check in checks.values() if not check.ok]
    assert "right-to-left" in checks["numbers"].detail
    spec = read_json(out / "tokenizer.json")
    spec["pre_tokenizer"]["pretokenizers"].pop()
    write_json(out / "tokenizer.json", spec)
    assert not {check.name: check for check in tokswap.verify_checkpoint(out, against=source)}["numbers"].ok


def test_llama_cpp_has_no_such_pre_tokenizer(targets: dict[str, Path], source: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    options: dict[str, Any] = {"out": tmp_path / "out", "init": "mean", "gguf": tmp_path / "out.gguf"}
    tokswap.plan_transplant(source, targets["free"], **options)
    with pytest.raises(TokswapError) as error:
        tokswap.plan_transplant(source, targets["free"], digits="single", **options)
    assert error.value.code == "gguf-tokenizer"
