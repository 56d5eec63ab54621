"""Draft models, and what engines would say to them. Every rule is tried both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tools
from click.testing import CliRunner
from makers import CHAT_TEMPLATE, copy_model, edit_json, make_tokenizer, read_json, write_json

import tokswap
from tokswap.cli import main
from tokswap.draft.engines import Verdict, draft_verdicts
from tokswap.errors import InputError

Make = Callable[..., Path]
ENGINES = ["vLLM", "llama.cpp", "transformers", "mlx-lm", "tokswap"]


@pytest.fixture(scope="module")
def small(model_of: Make) -> Path:
    return model_of("llama", vocab_size=640, adds_bos=True)


@pytest.fixture(scope="module")
def big(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target with padded rows, several eos ids, a chat template and a generation config of its own."""
    folder = copy_model(
        model_of("gpt2", vocab_size=700, rows=720, chat_template=CHAT_TEMPLATE), tmp_path_factory.mktemp("big") / "big"
    )
    edit_json(folder / "config.json", eos_token_id=[2, 0])
    edit_json(folder / "generation_config.json", eos_token_id=[2, 0], pad_token_id=2, temperature=0.6, do_sample=True)
    return folder


@pytest.fixture(scope="module")
def drafted(small: Path, big: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("draft") / "draft"
    tokswap.make_draft(str(small), str(big), init="subword", out=out)
    return out


@pytest.fixture
def copy(drafted: Path, tmp_path: Path) -> Path:
    return copy_model(drafted, tmp_path / "copy")


def found(draft: Path, target: Path) -> dict[str, Verdict]:
    return {verdict.engine: verdict for verdict in draft_verdicts(draft, target)}


def refusals(draft: Path, target: Path) -> dict[str, str]:
    return {name: "; ".join(one.reasons) for name, one in found(draft, target).items() if not one.ok}


# The result.


def test_a_draft_has_the_targets_vocabulary(drafted: Path, big: Path) -> None:
    config, generation = read_json(drafted / "config.json"), read_json(drafted / "generation_config.json")
    assert config["model_type"] == "llama"
    assert config["vocab_size"] == 720
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, [2, 0], 2)
    assert generation == read_json(big / "generation_config.json")
    assert (drafted / "tokenizer.json").read_bytes() == (big / "tokenizer.json").read_bytes()
    assert (drafted / "chat_template.jinja").read_bytes() == (big / "chat_template.jinja").read_bytes()
    assert {tensor.shape[0] for name, tensor in tools.weights(drafted).items() if name in tools.tables_of("llama")} == {
        720
    }


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
    assert "universal assisted generation" in told["transformers"]
    assert "type is SPM, the target's BPE" in told["llama.cpp"]


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
    assert not job.plan.bos_added
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
    assert job.plan.donor is None
    assert any("without a donor" in note for note in job.plan.notes)
    job.run()
    assert refusals(tmp_path / "out", bare) == {}
    with pytest.raises(InputError) as caught:
        tokswap.plan_draft(str(small), str(bare), init="omp", out=tmp_path / "other")
    assert caught.value.code == "missing-donor"


def test_the_targets_weights_are_the_donor(small: Path, big: Path, tmp_path: Path) -> None:
    assert tokswap.plan_draft(str(small), str(big), init="omp", out=tmp_path / "out").plan.donor == str(big)
    none = tokswap.plan_draft(str(small), str(big), donor="none", out=tmp_path / "out")
    assert none.plan.donor is None
    with pytest.raises(InputError, match="there is to be no donor") as caught:
        tokswap.plan_draft(str(small), str(big), donor="none", init="omp", out=tmp_path / "out")
    assert caught.value.code == "missing-donor"


def test_weights_that_cannot_be_a_donor(small: Path, big: Path, tmp_path: Path) -> None:
    pickled = copy_model(big, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    job = tokswap.plan_draft(str(small), str(pickled), out=tmp_path / "out")
    assert job.plan.donor is None
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


def test_two_encoder_decoders(model_of: Make, tmp_path: Path) -> None:
    tokswap.make_draft(str(model_of("bart")), str(model_of("t5")), init="subword", out=tmp_path / "out")
    assert (
        read_json(tmp_path / "out" / "config.json")["vocab_size"]
        == read_json(model_of("t5") / "config.json")["vocab_size"]
    )


def test_a_target_that_reads_pictures(small: Path, big: Path, tmp_path: Path) -> None:
    seeing = copy_model(big, tmp_path / "seeing")
    edit_json(seeing / "config.json", vision_config={"hidden_size": 8})
    job = tokswap.plan_draft(str(small), str(seeing), init="subword", out=tmp_path / "out")
    assert any("pictures" in note for note in job.plan.notes)


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


# Each rule on its own: a change, and exactly the engines that mind it.


def _config(**changes: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _spec(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        spec = read_json(folder / "tokenizer.json")
        change(spec)
        write_json(folder / "tokenizer.json", spec)

    return apply


def _swap(first: int, second: int) -> Callable[[Path], object]:
    def change(spec: dict[str, object]) -> None:
        vocab = spec["model"]["vocab"]  # type: ignore[index]
        name = {token: text for text, token in vocab.items()}
        vocab[name[first]], vocab[name[second]] = second, first

    return _spec(change)


def _rename_added(old: str, new: str) -> Callable[[Path], object]:
    def change(spec: dict[str, object]) -> None:
        vocab = spec["model"]["vocab"]  # type: ignore[index]
        vocab[new] = vocab.pop(old)
        for entry in spec["added_tokens"]:  # type: ignore[attr-defined]
            entry["content"] = new if entry["content"] == old else entry["content"]

    return _spec(change)


def _add_token(spec: dict[str, object]) -> None:
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 700, "content": "<more>"})  # type: ignore[attr-defined,index]


def _template(*parts: str) -> Callable[[Path], object]:
    def change(spec: dict[str, object]) -> None:
        ids = {"<|im_start|>": 1, "<|im_end|>": 2}
        single = [
            {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in parts
        ]
        known = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in parts if part != "A"}
        pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
        spec["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}

    return _spec(change)


def _chat(text: str | None) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.unlink() if text is None else path.write_text(text)

    return apply


CHANGES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "nothing": (lambda folder: None, [], ""),
    "one row more": (_config(vocab_size=721), ["vLLM", "transformers", "tokswap"], "721, the target's 720"),
    "128 rows more": (_config(vocab_size=848), ["vLLM", "transformers", "tokswap"], "848"),
    "129 rows more": (_config(vocab_size=849), ["vLLM", "llama.cpp", "transformers", "tokswap"], "849"),
    "two tokens swapped": (
        _swap(500, 501),
        ["llama.cpp", "tokswap"],
        "2 ids mean something else than to the target: 500 (",
    ),
    "the last token swapped": (_swap(400, 699), ["llama.cpp", "tokswap"], ", 699 ("),
    "a name below 5": (_rename_added("<|reserved_special_token_1|>", "<x>"), ["tokswap"], "4 ('<x>'"),
    "a name above 5": (_rename_added("<|reserved_special_token_2|>", "<x>"), ["llama.cpp", "tokswap"], "5 ('<x>'"),
    "an added token": (_spec(_add_token), ["llama.cpp", "tokswap"], "701 ids, the target's 700"),
    "another bos": (_config(bos_token_id=0), ["tokswap"], "bos is 0, the target's 1"),
    "another pad": (_config(pad_token_id=0), ["tokswap"], "pad is 0, the target's 2"),
    "bos of the tokenizer": (
        lambda folder: edit_json(folder / "tokenizer_config.json", bos_token="<|endoftext|>"),
        ["llama.cpp"],
        "bos is 0",
    ),
    "eos of the tokenizer": (
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>"),
        ["llama.cpp"],
        "eos is 0",
    ),
    "adds bos": (_template("<|im_start|>", "A"), ["llama.cpp", "tokswap"], "adds bos, the target's does not"),
    "adds eos": (_template("A", "<|im_end|>"), ["llama.cpp", "tokswap"], "adds eos, the target's does not"),
    "stops elsewhere": (
        lambda folder: edit_json(folder / "generation_config.json", eos_token_id=2),
        ["tokswap"],
        "stops at 2, the target's at 0, 2",
    ),
    "no chat template": (_chat(None), ["tokswap"], "the target has a chat template, the draft has none"),
    "another chat template": (_chat(CHAT_TEMPLATE.replace("<|im_end|>", "")), ["tokswap"], "rendered conversation"),
    "a broken chat template": (_chat("{{ no_such_function() }}"), ["tokswap"], "cannot use the tokenizer of the draft"),
    "cut otherwise": (
        _spec(lambda spec: spec["pre_tokenizer"].update(use_regex=False)),
        ["tokswap"],
        "probe texts get other ids",  # type: ignore[attr-defined]
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_rules(name: str, copy: Path, big: Path) -> None:
    change, minded, reason = CHANGES[name]
    change(copy)
    told = refusals(copy, big)
    assert list(told) == minded, told
    assert not minded or any(reason in text for text in told.values()), told


def test_tokens_in_the_model_are_counted_by_mlx(copy: Path, big: Path) -> None:
    def move(spec: dict[str, object]) -> None:
        """Take one token out of the model, and add it again as an added one."""
        vocab = spec["model"]["vocab"]  # type: ignore[index]
        last = max(vocab, key=vocab.__getitem__)
        spec["added_tokens"].append(  # type: ignore[attr-defined]
            {**spec["added_tokens"][0], "id": vocab.pop(last), "content": last, "special": False}  # type: ignore[index]
        )
        spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "".join(m) != last]  # type: ignore[index]

    _spec(move)(copy)
    assert "mlx-lm" in refusals(copy, big)


def test_ten_ids_are_named_and_the_rest_counted(copy: Path, big: Path) -> None:
    for n in range(300, 330, 2):
        _swap(n, n + 1)(copy)
    reason = found(copy, big)["llama.cpp"].reasons[0]
    assert reason.startswith("30 ids")
    assert reason.endswith("... and 20 more")
    assert reason.count("(") == 10


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
    assert "no engine was run" in text
    document = json.loads(run("verify", small, "--draft-for", big, "--json", status=1))
    assert not document["ok"]
    assert [one["engine"] for one in document["engines"]] == ENGINES
    assert all(check["ok"] for check in document["checks"])
    assert "engines" not in json.loads(run("verify", out, "--json"))
