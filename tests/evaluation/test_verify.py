from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from makers import copy_model, edit_json, read_json

import tokswap
from tokswap.errors import InputError, UsageError

Make = Callable[..., Path]
Tensors = dict[str, Any]

INPUT, HEAD, OTHER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def good(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source and a good result of it: 700 ids, 7 padding rows, copied and initialised rows."""
    source = model_of("llama", vocab_size=640)
    donor = model_of("gpt2", vocab_size=700, rows=707)
    out = tmp_path_factory.mktemp("good") / "out"
    tokswap.transplant_tokenizer(str(source), str(donor), out=out)
    return source, out


def failed(folder: Path, source: Path | None = None) -> dict[str, str]:
    """Check name -> detail of the checks that fail."""
    return {check.name: check.detail for check in tokswap.verify_checkpoint(folder, against=source) if not check.ok}


def ids_of(folder: Path, reason: str) -> list[int]:
    tokens = read_json(folder / "tokswap.json")["tokens"]
    return np.flatnonzero(np.array(tokens["reason"]) == tokens["reasons"][reason]).tolist()


def test_a_good_result_passes_every_check(good: tuple[Path, Path]) -> None:
    source, out = good
    checks = tokswap.verify_checkpoint(out, against=source)
    assert {check.name for check in checks} == {
        "vocabulary size",
        "token ids in range",
        "input rows",
        "output rows",
        "AutoTokenizer",
        "tokenizer round trip",
        "ids in range",
        "tokens",
        "added tokens",
        "roles",
        "tokenization",
        "chat templates",
        "config roles",
        "maximum length",
        "copied rows",
        "rows of unused ids",
        "no tensor lost",
        "other tensors",
        "model loads",
        "finite outputs",
        "padding rows",
        "greedy generation",
        "generation stops",
    }
    assert all(check.ok and check.detail for check in checks)


def test_a_source_passes_too(good: tuple[Path, Path]) -> None:
    assert failed(good[0]) == {}


# Each damage, and the checks that see it.


def _row(name: str, reason: str, value: Callable[[Any, Tensors], Any]) -> Callable[[Path], None]:
    """Replace the first row of a reason."""

    def damage(folder: Path) -> None:
        token = ids_of(folder, reason)[0]

        def change(tensors: Tensors) -> None:
            tensors[name][token] = value(tensors[name][token].clone(), tensors)

        tools.rewrite(folder, change)

    return damage


def _swap_rows(folder: Path) -> None:
    first, second = ids_of(folder, "bytes")[:2]

    def change(tensors: Tensors) -> None:
        tensors[INPUT][[first, second]] = tensors[INPUT][[second, first]]

    tools.rewrite(folder, change)


def _other_tensor(folder: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors[OTHER][3, 4] += 1e-6

    tools.rewrite(folder, change)


def _cast(folder: Path) -> None:
    import torch

    tools.rewrite(folder, lambda tensors: tensors.update({OTHER: tensors[OTHER].to(torch.float16)}))


def _drop(folder: Path) -> None:
    tools.rewrite(folder, lambda tensors: tensors.pop(OTHER))


def _predicted_padding(folder: Path) -> None:
    """Give a padding id the row of the most likely token, scaled up a little."""
    model, _ = tools.load(folder, "llama")
    from tokswap.tokenizer.probes import PROMPTS

    best = int(tools.logits(model, tools.encode(folder, PROMPTS[0]))[-1].argmax())

    def change(tensors: Tensors) -> None:
        tensors[HEAD][703] = tensors[HEAD][best] * 1.01

    tools.rewrite(folder, change)


def _config(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **changes)


def _shorten(rows: int) -> Callable[[Path], None]:
    """Shorten the vocabulary matrices and the config."""

    def damage(folder: Path) -> None:
        def change(tensors: Tensors) -> None:
            for name in (INPUT, HEAD):
                tensors[name] = tensors[name][:rows].clone()

        tools.rewrite(folder, change)
        edit_json(folder / "config.json", vocab_size=rows)

    return damage


def _lossy_tokenizer(folder: Path) -> None:
    spec = read_json(folder / "tokenizer.json")
    spec["normalizer"] = {"type": "Prepend", "prepend": "x"}
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


def _no_report(folder: Path) -> None:
    (folder / "tokswap.json").unlink()


DAMAGES: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("a non-finite row", _row(INPUT, "missing", lambda row, _: row * float("nan")), {"input rows"}),
    ("a zero row", _row(INPUT, "missing", lambda row, _: row * 0), {"input rows"}),
    ("a zero row in the head", _row(HEAD, "missing", lambda row, _: row * 0), {"output rows"}),
    ("an exploding row", _row(INPUT, "missing", lambda row, _: row * 1e4), {"input rows"}),
    ("a copied row changed", _row(HEAD, "bytes", lambda row, _: row * 1.0001), {"copied rows"}),
    ("a special row changed", _row(INPUT, "role", lambda row, _: row.flip(0)), {"copied rows"}),
    ("two copied rows swapped", _swap_rows, {"copied rows"}),
    ("another tensor changed", _other_tensor, {"other tensors"}),
    ("another tensor cast", _cast, {"other tensors"}),
    ("a tensor dropped", _drop, {"no tensor lost", "model loads"}),
    (
        "an id past the last row",
        _config("config.json", bos_token_id=5000),
        {"token ids in range", "config roles"},
    ),
    (
        "a padding index past the last row",
        _config("config.json", pad_token_id=5000),
        {"token ids in range", "config roles", "model loads"},
    ),
    (
        "one of several eos ids past the last row",
        _config("generation_config.json", eos_token_id=[2, 707]),
        {"token ids in range"},
    ),
    ("fewer rows than ids", _shorten(690), {"vocabulary size", "copied rows", "ids in range"}),
    ("fewer rows than a prompt needs", _shorten(90), {"vocabulary size", "copied rows", "ids in range", "model runs"}),
    (
        "a class that tokenizes differently",
        _config("tokenizer_config.json", tokenizer_class="Qwen2Tokenizer"),
        {"tokenization", "roles"},
    ),
    ("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink(), {"AutoTokenizer"}),
    ("a tokenizer that does not round-trip", _lossy_tokenizer, {"tokenizer round trip", "tokenization"}),
    ("another vocab_size", _config("config.json", vocab_size=708), {"model loads"}),
    ("a padding row that is predicted", _predicted_padding, {"padding rows"}),
    ("no report", _no_report, {"copied rows"}),
]


@pytest.mark.parametrize(
    ("damage", "seen_by"),
    [
        pytest.param(
            *row, id=name, marks=[tools.needs_release_5] if name == "a class that tokenizes differently" else []
        )
        for name, *row in DAMAGES
    ],
)
def test_damage_is_seen_by_its_check_alone(
    damage: Callable[[Path], object], seen_by: set[str], good: tuple[Path, Path], tmp_path: Path
) -> None:
    source, out = good
    copy = copy_model(out, tmp_path / "copy")
    assert failed(copy, source) == {}
    damage(copy)
    found = failed(copy, source)
    assert set(found) == seen_by
    assert all(found.values())


def test_a_lost_tensor_does_not_count_as_unchanged(good: tuple[Path, Path], tmp_path: Path) -> None:
    def unchanged(folder: Path) -> int:
        checks = {check.name: check.detail for check in tokswap.verify_checkpoint(folder, against=str(good[0]))}
        return int(checks["other tensors"].split()[0])

    copy = copy_model(good[1], tmp_path / "copy")
    before = unchanged(copy)
    _drop(copy)
    assert unchanged(copy) == before - 1


def test_no_row_is_said_to_be_equal_where_healing_changed_all(good: tuple[Path, Path], tmp_path: Path) -> None:
    copy = copy_model(good[1], tmp_path / "copy")
    edit_json(copy / "tokswap.json", healed=[INPUT, HEAD])
    checks = {check.name: check.detail for check in tokswap.verify_checkpoint(copy, against=good[0])}
    assert checks["copied rows"] == f"healing changed every row of {INPUT}, {HEAD}"


def test_a_bias_is_compared_too(model_of: Make, tmp_path: Path) -> None:
    source = model_of("bart", vocab_size=640)
    tokswap.transplant_tokenizer(str(source), str(model_of("gpt2", vocab_size=700)), out=tmp_path / "out")
    token = ids_of(tmp_path / "out", "bytes")[0]

    def change(tensors: Tensors) -> None:
        tensors["final_logits_bias"][0, token] += 1e-3

    tools.rewrite(tmp_path / "out", change)
    assert set(failed(tmp_path / "out", source)) == {"copied rows"}


def test_a_neutral_row_counts_as_padding(model_of: Make, tmp_path: Path) -> None:
    source = model_of("bert", vocab_size=640)
    tokswap.transplant_tokenizer(str(source), str(model_of("llama", vocab_size=700)), out=tmp_path / "out")
    token = ids_of(tmp_path / "out", "neutral")[0]

    def change(tensors: Tensors) -> None:
        tensors["cls.predictions.bias"][token] = 100

    tools.rewrite(tmp_path / "out", change)
    assert set(failed(tmp_path / "out", source)) == {"padding rows"}


def test_a_model_without_a_report_is_tested_without_a_source(good: tuple[Path, Path], tmp_path: Path) -> None:
    copy = copy_model(good[1], tmp_path / "copy")
    _no_report(copy)
    assert failed(copy) == {}
    tools.rewrite(copy, lambda tensors: tensors[INPUT][5].zero_())
    assert set(failed(copy)) == {"input rows"}


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("truncated-weights", lambda folder: _truncate(folder / "model.safetensors")),
        ("missing-weights", lambda folder: (folder / "model.safetensors").unlink()),
        ("missing-config", lambda folder: (folder / "config.json").unlink()),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    code: str, damage: Callable[[Path], object], good: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = copy_model(good[1], tmp_path / "copy")
    damage(copy)
    with pytest.raises(InputError) as caught:
        tokswap.verify_checkpoint(copy)
    assert caught.value.code == code


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_a_device_that_is_not_there_is_refused(good: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError) as caught:
        tokswap.verify_checkpoint(good[1], device="no-such-device")
    assert caught.value.code == "bad-device"


def test_a_padding_row_that_the_target_names_as_pad_means_nothing(model_of: Make, tmp_path: Path) -> None:
    """Its tokenizer has no pad token: no row of the source is meant, and the result is right without one."""
    target, out = copy_model(model_of("gpt2", rows=608), tmp_path / "target"), tmp_path / "out"
    edit_json(target / "tokenizer_config.json", pad_token=...)
    for name in ("config.json", "generation_config.json"):
        edit_json(target / name, pad_token_id=604)
    source = model_of("llama")
    tokswap.transplant_tokenizer(source, target, init="mean", out=out)
    assert [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok] == []
