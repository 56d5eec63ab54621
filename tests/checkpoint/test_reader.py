from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from weight_files import CONFIG, code_of, folder_with, safetensors, two_shards

from tokswap.checkpoint.reader import Checkpoint, has_weights, open_checkpoint
from tokswap.ensemble.members import read_ensemble
from tokswap.errors import InputError, UsageError
from tokswap.hypernet import load_hypernet
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.tokenizer import read_tokenizer


def test_a_whole_checkpoint_is_read_without_its_weights(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"top_k": 50}')
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config == CONFIG
    assert checkpoint.generation_config == {"top_k": 50}
    assert sorted(checkpoint.tensors) == ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
    assert checkpoint.shards[0].metadata == {"format": "pt"}
    assert checkpoint.nbytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert not checkpoint.tied
    assert [checkpoint.matrix(role).names[0] for role in ("input", "output")] == [  # type: ignore[union-attr]
        "model.embed_tokens.weight",
        "lm_head.weight",
    ]
    assert checkpoint.matrix("per-layer") is None
    assert checkpoint.path_of("lm_head.weight") == folder / "model-00002-of-00002.safetensors"


def test_no_generation_config_is_an_empty_one(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", safetensors({}))
    assert open_checkpoint(folder).generation_config == {}


@pytest.mark.parametrize("name", [None, 3, b"folder"])
@pytest.mark.parametrize("function", [open_checkpoint, read_tokenizer, read_ensemble, load_hypernet])
def test_what_is_no_path(function: Callable[[Any], object], name: object) -> None:
    with pytest.raises(UsageError, match="takes a name or a path") as caught:
        function(name)
    assert caught.value.code == "bad-model"


def test_a_name_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other functions take it; this one looked for a folder of the name `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    two_shards(tmp_path / "model")
    assert open_checkpoint("~/model").folder == tmp_path / "model"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "nowhere")
    assert caught.value.code == "missing-config"
    assert caught.value.where["folder"].endswith("nowhere")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors"], True),
        (["config.json", "model-00001-of-00002.safetensors"], True),
        (["config.json", "pytorch_model.bin"], True),
        (["config.json", "tokenizer.json"], False),
        (["model.safetensors"], False),
    ],
)
def test_has_weights(names: list[str], expected: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert has_weights(tmp_path) is expected


def test_read_json_names_what_it_wanted(tmp_path: Path) -> None:
    assert code_of(read_json, tmp_path / "a.json", "thing") == "missing-thing"
    (tmp_path / "a.json").write_text("3")
    assert code_of(read_json, tmp_path / "a.json", "thing") == "bad-thing"
    (tmp_path / "b.json").mkdir()
    assert code_of(read_json, tmp_path / "b.json", "thing") == "bad-thing"


# Reading.

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """A checkpoint with a matrix of each dtype, and what safetensors itself reads from it."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t.{name}": torch.randn(12, 5, generator=generator).to(dtype) for name, dtype in DTYPES.items()}
    tensors["same"] = tensors["t.BF16"].clone()
    tensors["other"] = tensors["t.BF16"].clone()
    tensors["other"][11, 4] += 1
    tensors["flat"] = tensors["t.BF16"].flatten().clone()
    tensors["row"] = torch.randn(1, 12, generator=generator)
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder), load_file(folder / "model.safetensors")


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_blocks_are_the_bytes_of_a_tensor(size: int, mixed: tuple[Checkpoint, dict[str, torch.Tensor]]) -> None:
    checkpoint, expected = mixed
    for name, tensor in expected.items():
        blocks = list(checkpoint.blocks(name, size))
        assert b"".join(blocks) == raw(tensor), name
        assert max(map(len, blocks)) <= size


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_rows_are_the_rows_of_a_tensor(dtype: str, mixed: tuple[Checkpoint, dict[str, torch.Tensor]]) -> None:
    checkpoint, expected = mixed
    rows = checkpoint.raw_rows(f"t.{dtype}")
    assert isinstance(rows, np.memmap)
    assert rows.dtype == np.uint8
    assert len(rows) == 12
    for n in (0, 5, 11):
        assert rows[n].tobytes() == raw(expected[f"t.{dtype}"][n])


def test_raw_rows_of_a_one_row_tensor_are_its_elements(mixed: tuple[Checkpoint, dict[str, torch.Tensor]]) -> None:
    checkpoint, expected = mixed
    rows = checkpoint.raw_rows("row", axis=1)
    assert rows.shape == (12, 4)
    assert rows[7].tobytes() == raw(expected["row"][0, 7:8])


@pytest.mark.parametrize(
    ("other", "expected"),
    [("same", True), ("t.BF16", True), ("other", False), ("flat", False), ("t.F16", False)],
)
def test_same_bytes(other: str, expected: bool, mixed: tuple[Checkpoint, dict[str, torch.Tensor]]) -> None:
    assert mixed[0].same_bytes("t.BF16", other) is expected


def test_same_bytes_compares_past_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint.blocks, "__defaults__", (16,))
    folder = two_shards(tmp_path / "model")
    head = load_file(folder / "model-00001-of-00002.safetensors")["model.embed_tokens.weight"].clone()
    save_file({"lm_head.weight": head}, folder / "model-00002-of-00002.safetensors")
    assert open_checkpoint(folder).same_bytes("model.embed_tokens.weight", "lm_head.weight")
    head[11, 3] += 1
    save_file({"lm_head.weight": head}, folder / "model-00002-of-00002.safetensors")
    assert not open_checkpoint(folder).same_bytes("model.embed_tokens.weight", "lm_head.weight")


def test_a_file_that_shrinks_after_it_was_opened_is_reported(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(two_shards(tmp_path / "model"))
    path = checkpoint.path_of("lm_head.weight")
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(InputError) as caught:
        list(checkpoint.blocks("lm_head.weight", 64))
    assert caught.value.code == "truncated-weights"


def test_symlinked_files_are_read_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    """The hub's cache holds blobs/<hash> and snapshots/<commit>/<name>, a relative link to a blob."""
    plain = two_shards(tmp_path / "plain")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for n, path in enumerate(sorted(plain.iterdir())):
        (blobs / f"{n:040x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{n:040x}")
    linked, expected = open_checkpoint(snapshot), open_checkpoint(plain)
    assert linked.tensors == expected.tensors
    assert [shard.path.name for shard in linked.shards] == [shard.path.name for shard in expected.shards]
    for name in expected.tensors:
        assert list(linked.blocks(name)) == list(expected.blocks(name))
    assert [matrix.names for matrix in linked.matrices] == [matrix.names for matrix in expected.matrices]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_tensors_in_memory_are_read_like_those_of_a_file(
    size: int, mixed: tuple[Checkpoint, dict[str, torch.Tensor]]
) -> None:
    stored, tensors = mixed
    memory = {**tensors, "t.F32": tensors["t.F32"].T.contiguous().T}  # not contiguous
    held = dataclasses.replace(stored, folder=Path("a name"), shards=(), memory=memory)
    assert stored.on_disk
    assert not held.on_disk
    for name in tensors:
        assert list(held.blocks(name, size)) == list(stored.blocks(name, size))
        np.testing.assert_array_equal(held.raw_rows(name), stored.raw_rows(name))
    assert held.same_bytes("t.BF16", "same")
    assert not held.same_bytes("t.BF16", "other")
