from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from commands import one_document, run
from makers import CHAT_TEMPLATE, copy_model, edit_json, read_json, shipped_text

from tokswap.ensemble.choose import candidates, choose_tokenizer
from tokswap.ensemble.members import FILE, read_ensemble, read_weights
from tokswap.ensemble.options import MemberOptions
from tokswap.ensemble.prepare import plan_ensemble, prepare_ensemble
from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.init.estimate import tokenizer_bytes
from tokswap.storage.atomic import held
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.transplant.run import TransplantJob

Make = Callable[..., Path]
BYTE_LEVEL: dict[str, Any] = {"family": "byte-level", "vocab_size": 700, "chat_template": CHAT_TEMPLATE}


@pytest.fixture(scope="module")
def models(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A model that begins texts with bos and has another vocabulary, and two that share the tokenizer.

    The last one has other ids of eos.
    """
    other = model_of("llama", vocab_size=640, adds_bos=True)
    owner = model_of("gpt-neox", **BYTE_LEVEL)
    tuned = copy_model(
        model_of("llama-tied", rows=720, seed=5, **BYTE_LEVEL), tmp_path_factory.mktemp("tuned") / "tuned"
    )
    edit_json(tuned / "generation_config.json", eos_token_id=[0, 2])
    return [str(other), str(owner), str(tuned)]


@pytest.fixture(scope="module")
def prepared(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of all three. Read-only."""
    out = tmp_path_factory.mktemp("ensemble") / "abc"
    prepare_ensemble(models, models[1], out, init="subword", weights="2,1,1")
    return out


def again(models: list[str], out: Path, **options: Any) -> Any:
    return plan_ensemble(models, models[1], out, **{"init": "subword", "weights": "2,1,1", **options})


def test_the_folder_says_what_is_in_it(prepared: Path, models: list[str]) -> None:
    ensemble = read_ensemble(prepared)
    assert ensemble.weights == (0.5, 0.25, 0.25)
    assert [member.model for member in ensemble.members] == models
    assert len({member.name for member in ensemble.members}) == 3, "folders of one name are told apart"
    assert ensemble.members[0].made
    assert not ensemble.members[1].made
    assert not ensemble.members[2].made
    for member in ensemble.members:
        names = {path.name for path in ensemble.path_of(member).iterdir()}
        assert set(member.files) == names
        assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert {path.name for path in prepared.iterdir()} == {FILE, *(member.name for member in ensemble.members)}


def test_members_agree_on_everything_that_averages_need(prepared: Path, models: list[str], tmp_path: Path) -> None:
    ensemble = read_ensemble(prepared)
    folders = [ensemble.path_of(member) for member in ensemble.members]
    assert {read_json(folder / "config.json")["vocab_size"] for folder in folders} == {700}
    eos = [read_json(folder / "generation_config.json")["eos_token_id"] for folder in folders]
    assert eos[0] == eos[1] == eos[2]
    assert {0, 2} <= set(eos[0]), "what any member stops at"
    text = "The old bridge\n\n  was closed."
    ids = [tools.encode(folder, text) for folder in folders]
    assert ids[0] == ids[1] == ids[2]
    own = tools.encode(Path(models[1]), text)
    assert ids[0][1:] == own, "and bos is there for the one that needs it"
    for bos, added in (("auto", True), ("keep", False)):
        jobs = again(models, tmp_path / "out", bos=bos).jobs
        assert any(one.job.plan.change.bos_added for one in jobs) == added


def test_a_member_that_has_the_vocabulary_keeps_every_row(prepared: Path, models: list[str]) -> None:
    ensemble = read_ensemble(prepared)
    for n, matrices in ((1, tools.matrices_of("gpt-neox")), (2, tools.matrices_of("llama-tied"))):
        before, after = (tools.weights(folder) for folder in (Path(models[n]), ensemble.path_of(ensemble.members[n])))
        assert set(before) == set(after)
        for name, tensor in after.items():
            kept = before[name][:700] if name in matrices else before[name]
            assert tools.bits(tensor) == tools.bits(kept), name


def test_roles_do_not_move_the_rows_of_a_member_that_stays(model_of: Make, tmp_path: Path) -> None:
    """Two tokenizers of one vocabulary may call another token their eos; a transplant would follow the role."""
    owner = model_of("gpt-neox", **BYTE_LEVEL)
    other = copy_model(model_of("llama-tied", **BYTE_LEVEL), tmp_path / "other")
    config = read_json(other / "tokenizer_config.json")
    edit_json(other / "tokenizer_config.json", eos_token=config["bos_token"], bos_token=config["eos_token"])
    prepare_ensemble([str(owner), str(other)], str(owner), tmp_path / "out", init="subword")
    name = tools.matrices_of("llama-tied")[0]
    after = tools.weights(tmp_path / "out" / "other")[name]
    assert tools.bits(after) == tools.bits(tools.weights(other)[name])


def test_a_second_run_keeps_what_is_finished(prepared: Path, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "abc"
    shutil.copytree(prepared, out)
    before = tools.snapshot(out)
    plan = again(models, out)
    assert plan.ensemble.unfinished == ()
    plan.run()
    assert tools.snapshot(out) == before
    assert again(models, out, weights="1,1,2").run().weights == (0.25, 0.25, 0.5), "weights are no part of a member"
    assert read_ensemble(out).weights == (0.25, 0.25, 0.5)


@pytest.mark.parametrize("options", [{"memory": 1 << 27}, {"backend": "ray"}], ids=str)
def test_where_rows_are_computed_is_no_other_request(
    prepared: Path, models: list[str], options: dict[str, Any]
) -> None:
    if "backend" in options and find_spec("ray") is None:
        pytest.skip("the `distributed` extra is not installed")
    assert again(models, prepared, **options).ensemble.unfinished == ()


def test_a_run_that_was_stopped_goes_on(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "abc"
    plan = again(models, out)

    def stop(name: str, seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.run(done=stop)
    assert len([path for path in out.iterdir() if path.is_dir()]) == 1, "no half member"
    with pytest.raises(InputError) as found:
        read_ensemble(out)
    assert found.value.code == "unfinished-ensemble"
    plan = again(models, out)
    assert plan.ensemble.unfinished == tuple(job.name for job in plan.jobs[1:])
    stamp = (out / plan.jobs[0].name / "model.safetensors").stat().st_mtime_ns
    plan.run()
    assert (out / plan.jobs[0].name / "model.safetensors").stat().st_mtime_ns == stamp
    assert len(read_ensemble(out).members) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(TransplantJob, "run", lambda self: os.kill(os.getpid(), number))
    flags = ["--model", models[0], "--model", models[1], "--tokenizer", models[1], "--init", "subword"]
    said = run("ensemble", "prepare", *flags, "--out", tmp_path / "ab", "-q", status=128 + number).stderr
    assert said == "\ninterrupted: finished members stay; run the same command to continue\n"


def test_two_runs_into_one_folder(models: list[str], tmp_path: Path) -> None:
    plan = again(models, tmp_path / "abc")
    with held(tmp_path / "abc"), pytest.raises(OutputError) as found:
        plan.run()
    assert found.value.code == "output-in-use"
    assert list((tmp_path / "abc").iterdir()) == []
    assert len(plan.run().members) == 3


def test_a_member_whose_record_was_not_written_is_made_again(models: list[str], prepared: Path, tmp_path: Path) -> None:
    """Stopped between the rename of a member's folder and the line in ensemble.json."""
    out = tmp_path / "abc"
    shutil.copytree(prepared, out)
    whole = read_json(out / FILE)
    last = whole["members"][-1]
    last["files"] = {}
    edit_json(out / FILE, members=whole["members"], unfinished=[last["folder"]])
    assert again(models, out).ensemble.unfinished == (last["folder"],)
    assert again(models, out).run().members[-1].files


def damage(out: Path, name: str) -> None:
    path = out / name / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_content_decides_what_is_finished(prepared: Path, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "abc"
    shutil.copytree(prepared, out)
    name = read_ensemble(out).members[0].name
    damage(out, name)
    before = tools.snapshot(out)
    with pytest.raises(OutputError, match=r"model\.safetensors changed") as found:
        again(models, out)
    assert found.value.code == "output-exists"
    assert tools.snapshot(out) == before
    plan = again(models, out, force=True)
    assert plan.ensemble.unfinished == (name,)
    plan.run()
    assert tools.weights(out / name).keys() == tools.weights(prepared / name).keys()
    assert again(models, out).ensemble.unfinished == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"init": "mean"}, "another request"), ({"bos": "keep"}, "another request"), ({"seed": 3}, "another request")],
)
def test_another_request_does_not_take_over(
    prepared: Path, models: list[str], change: dict[str, Any], reason: str
) -> None:
    before = tools.snapshot(prepared)
    with pytest.raises(OutputError, match=reason) as found:
        again(models, prepared, **change)
    assert found.value.code == "output-exists"
    assert tools.snapshot(prepared) == before


def test_content_decides_what_the_same_source_is(prepared: Path, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "abc"
    shutil.copytree(prepared, out)
    moved = copy_model(Path(models[2]), tmp_path / "elsewhere" / "tuned")
    plan = again([*models[:2], str(moved)], out)
    assert plan.ensemble.unfinished == (), "the same files under another name"
    tools.rewrite(moved, lambda tensors: tensors["model.norm.weight"].mul_(2))
    with pytest.raises(OutputError, match=r"made from other weights than those of") as found:
        again([*models[:2], str(moved)], out)
    assert found.value.code == "output-exists"


def test_an_ensemble_of_others_is_not_taken_over(prepared: Path, models: list[str]) -> None:
    with pytest.raises(OutputError, match="other members") as found:
        plan_ensemble(models[:2], models[1], prepared, init="subword")
    assert found.value.code == "output-exists"


def test_a_folder_of_somebody_else_is_not_replaced(models: list[str], tmp_path: Path) -> None:
    name = again(models, tmp_path / "abc").jobs[0].name
    copy_model(Path(models[0]), tmp_path / "abc" / name)
    with pytest.raises(OutputError, match="not made by this request"):
        again(models, tmp_path / "abc")


def test_plans_write_nothing(models: list[str], tmp_path: Path) -> None:
    before = [tools.snapshot(Path(model)) for model in models]
    plan = again(models, tmp_path / "abc")
    assert [job.changes for job in plan.jobs] == [True, False, False]
    assert not (tmp_path / "abc").exists()
    assert [tools.snapshot(Path(model)) for model in models] == before


@pytest.mark.parametrize(
    ("architecture", "code"), [("bert", "not-causal"), ("t5", "not-causal"), ("bart", "not-causal")]
)
def test_other_kinds_of_models_are_refused(
    models: list[str], model_of: Make, tmp_path: Path, architecture: str, code: str
) -> None:
    with pytest.raises(InputError) as found:
        plan_ensemble([models[1], str(model_of(architecture))], models[1], tmp_path / "out")
    assert found.value.code == code
    assert not (tmp_path / "out").exists()


def _pictures(folder: Path) -> None:
    edit_json(folder / "config.json", vision_config={"hidden_size": 8})


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(("change", "code"), [(_pictures, "not-text-only"), (_no_weights, "missing-weights")])
def test_broken_members_are_refused(
    models: list[str], tmp_path: Path, change: Callable[[Path], None], code: str
) -> None:
    broken = copy_model(Path(models[1]), tmp_path / "broken")
    change(broken)
    with pytest.raises(InputError) as found:
        plan_ensemble([models[2], str(broken)], models[2], tmp_path / "out")
    assert (found.value.code, str(broken) in str(found.value)) == (code, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weights", "count"),
    [("1", 2), ("1,2,3", 2), ("1,-1", 2), ("1,0", 2), ("1,nan", 2), ("1,x", 2), ([1, float("inf")], 2)],
)
def test_bad_weights(weights: Any, count: int) -> None:
    with pytest.raises(UsageError) as found:
        read_weights(weights, count)
    assert found.value.code == "bad-weights"


def test_weights_add_up_to_one() -> None:
    assert read_weights(None, 4) == (0.25,) * 4
    assert read_weights("3, 1", 2) == (0.75, 0.25)


BAD_FILES: list[tuple[object, str]] = [
    ("{", "bad-ensemble"),
    ([], "bad-ensemble"),
    ({}, "bad-ensemble"),
    ({"members": []}, "bad-ensemble"),
    ({"members": "ab"}, "bad-ensemble"),
    ({"members": [{"weight": 1}]}, "bad-ensemble"),
    ({"members": [{"folder": 3}]}, "bad-ensemble"),
    ({"members": [{"folder": "a", "weight": "much"}]}, "bad-ensemble"),
    ({"members": [{"folder": "a"}, {"folder": "a"}]}, "bad-ensemble"),
    ({"members": [{"folder": "a", "weight": -1}]}, "bad-weights"),
    ({"members": [{"folder": "gone"}]}, "missing-member"),
    ({"members": [{"folder": "../b"}]}, "outside-member"),
    ({"members": [{"folder": ".."}]}, "outside-member"),
    ({"members": [{"folder": "/tmp"}]}, "outside-member"),
    ({"members": [{"folder": "a/x"}]}, "outside-member"),
    ({"members": [{"folder": "link"}]}, "outside-member"),
    ({"members": [{"folder": "a"}], "unfinished": ["a"]}, "unfinished-ensemble"),
]


@pytest.mark.parametrize(("content", "code"), BAD_FILES)
def test_damaged_lists_are_refused(tmp_path: Path, content: object, code: str) -> None:
    folder = tmp_path / "ensemble"
    (folder / "a" / "x").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (folder / "link").symlink_to(tmp_path / "b")
    (folder / FILE).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(TokswapError) as found:
        read_ensemble(folder)
    assert found.value.code == code


def test_a_list_by_hand_will_do(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / FILE).write_text('{"members": [{"folder": "a", "weight": 3}, {"folder": "b"}]}', encoding="utf-8")
    assert read_ensemble(tmp_path).weights == (0.75, 0.25)
    with pytest.raises(InputError, match="no ensemble") as found:
        read_ensemble(tmp_path / "a")
    assert found.value.code == "missing-ensemble"


# The tokenizer that costs least.


def test_auto_takes_the_tokenizer_that_costs_least(models: list[str], tmp_path: Path) -> None:
    texts = {"english": shipped_text("english")[:400]}
    assert candidates(models) == models[:2], "one for each vocabulary"
    out = tmp_path / "abc"
    choice = choose_tokenizer(models, texts, out, MemberOptions(init="subword"))
    tried = choice["tried"]
    assert {one["tokenizer"] for one in tried} == set(models[:2])
    for one in tried:
        assert one["total"] == pytest.approx(sum(one["excess"].values()))
    assert choice["tokenizer"] == min(tried, key=lambda one: one["total"])["tokenizer"]
    of_first = next(one for one in tried if one["tokenizer"] == models[0])
    names = list(of_first["excess"])
    assert of_first["excess"][names[0]] == 0, "its own tokenizer costs a model nothing"
    assert of_first["made"][names[1]] > 0
    assert of_first["excess"][names[1]] != 0
    assert list(tmp_path.iterdir()) == [], "nothing is left of the candidates"
    plan = plan_ensemble(models, choice["tokenizer"], out, choice={**choice, "tokenizer": "kept"}, init="subword")
    plan.ensemble.write()
    assert choose_tokenizer(models, texts, out, MemberOptions(init="subword"))["tokenizer"] == "kept", "not asked again"
    assert choose_tokenizer(models, texts, out, MemberOptions(init="mean"))["tokenizer"] in models[:2], (
        "another question"
    )
    (out / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(InputError) as found:
        choose_tokenizer(models, texts, out, MemberOptions(init="mean"))
    assert found.value.code == "bad-ensemble"


def test_auto_on_the_command_line(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text(shipped_text("english")[:400], encoding="utf-8")
    flags = [
        "ensemble",
        "prepare",
        "--model",
        models[0],
        "--model",
        models[1],
        "--tokenizer",
        "auto",
        "--init",
        "subword",
    ]
    dry = run(*flags, "--out", "ab", "--dry-run")
    assert dry.stdout.count("ensemble: ab") == 2, "a plan for each candidate"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert one_document(run(*flags, "--out", "ab", "--json", status=2).stdout)["error"]["code"] == "missing-text"
    done = run(*flags, "--out", "ab", "--text", "notes.txt", "--json")
    document = one_document(done.stdout)
    assert document["tokenizer"] == document["choice"]["tokenizer"]
    assert "excess of the members with each tokenizer, bits per byte on" in done.stderr
    again = run(*flags, "--out", "ab", "--text", "notes.txt")
    assert "2 kept" in again.stdout


def test_prepare_on_the_command_line(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [
        "ensemble",
        "prepare",
        "--model",
        models[0],
        "--model",
        models[1],
        "--tokenizer",
        models[1],
        "--out",
        "a b",
        "--init",
        "subword",
    ]
    dry = run(*flags, "--dry-run")
    assert "none: it has this vocabulary" in dry.stdout
    assert "initialised by subword" in dry.stdout
    assert list(tmp_path.iterdir()) == []
    plans = one_document(run(*flags, "--dry-run", "--json").stdout)
    assert len(plans["plans"]) == 2
    assert plans["ensemble"]["unfinished"] == list(plans["plans"])
    assert "next: tokswap ensemble check 'a b'" in run(*flags).stdout
    assert run(*flags, "-q").stdout == "a b\n"
    wrong = run("ensemble", "prepare", "--model", models[0], "--tokenizer", models[1], "--out", "x", "--json", status=2)
    assert one_document(wrong.stdout)["error"]["code"] == "too-few-members"


def test_options_reach_the_members_whose_vocabulary_changes(models: list[str], tmp_path: Path) -> None:
    plan = plan_ensemble(
        models[:2],
        models[1],
        tmp_path / "out",
        init="subword",
        settings={"weights": "last"},
        output_init="mean",
        seed=4,
    )
    changed, kept = (job.job.plan.request for job in plan.jobs)
    assert (changed.settings["weights"], changed.output_method, changed.options["seed"]) == ("last", "mean", 4)
    assert (kept.method, kept.output_method) == ("mean", None)
    assert np.array_equal(plan.jobs[1].job.task.alignment.source_of, np.arange(700))
    assert dataclasses.replace(plan.jobs[0]).digest == plan.jobs[0].digest
    lent = plan_ensemble(models[:2], models[1], tmp_path / "out", init="omp", donor=models[2])
    assert [job.job.plan.names.donor for job in lent.jobs] == [models[2], None]


def test_plans_count_what_all_members_hold(models: list[str], tmp_path: Path) -> None:
    """The source tokenizers of all members are in memory while one of them is made."""
    two, three = (plan_ensemble(models[:count], models[1], tmp_path / str(count), init="subword") for count in (2, 3))
    more = [
        b.job.plan.estimate.memory_bytes - a.job.plan.estimate.memory_bytes
        for a, b in zip(two.jobs, three.jobs[:2], strict=True)
    ]
    assert more == [tokenizer_bytes(three.jobs[2].job.task.source.tokenizer)] * 2


def test_no_tokenizer_is_read_twice(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def reading(path: Path, **options: Any) -> Tokenizer:
        read.append(path)
        return read_tokenizer(path, **options)

    monkeypatch.setattr("tokswap.checkpoint.source.read_tokenizer", reading)
    job = plan_ensemble(models, models[1], tmp_path / "out", init="subword")
    assert len(read) == 4, "of each model, and the shared one"
    assert len({id(member.job.task.target.spec) for member in job.jobs}) == 1
