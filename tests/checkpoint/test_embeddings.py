from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokswap.checkpoint import embeddings as space
from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace, decode, encode
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FLOATS = hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32))


def words(count: int) -> Vocabulary:
    texts = [f"w{n}" for n in range(count)]
    return Vocabulary(texts, [text.encode() for text in texts], np.full(count, Kind.NORMAL, np.uint8))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bf16_of(value: float) -> int:
    """Round a float32 to the nearest bfloat16, ties to even, by its bits; no torch."""
    bits = int(np.float32(value).view(np.uint32))
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


@pytest.mark.parametrize("dtype", DTYPES)
def test_encode_is_the_cast_of_torch(dtype: str) -> None:
    rows = normal(64, 7) * 10.0 ** np.arange(-3, 4, dtype=np.float32)
    raw = encode(rows, dtype)
    expected = torch.from_numpy(rows).to(DTYPES[dtype])
    assert raw.dtype == np.uint8
    assert raw.shape == (64, 7 * expected.element_size())
    assert raw.tobytes() == expected.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 0x3F80),
        (1.00390625, 0x3F80),  # half way between two: down to the even one
        (1.01171875, 0x3F82),  # half way between two: up to the even one
        (1.0039065, 0x3F81),  # just past half way
        (-1.00390625, 0xBF80),
        (3.4e38, 0x7F80),  # past the largest
        (1e-45, 0x0000),
    ],
)
def test_bfloat16_rounds_to_nearest_even(value: float, expected: int) -> None:
    raw = encode(np.full((1, 1), value, np.float32), "BF16")
    assert int.from_bytes(raw.tobytes(), "little") == expected == bf16_of(value)


@settings(max_examples=200, deadline=None)
@given(rows=hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False)))
def test_bfloat16_rounds_every_number_to_nearest_even(rows: np.ndarray) -> None:
    expected = [bf16_of(value) for value in rows.ravel()]
    assert encode(rows, "BF16").view(np.uint16).ravel().tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_stored_survives_a_round_trip(dtype: str) -> None:
    """Every value of a narrower type is a float32, so decoding and encoding again changes no bit."""
    raw = encode(normal(20, 6), dtype)
    assert np.array_equal(encode(decode(raw, dtype), dtype), raw)


@settings(max_examples=100, deadline=None)
@given(rows=FLOATS)
def test_float32_is_kept_bit_for_bit(rows: np.ndarray) -> None:
    assert encode(rows, "F32").tobytes() == rows.tobytes()
    assert decode(encode(rows, "F32"), "F32").tobytes() == rows.tobytes()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_16_bit_pattern_is_decoded_as_torch_does(dtype: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    expected = torch.from_numpy(bits.view(np.int16).copy()).view(DTYPES[dtype]).to(torch.float32).numpy()
    np.testing.assert_array_equal(decode(bits.view(np.uint8), dtype), expected)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_pattern_is_told_finite_or_not(dtype: str) -> None:
    raw = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2)
    assert np.array_equal(Columns(raw, dtype).finite(), np.isfinite(decode(raw, dtype))[:, 0])


@pytest.mark.parametrize(("dtype", "kind"), [("F32", np.float32), ("F64", np.float64)])
def test_rows_with_non_finite_elements(dtype: str, kind: type) -> None:
    rows = np.ones((1000, 6), kind)
    rows[0], rows[1] = np.finfo(kind).max, -np.finfo(kind).smallest_subnormal
    rows[3, 0], rows[700, 5], rows[999, 2] = np.nan, np.inf, -np.inf
    finite = Columns(rows.view(np.uint8), dtype).finite()
    assert np.flatnonzero(~finite).tolist() == [3, 700, 999]


def test_decode_takes_a_read_only_view_that_is_not_contiguous() -> None:
    rows = normal(10, 4)
    raw = encode(rows, "F32")
    raw.setflags(write=False)
    assert np.array_equal(decode(raw[::3], "F32"), rows[::3])
    assert np.array_equal(encode(rows.T, "F32"), encode(rows.T.copy(), "F32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows(dtype: str) -> None:
    raw = encode(np.zeros((0, 5), np.float32), dtype)
    assert raw.shape[0] == 0
    assert decode(raw, dtype).shape == (0, 5)


# EmbeddingSpace.


@pytest.fixture(params=["F64", "F32", "F16", "BF16", "matrix and bias"])
def held(request: pytest.FixtureRequest) -> tuple[EmbeddingSpace, np.ndarray]:
    """A space and, as an array, the numbers that it holds."""
    rows, bias = normal(50, 6) + 0.5, normal(50, 1, seed=1)
    if request.param == "matrix and bias":
        columns = (Columns(encode(rows, "BF16"), "BF16"), Columns(encode(bias, "F32"), "F32"))
        return EmbeddingSpace(words(50), columns), np.hstack([decode(columns[0].raw, "BF16"), bias])
    raw = encode(rows, request.param)
    return EmbeddingSpace(words(50), (Columns(raw, request.param),)), decode(raw, request.param)


IDS = np.array([3, 3, 49, 0, 17])


def test_rows(held: tuple[EmbeddingSpace, np.ndarray]) -> None:
    embedding, expected = held
    assert len(embedding) == 50
    assert embedding.width == expected.shape[1]
    assert embedding.rows(IDS).dtype == np.float32
    np.testing.assert_array_equal(embedding.rows(IDS), expected[IDS])
    assert embedding.rows(IDS[:0]).shape == (0, expected.shape[1])


@pytest.mark.parametrize("step", [1, 7, 50, 8192])
def test_statistics_do_not_depend_on_blocks(
    step: int, held: tuple[EmbeddingSpace, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_BLOCK_ROWS", step)
    embedding, expected = held
    everything = np.arange(50)
    assert sum(map(len, embedding.blocks(everything))) == 50
    np.testing.assert_array_equal(np.concatenate(list(embedding.blocks(everything))), expected)
    np.testing.assert_allclose(embedding.mean(everything), expected.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(embedding.mean(IDS), expected[IDS].astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(embedding.norms(IDS), np.linalg.norm(expected[IDS], axis=1), rtol=1e-6)
    assert embedding.mean(everything).dtype == np.float32
    assert embedding.norms(everything).dtype == np.float32


def test_statistics_of_no_rows(held: tuple[EmbeddingSpace, np.ndarray]) -> None:
    embedding, expected = held
    np.testing.assert_array_equal(embedding.mean(IDS[:0]), np.zeros(expected.shape[1], np.float32))
    assert embedding.norms(IDS[:0]).shape == (0,)


def test_the_mean_is_summed_in_double_precision() -> None:
    """In float32 the many small numbers would vanish beside the large one."""
    rows = np.full((20_001, 1), 1.0, np.float32)
    rows[0] = 1e9
    mean = EmbeddingSpace.from_array(words(len(rows)), rows).mean(np.arange(len(rows)))
    assert mean[0] == np.float32((1e9 + 20_000) / 20_001)


def test_from_array() -> None:
    rows = normal(9, 4)
    for given_rows in (rows, rows.astype(np.float64), np.asfortranarray(rows), rows[:, ::-1][:, ::-1]):
        embedding = EmbeddingSpace.from_array(words(9), given_rows)
        assert (len(embedding), embedding.width) == (9, 4)
        np.testing.assert_array_equal(embedding.rows(np.arange(9)), rows)
