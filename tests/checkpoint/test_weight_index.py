from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from weight_files import checkpoint_or_code, code_of, folder_with, safetensors, two_shards

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.shards import read_shard
from tokswap.errors import InputError

FOLDERS: dict[str, tuple[str, dict[str, bytes]]] = {
    "an empty folder": ("missing-config", {}),
    "a config that is not JSON": ("bad-config", {"config.json": b"{"}),
    "a config that is a list": ("bad-config", {"config.json": b"[]"}),
    "a config that is not UTF-8": ("bad-config", {"config.json": b'{"a": "\xff"}'}),
    "a config nested too deep": ("bad-config", {"config.json": b"[" * 200_000}),
    "a generation config that is not JSON": (
        "bad-config",
        {"config.json": b"{}", "generation_config.json": b"no", "model.safetensors": safetensors({})},
    ),
    "no weights": ("missing-weights", {"config.json": b"{}"}),
    "weights of another name": ("missing-weights", {"config.json": b"{}", "other.safetensors": safetensors({})}),
    "pickled weights": ("pickled-weights", {"config.json": b"{}", "pytorch_model.bin": b""}),
    "pickled shards": ("pickled-weights", {"config.json": b"{}", "pytorch_model-00001-of-00002.bin": b""}),
    "a torch file": ("pickled-weights", {"config.json": b"{}", "consolidated.00.pth": b""}),
    "an adapter": ("adapter-weights", {"config.json": b"{}", "adapter_model.safetensors": safetensors({})}),
    "an adapter beside its model": (
        "adapter-weights",
        {"config.json": b"{}", "adapter_config.json": b"{}", "model.safetensors": safetensors({})},
    ),
    "an adapter beside weights that the config names": (
        "adapter-weights",
        {
            "config.json": b'{"transformers_weights": "a.safetensors"}',
            "adapter_config.json": b"{}",
            "a.safetensors": safetensors({}),
        },
    ),
    "an index that is not JSON": ("bad-index", {"config.json": b"{}", "model.safetensors.index.json": b"{"}),
    "an index without a map": ("bad-index", {"config.json": b"{}", "model.safetensors.index.json": b"{}"}),
    "an index that maps to numbers": (
        "bad-index",
        {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": 1}}'},
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_without_a_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    code, files = FOLDERS[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert code_of(open_checkpoint, tmp_path) == code


HINTS: dict[str, tuple[str, str]] = {
    "model.fp16.safetensors": ("model.fp16.safetensors", "transformers_weights"),
    "model-00001-of-00002.safetensors": ("model-00001-of-00002", "index.json is missing"),
    "pytorch_model_fsdp_0/__0_0.distcp": ("processes of a training", "merge-weights"),
    "medusa_lm_head.safetensors": ("heads of Medusa", "base model"),
    "medusa_lm_head.pt": ("heads of Medusa", "base model"),
    "global_step5/mp_rank_00_model_states.pt": ("processes of a training", "zero_to_fp32"),
}
"""A file in place of weights -> what the message and the hint say of it."""


@pytest.mark.parametrize("name", HINTS)
def test_a_folder_without_weights_says_what_it_holds(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(safetensors({}))
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.code == "missing-weights"
    assert HINTS[name][0] in caught.value.message
    assert HINTS[name][1] in caught.value.hint


@pytest.mark.parametrize("inside", ["checkpoint-500", "snapshots/0a1b"])
def test_a_folder_of_models_names_one(inside: str, tmp_path: Path) -> None:
    """The output of a training, and a model in the hub's cache: the newest counts, whatever the names say."""
    for name in (inside, "z-older"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    os.utime(tmp_path / "z-older" / "config.json", (1, 1))
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.code == "missing-config"
    assert str(tmp_path / inside) in caught.value.hint


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "sub/model.safetensors", "/etc/passwd", "..", ".", "", "./model.safetensors"]
)
def test_an_index_cannot_point_out_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model", weight_map={"lm_head.weight": name})
    (tmp_path / "model.safetensors").write_bytes(safetensors({}))
    assert code_of(open_checkpoint, folder) == "outside-shard"


def test_an_index_may_name_the_head_of_a_tied_model(tmp_path: Path) -> None:
    """transformers looks for no lm_head there. A head of its own must be in a file."""
    folder = two_shards(tmp_path / "model")
    save_file({"model.layers.0.weight": torch.zeros(2)}, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    assert code_of(open_checkpoint, folder) == "bad-index"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert open_checkpoint(folder).tied


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002") as caught:
        open_checkpoint(folder)
    assert caught.value.code == "missing-shard"
    assert code_of(read_shard, folder / "model-00002-of-00002.safetensors") == "missing-shard"


def test_an_index_must_agree_with_its_shards(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    weight_map = {**index["weight_map"], "not.there": second}
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": weight_map}))
    assert code_of(open_checkpoint, folder) == "bad-index"
    weight_map = {**index["weight_map"], "model.norm.weight": second}  # transformers reads it where it is
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": weight_map}))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors["model.norm.weight"].file == first
    assert checkpoint.notes == ("the index names the wrong file for 1 tensors; the result's index is right",)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    save_file({"lm_head.weight": torch.zeros(1), "x": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    weight_map = {"x": "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match="two shards") as caught:
        open_checkpoint(folder)
    assert caught.value.code == "bad-index"


def test_a_tensor_that_the_index_forgets_is_kept(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    del index["weight_map"]["model.norm.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.norm.weight" in open_checkpoint(folder).tensors


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.binary(max_size=60)
    | st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=3).map(
        lambda names: json.dumps({"weight_map": names}).encode()
    )
)
def test_any_index_is_an_input_error(index: bytes, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "fuzzed", safetensors({}))
    (folder / "model.safetensors.index.json").write_bytes(index)
    checkpoint = checkpoint_or_code(folder)
    if isinstance(checkpoint, str):
        assert checkpoint in ("bad-index", "missing-shard", "outside-shard")
    else:
        assert checkpoint.tensors == {}  # {"weight_map": {}} names no shard
