from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import tokswap
from tokswap.errors import InputError
from tokswap.report.plan import Estimate, MatrixPlan, Names, Plan, Request, Sizes, VocabularyChange
from tokswap.report.record import Report, RowReport, versions
from tokswap.tokenizer.alignment import Alignment, Reason


def make_plan() -> Plan:
    return Plan(
        operation="transplant",
        names=Names("a", "b", None, out="a-b"),
        request=Request(method="mean", settings={}, options={"seed": 0}),
        change=VocabularyChange(family_before="Unigram", family_after="WordPiece", bos_added=False, tied=True),
        coverage={"missing": 2, "bytes": 2},
        matrices=(
            MatrixPlan(("x.weight",), "input", "F32", shape_before=(3, 2), shape_after=(4, 2)),
            MatrixPlan(("y.weight",), "output", "F32", shape_before=(3, 2), shape_after=None),
        ),
        sizes=Sizes(parameters_before=1, parameters_after=2, bytes_before=4, bytes_after=8, bytes_written=8),
        estimate=Estimate(memory_bytes=9, seconds=0.5),
        notes=("a « note »",),
    )


def make_report(**diagnostics: dict[str, np.ndarray]) -> Report:
    return Report(
        plan=make_plan(),
        alignment=Alignment(np.array([2, -1, 0, -1], np.int32), np.array([1, 0, 1, 0], np.uint8)),
        seconds={"all": 0.25},
        checks={"input rows made": 2},
        rows=RowReport(diagnostics=diagnostics, worst=(("Ġé", 0.5),)),
        notes=("a « fallback »",),
    )


def test_a_plan_is_plain_data() -> None:
    data = make_plan().as_dict()
    assert json.loads(json.dumps(data))["tables"][1] == {
        "names": ["y.weight"],
        "role": "output",
        "dtype": "F32",
        "shape_before": [3, 2],
        "shape_after": None,
    }
    assert data["notes"] == ("a « note »",)


def test_the_json_of_a_plan_is_flat() -> None:
    """Programs read these keys, whatever types the plan is made of."""
    assert set(make_plan().as_dict()) == {
        *("operation", "model", "tokenizer", "donor", "out", "family_before", "family_after", "method", "settings"),
        *("output_method", "output_settings", "options", "coverage", "parameters_before", "parameters_after"),
        *("bytes_before", "bytes_after", "bytes_written", "memory_bytes", "seconds", "tied", "bos_added", "tables"),
        "notes",
    }


def test_the_file_holds_the_summary_and_a_line_for_the_tokens() -> None:
    report = make_report(input={"residual": np.array([0.123456789, 1.0], np.float32)})
    text = report.to_json().decode()
    whole = json.loads(text)
    tokens = whole.pop("tokens")
    assert whole == json.loads(json.dumps(report.summary()))
    assert tokens == {
        "reasons": {reason.key: reason.value for reason in Reason},
        "source_of": [2, -1, 0, -1],
        "reason": [1, 0, 1, 0],
        "diagnostics": {"input": {"residual": [0.12346, 1.0]}},
        "norms": {},
    }
    assert sum('"tokens"' in line for line in text.splitlines()) == 1
    assert "Ġé" in text
    assert "a « note »" in text
    assert text.endswith("}\n")


def test_the_summary_spreads_diagnostics_over_quantiles() -> None:
    report = make_report(input={"residual": np.arange(101, dtype=np.float32)}, output={"support": np.zeros(0)})
    summary = report.summary()
    assert summary["diagnostics"]["input"]["residual"] == {
        "least": 0.0,
        "5%": 5.0,
        "median": 50.0,
        "95%": 95.0,
        "most": 100.0,
        "mean": 50.0,
    }
    assert summary["diagnostics"]["output"]["support"] == {}
    assert summary["worst"] == [["Ġé", 0.5]]
    assert summary["notes"] == ["a « fallback »"]
    assert summary["seconds"] == {"all": 0.25}


def test_norms_of_rows_are_counted_in_common_bins() -> None:
    copied, new = np.full(998, 1.0, np.float32), np.array([2.0, 500.0], np.float32)
    norms = {"input": {"copied": copied, "made": new}, "output": {"made": copied[:0]}}
    report = dataclasses.replace(make_report(), rows=RowReport(norms=norms))
    found = report.as_dict()["tokens"]["norms"]
    assert found["output"] == {}
    edges, counts = found["input"].pop("edges"), found["input"]
    assert (edges[0], edges[-1], len(edges)) == (1.0, 3.0, 41), "one wild row does not press the others into one bin"
    assert {name: sum(values) for name, values in counts.items()} == {"copied": 998, "made": 2}
    assert (counts["copied"][0], counts["made"][-1]) == (998, 1)
    assert report.summary()["norms"]["input"]["made"]["most"] == 500.0
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.as_dict()))


def test_a_report_of_a_run_that_computed_no_row() -> None:
    assert json.loads(make_report().to_json())["tokens"]["diagnostics"] == {}


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["tokswap"] == metadata.version("tokswap")

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert set(versions().values()) == {"unknown"}


def test_the_docs_name_every_key() -> None:
    """Programs read tokswap.json: its keys are documented, and stay."""
    guide = (Path(__file__).parent.parent.parent / "docs" / "python.md").read_text("utf-8")
    section = guide[guide.index("## tokswap.json") :].split("\n## ")[0]
    document = make_report().as_dict()
    assert [key for key in (*document, *document["plan"], *document["tokens"]) if f"`{key}`" not in section] == []
    assert document["format"] == 2


def test_a_result_is_found_from_another_folder(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    model, target = str(model_of("llama-tied", vocab_size=640)), str(model_of("gpt-neox", vocab_size=700))
    report = tokswap.transplant_tokenizer(model, target, init="mean", out="some/result")
    monkeypatch.chdir(tmp_path)
    assert report.path == Path("some/result")
    assert len(report.load()[1]) == 700
    shutil.rmtree(tmp_path / "cwd")
    with pytest.raises(InputError) as caught:  # and never from the hub, where the name could be a model's
        report.load()
    assert caught.value.code == "missing-config"
