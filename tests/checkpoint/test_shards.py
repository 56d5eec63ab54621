from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from weight_files import checkpoint_or_code, code_of, folder_with, safetensors

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.shards import read_shard

ONE = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


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
    "a header that is not JSON": ("bad-header", safetensors(b"nonsense")),
    "a header that is not UTF-8": ("bad-header", safetensors(b'{"\xff": 1}')),
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
    "a shape of booleans": ("bad-header", safetensors(entry(shape=[True, 6]), b"\0" * 24)),
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
