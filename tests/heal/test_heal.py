from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
import torch
from click.testing import CliRunner
from makers import copy_model, edit_json, shipped_text
from transformers import AutoModelForCausalLM

import tokswap
from tokswap.cli import main
from tokswap.cli._heal_text import report_lines
from tokswap.errors import InputError, OutputError, TokswapError
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.heal.amount import fitting
from tokswap.heal.inputs import open_inputs
from tokswap.heal.options import HealOptions
from tokswap.storage.atomic import held

Make = Callable[..., Path]

TEXT = (shipped_text("english") + shipped_text("german")) * 4
# Random models learn slowly: large steps, and many of them.
QUICK_ROWS = {"batch_tokens": 128, "embedding_rate": 0.1, "epochs": 1}
QUICK = {**QUICK_ROWS, "rate": 0.02}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT[:10_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def swapped(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model with another tokenizer, made once for each architecture."""
    made: dict[str, Path] = {}

    def make(architecture: str, **more: object) -> Path:
        if architecture not in made:
            out = tmp_path_factory.mktemp("swapped") / architecture
            source = model_of(architecture, vocab_size=640, **more)
            target = model_of("gpt-neox", vocab_size=700, seed=5)
            tokswap.transplant_tokenizer(str(source), str(target), init="subword", out=out)
            made[architecture] = out
        return made[architecture]

    return make


def loss(folder: Path, text: Path) -> float:
    model, tokenizer = load_model(folder)
    return bits_per_byte(model, tokenizer, text.read_text("utf-8")[:6000], window=100, overlap=20).bits_per_byte


@pytest.mark.parametrize("architecture", ["llama-tied", "llama", "gpt2", "gemma3"])
def test_a_healed_model_predicts_the_text_better(
    architecture: str, text: Path, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    student = swapped(architecture)
    before = tools.snapshot(student)
    report = tokswap.heal_model(student, [text], out=tmp_path / "out", **QUICK)
    assert report.healing["excess_after"]["all"] < report.healing["excess_before"]["all"]
    assert loss(tmp_path / "out", text) < loss(student, text)
    assert tools.snapshot(student) == before
    old, new = tools.weights(student), tools.weights(tmp_path / "out")
    assert {name: one.shape for name, one in old.items()} == {name: one.shape for name, one in new.items()}
    assert {name for name in new if tools.bits(new[name]) != tools.bits(old[name])} == set(report.tensors)
    document = json.loads((tmp_path / "out/tokswap.json").read_text("utf-8"))
    assert document["healed"] == list(report.tensors)
    assert document["tokens"] == json.loads((student / "tokswap.json").read_text("utf-8"))["tokens"]
    assert "## Healing" in (tmp_path / "out/README.md").read_text("utf-8")
    source = document["plan"]["model"]
    assert [check for check in tokswap.verify_checkpoint(tmp_path / "out", against=source) if not check.ok] == []


@pytest.mark.parametrize("train", ["embeddings", "full"])
def test_what_learns_is_what_changes(train: str, text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    student = copy_model(swapped("llama-tied"), tmp_path / "student")
    if train == "embeddings":  # in files of their own
        (student / "model.safetensors").unlink()
        AutoModelForCausalLM.from_pretrained(swapped("llama-tied")).save_pretrained(student, max_shard_size=100_000)
    tokswap.heal_model(
        student, [text], out=tmp_path / "out", train=train, link=True, **(QUICK if train == "full" else QUICK_ROWS)
    )
    old, new = tools.weights(student), tools.weights(tmp_path / "out")
    changed = {name for name in new if tools.bits(new[name]) != tools.bits(old[name])}
    assert changed == ({"model.embed_tokens.weight"} if train == "embeddings" else set(new))
    links = [file.stat().st_nlink for file in sorted((tmp_path / "out").glob("*.safetensors"))]
    assert sorted(links) == ([1, 2] if train == "embeddings" else [1])


def test_activations_are_computed_twice_on_demand(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short: the result is the same."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    calls, forward = [0], LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, given: calls.append(self.training) or forward(self, given))
    counts = []
    for twice in (False, True):
        out = tmp_path / str(twice)
        tokswap.heal_model(swapped("llama"), [text], out=out, gradient_checkpointing=twice, **{**QUICK, "top": 4})
        counts.append(sum(calls))
        calls.clear()
    assert counts[1] == 2 * counts[0]
    once, again = (tools.weights(tmp_path / name) for name in ("False", "True"))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_new_rows_alone(text: Path, swapped: Callable[[str], Path], model_of: Make, tmp_path: Path) -> None:
    student = swapped("llama")
    report = tokswap.heal_model(student, [text], out=tmp_path / "out", train="new", **QUICK_ROWS)
    assert report.healing["excess_after"]["all"] < report.healing["excess_before"]["all"]
    old, new = tools.weights(student), tools.weights(tmp_path / "out")
    changed = {name for name in new if tools.bits(new[name]) != tools.bits(old[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}
    tokens = json.loads((student / "tokswap.json").read_text("utf-8"))["tokens"]
    made = np.array(tokens["reason"]) == tokens["reasons"]["missing"]
    for name in changed:
        same = (old[name] == new[name]).all(1).numpy()
        assert not made.all()
        assert same[~made].all()
        assert not same[made].all()
    source = json.loads((student / "tokswap.json").read_text("utf-8"))["plan"]["model"]
    checks = {check.name: check for check in tokswap.verify_checkpoint(tmp_path / "out", against=source)}
    assert checks["copied rows"].ok
    assert "in 2 tensors equal the source's" in checks["copied rows"].detail
    plain = model_of("llama", vocab_size=640)
    with pytest.raises(TokswapError) as caught:
        tokswap.heal_model(plain, [text], teacher=plain, out=tmp_path / "none", train="new")
    assert caught.value.code == "no-new-rows"


def test_the_rate_fits_the_width(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    """0.001 at 640, and about a quarter of that in models of 4,096 (LoRA Without Regret: 2.9e-4 in Llama models)."""
    options = HealOptions()
    assert options.rate_at(640) == pytest.approx(1e-3)
    assert options.rate_at(4096) == pytest.approx(2.35e-4, rel=0.01)
    assert HealOptions(train="full").rate_at(640) == pytest.approx(1e-4)
    assert HealOptions(rate=3e-3).rate_at(64) == 3e-3
    student, width = swapped("llama"), 32
    quick = {**QUICK, "epochs": 4, "rate": None}
    report = tokswap.heal_model(student, [text], out=tmp_path / "fitting", **quick)
    assert report.plan.train["rate"] == pytest.approx(1e-3 * 20**0.78) == options.rate_at(width)
    tokswap.heal_model(student, [text], out=tmp_path / "given", **{**quick, "rate": options.rate_at(width)})
    fitting, given = (tools.snapshot(tmp_path / name)["model.safetensors"] for name in ("fitting", "given"))
    assert fitting == given


@pytest.mark.parametrize("copies", [True, False])
def test_matrices_of_layers_that_predict_further_tokens(
    copies: bool, text: Path, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    """transformers does not load them. They were overwritten with those of the model; only copies follow it."""
    further = {
        "model.layers.2.embed_tokens.weight": "model.embed_tokens.weight",
        "model.layers.2.shared_head.head.weight": "lm_head.weight",
    }
    student = copy_model(swapped("llama"), tmp_path / "student")
    tools.rewrite(
        student, lambda all: all.update({new: all[own] * (1 if copies else 2) for new, own in further.items()})
    )
    report = tokswap.heal_model(student, [text], out=tmp_path / "out", train="embeddings", **QUICK_ROWS)
    old, new = tools.weights(student), tools.weights(tmp_path / "out")
    changed = {name for name in new if tools.bits(new[name]) != tools.bits(old[name])}
    assert changed == {*further.values(), *(further if copies else ())}
    assert set(report.tensors) == changed
    for name, own in further.items() if copies else ():
        assert tools.bits(new[name]) == tools.bits(new[own])


def test_half_precision_stays_so(text: Path, model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640, dtype="bfloat16")
    tokswap.transplant_tokenizer(source, model_of("gpt2", vocab_size=700), init="subword", out=tmp_path / "student")
    tokswap.heal_model(tmp_path / "student", [text], out=tmp_path / "out", **QUICK)
    assert {str(one.dtype) for one in tools.weights(tmp_path / "out").values()} == {"torch.bfloat16"}


def test_several_weight_files(text: Path, model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640, shards=3)
    tokswap.transplant_tokenizer(source, model_of("gpt2", vocab_size=700), init="subword", out=tmp_path / "student")
    report = tokswap.heal_model(tmp_path / "student", [text], out=tmp_path / "out", **QUICK)
    old, new = tools.weights(tmp_path / "student"), tools.weights(tmp_path / "out")
    assert {name for name in new if tools.bits(new[name]) != tools.bits(old[name])} == set(report.tensors)
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_a_loaded_model_gives_the_same_weights_as_its_folder(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    student = swapped("llama-tied")
    source = json.loads((student / "tokswap.json").read_text("utf-8"))["plan"]["model"]
    tokswap.heal_model(student, [text], out=tmp_path / "out", **QUICK)
    loaded = load_model(student)
    before = {name: one.clone() for name, one in loaded[0].state_dict().items()}
    report = tokswap.heal_model(loaded, [text], teacher=load_model(source), **QUICK)
    assert report.path is None
    model, tokenizer = report.load()
    assert tokenizer is loaded[1]
    assert all(torch.equal(one, before[name]) for name, one in loaded[0].state_dict().items())
    written = tools.weights(tmp_path / "out")
    for name, one in written.items():
        assert torch.equal(model.state_dict()[name], one), name
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert "excess" in repr(report)
    assert "<table>" in report._repr_html_()


def test_a_cache_that_cannot_be_written(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError) as caught:
        tokswap.heal_model(swapped("llama"), [text], out=tmp_path / "out", **QUICK)
    assert caught.value.code == "cannot-write"
    assert "TOKSWAP_CACHE" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_same_healing_twice_at_once(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error said to choose another --out, which the user had done."""
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    job = tokswap.plan_heal(swapped("llama"), [text], out=tmp_path / "out", **QUICK)
    with held(tmp_path / "cache" / "heal" / f"run-{job._key()}"), pytest.raises(OutputError) as caught:
        job.run()
    assert caught.value.code == "output-in-use"
    assert "the same model with the same text" in caught.value.message
    assert "--out" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses what transformers deprecates
def test_a_model_in_an_adapter(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    """It teaches as it predicts, and cannot be healed before the adapter is merged."""
    from peft import LoraConfig, get_peft_model

    student = swapped("llama")
    source = json.loads((student / "tokswap.json").read_text("utf-8"))["plan"]["model"]
    found = {}
    for seed in (1, 2):
        model, tokenizer = load_model(source)
        torch.manual_seed(seed)
        adapter = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        wrapped = get_peft_model(model, adapter).eval()
        with pytest.raises(TokswapError) as caught:
            tokswap.plan_heal((wrapped, tokenizer), [text], teacher=source)
        assert caught.value.code == "wrapped-model"
        one = tokswap.heal_model(student, [text], teacher=(wrapped, tokenizer), out=tmp_path / f"a{seed}", **QUICK)
        merged = (wrapped.merge_and_unload(), tokenizer)
        two = tokswap.heal_model(student, [text], teacher=merged, out=tmp_path / f"b{seed}", **QUICK)
        found[seed] = [report.healing["teacher_bits_per_byte"] for report in (one, two)]
        assert found[seed][0] == pytest.approx(found[seed][1], abs=1e-3)
        left = [report.healing["excess_after"]["all"] for report in (one, two)]
        assert left[0] == pytest.approx(left[1], abs=0.02)
    assert abs(found[1][0] - found[2][0]) > 1e-3


def test_the_same_seed_gives_the_same_file(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        tokswap.heal_model(swapped("llama"), [text], out=tmp_path / name, seed=seed, **QUICK)
    one, two, three = (tools.snapshot(tmp_path / name)["model.safetensors"] for name in ("one", "two", "three"))
    assert one == two
    assert one != three


@pytest.mark.parametrize(
    "architecture", ["llama-tied", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "gpt2"))]
)
def test_an_adapter_beside_the_model(
    architecture: str, text: Path, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    student = swapped(architecture)
    tokswap.heal_model(student, [text], out=tmp_path / "merged", **QUICK)
    report = tokswap.heal_model(student, [text], out=tmp_path / "adapter", save="adapter", **QUICK)
    assert (tmp_path / "adapter/adapter_config.json").is_file()
    assert "AutoPeftModel" in report_lines(report)[-1]
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(tmp_path / "adapter", [text])
    assert "PEFT adapter" in caught.value.hint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses what transformers deprecates
        model = PeftModel.from_pretrained(load_model(student)[0], str(tmp_path / "adapter")).eval()
        loaded, tokenizer = report.load()
    merged = load_model(tmp_path / "merged")[0]
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, merged(ids).logits, atol=1e-4)
        assert torch.allclose(loaded.eval()(ids).logits, merged(ids).logits, atol=1e-4)
    assert len(tokenizer) == 700


def test_targets_are_those_of_the_students_own_ids(text: Path, model_of: Make, tmp_path: Path) -> None:
    """Two tokenizers can give a text the same ids, and other ids to what the teacher expects besides."""
    from tokswap.heal.stages import teach
    from tokswap.heal.team import Team

    source = model_of("llama", vocab_size=640)
    first = copy_model(source, tmp_path / "first")
    second = copy_model(source, tmp_path / "second")
    spec = json.loads((second / "tokenizer.json").read_text("utf-8"))
    used = set(tokswap.read_tokenizer(source).encode(text.read_text("utf-8")))
    vocab = spec["model"]["vocab"]
    free = [token for token, number in vocab.items() if number not in used and number > 300]
    numbers = [vocab[token] for token in free]
    vocab |= dict(zip(free, numbers[1:] + numbers[:1], strict=True))
    (second / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    found = []
    for student in (first, second):
        inputs = tokswap.plan_heal(student, [text], teacher=source, out=tmp_path / "out").inputs
        store = teach(inputs, tmp_path / "cache", Team()).store
        assert store is not None
        found.append(store.ids)
    assert len(free) > 2
    assert (found[0] != found[1]).any()


def test_what_a_loaded_teacher_has_read_is_used_again(
    text: Path, swapped: Callable[[str], Path], model_of: Make, tmp_path: Path
) -> None:
    from tokswap.heal.stages import teach
    from tokswap.heal.team import Team

    student, source = swapped("llama"), model_of("llama", vocab_size=640)

    def taught(change: float) -> list[str]:
        model, tokenizer = load_model(source)
        with torch.no_grad():
            model.get_input_embeddings().weight[7] += change
        job = tokswap.plan_heal(student, [text], teacher=(model, tokenizer), out=tmp_path / "out")
        teach(job.inputs, tmp_path / "cache", Team())
        return sorted(path.name for path in (tmp_path / "cache").iterdir())

    first = taught(0)
    assert taught(0) == first
    assert len(taught(1)) == 2 * len(first)


def test_a_student_with_the_vocabulary_of_its_teacher(text: Path, model_of: Make, tmp_path: Path) -> None:
    """As after `draft`: another body, one vocabulary."""
    student, teacher = model_of("llama", vocab_size=640), model_of("llama", vocab_size=640, seed=9)
    report = tokswap.heal_model(student, [text], teacher=teacher, out=tmp_path / "out", **QUICK)
    assert report.healing["teaching"]["projected"] > 0.97, "all but the first token of a text"
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "## Healing" in card
    page = CliRunner().invoke(main, ["report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html")])
    assert page.exit_code == 0, page.output


def test_a_training_that_was_killed_goes_on(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokswap.heal import train

    student = swapped("llama-tied")
    undisturbed = tokswap.heal_model(student, [text], out=tmp_path / "whole", **QUICK)
    compute = train.HealTrainer.compute_loss
    seen: list[int] = []

    def dies(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(self.state.global_step)
        if self.state.global_step == 40:
            raise KeyboardInterrupt
        return compute(self, *given, **named)

    monkeypatch.setattr(train.HealTrainer, "compute_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        tokswap.heal_model(student, [text], out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(
        train.HealTrainer,
        "compute_loss",
        lambda self, *given, **named: (seen.append(self.state.global_step), compute(self, *given, **named))[1],
    )
    seen.clear()
    report = tokswap.heal_model(student, [text], out=tmp_path / "out", **QUICK)
    assert 0 < seen[0] <= 40, "it began at a checkpoint"
    whole, out = (tools.snapshot(tmp_path / name)["model.safetensors"] for name in ("whole", "out"))
    assert whole == out
    for known in ("loss", "excess_after", "steps", "tokens"):
        assert report.healing.get(known) == undisturbed.healing.get(known), "the report knows the steps before"


# Text.


def test_text_in_json_lines_folders_and_packed(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [text.read_text("utf-8")[n : n + 900] for n in range(0, 9000, 900)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in lines), encoding="utf-8")
    plan = tokswap.plan_heal(swapped("llama"), [folder], field="body", out=tmp_path / "out").plan
    assert plan.text["bytes"] > 5000
    assert plan.text["held_out"] >= 3
    assert plan.estimate.memory_bytes > 0


def test_the_teacher_writes_the_text(swapped: Callable[[str], Path], tmp_path: Path) -> None:
    written = {"self_text": 12_000, "self_text_languages": ["de"]}
    report = tokswap.heal_model(swapped("llama-tied"), [], out=tmp_path / "out", **written, **QUICK)
    assert report.healing["text"]["written_by_the_teacher"] == report.healing["text"]["bytes"] > 6000
    assert report.healing["steps"] > 0


def test_the_teacher_writes_more_text(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    report = tokswap.heal_model(swapped("llama-tied"), [text], self_text=8_000, out=tmp_path / "out", **QUICK)
    found = report.healing["text"]
    assert 6000 < found["written_by_the_teacher"] < found["bytes"]
    assert set(report.healing["excess_after"]) == {"all", "text.txt"}


def test_minutes_limit_the_text(text: Path, swapped: Callable[[str], Path]) -> None:
    def kept(minutes: float | None, seconds: float) -> int:
        inputs = open_inputs(swapped("llama-tied"), [text], HealOptions(minutes=minutes))
        assert inputs.text is not None
        return len(fitting(inputs, inputs.text, seconds).training)

    whole = kept(None, 1.0)
    assert kept(60, 1.0) == whole
    assert 1 < kept(1, 1.0) < whole, "a second for the held-out text, and a minute in all"
    assert kept(0.1, 100.0) == 1
    plans = [tokswap.plan_heal(swapped("llama-tied"), [text], minutes=n).plan for n in (0.1, 60)]
    seconds = [plan.estimate.seconds for plan in plans]
    assert "reads what fits into 60 min of the text, most of it where the tokenizers differ" in plans[1].notes
    assert seconds[0] == 6
    assert seconds[1] < 600, "a short text does not take the hour that is allowed"


def test_minutes_choose_what_the_tokenizers_split_differently(swapped: Callable[[str], Path], tmp_path: Path) -> None:
    """Of a text and of conversations that do not fit into the time, the text is drawn by its differences."""
    model, chat = swapped("llama-tied"), tmp_path / "chat.jsonl"
    path = tmp_path / "text.txt"
    path.write_text(shipped_text("english") + shipped_text("german"), "utf-8")
    inputs = open_inputs(model, [path], HealOptions(minutes=1))
    assert inputs.text is not None
    passages = inputs.text.training
    drawn: Counter[object] = Counter()
    for seed in range(60):
        options = HealOptions(minutes=1, seed=seed, chats=[chat])
        # Every third passage is from a conversation, and every other text is split alike.
        named = [replace(one, name=chat.name) if n % 3 == 0 else one for n, one in enumerate(passages)]
        alike = [replace(one, student=one.teacher) if n % 2 == 0 else one for n, one in enumerate(named)]
        some = fitting(replace(inputs, options=options), replace(inputs.text, training=tuple(alike)), 1.0).training
        assert len(some) < len(passages) / 2
        drawn.update("chat" if one.name == chat.name else one.differences > 0 for one in some)
    size = sum(drawn.values())
    assert drawn[False] == 0, "what is split alike comes last"
    assert abs(drawn["chat"] / size - 1 / 3) < 0.1, "conversations keep their share"


def test_a_passage_that_occurs_twice_is_not_judged_and_learnt(model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama", vocab_size=640)
    path = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": f"{n} ferries left the old harbour."}) for n in range(20)]
    path.write_text("\n".join([*lines, *(lines[7:13] * 30)]), "utf-8")
    text = tokswap.plan_heal(model, [path], teacher=model, out=tmp_path / "out").inputs.text
    assert text is not None
    learnt, judged = ({one.student.ids.tobytes() for one in part} for part in (text.training, text.held_out))
    assert len(judged) == len(text.held_out) == 3
    assert not learnt & judged
    assert len(learnt) == 17, "what is not judged is learnt as often as it occurs"
    assert len(text.training) > 100
    path.write_text("\n".join(lines[:4] * 50), "utf-8")
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(model, [path], teacher=model, out=tmp_path / "out")
    assert caught.value.code == "text-too-small"


def test_conversations(text: Path, model_of: Make, tmp_path: Path) -> None:
    from makers import CHAT_TEMPLATE

    source = model_of("llama", vocab_size=640)
    target = model_of("gpt2", vocab_size=700, chat_template=CHAT_TEMPLATE)
    tokswap.transplant_tokenizer(source, target, init="subword", out=tmp_path / "student")
    talk = [{"role": "user", "content": "Where is the harbour?"}, {"role": "assistant", "content": "Down the hill."}]
    chats = tmp_path / "chats.jsonl"
    talks = [[{**talk[0], "content": f"Where is harbour {n}?"}, talk[1]] for n in range(40)]
    chats.write_text("".join(json.dumps({"messages": one}) + "\n" for one in talks), encoding="utf-8")
    report = tokswap.heal_model(tmp_path / "student", [text], chats=[chats], out=tmp_path / "out", **QUICK)
    assert "chats.jsonl" in report.healing["excess_after"]
    for teacher, told in ((source, False), (model_of("llama", vocab_size=640, chat_template=CHAT_TEMPLATE), True)):
        plan = tokswap.plan_heal(tmp_path / "student", [text], teacher=teacher, out=tmp_path / "out2").plan
        assert any("has no conversations" in note for note in plan.notes) is told, "a base model has no chat to lose"
    assert not any("has no conversations" in note for note in report.plan.notes)
    chats.write_text('{"messages": 3}\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(tmp_path / "student", [text], chats=[chats], out=tmp_path / "out2")
    assert caught.value.code == "bad-chat"


# As the last step of other commands.


@pytest.mark.parametrize("loaded", [False, True])
def test_the_last_step_of_a_transplant(loaded: bool, text: Path, model_of: Make, tmp_path: Path) -> None:
    source, target = model_of("llama-tied", vocab_size=640), model_of("gpt-neox", vocab_size=700, seed=5)
    out = None if loaded else tmp_path / "out"
    model = load_model(source) if loaded else source
    report = tokswap.transplant_tokenizer(model, target, init="subword", heal=[text], out=out)
    found = report.evidence.get("healing")
    if found is None:  # a random model may learn nothing at the usual rates
        assert any("healing did not help" in note for note in report.notes)
    else:
        assert found["excess_after"]["all"] < found["excess_before"]["all"]
    assert report.load()[0].config.vocab_size == 700
    if out is not None:
        assert ("heal" in json.loads((out / "tokswap.json").read_text("utf-8"))) == (found is not None)
        assert [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok] == []


def test_the_last_step_of_a_draft_and_of_a_trim(text: Path, model_of: Make, tmp_path: Path) -> None:
    source, target = model_of("llama-tied", vocab_size=640), model_of("gpt-neox", vocab_size=700, seed=5)
    draft = tokswap.make_draft(source, target, init="subword", distill=[text], out=tmp_path / "draft")
    assert draft.evidence["healing"]["teaching"]["projected"] > 0.97, "the target is the teacher"
    assert json.loads((tmp_path / "draft" / "tokswap.json").read_text("utf-8"))["heal"]["teacher"] == str(target)
    again = tokswap.plan_heal(tmp_path / "draft", [text], out=tmp_path / "again").plan
    assert any(f"--teacher {target} names its target" in note for note in again.notes)
    trimmed = tokswap.trim_vocabulary(source, corpora=[str(text)], heal=[text], out=tmp_path / "trimmed")
    assert "healing" in trimmed.evidence or any("healing did not help" in note for note in trimmed.notes)


# The command line.


def test_a_gguf_file_holds_the_healed_model(text: Path, model_of: Make, tmp_path: Path) -> None:
    from gguf import GGUFReader

    source, target = model_of("llama", vocab_size=640), model_of("gpt-neox", vocab_size=700, seed=5)
    file, out = tmp_path / "model.gguf", tmp_path / "out"
    report = tokswap.make_draft(source, target, init="subword", out=out, distill=[text], gguf=file, gguf_type="f32")
    assert "healing" in report.evidence
    rows = next(one.data for one in GGUFReader(file).tensors if one.name == "token_embd.weight")
    assert np.array_equal(rows, tools.weights(out)["model.embed_tokens.weight"].float().numpy())


def test_the_command(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    student = swapped("llama-tied")
    out = tmp_path / "with a space"
    args = ["heal", str(student), "--text", str(text), "--out", str(out)]
    rates = ["--rate", "0.02", "--embedding-rate", "0.1", "--batch-tokens", "128"]
    dry = CliRunner().invoke(main, [*args, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "of memory and" in dry.stdout
    assert not out.exists()
    page = tmp_path / "page.html"
    done = CliRunner().invoke(main, [*args, *rates, "--report", str(page)])
    assert done.exit_code == 0, done.output
    assert "excess on held-out text" in done.stdout
    assert f"next: tokswap eval '{out}' --against " in done.stdout
    assert "Excess on held-out text" in page.read_text("utf-8")
    again = CliRunner().invoke(main, [*args, *rates, "--force", "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["heal"]["steps"] > 0


# What can go wrong.


def test_a_healing_that_does_not_help_writes_nothing(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    args = ["heal", str(swapped("llama")), "--text", str(text), "--out", str(tmp_path / "out"), "--rate", "3"]
    done = CliRunner().invoke(main, [*args, "--embedding-rate", "30"])
    assert done.exit_code == 1
    assert "[not-better]" in done.stderr or "[training-diverged]" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokswap.heal.student import Student

    forward, calls = Student.forward, []

    def breaks(at: int) -> Callable[..., Any]:
        def broken(self: Any, *given: Any, **named: Any) -> Any:
            found = forward(self, *given, **named)
            calls.append(1)
            return {**found, "loss": found["loss"] * (float("nan") if len(calls) >= at else 1.0)}

        return broken

    monkeypatch.setattr(Student, "forward", breaks(30))
    report = tokswap.heal_model(swapped("llama-tied"), [text], out=tmp_path / "out", **QUICK)
    assert report.healing["stopped"].startswith("the loss of step 30 is not finite")
    calls.clear()
    monkeypatch.setattr(Student, "forward", breaks(2))
    with pytest.raises(InputError) as caught:
        tokswap.heal_model(swapped("llama-tied"), [text], out=tmp_path / "none", **QUICK)
    assert caught.value.code == "training-diverged"
    assert "step 2" in str(caught.value)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-text"),
        (b" \n ", "empty-text"),
        (b"A short text.", "text-too-small"),
        (b"\x00\x01\x02\x00" * 5000, "bad-text"),
        (b"\xff\xfe\x00\x80" * 5000, "bad-text"),
        (None, "bad-text"),
    ],
    ids=["empty", "space", "short", "zeros", "binary", "missing"],
)
def test_texts_that_cannot_be_used(
    content: bytes | None, code: str, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    for call in (
        lambda: tokswap.plan_heal(swapped("llama"), [path], out=tmp_path / "out"),
        lambda: tokswap.plan_transplant(swapped("llama"), swapped("gpt2"), heal=[path], out=tmp_path / "out"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_changes_the_text(text: Path, model_of: Make, tmp_path: Path) -> None:
    teacher = model_of("llama", family="unigram", vocab_size=500)  # joins spaces and line ends
    path = tmp_path / "text.txt"
    path.write_text(shipped_text("code") * 10, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(model_of("llama-tied", vocab_size=640), [path], teacher=teacher, out=tmp_path / "out")
    assert caught.value.code == "text-changed"


@pytest.mark.parametrize("lossy", ["teacher", "student"])
def test_passages_that_one_tokenizer_changes_are_left_out(lossy: str, model_of: Make, tmp_path: Path) -> None:
    plain = model_of("llama", vocab_size=640)
    lower = copy_model(plain, tmp_path / "lower")
    edit_json(lower / "tokenizer.json", normalizer={"type": "Lowercase"})
    parts = [TEXT[at : at + 900] for at in range(0, 9900, 900)]
    changed = ["".join(filter(str.isalpha, part)).upper() for part in parts[:2]]
    texts = [*(part.lower() for part in parts), *changed]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": one}) for one in texts), encoding="utf-8")
    teacher, student = (lower, plain) if lossy == "teacher" else (plain, lower)
    plan = tokswap.plan_heal(student, [path], teacher=teacher, out=tmp_path / "out").plan
    assert f"left out: {sum(map(len, changed)):,} bytes of text that one of the tokenizers changes" in plan.notes


def test_requests_that_are_wrong(text: Path, model_of: Make, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    plain = model_of("llama", vocab_size=640)
    moved = copy_model(swapped("llama"), tmp_path / "moved")
    document = json.loads((moved / "tokswap.json").read_text("utf-8"))
    document["plan"]["model"] = str(tmp_path / "gone")
    (moved / "tokswap.json").write_text(json.dumps(document), encoding="utf-8")
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("missing-text", lambda: tokswap.plan_heal(swapped("llama"), [])),
        ("missing-teacher", lambda: tokswap.plan_heal(plain, [text])),
        ("missing-teacher", lambda: tokswap.plan_heal(moved, [text])),
        ("bad-setting", lambda: tokswap.plan_heal(swapped("llama"), [text], kl=0, cross_entropy=0)),
        ("idle-option", lambda: tokswap.plan_heal(swapped("llama"), [text], kl=0, top=8)),
        ("bad-setting", lambda: tokswap.plan_heal(swapped("llama"), [text], save="adapter", train="full")),
        ("output-is-source", lambda: tokswap.plan_heal(swapped("llama"), [text], out=swapped("llama"), force=True)),
        ("output-exists", lambda: tokswap.plan_heal(swapped("llama"), [text], out=moved)),
    ]
    for code, call in wrong:
        with pytest.raises(TokswapError) as caught:
            call()
        assert caught.value.code == code


def test_models_that_cannot_be_trained(
    text: Path, model_of: Make, swapped: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(model_of("t5"), [text], teacher=model_of("t5"))
    assert caught.value.code == "not-causal"
    packed = copy_model(swapped("llama"), tmp_path / "packed")
    edit_json(packed / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(InputError) as caught:
        tokswap.plan_heal(packed, [text])
    assert caught.value.code == "quantised-body"


def test_eight_bit_floats_that_no_config_names(text: Path, swapped: Callable[[str], Path], tmp_path: Path) -> None:
    """The training ended in a traceback, after all its steps. What does not change them works."""
    student = copy_model(swapped("llama"), tmp_path / "student")
    names = [name for name in tools.weights(student) if "_proj" in name]
    tools.rewrite(student, lambda all: all.update({name: all[name].to(torch.float8_e4m3fn) for name in names}))
    for train in ("adapter", "full"):
        with pytest.raises(InputError) as caught:
            tokswap.plan_heal(student, [text], train=train)
        assert caught.value.code == "quantised-body"
    tokswap.heal_model(student, [text], out=tmp_path / "out", train="embeddings", **QUICK_ROWS)
    assert {str(tools.weights(tmp_path / "out")[name].dtype) for name in names} == {"torch.float8_e4m3fn"}


def test_layers_that_no_adapter_fits(swapped: Callable[[str], Path]) -> None:
    from tokswap.heal.student import Student

    model = load_model(swapped("llama"))[0]
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(InputError) as caught:
        Student(model, HealOptions())
    assert caught.value.code == "no-lora-targets"
    model = load_model(swapped("llama"))[0]
    model.get_input_embeddings = lambda: torch.nn.Linear(2, 2)
    with pytest.raises(InputError) as caught:
        Student(model, HealOptions())
    assert caught.value.code == "no-plain-embeddings"


def test_a_full_disk_while_writing(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from tokswap.checkpoint import writer

    def full(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(writer, "_write_all", full)
    with pytest.raises(OutputError) as caught:
        tokswap.heal_model(swapped("llama-tied"), [text], out=tmp_path / "out", **QUICK)
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_teaching(
    text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OutputError) as caught:
        tokswap.heal_model(swapped("llama-tied"), [text], out=tmp_path / "out", **QUICK)
    assert caught.value.code == "disk-full"
    assert not (tmp_path / "out").exists()


# Targets are written through a map: without a block, the system would end the process. Libraries have own errors.
FULL: dict[str, tuple[str, Exception]] = {
    "targets": ("os.posix_fallocate", OSError(28, "No space left on device")),
    "a checkpoint": (
        "tokswap.heal.train.save_file",
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_under_the_cache(
    what: str, text: Path, swapped: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, error = FULL[what]

    def full(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(name, full)
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OutputError) as caught:
        tokswap.heal_model(swapped("llama-tied"), [text], out=tmp_path / "out", **QUICK)
    assert caught.value.code == "disk-full"
    assert "TOKSWAP_CACHE" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_batches_hold_every_passage_once_an_epoch() -> None:
    from tokswap.heal.batches import batch_order, largest_batch

    sizes = np.random.default_rng(0).integers(50, 400, 100).tolist()
    order = batch_order(sizes, HealOptions(epochs=2, batch_tokens=512))
    flat = [n for batch in order for n in batch]
    assert sorted(flat) == sorted([*range(100)] * 2)
    assert flat[:100] != flat[100:]
    totals = [sum(sizes[n] for n in batch) for batch in order]
    assert 400 < np.mean(totals) < 620
    largest = largest_batch(sizes, HealOptions(epochs=2, batch_tokens=512))
    assert largest == max(len(batch) * max(sizes[n] for n in batch) for batch in order)
    assert largest > 512, "a step is padded, and may be larger than it should"


def test_the_plan_counts_the_memory_of_the_largest_step(swapped: Callable[[str], Path], tmp_path: Path) -> None:
    words = "a text of some words. "
    (tmp_path / "short.txt").write_text("\n\n".join(words * 4 for _ in range(200)), "utf-8")
    (tmp_path / "long.txt").write_text(words * 800, "utf-8")
    short, long = (
        tokswap.plan_heal(swapped("llama"), [tmp_path / name], batch_tokens=32, out=tmp_path / "out").plan.estimate
        for name in ("short.txt", "long.txt")
    )
    assert long.memory_bytes > short.memory_bytes
