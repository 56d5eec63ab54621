from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
import pytest
import tools
from makers import copy_model, edit_json, read_json, shipped_text
from pages import Reading, run

import tokswap.report.page
from tokswap.errors import OutputError
from tokswap.report.page import COMMANDS, check_page, make_page, write_page
from tokswap.report.page.charts import Bar, bars, distribution, spread, stacks
from tokswap.report.page.svg import THEME, printable

Make = Callable[..., Path]
HOSTILE = "<script>alert('x')</script><b>&amp;\x00\x1b\ud800\u202e$\\frac{a}$]]>"


@pytest.fixture(scope="module")
def made(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Command -> the page that it has written; and "folder", "source" and "text", its inputs."""
    folder = tmp_path_factory.mktemp("pages")
    source, donor = model_of("llama", vocab_size=700, adds_bos=True), model_of("gpt2", vocab_size=900, rows=910)
    text = folder / "english.txt"
    text.write_text(shipped_text("english"), encoding="utf-8")
    return {**pages.make(folder, source, donor, text), "source": source, "text": text}


# All pages.


@pytest.mark.parametrize("command", COMMANDS)
def test_pages_are_valid_and_self_contained(command: str, made: dict[str, Path]) -> None:
    text = made[command].read_text("utf-8")
    reading = Reading(text)
    assert reading.problems == []
    assert text.startswith("<!doctype html>")
    assert "http" not in text
    assert f"tokswap {command} --" in " ".join(reading.text["code"]) or command in ("heal", "eval", "compare")
    assert reading.text["h1"]
    assert len(reading.text["title"]) >= 1
    assert reading.count("svg") >= 2
    assert reading.count("table") >= 3
    assert made[command].stat().st_size < 300_000


@pytest.mark.parametrize("command", COMMANDS)
def test_drawings_have_a_description_for_screen_readers(command: str, made: dict[str, Path]) -> None:
    reading = Reading(made[command].read_text("utf-8"))
    drawings = [attributes for tag, attributes in reading.tags if tag == "svg"]
    assert all(drawing["role"] == "img" for drawing in drawings)
    told = [drawing["aria-labelledby"].split() for drawing in drawings]
    assert sorted(name for pair in told for name in pair) == sorted(
        [*reading.attributes("id", "title"), *reading.attributes("id", "desc")]
    )
    assert len(reading.text["desc"]) == len(drawings)
    assert all(len(text) > 10 for text in reading.text["desc"])


@pytest.mark.parametrize("command", COMMANDS)
def test_drawings_take_their_colours_from_the_page(command: str, made: dict[str, Path]) -> None:
    text = made[command].read_text("utf-8")
    drawings = text.split("<body>")[1]
    assert "#0" not in drawings
    assert not any(colour in text for colour in THEME.values())
    assert "var(--c0)" in drawings
    assert "prefers-color-scheme: dark" in text
    assert "DejaVu Sans', " not in drawings
    assert "font-size: 13px" in drawings


# Each page.


def test_the_page_of_a_transplant(made: dict[str, Path]) -> None:
    text = made["transplant"].read_text("utf-8")
    report = read_json(made["folder"] / "tokswap.json")
    plan = report["plan"]
    assert f"{plan['coverage']['missing']:,}" in text
    assert report["worst"][0][0].replace("'", "&#39;") in text
    assert report["unusual"][0][0].replace("'", "&#39;") in text
    reading = Reading(text)
    titles = reading.text["h3"]
    assert {"By script and kind", "Norms of the input rows", "Residual of the input rows", "Largest residuals"} <= set(
        titles
    )
    assert "padding" in reading.text["th"]
    assert plan["notes"][0] in reading.text["li"]


def test_the_page_of_a_report_with_candidates(made: dict[str, Path]) -> None:
    report = read_json(made["folder"] / "tokswap.json")
    report["evidence"] = {
        "input": {
            "hidden": 1000,
            "candidates": [
                {"method": "omp", "error": 0.7, "seconds": 2.0, "by_script": {"Latin": 0.8, "digits": 0.1}},
                {"method": "kriging", "error": 0.4, "seconds": 1.0, "by_script": {"Latin": 0.4, "digits": 0.3}},
            ],
            "chosen": {"all": "kriging", "digits": "omp"},
        },
    }
    reading = Reading(make_page("transplant", report))
    assert reading.problems == []
    drawn = reading.text["text"]
    assert drawn.index("kriging (chosen)") < drawn.index("omp")
    assert "0.700" in drawn
    assert {"as for all", "omp", "0.100"} <= set(reading.text["td"])


def test_the_page_of_a_trim(made: dict[str, Path]) -> None:
    reading = Reading(made["trim"].read_text("utf-8"))
    report = read_json(made["small"] / "tokswap.json")
    rows = sum(report["plan"]["coverage"].values())
    assert f"700 → {rows:,}" in reading.text["dd"]
    assert "hidden states" in reading.text["th"]
    assert reading.text["td"].count("ok") >= 3
    assert "FAILED" not in reading.text["td"]
    assert "english.txt" in " ".join(reading.text["th"])


def test_the_page_of_a_trim_before_curves(made: dict[str, Path]) -> None:
    report = read_json(made["small"] / "tokswap.json")
    for corpus in report["plan"]["corpora"]:
        del corpus["curve"]
    reading = Reading(make_page("trim", report))
    assert "english.txt" in " ".join(reading.text["th"] + reading.text["td"])


def test_a_failed_check_comes_first(made: dict[str, Path]) -> None:
    report = read_json(made["small"] / "tokswap.json")
    report["checks"]["model"]["hidden_states_equal"] = False
    report["checks"]["failed"] = ["the hidden states of the model are not those of the source"]
    reading = Reading(make_page("trim", report))
    assert "FAILED" in reading.text["td"]
    assert reading.text["li"][0].startswith("the hidden states")
    assert "1" in reading.text["dd"]


def test_the_page_of_an_evaluation(made: dict[str, Path]) -> None:
    document = json.loads(
        run(
            "eval",
            made["folder"],
            "--text",
            made["text"],
            "--text",
            made["source"] / "tokenizer_config.json",
            "--against",
            made["source"],
            "--tokens",
            3,
            "--json",
        ).stdout
    )
    page = make_page("eval", document)
    assert Reading(page).text["h2"] == Reading(made["eval"].read_text("utf-8")).text["h2"]
    drawn, cells = Reading(page).text["text"], Reading(page).text["td"]
    whole = document["models"][1]["all"]
    assert f"{whole['excess']:+.3f}" in drawn
    assert f"{whole['bits_per_byte']:.3f}" in drawn
    assert f"{whole['interval'][0]:.3f} to {whole['interval'][1]:.3f}" in cells
    assert {"missing tokens", "shared, tokenized differently"} <= set(drawn)
    assert {"all texts", "english.txt"} <= set(drawn)


def test_an_evaluation_of_models_with_equal_names(made: dict[str, Path]) -> None:
    document = json.loads(
        run("eval", made["folder"], "--text", made["text"], "--against", made["source"], "--tokens", 3, "--json").stdout
    )
    source, result = document["models"]
    for names in (("a/m1", "a/m2"), ("a/同じ", "b/同じ")):
        document["models"] = [source, *({**copy.deepcopy(result), "model": name} for name in names)]
        reading = Reading(make_page("eval", document))
        assert reading.problems == []
        shown = ["m1", "m2"] if names[0] == "a/m1" else list(names)
        assert [title for title in reading.text["h2"] if "sits" in title] == [
            f"Where the excess of {n} sits" for n in shown
        ]
        assert all(name in reading.text["li"] for name in shown), "in the legend"


def test_an_evaluation_without_a_source_or_intervals(made: dict[str, Path]) -> None:
    (made["text"].parent / "short.txt").write_text("A short text.", encoding="utf-8")
    short = made["text"].parent / "short.txt"
    document = json.loads(run("eval", made["source"], "--text", short, "--tokens", 0, "--json").stdout)
    reading = Reading(make_page("eval", document))
    assert reading.problems == []
    assert not any("xcess" in title for title in reading.text["h2"] + reading.text["h3"])
    assert any(note.startswith("No intervals") for note in reading.text["p"])
    assert any("It is not known which rows were initialised" in note for note in reading.text["p"])
    assert "Samples" not in reading.text["h2"]


def test_the_page_of_a_comparison(made: dict[str, Path]) -> None:
    reading = Reading(made["compare"].read_text("utf-8"))
    document = json.loads(run("compare", made["source"], "made/..", "--json", status=1).stdout)
    assert document["error"]["code"] == "unknown-tokenizer"
    assert {"byte-level BPE", "SentencePiece BPE"} <= set(reading.text["td"])
    assert any(label.startswith("English") for label in reading.text["text"])


# Hostile texts.


def poisoned(value: Any) -> Any:
    """Put hostile characters before every text of a document."""
    if isinstance(value, dict):
        return {key: poisoned(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [poisoned(entry) for entry in value]
    return HOSTILE + value if isinstance(value, str) else value


@pytest.mark.parametrize("command", ["transplant", "trim"])
def test_hostile_texts_of_a_report_are_escaped(command: str, made: dict[str, Path]) -> None:
    report = read_json(made["folder" if command == "transplant" else "small"] / "tokswap.json")
    spoilt = poisoned(report)
    spoilt["groups"] = {HOSTILE + group: counts for group, counts in report["groups"].items()}
    spoilt["groups_before"] = {HOSTILE + group: count for group, count in report["groups_before"].items()}
    check_harmless(make_page(command, spoilt, HOSTILE))


def test_hostile_texts_of_an_evaluation_are_escaped(made: dict[str, Path]) -> None:
    document = json.loads(
        run("eval", made["folder"], "--text", made["text"], "--against", made["source"], "--tokens", 3, "--json").stdout
    )
    spoilt = copy.deepcopy(document)
    for model in spoilt["models"]:
        model["model"] += HOSTILE
        model["notes"] = [HOSTILE]
        model["samples"] = {HOSTILE + prompt: HOSTILE for prompt in model["samples"]}
        model["texts"] = {HOSTILE + name: figures for name, figures in model["texts"].items()}
        for piece in model["all"]["costliest"] + model["all"]["costliest_excess"]:
            piece["text"] = HOSTILE
    check_harmless(make_page("eval", spoilt, HOSTILE))


def test_hostile_tokens_of_a_comparison_are_escaped(made: dict[str, Path], tmp_path: Path) -> None:
    """From the tokenizer's file to the page."""
    other = copy_model(made["source"], tmp_path / "<img src=x>")

    def add(entry: dict[str, Any]) -> None:
        token = {
            "id": 700,
            "content": "<script>alert('x')</script>",
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        entry["added_tokens"].append(token)

    spec = read_json(other / "tokenizer.json")
    add(spec)
    edit_json(other / "tokenizer.json", added_tokens=spec["added_tokens"])
    run("compare", made["source"], other, "--report", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    check_harmless(text)
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "&lt;img src=x&gt;" in text


def check_harmless(text: str) -> None:
    reading = Reading(text)
    assert reading.problems == []
    assert "<script" not in text
    assert "<b>" not in text
    assert printable(text) == text
    text.encode("utf-8")


def test_characters_that_no_page_may_contain_are_replaced() -> None:
    assert printable("a\x00b\x1f\ud800\x9f\n\té￿") == "a\ufffdb\ufffd\ufffd\ufffd\n\té\ufffd"


# Drawings.


def test_the_same_document_gives_the_same_page(made: dict[str, Path]) -> None:
    report = read_json(made["folder"] / "tokswap.json")
    first, second = (make_page("transplant", report, "tokswap transplant") for _ in range(2))
    assert first == second


def test_labels_are_literal_and_shortened() -> None:
    chart = bars(
        "A $title$ <x>", [("日本語 $\\alpha$ & <b>", [Bar(1.0, "1")]), ("x" * 300, [Bar(-0.5, "-0.5", (-1, 0.25))])]
    )
    reading = Reading(chart.svg)
    assert reading.text["text"][0] == "日本語 $\\alpha$ & <b>"
    assert reading.text["title"] == ["A $title$ <x>"]
    assert any(text.endswith("x…") for text in reading.text["text"])
    assert "x" * 300 in reading.text["desc"][0]


def test_the_width_of_bars_follows_their_values() -> None:
    chart = bars("t", [("a", [Bar(2.0, "2")]), ("b", [Bar(1.0, "1")])])
    drawn = [path["d"].split() for tag, path in Reading(chart.svg).tags if tag == "path" and "--c0" in path["style"]]
    first, second = (float(path[4]) - float(path[1]) for path in drawn)
    assert first == pytest.approx(2 * second)
    assert first > 200


def test_drawings_of_nothing_and_of_one_value() -> None:
    for chart in (
        bars("none", []),
        bars("zero", [("a", [Bar(0.0, "0")])]),
        stacks("none", [("a", "", (0, 0))], ("x", "y")),
        spread("one", [3.0], "made"),
        spread("same", [3.0] * 5, "made"),
        distribution("none", [0.0, 1.0], {"copied": [0], "made": [0]}),
    ):
        assert Reading(chart.svg).problems == []


# Before the run, and writing.


def test_a_missing_library_is_reported_before_the_run(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = tokswap.report.page.find_spec
    monkeypatch.setattr(tokswap.report.page, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    monkeypatch.chdir(tmp_path)
    given = ("--model", made["source"], "--tokenizer", made["folder"], "--init", "mean", "--out", "out")
    result = run("transplant", *given, "--report", "page.html", status=1)
    assert "a report page needs matplotlib  [missing-extra]" in result.stderr
    assert "pip install 'tokswap[report]'" in result.stderr
    for args in (
        ("trim", "--model", "nowhere"),
        ("eval", "nowhere", "--text", made["text"]),
        ("compare", "nowhere", "nowhere"),
    ):
        assert "[missing-extra]" in run(*args, "--report", "page.html", status=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_reported_before_the_run(made: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = tools.snapshot(tmp_path)
    given = ("--model", made["source"], "--tokenizer", made["folder"], "--init", "mean", "--out", tmp_path / "out")
    for page, code in (
        (tmp_path / "file" / "page.html", "cannot-write"),
        (tmp_path / "file", "output-exists"),
        (tmp_path, "output-exists"),
        ("/proc/no/page.html", "cannot-write"),
    ):
        assert f"[{code}]" in run("transplant", *given, "--report", page, status=1).stderr
    assert tools.snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written to"):
        check_page(tmp_path / "page.html")


def test_a_page_is_replaced_and_nothing_else(made: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "new" / "page.html"
    write_page(check_page(place), make_page("compare", compared(made)))
    first = place.read_bytes()
    assert check_page(place) == place
    write_page(place, "<!doctype html>")
    (place.parent / ".page.html.tokswap-1").mkdir()  # what a killed run leaves
    write_page(place, "<!doctype html>")
    assert [path.name for path in place.parent.iterdir()] == ["page.html"]
    with pytest.raises(OutputError) as caught:
        check_page(place)  # the file does not say that tokswap wrote it
    assert caught.value.code == "output-exists"
    assert first != place.read_bytes()
    assert place.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def compared(made: dict[str, Path]) -> dict[str, Any]:
    facts = json.loads(run("compare", made["source"], made["folder"], "--json").stdout)
    return {**facts, "names": ["a", "b"]}


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.html"
    write_page(place, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_page(place, "new")
    assert caught.value.code == "disk-full"
    assert caught.value.hint.endswith("choose another name for the page")
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_dry_run_and_an_adapter_have_no_page(made: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = ("--model", made["source"], "--tokenizer", made["folder"], "--dry-run", "--report", page)
    assert "leave out --dry-run" in run("transplant", *given, status=2).stderr
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    told = run("trim", "--model", adapter, "--like", made["small"], "--report", page, status=2).stderr
    assert "--report has no effect on an adapter" in told
    assert not page.exists()


# Later, from the folder.


@pytest.mark.parametrize(("command", "folder"), [("transplant", "folder"), ("trim", "small")])
def test_the_page_can_be_made_later(command: str, folder: str, made: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "later.html"
    assert json.loads(run("report", made[folder], "--out", page, "--json").stdout) == {"page": str(page)}
    run("report", made[folder] / "tokswap.json", "--out", tmp_path / "same.html")
    assert (tmp_path / "same.html").read_bytes() == page.read_bytes()
    later, then = Reading(page.read_text("utf-8")), Reading(made[command].read_text("utf-8"))
    assert later.text["td"] == then.text["td"]
    assert later.text["h3"] == then.text["h3"]


def test_a_folder_without_a_report_and_a_damaged_one(made: dict[str, Path], tmp_path: Path) -> None:
    assert "[missing-report]" in run("report", made["source"], "--out", tmp_path / "p.html", status=1).stderr
    whole = read_json(made["folder"] / "tokswap.json")
    for wrong in (
        {},
        {"plan": 3},
        {**whole, "plan": {"operation": "os"}},
        {**whole, "evidence": {"input": {"candidates": [1]}}},
        {**whole, "seconds": {"all": "x"}},
    ):
        (tmp_path / "tokswap.json").write_text(json.dumps(wrong))
        assert "[bad-report]" in run("report", tmp_path, "--out", tmp_path / "p.html", status=1).stderr
    assert not (tmp_path / "p.html").exists()


def test_reports_of_earlier_versions_have_a_page(made: dict[str, Path]) -> None:
    report = read_json(made["folder"] / "tokswap.json")
    for name in ("groups", "groups_before", "norms", "unusual"):
        del report[name]
    del report["tokens"]["norms"]
    assert Reading(make_page("transplant", report)).problems == []
