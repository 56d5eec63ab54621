from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import load_file, save_file

from tokswap.checkpoint.reader import Checkpoint, has_weights, open_checkpoint, read_shard
from tokswap.errors import InputError
from tokswap.storage.json_files import read_json

CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 12, "hidden_size": 4, "tie_word_embeddings": False}
ONE = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def folder_with(folder: Path, weights: bytes, config: object = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def two_shards(folder: Path, **index: Any) -> Path:
    """A whole checkpoint of two files; `index` overrides keys of its index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    first = {"model.embed_tokens.weight": torch.randn(12, 4), "model.norm.weight": torch.randn(4)}
    second = {"lm_head.weight": torch.randn(12, 4)}
    save_file(first, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file(second, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    weight_map |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    body = {"metadata": {"total_size": 400}, "weight_map": weight_map, **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))
    return folder


def code_of(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.code


def checkpoint_or_code(folder: Path) -> Checkpoint | str:
    try:
        return open_checkpoint(folder)
    except InputError as error:
        return error.code


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


# Refusals: the folder.

FOLDERS: dict[str, tuple[str, dict[str, bytes]]] = {
    "an empty folder": ("missing-config", {}),
    "a config that is no JSON": ("bad-config", {"config.json": b"{"}),
    "a config that is a list": ("bad-config", {"config.json": b"[]"}),
    "a config that is not UTF-8": ("bad-config", {"config.json": b'{"a": "\xff"}'}),
    "a config nested too deep": ("bad-config", {"config.json": b"[" * 200_000}),
    "a generation config that is no JSON": (
        "bad-config",
        {"config.json": b"{}", "generation_config.json": b"no", "model.safetensors": safetensors({})},
    ),
    "no weights": ("missing-weights", {"config.json": b"{}"}),
    "weights of another name": ("missing-weights", {"config.json": b"{}", "other.safetensors": safetensors({})}),
    "pickled weights": ("pickled-weights", {"config.json": b"{}", "pytorch_model.bin": b""}),
    "pickled shards": ("pickled-weights", {"config.json": b"{}", "pytorch_model-00001-of-00002.bin": b""}),
    "a torch file": ("pickled-weights", {"config.json": b"{}", "consolidated.00.pth": b""}),
    "an adapter": ("adapter-weights", {"config.json": b"{}", "adapter_model.safetensors": safetensors({})}),
    "an index that is no JSON": ("bad-index", {"config.json": b"{}", "model.safetensors.index.json": b"{"}),
    "an index without a map": ("bad-index", {"config.json": b"{}", "model.safetensors.index.json": b"{}"}),
    "an index that maps to numbers": (
        "bad-index",
        {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": 1}}'},
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_no_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    code, files = FOLDERS[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert code_of(open_checkpoint, tmp_path) == code


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "nowhere")
    assert caught.value.code == "missing-config"
    assert caught.value.where["folder"].endswith("nowhere")


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "sub/model.safetensors", "/etc/passwd", "..", ".", "", "./model.safetensors"]
)
def test_an_index_cannot_point_out_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model", weight_map={"lm_head.weight": name})
    (tmp_path / "model.safetensors").write_bytes(safetensors({}))
    assert code_of(open_checkpoint, folder) == "outside-shard"


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
    for weight_map in (
        {**index["weight_map"], "lm_head.weight": first},
        {**index["weight_map"], "not.there": second},
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": weight_map}))
        assert code_of(open_checkpoint, folder) == "bad-index"


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


# Refusals: the header.


def entry(**changes: object) -> dict[str, object]:
    return {"t": {**ONE, **changes}}


HEADERS: dict[str, tuple[str, bytes]] = {
    "an empty file": ("truncated-weights", b""),
    "half a length": ("truncated-weights", b"\x05\0\0"),
    "a header longer than the file": ("truncated-weights", safetensors({}, length=1000)),
    "an enormous header": ("truncated-weights", safetensors({}, length=2**63)),
    "tensors past the end": ("truncated-weights", safetensors(entry(), b"\0" * 23)),
    "trailing bytes": ("bad-header", safetensors(entry(), b"\0" * 25)),
    "bytes that no tensor owns": ("bad-header", safetensors({}, b"\0")),
    "a header that is no JSON": ("bad-header", safetensors(b"nonsense")),
    "a header that is no UTF-8": ("bad-header", safetensors(b'{"\xff": 1}')),
    "a header in UTF-16": ("bad-header", safetensors("{}".encode("utf-16-le"))),
    "a header that is a list": ("bad-header", safetensors([])),
    "a header nested too deep": ("bad-header", safetensors(b'{"a":' * 100_000)),
    "a git-lfs pointer": ("truncated-weights", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "metadata that is a list": ("bad-header", safetensors({"__metadata__": [1]})),
    "metadata of numbers": ("bad-header", safetensors({"__metadata__": {"a": 1}})),
    "an entry that is a number": ("bad-header", safetensors({"t": 3})),
    "an entry that is text": ("bad-header", safetensors({"t": "F32"})),
    "an entry that is null": ("bad-header", safetensors({"t": None})),
    "no dtype": ("bad-header", safetensors({"t": {"shape": [], "data_offsets": [0, 4]}}, b"\0" * 4)),
    "no shape": ("bad-header", safetensors({"t": {"dtype": "F32", "data_offsets": [0, 4]}}, b"\0" * 4)),
    "no offsets": ("bad-header", safetensors({"t": {"dtype": "F32", "shape": []}})),
    "an unknown dtype": ("bad-header", safetensors(entry(dtype="F33"), b"\0" * 24)),
    "a dtype that is a list": ("bad-header", safetensors(entry(dtype=["F32"]), b"\0" * 24)),
    "a dtype that is null": ("bad-header", safetensors(entry(dtype=None), b"\0" * 24)),
    "a shape of text": ("bad-header", safetensors(entry(shape=["2", "3"]), b"\0" * 24)),
    "a shape of fractions": ("bad-header", safetensors(entry(shape=[2.0, 3]), b"\0" * 24)),
    "a shape of truths": ("bad-header", safetensors(entry(shape=[True, 6]), b"\0" * 24)),
    "a negative shape": ("bad-header", safetensors(entry(shape=[-2, -3]), b"\0" * 24)),
    "a shape that is a number": ("bad-header", safetensors(entry(shape=6), b"\0" * 24)),
    "three offsets": ("bad-header", safetensors(entry(data_offsets=[0, 12, 24]), b"\0" * 24)),
    "one offset": ("bad-header", safetensors(entry(data_offsets=[24]), b"\0" * 24)),
    "offsets of text": ("bad-header", safetensors(entry(data_offsets="ab"), b"\0" * 24)),
    "a negative offset": ("bad-header", safetensors(entry(data_offsets=[-24, 0]), b"\0" * 24)),
    "offsets in the wrong order": ("bad-header", safetensors(entry(data_offsets=[24, 0]), b"\0" * 24)),
    "too few bytes for the shape": ("bad-header", safetensors(entry(data_offsets=[0, 20]), b"\0" * 20)),
    "too many bytes for the shape": ("bad-header", safetensors(entry(data_offsets=[0, 28]), b"\0" * 28)),
    "a shape past all numbers": ("bad-header", safetensors(entry(shape=[2**62] * 9), b"\0" * 24)),
    "an offset past all numbers": (
        "bad-header",
        safetensors(b'{"t":{"dtype":"F4","shape":[2],"data_offsets":[0,%s]}}' % (b"9" * 4300)),
    ),
    "a gap before the first tensor": ("bad-header", safetensors(entry(data_offsets=[8, 32]), b"\0" * 32)),
    "a gap between tensors": (
        "bad-header",
        safetensors({"a": ONE, "b": {**ONE, "data_offsets": [28, 52]}}, b"\0" * 52),
    ),
    "overlapping tensors": (
        "bad-header",
        safetensors({"a": ONE, "b": {**ONE, "data_offsets": [12, 36]}}, b"\0" * 36),
    ),
    "two tensors in one place": ("bad-header", safetensors({"a": ONE, "b": ONE}, b"\0" * 24)),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_damaged_file_is_refused(case: str, tmp_path: Path) -> None:
    code, content = HEADERS[case]
    assert code_of(open_checkpoint, folder_with(tmp_path / "model", content)) == code
    with pytest.raises(SafetensorError):
        deserialize(content)


def test_a_weight_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    assert code_of(read_shard, tmp_path / "x.safetensors") == "bad-header"


GOOD = {
    "no tensors": safetensors({}),
    "padding after the header": safetensors(json.dumps(entry()).encode() + b"   ", b"\0" * 24),
    "a scalar": safetensors({"t": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, b"\0" * 4),
    "packed four-bit numbers": safetensors({"t": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}}, b"\0" * 3),
    "eight-bit floats of AMD": safetensors(
        {"t": {"dtype": "F8_E4M3FNUZ", "shape": [3], "data_offsets": [0, 3]}}, b"\0" * 3
    ),
    "an empty tensor named after its neighbour": safetensors(
        {"a": ONE, "b": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, b"\0" * 24
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_an_unusual_but_valid_file_is_read(case: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", GOOD[case])
    checkpoint = open_checkpoint(folder)
    try:
        expected = sorted(name for name, _ in deserialize(GOOD[case]))
    except SafetensorError as error:
        pytest.skip(f"the installed safetensors does not know this: {error}")
    assert sorted(checkpoint.tensors) == expected
    assert sum(info.nbytes for info in checkpoint.tensors.values()) == checkpoint.nbytes - checkpoint_base(GOOD[case])


def checkpoint_base(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A valid file in which one value of the header, or a few raw bytes, are changed."""
    junk = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.text(max_size=4)
        | st.sampled_from(["F32", "BF16", "I8", "F4"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt"},
        "a": dict(ONE),
        "b": {"dtype": "BF16", "shape": [12, 4], "data_offsets": [24, 120]},
    }
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(header)))
        keys = [None, *header[name]]
        key = draw(st.sampled_from(keys))
        if key is None:
            header[name] = draw(junk)
        else:
            header[name][key] = draw(junk)
    content = bytearray(safetensors(header, b"\0" * 120))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_mutated() | st.binary(max_size=200))
def test_any_bytes_are_a_checkpoint_or_an_input_error(content: bytes, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "fuzzed", content)
    checkpoint = checkpoint_or_code(folder)
    if isinstance(checkpoint, str):
        assert checkpoint in ("bad-header", "truncated-weights")
        return
    held = sorted((info.start, info.end) for info in checkpoint.tensors.values())
    assert held == sorted(held, key=lambda span: span[1])
    for name, info in checkpoint.tensors.items():
        assert b"".join(checkpoint.blocks(name)) == content[info.start : info.end]


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


# Reading.

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """A checkpoint with a table of each dtype, and what safetensors itself reads from it."""
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
    assert [table.names for table in linked.matrices] == [table.names for table in expected.matrices]
