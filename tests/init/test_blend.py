from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_methods import problem, vocabulary

from tokswap.errors import UsageError
from tokswap.init.base import BaseModel
from tokswap.init.blend import Blend, described, read_method
from tokswap.init.methods.kriging import Kriging
from tokswap.init.methods.subword import Subword
from tokswap.init.registry import make_initializer
from tokswap.init.resources.disk import DiskResources


def test_one_method_is_itself() -> None:
    assert read_method("omp") == make_initializer("omp")
    assert read_method(" kriging( neighbours = 8 , scale=0.25 ) ") == Kriging(neighbours=8, scale=0.25)
    assert read_method("subword()") == Subword()
    assert read_method("kriging(neighbours=8)", {"scale": "0.25"}) == Kriging(neighbours=8, scale=0.25)
    assert read_method("1*subword") == Subword()


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        ("mean + subword", [0.5, 0.5]),
        ("0.25*mean+0.75*subword(weights=first)", [0.25, 0.75]),
        ("3 * mean + subword", [0.75, 0.25]),
        (".5*mean + .5*subword + mean", [0.25, 0.25, 0.5]),
        ("0*mean + subword", [0.0, 1.0]),
    ],
)
def test_a_sum_is_the_weighted_mean_of_its_parts(spec: str, weights: list[float]) -> None:
    method = read_method(spec)
    assert isinstance(method, Blend)
    assert [weight for weight, _, _ in method.parts] == pytest.approx(weights)
    task = problem()
    wanted = sum(weight * part(task).rows for weight, _, part in method.parts)
    np.testing.assert_allclose(method(task).rows, wanted, atol=1e-6)


def test_the_parts_keep_their_diagnostics_apart() -> None:
    diagnostics = read_method("omp(k=4) + 0.5*subword")(problem()).diagnostics
    assert {"omp residual"} <= set(diagnostics)
    assert all(name.startswith("omp ") for name in diagnostics)


def test_two_parts_of_one_method_compute_their_own_rows() -> None:
    """They share a cache, which knows their settings."""
    blend = read_method("omp(k=2) + omp(k=16)")(problem()).rows
    apart = [make_initializer("omp", {"k": k})(problem()).rows for k in (2, 16)]
    np.testing.assert_allclose(blend, sum(apart) / 2, atol=1e-6)


def test_notes_and_evidence_of_the_parts_are_kept() -> None:
    task = dataclasses.replace(problem(), tokenizers=None, donor=None)
    found = read_method("auto + tokenadapt")(task)
    assert found.evidence == {"chosen": {"all": "subword"}}
    assert [note.split(":")[0] for note in found.notes] == ["auto", "tokenadapt"]


def test_a_sum_needs_what_a_part_needs() -> None:
    assert read_method("kriging + subword").donor_use() == "required"
    assert read_method("auto + kriging").donor_use() == "required"
    assert read_method("auto + subword").donor_use() == "optional"
    assert read_method("mean + subword").donor_use() == "none"
    parts = [read_method(name).flops(50, 100, 32) for name in ("kriging", "omp")]
    assert read_method("kriging + omp").flops(50, 100, 32) == sum(parts)


def test_each_part_is_checked() -> None:
    base = BaseModel(vocabulary([]), 1, rows=1, tied=True)
    with pytest.raises(UsageError) as caught:
        read_method("mean + wechsel").check(base, DiskResources())
    assert caught.value.code == "missing-setting"


def test_settings_are_described_by_part() -> None:
    found = described(read_method("0.25*subword + 0.75*subword(weights=first)"))
    assert [(name, part["weight"], part["weights"]) for name, part in found.items()] == [
        ("subword (1)", 0.25, "mean"),
        ("subword (2)", 0.75, "first"),
    ]
    assert described(Subword()) == dataclasses.asdict(Subword())


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ("", "bad-method", "'' is not how a method is written"),
        ("mean +", "bad-method", "NAME(key=value"),
        ("+ mean", "bad-method", "NAME(key=value"),
        ("mean subword", "bad-method", "'mean subword'"),
        ("mean - subword", "bad-method", "'mean - subword'"),
        ("-1*mean + subword", "bad-method", "'-1*mean'"),
        ("mean*0.5", "bad-method", "'mean*0.5'"),
        ("omp(k=4", "bad-method", "'omp(k=4'"),
        ("omp(k=(4))", "bad-method", "'omp(k=(4))'"),
        ("omp(k)", "bad-method", "'k' is not a setting"),
        ("0*mean + 0*subword", "bad-method", "add up to 0"),
        ("mean + omb", "unknown-method", "Did you mean `omp`?"),
        ("mean + omp(kk=3)", "unknown-setting", "Did you mean `k`?"),
        ("mean + omp(k=0)", "bad-setting", "at least 1"),
    ],
)
def test_what_is_no_method(spec: str, code: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_method(spec)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_settings_beside_a_sum() -> None:
    with pytest.raises(UsageError) as caught:
        read_method("kriging + omp", {"k": 3})
    assert caught.value.code == "bad-setting"
    assert "k=" in caught.value.hint


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.sampled_from(["mean", "subword", "kriging"])), min_size=2, max_size=5)
)
def test_weights_survive_writing_and_reading(parts: list[tuple[int, str]]) -> None:
    method = read_method(" + ".join(f"{weight / 1000:.3f}*{name}" for weight, name in parts))
    assert isinstance(method, Blend)
    total = sum(weight for weight, _ in parts)
    assert [name for _, name, _ in method.parts] == [name for _, name in parts]
    assert [weight for weight, _, _ in method.parts] == pytest.approx([weight / total for weight, _ in parts])
