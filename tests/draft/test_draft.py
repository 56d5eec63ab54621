"""Draft models: what they are made of, and what cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tools
from click.testing import CliRunner
from makers import copy_model, edit_json, make_tokenizer, read_json, shipped_text
from verdicts import ENGINES, found, refusals

import tokswap
from tokswap.cli import main
from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

if TYPE_CHECKING:
    import torch

Make = Callable[..., Path]


# The result.


def test_a_draft_has_the_targets_vocabulary(drafted: Path, big: Path) -> None:
    config, generation = read_json(drafted / "config.json"), read_json(drafted / "generation_config.json")
    assert config["model_type"] == "llama"
    assert config["vocab_size"] == 720
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, [2, 0], 2)
    assert generation == read_json(big / "generation_config.json")
    assert (drafted / "tokenizer.json").read_bytes() == (big / "tokenizer.json").read_bytes()
    assert (drafted / "chat_template.jinja").read_bytes() == (big / "chat_template.jinja").read_bytes()
    assert {
        tensor.shape[0] for name, tensor in tools.weights(drafted).items() if name in tools.matrices_of("llama")
    } == {720}


def test_the_targets_tokenizer_is_read_once(small: Path, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def reading(path: Path, **options: bool) -> Tokenizer:
        read.append(path)
        return read_tokenizer(path, **options)

    monkeypatch.setattr("tokswap.checkpoint.source.read_tokenizer", reading)
    monkeypatch.setattr("tokswap.draft.plan.read_tokenizer", reading, raising=False)
    tokswap.plan_draft(str(small), str(big), init="subword")
    assert sorted(read) == sorted([small, big])


def test_every_engine_takes_it(drafted: Path, big: Path) -> None:
    assert list(found(drafted, big)) == ENGINES
    assert refusals(drafted, big) == {}


def test_a_target_by_its_tokenizer_file(drafted: Path, big: Path) -> None:
    assert refusals(drafted, big / "tokenizer.json") == {}


def test_an_untransplanted_model_is_refused_by_every_engine(small: Path, big: Path) -> None:
    told = refusals(small, big)
    assert list(told) == ENGINES
    assert "640" in told["vLLM"]
    assert "720" in told["vLLM"]
    assert told["TensorRT-LLM"].startswith("vocab_size is 640, the target's 720")
    assert told["transformers"].startswith("vocab_size is 640, the target's 720; only universal assisted generation")
    assert "adds bos, the target's does not" in told["llama.cpp"]
    assert "640 rows, the target 720" in told["SGLang"]


def test_assisted_generation_gives_the_targets_own_text(drafted: Path, big: Path) -> None:
    target, _ = tools.load(big, "gpt2")
    draft, _ = tools.load(drafted, "llama")
    import torch

    ids = torch.tensor([tools.encode(big, "The old bridge was closed")])
    mask = torch.ones_like(ids)
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 12, "temperature": None}
    alone = target.generate(ids, **options)
    assert target.generate(ids, assistant_model=draft, **options).tolist() == alone.tolist()


def test_bos_is_not_added_where_the_target_adds_none(small: Path, big: Path, tmp_path: Path) -> None:
    job = tokswap.plan_draft(str(small), str(big), init="subword", out=tmp_path / "out")
    assert not job.plan.change.bos_added
    assert any("will not add it" in note for note in job.plan.notes)
    assert job.plan.operation == "draft"


def test_a_target_without_a_generation_config(small: Path, big: Path, tmp_path: Path) -> None:
    bare = copy_model(big, tmp_path / "bare")
    (bare / "generation_config.json").unlink()
    tokswap.make_draft(str(small), str(bare), init="subword", out=tmp_path / "out")
    generation = read_json(tmp_path / "out" / "generation_config.json")
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (1, [2, 0])
    assert refusals(tmp_path / "out", bare) == {}


def test_ids_that_the_config_does_not_name_come_from_the_tokenizer(small: Path, big: Path, tmp_path: Path) -> None:
    bare = copy_model(big, tmp_path / "bare")
    edit_json(bare / "config.json", bos_token_id=..., eos_token_id=..., pad_token_id=...)
    tokswap.make_draft(str(small), str(bare), init="subword", out=tmp_path / "out")
    config = read_json(tmp_path / "out" / "config.json")
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert refusals(tmp_path / "out", bare) == {}


# Donors.


def test_a_target_without_weights(small: Path, big: Path, tmp_path: Path) -> None:
    bare = copy_model(big, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    job = tokswap.plan_draft(str(small), str(bare), out=tmp_path / "out")
    assert job.plan.names.donor is None
    assert any("no donor is used" in note for note in job.plan.notes)
    job.run()
    assert refusals(tmp_path / "out", bare) == {}
    with pytest.raises(InputError) as caught:
        tokswap.plan_draft(str(small), str(bare), init="omp", out=tmp_path / "other")
    assert caught.value.code == "missing-donor"


def test_a_size_that_the_config_leaves_to_its_class(small: Path, big: Path, tmp_path: Path) -> None:
    """`google/gemma-3-4b-it` names no vocab_size."""
    target = copy_model(big, tmp_path / "target")
    (target / "model.safetensors").unlink()
    edit_json(target / "config.json", vocab_size=...)
    tokswap.make_draft(small, target, init="subword", out=tmp_path / "out")
    assert read_json(tmp_path / "out" / "config.json")["vocab_size"] == 50_257
    assert refusals(tmp_path / "out", target) == {}


def test_the_targets_weights_are_the_donor(small: Path, big: Path, tmp_path: Path) -> None:
    assert tokswap.plan_draft(str(small), str(big), init="omp", out=tmp_path / "out").plan.names.donor == str(big)
    none = tokswap.plan_draft(str(small), str(big), donor="none", out=tmp_path / "out")
    assert none.plan.names.donor is None
    with pytest.raises(InputError, match="leaves no donor") as caught:
        tokswap.plan_draft(str(small), str(big), donor="none", init="omp", out=tmp_path / "out")
    assert caught.value.code == "missing-donor"


def test_weights_that_cannot_be_a_donor(small: Path, big: Path, tmp_path: Path) -> None:
    pickled = copy_model(big, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    job = tokswap.plan_draft(str(small), str(pickled), out=tmp_path / "out")
    assert job.plan.names.donor is None
    assert any("cannot be the donor" in note and "pickled" in note for note in job.plan.notes)


# What cannot be.


def refused(model: Path, target: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        tokswap.plan_draft(str(model), str(target), init="subword", out=out)
    assert not out.exists()
    return caught.value.code


def test_models_of_different_kinds(small: Path, model_of: Make, tmp_path: Path) -> None:
    assert refused(small, model_of("t5"), tmp_path / "out") == "different-modality"
    assert refused(model_of("bart"), small, tmp_path / "out") == "different-modality"
    assert refused(small, model_of("bert"), tmp_path / "out") == "different-modality"
    assert refused(model_of("bert"), model_of("bert"), tmp_path / "out") == "different-modality"
    with pytest.raises(InputError, match="model is a causal language model, the target a BertForMaskedLM, which does"):
        tokswap.plan_draft(small, model_of("bert"), init="subword", out=tmp_path / "out")


def test_two_encoder_decoders(model_of: Make, tmp_path: Path) -> None:
    tokswap.make_draft(str(model_of("bart")), str(model_of("t5")), init="subword", out=tmp_path / "out")
    assert (
        read_json(tmp_path / "out" / "config.json")["vocab_size"]
        == read_json(model_of("t5") / "config.json")["vocab_size"]
    )


def test_a_target_that_reads_images(small: Path, big: Path, tmp_path: Path) -> None:
    seeing = copy_model(big, tmp_path / "seeing")
    edit_json(seeing / "config.json", vision_config={"hidden_size": 8})
    job = tokswap.plan_draft(str(small), str(seeing), init="subword", out=tmp_path / "out")
    assert any("images" in note for note in job.plan.notes)


def test_broken_folders(small: Path, big: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bare = copy_model(big, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert refused(small, bare, out) == "missing-tokenizer"
    (bare / "config.json").unlink()
    assert refused(small, bare, out) == "missing-config"
    weightless = copy_model(small, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    assert refused(weightless, big, out) == "missing-weights"
    full = copy_model(big, tmp_path / "full")
    edit_json(full / "config.json", vocab_size=699)
    assert refused(small, full, out) == "unequal-vocabulary"
    assert refused(small, make_tokenizer("byte-level", tmp_path / "only"), out) == "missing-config"
    with pytest.raises(TypeError, match="vocab_size"):
        tokswap.plan_draft(str(small), str(big), vocab_size="tight")


# Proposals.

BYTE_LEVEL = {"family": "byte-level", "vocab_size": 640, "adds_bos": True}
"""A source whose tokens are spelt as those of the target."""


def uncopied(small: Path, big: Path) -> list[int]:
    """Return the ids of the target that the small model's tokenizer has no token for."""
    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(small).get_vocab()
    found = AutoTokenizer.from_pretrained(big).get_vocab()
    return sorted(token for text, token in found.items() if text not in known)


def logits_of(folder: Path) -> torch.Tensor:
    """Return the logits after many contexts as transformers computes them, float32 [n, V]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(3, 700, (64, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(ids).logits.flatten(0, 1)


@pytest.mark.parametrize("architecture", ["llama", "llama-tied"])
def test_only_copied_tokens_are_proposed(architecture: str, model_of: Make, big: Path, tmp_path: Path) -> None:
    """The input rows of the others are read as before, and the logits of copied tokens are the same."""
    import torch
    from gguf import GGUFReader

    source = model_of(architecture, **BYTE_LEVEL)
    ids = uncopied(source, big)
    every, copied = tmp_path / "every", tmp_path / "copied"
    tokswap.make_draft(source, big, init="gaussian", out=every)
    file = tmp_path / "copied.gguf"
    report = tokswap.make_draft(source, big, init="gaussian", propose="copied", out=copied, gguf=file, gguf_type="f32")
    before, after = logits_of(every), logits_of(copied)
    assert len(ids) > 30
    assert torch.isin(before.argmax(1), torch.tensor(ids)).any(), "or this test would see nothing"
    assert not torch.isin(after.argmax(1), torch.tensor(ids)).any()
    others = sorted(set(range(700)) - set(ids))
    assert torch.equal(before[:, others], after[:, others])
    assert not read_json(copied / "config.json")["tie_word_embeddings"]
    rows = [tools.weights(folder)["model.embed_tokens.weight"] for folder in (every, copied)]
    assert torch.equal(*rows)
    assert any("never proposed" in note for note in report.plan.notes)
    assert any("matrix of its own" in note for note in report.plan.notes) == (architecture == "llama-tied")
    assert report.plan.request.options["propose"] == "copied"
    head = next(one for one in GGUFReader(file).tensors if one.name == "output.weight").data
    assert torch.equal(torch.tensor(head), tools.weights(copied)["lm_head.weight"].float())
    assert all(check.ok for check in tokswap.verify_checkpoint(copied, against=source))


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2"])
def test_a_tied_model_that_stores_its_matrix_as_lm_head(
    architecture: str, model_of: Make, big: Path, tmp_path: Path
) -> None:
    import torch

    usual, out = model_of(architecture, **BYTE_LEVEL), [tmp_path / "usual-draft", tmp_path / "draft"]
    source = copy_model(usual, tmp_path / "source")
    name = tools.matrices_of(architecture)[0]
    tools.rewrite(source, lambda tensors: tensors.update({"lm_head.weight": tensors.pop(name)}))
    for model, folder in zip((usual, source), out, strict=True):
        tokswap.make_draft(model, big, init="subword", propose="copied", out=folder)
    assert all(torch.equal(one, tools.weights(out[1])[name]) for name, one in tools.weights(out[0]).items())
    assert torch.equal(logits_of(out[0]), logits_of(out[1]))


def test_a_head_beside_a_tie_is_proposed_from_by_every_engine(model_of: Make, big: Path, tmp_path: Path) -> None:
    """transformers 5 does not tie two matrices that differ, whatever the config says. vLLM does, and so did release 4."""
    source = copy_model(model_of("llama", **BYTE_LEVEL), tmp_path / "source")
    edit_json(source / "config.json", tie_word_embeddings=True)
    tokswap.make_draft(source, big, init="subword", propose="copied", out=tmp_path / "out")
    assert read_json(tmp_path / "out/config.json")["tie_word_embeddings"] is False


def test_training_proposes_no_other_token(model_of: Make, big: Path, tmp_path: Path) -> None:
    import torch

    text = tmp_path / "text.txt"
    text.write_text("The ferry leaves the harbour at nine, and the old bridge stays closed.\n" * 130, "utf-8")
    small, made, trained = model_of("llama", **BYTE_LEVEL), tmp_path / "made", tmp_path / "trained"
    ids = uncopied(small, big)
    tokswap.make_draft(small, big, init="subword", propose="copied", out=made)
    report = tokswap.make_draft(small, big, init="subword", propose="copied", distill=[text], out=trained)
    before, after = (tools.weights(folder)["lm_head.weight"] for folder in (made, trained))
    assert report.evidence["healing"]["steps"] > 0
    assert torch.equal(before[ids], after[ids])
    assert not torch.equal(before, after)
    assert not torch.isin(logits_of(trained).argmax(1), torch.tensor(ids)).any()


@pytest.mark.parametrize("more", [{"tie": True}, {"output_init": "subword"}])
def test_one_matrix_cannot_do_both(more: dict[str, object], model_of: Make, big: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tokswap.plan_draft(model_of("llama-tied"), big, propose="copied", out=tmp_path / "out", **more)
    assert caught.value.code == "one-matrix"
    assert caught.value.message.startswith("--tie " if "tie" in more else "--init-output ")
    with pytest.raises(UsageError) as unknown:
        tokswap.plan_draft(model_of("llama-tied"), big, propose="some", out=tmp_path / "out")
    assert unknown.value.code == "bad-propose"


def test_options_of_the_transplant_reach_it(small: Path, big: Path, tmp_path: Path) -> None:
    more = {"settings": {"k": 7}, "map_tokens": ["Ġthe=▁of"]}
    plan = tokswap.plan_draft(small, big, init="omp", out=tmp_path / "out", **more).plan
    assert plan.request.settings["k"] == 7
    assert plan.coverage["map"] == 1
    with pytest.raises(UsageError) as caught:
        tokswap.plan_draft(small, big, self_text=4000, self_text_languages=["xx"], out=tmp_path / "out")
    assert caught.value.code == "unknown-language"


# Distillation.


def test_the_target_teaches(small: Path, big: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text((shipped_text("english") * 5)[:11_400], "utf-8")
    job = tokswap.plan_draft(small, big, distill=[text], self_text=4000, out=tmp_path / "out")
    assert job.step is not None
    asked = job.step.options
    assert (job.step.texts, asked.teacher, asked.self_text) == ((text,), str(big), 4000)
    recorded = job.plan.as_dict()["options"]
    assert (recorded["distill"], recorded["self_text"]) == ([str(text)], 4000)
    assert not {"heal", "heal_train", "vocab_size", "bos"} & set(recorded), "a draft has no such options"
    assert any("bytes of text and 4,000 bytes that the teacher writes" in note for note in job.plan.notes)
    assert tokswap.plan_draft(small, big, out=tmp_path / "out").step is None


def test_a_healing_of_a_draft_says_who_teaches(small: Path, big: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(shipped_text("english") + shipped_text("german") + shipped_text("code"), "utf-8")
    draft = tmp_path / "draft"
    tokswap.make_draft(small, big, init="subword", out=draft)
    notes = tokswap.plan_heal(draft, [text], out=tmp_path / "out").plan.notes
    assert any(f"--teacher {big}" in note for note in notes)
    notes = tokswap.plan_heal(draft, [text], teacher=big, out=tmp_path / "out").plan.notes
    assert not any("this is a draft" in note for note in notes)


def test_a_target_without_weights_cannot_teach(small: Path, big: Path, tmp_path: Path) -> None:
    bare = copy_model(big, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(UsageError) as caught:
        tokswap.plan_draft(small, bare, self_text=9000, out=tmp_path / "out")
    assert caught.value.code == "missing-teacher"
    job = tokswap.plan_draft(small, bare, self_text=9000, donor=big, out=tmp_path / "out")
    assert job.step is not None
    assert job.step.options.teacher == str(big)
    short = tmp_path / "short.txt"
    short.write_text("too little", "utf-8")
    with pytest.raises(InputError) as caught_short:
        tokswap.plan_draft(small, big, distill=[short], out=tmp_path / "out")
    assert caught_short.value.code == "text-too-small"
    assert "--distill" in caught_short.value.message


# The command line.


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.stdout


def test_commands(small: Path, big: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("draft", "--model", small, "--target", big, "--init", "subword", "--out", out)
    plan = json.loads(run(*common, "--dry-run", "--json"))["plan"]
    assert (plan["operation"], plan["tokenizer"]) == ("draft", str(big))
    assert not out.exists()
    text = run(*common)
    assert f"next: tokswap verify {out} --against {small} --draft-for {big}" in text
    text = run("verify", out, "--draft-for", big)
    assert text.count("  ok    ") >= len(ENGINES)
    assert "(none was run)" in text
    document = json.loads(run("verify", small, "--draft-for", big, "--json", status=1))
    assert not document["ok"]
    assert [one["engine"] for one in document["engines"]] == ENGINES
    assert all(check["ok"] for check in document["checks"])
    assert "engines" not in json.loads(run("verify", out, "--json"))
