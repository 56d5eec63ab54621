from __future__ import annotations

import pytest

from tokswap.errors import InputError, OutputError, TokswapError, UsageError, count_of, did_you_mean


@pytest.mark.parametrize(("kind", "status"), [(UsageError, 2), (InputError, 1), (OutputError, 1), (TokswapError, 1)])
def test_exit_status(kind: type[TokswapError], status: int) -> None:
    error = kind("a-code", "it broke")
    assert error.exit_status == status
    assert isinstance(error, TokswapError)
    assert (error.code, error.message, error.hint, error.where) == ("a-code", "it broke", "", {})


def test_what_where_and_how() -> None:
    error = InputError("missing-donor", "there is no donor", "name one", tokenizer="./tok", vocab_size=12)
    assert str(error) == ("there is no donor  [missing-donor]\n  tokenizer: ./tok\n  vocab size: 12\n\nhint: name one")
    assert error.where == {"tokenizer": "./tok", "vocab size": "12"}


def test_no_hint_no_hint_line() -> None:
    assert str(OutputError("disk-full", "the disk is full", out="x")) == "the disk is full  [disk-full]\n  out: x"
    assert str(OutputError("disk-full", "the disk is full")) == "the disk is full  [disk-full]"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("subwrod", ". Did you mean `subword`?"),
        ("Omp", ". Did you mean `omp`?"),
        ("zzzzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word: str, expected: str) -> None:
    assert did_you_mean(word, iter(["omp", "subword", "mean"])) == expected


def test_nothing_is_near_when_nothing_is_known() -> None:
    assert did_you_mean("omp", []) == ""


def test_things_are_counted_as_one_says_them() -> None:
    assert [count_of(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert count_of(2, "matrix", "matrices") == "2 matrices"
