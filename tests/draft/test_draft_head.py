"""Reduced draft heads: the tokens that are chosen, the layout that is written, and maps that do not hold together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import tokswap
from tokswap.cli import main
from tokswap.errors import InputError, TokswapError

Make = Callable[..., Path]
WIDTH = 24


@pytest.fixture(scope="module")
def target(model_of: Make) -> Path:
    return model_of("gpt2", vocab_size=700, rows=720)


@pytest.fixture(scope="module")
def eagle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft head with a row for each of the target's ids."""
    return makers.make_draft_head(tmp_path_factory.mktemp("eagle") / "eagle", rows=720, width=WIDTH)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    work = tmp_path_factory.mktemp("texts")
    for name in ("english", "german", "code"):
        (work / f"{name}.txt").write_text(makers.shipped_text(name))
    return {name: str(work / f"{name}.txt") for name in ("english", "german", "code")}


@pytest.fixture(scope="module")
def reduced(eagle: Path, target: Path, texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reduced") / "head"
    job = tokswap.reduce_draft_head(
        eagle, target, size=200, corpora=[texts["english"]], held_out=[texts["german"], texts["code"]], out=out
    )
    assert job.out == out
    return out


def test_the_layout_is_that_of_eagle_3(reduced: Path, eagle: Path) -> None:
    made, source = load_file(reduced / "model.safetensors"), load_file(eagle / "model.safetensors")
    assert set(made) == {"lm_head.weight", "fc.weight", "d2t", "t2d"}
    assert (made["d2t"].dtype, made["t2d"].dtype) == (torch.int64, torch.bool)
    ids = torch.arange(200) + made["d2t"]
    assert torch.equal(made["lm_head.weight"], source["lm_head.weight"][ids])
    assert torch.equal(made["t2d"].nonzero()[:, 0], ids)
    assert torch.equal(made["fc.weight"], source["fc.weight"])
    config = makers.read_json(reduced / "config.json")
    assert (config["vocab_size"], config["draft_vocab_size"]) == (720, 200)
    assert config["architectures"] == ["LlamaForCausalLMEagle3"]


def test_sglang_reads_the_token_map(reduced: Path) -> None:
    ids = torch.load(reduced / "hot_token_ids.pt", weights_only=True)
    assert torch.equal(torch.tensor(ids.tolist(), dtype=torch.int64), torch.arange(200) + load_d2t(reduced))


def load_d2t(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["d2t"]


def test_the_most_frequent_tokens_and_the_ends_of_a_text_are_kept(
    reduced: Path, target: Path, texts: dict[str, str]
) -> None:
    from collections import Counter

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)
    ids = set((torch.arange(200) + load_d2t(reduced)).tolist())
    count = Counter(tokenizer(Path(texts["english"]).read_text())["input_ids"])
    stop = makers.read_json(target / "config.json")["eos_token_id"]
    assert stop in ids
    least = min(count[token] for token in ids - {stop})
    assert all(token in ids for token, occurs in count.items() if occurs > least)
    report = makers.read_json(reduced / "draft_head.json")
    german = tokenizer(Path(texts["german"]).read_text())["input_ids"]
    share = sum(token in ids for token in german) / len(german)
    [of] = [of for name, of in report["coverage"].items() if "german" in name]
    assert of["200"] == pytest.approx(share, abs=0.002)  # a corpus is counted in windows


def test_coverage_tells_the_wrong_text(eagle: Path, target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    job = tokswap.plan_draft_head(
        eagle, target, size=256, corpora=[texts["english"]], held_out=list(texts.values()), out=tmp_path / "out"
    )
    covered = {Path(name).stem: of for name, of in job.choice.coverage.items()}
    assert covered["english"][256] > covered["german"][256]
    assert covered["english"][512] >= covered["english"][256]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [100, 700])
def test_a_head_for_more_tokens_than_the_text_has_is_noted(
    size: int, eagle: Path, target: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    job = tokswap.plan_draft_head(eagle, target, size=size, corpora=[texts["english"]], out=tmp_path / "out")
    assert any("do not occur in the corpus" in note for note in job.notes) == (size == 700)


def test_a_reduced_head_is_reduced_again(reduced: Path, target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    tokswap.reduce_draft_head(reduced, target, size=100, corpora=[Path(texts["german"])], out=tmp_path / "out")
    made, source = load_file(tmp_path / "out" / "model.safetensors"), load_file(reduced / "model.safetensors")
    ids, known = torch.arange(100) + made["d2t"], (torch.arange(200) + source["d2t"]).tolist()
    rows = [known.index(token) for token in ids.tolist()]
    assert torch.equal(made["lm_head.weight"], source["lm_head.weight"][rows])


def test_the_head_of_a_whole_model(target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    """Its head alone is written: what an EAGLE-3 head begins with."""
    tokswap.reduce_draft_head(target, target, size=100, corpora=[texts["german"]], out=tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert set(made) == {"lm_head.weight", "d2t", "t2d"}
    embeddings = load_file(target / "model.safetensors")["transformer.wte.weight"]
    assert torch.equal(made["lm_head.weight"], embeddings[torch.arange(100) + made["d2t"]])
    assert all(check.ok for check in tokswap.check_draft_head(tmp_path / "out", target))
    config = makers.read_json(tmp_path / "out" / "config.json")
    assert sorted(config) == ["draft_vocab_size", "hidden_size", "vocab_size"], "this is no whole model any more"


def test_the_head_of_a_model_in_a_larger_one(target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    """Its lm_head has another name, and is not its input embeddings."""
    source = makers.copy_model(target, tmp_path / "source")
    tensors = {f"language_model.model.layers.0.{n}.weight": torch.randn(4, 4) for n in "ab"}
    tensors |= {f"language_model.{name}.weight": torch.randn(720, 8) for name in ("model.embed_tokens", "lm_head")}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    text = {"model_type": "llama", "vocab_size": 720, "hidden_size": 8, "tie_word_embeddings": False}
    config = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": text}
    makers.write_json(source / "config.json", {**config, "tie_word_embeddings": False})
    tokswap.reduce_draft_head(source, target, size=100, corpora=[texts["english"]], out=tmp_path / "out")
    made = load_file(tmp_path / "out/model.safetensors")
    ids = torch.arange(100) + made["d2t"]
    assert torch.equal(made["lm_head.weight"], tensors["language_model.lm_head.weight"][ids])


def test_a_head_without_lm_head_is_refused(target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    """Its input embeddings are no head: EAGLE-1 and EAGLE-2 use their target's."""
    heads = {
        "eagle": {"architectures": ["LlamaForCausalLMEagle"], "vocab_size": 720},
        "nameless": {"architectures": None, "draft_vocab_size": 720, "vocab_size": 720},
        "body": {"architectures": ["LlamaModel"], "model_type": "llama", "vocab_size": 720, "hidden_size": 8},
    }
    for name, config in heads.items():
        (tmp_path / name).mkdir()
        save_file({"embed_tokens.weight": torch.randn(720, 8)}, tmp_path / name / "model.safetensors")
        makers.write_json(tmp_path / name / "config.json", config)
        with pytest.raises(InputError) as caught:
            tokswap.plan_draft_head(tmp_path / name, target, size=100, corpora=[texts["english"]])
        assert caught.value.code == "bad-draft-head"


def test_tokens_that_a_draft_never_proposes_take_no_place(
    model_of: Make, target: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    """The rows that `draft --propose copied` leaves neutral, however often their tokens occur."""
    from collections import Counter

    from transformers import AutoTokenizer

    small = model_of("llama", family="byte-level", vocab_size=640, adds_bos=True)
    draft, out = tmp_path / "draft", tmp_path / "out"
    tokswap.make_draft(small, target, init="subword", propose="copied", out=draft)
    known = AutoTokenizer.from_pretrained(small).get_vocab()
    tokenizer = AutoTokenizer.from_pretrained(target)
    neutral = {token for text, token in tokenizer.get_vocab().items() if text not in known}
    count = Counter(tokenizer(Path(texts["english"]).read_text())["input_ids"])
    assert any(token in neutral for token, _ in count.most_common(200)), "or this test would see nothing"
    job = tokswap.reduce_draft_head(draft, target, size=200, corpora=[texts["english"]], out=out)
    ids = (torch.arange(200) + load_d2t(out)).tolist()
    assert not neutral & {*ids}
    least = min(count[token] for token in ids if token != tokenizer.eos_token_id)
    assert all(token in ids for token, occurs in count.items() if occurs > least and token not in neutral)
    share = sum(occurs for token, occurs in count.items() if token in ids) / count.total()
    assert next(iter(job.choice.coverage.values()))[200] == pytest.approx(share, abs=0.002)
    assert any("never proposes" in note for note in job.notes)
    error = refused(draft, target, size=690, corpora=[texts["english"]], out=tmp_path / "large")
    assert (error.code, str(700 - len(neutral)) in error.message) == ("bad-head-size", True)


def test_a_good_head_passes_every_check(reduced: Path, target: Path) -> None:
    checks = tokswap.check_draft_head(reduced, target)
    assert [check.name for check in checks if not check.ok] == []
    assert len(checks) == 7


def changed(reduced: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    folder = makers.copy_model(reduced, to)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def _set(name: str, at: int, value: int) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors[name].__setitem__(at, value)


def _swap(tensors: dict[str, torch.Tensor]) -> None:
    ids = torch.arange(200) + tensors["d2t"]
    ids[[5, 6]] = ids[[6, 5]]
    tensors["d2t"] = ids - torch.arange(200)


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], set[str]]] = {
    "beyond the target": (_set("d2t", 199, 9999), {"range", "agreement"}),
    "below zero": (_set("d2t", 0, -7), {"range", "agreement"}),
    "twice": (lambda tensors: tensors["d2t"].__setitem__(8, tensors["d2t"][7] - 1), {"unique", "order", "agreement"}),
    "order": (_swap, {"order"}),
    "flags": (lambda tensors: tensors.update(t2d=~tensors["t2d"]), {"agreement"}),
    "rows": (lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"][:-1].clone()}), {"rows"}),
    "target": (lambda tensors: tensors.update(t2d=tensors["t2d"][:-1].clone()), {"target size"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_maps_that_do_not_hold_together(
    name: str, reduced: Path, target: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    change, failing = CHANGES[name]
    folder = changed(reduced, tmp_path / "changed", change)
    assert {check.name for check in tokswap.check_draft_head(folder, target) if not check.ok} == failing
    out = tmp_path / "out"
    assert refused(folder, target, size=50, corpora=[texts["german"]], out=out).code == "bad-draft-head"


def test_a_map_to_the_target_is_enough(reduced: Path, target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    """vLLM reads d2t alone."""
    folder = changed(reduced, tmp_path / "one", lambda tensors: tensors.pop("t2d"))
    for big in (target, None):
        checks = tokswap.check_draft_head(folder, big)
        assert [check.name for check in checks] == ["rows", "draft_vocab_size", "range", "unique", "order"]
        assert all(check.ok for check in checks)
    nameless = makers.copy_model(folder, tmp_path / "nameless")
    makers.edit_json(nameless / "config.json", vocab_size=..., architectures=None)
    assert all(check.ok for check in tokswap.check_draft_head(nameless))
    for source in (folder, reduced):
        tokswap.reduce_draft_head(
            source, target, size=50, corpora=[texts["german"]], out=tmp_path / f"{source.name}-50"
        )
    made = [load_file(tmp_path / f"{source.name}-50" / "model.safetensors") for source in (folder, reduced)]
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    changed(folder, tmp_path / "wrong", _set("d2t", 199, 9999))
    for big in (target, None):
        assert [check.name for check in tokswap.check_draft_head(tmp_path / "wrong", big) if not check.ok] == ["range"]


@pytest.mark.parametrize("name", ["d2t", "t2d"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_maps_of_numbers_that_numpy_has_not(
    name: str, dtype: torch.dtype, reduced: Path, target: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    folder = changed(reduced, tmp_path / "changed", lambda one: one.update({name: one[name].float().to(dtype)}))
    error = refused(folder, target, size=50, corpora=[texts["german"]], out=tmp_path / "out")
    assert error.code == "bad-draft-head"
    assert "not lists" in error.message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"lm_head.bias": torch.zeros(700)}, "lm_head.bias too"),
        ({"lm_head.weight_scale": torch.ones(700, 1)}, "lm_head.weight_scale too"),
        ({"lm_head.weight": torch.ones(700)}, "not a matrix"),
        ({"lm_head.weight": torch.tensor(1.0)}, "not a matrix"),
    ],
)
def test_an_lm_head_that_is_no_matrix_alone(
    more: dict[str, torch.Tensor], words: str, eagle: Path, target: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    """Its biases and scales were lost, or kept their size."""
    folder = changed(eagle, tmp_path / "changed", lambda tensors: tensors.update(more))
    error = refused(folder, target, size=50, corpora=[texts["german"]], out=tmp_path / "out")
    assert error.code == "bad-draft-head"
    assert words in error.message


def refused(model: Path, target: Path, **options: Any) -> TokswapError:
    with pytest.raises(TokswapError) as caught:
        tokswap.reduce_draft_head(model, target, **options)
    assert not options["out"].exists()
    return caught.value


def test_bad_input(eagle: Path, target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpora": [texts["german"]], "out": tmp_path / "out"}
    assert refused(eagle, target, size=701, **options).code == "bad-head-size"
    assert "700" in refused(eagle, target, size=9999, **options).message
    with pytest.raises(TokswapError, match="at least 1"):
        tokswap.plan_draft_head(eagle, target, size=0, **options)
    assert refused(eagle, target, size=10, corpora=[], out=tmp_path / "out").code == "nothing-to-keep"
    (tmp_path / "empty.txt").write_text("")
    empty = {**options, "corpora": [str(tmp_path / "empty.txt")]}
    assert refused(eagle, target, size=10, **empty).code == "empty-corpus"
    narrow = changed_head(eagle, tmp_path / "narrow")
    assert refused(narrow, target, size=10, **options).code == "bad-draft-head"
    pickled = makers.copy_model(eagle, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "safetensors" in refused(pickled, target, size=10, **options).message
    (pickled / "model.safetensors").write_bytes(b"no")
    assert refused(pickled, target, size=10, **options).code == "bad-draft-head"
    with pytest.raises(InputError, match="there are no"):
        tokswap.check_draft_head(eagle, target)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("")
    with pytest.raises(TokswapError) as caught:
        tokswap.reduce_draft_head(eagle, target, size=10, corpora=[texts["german"]], out=tmp_path / "there")
    assert caught.value.code == "output-exists"


def changed_head(eagle: Path, to: Path) -> Path:
    folder = makers.copy_model(eagle, to)
    save_file({"lm_head.weight": torch.zeros(300, WIDTH)}, folder / "model.safetensors")
    return folder


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.stdout


def test_commands(eagle: Path, reduced: Path, target: Path, texts: dict[str, str], tmp_path: Path) -> None:
    common = ("draft-head", "--model", eagle, "--target", target, "--corpus", texts["german"], "--size", "128")
    text = run(*common, "--out", tmp_path / "out", "--dry-run")
    assert "would write" in text
    assert "by which" in text or "chosen by" in text
    assert not (tmp_path / "out").exists()
    plain = json.loads(run(*common, "--out", tmp_path / "out", "--json"))
    assert plain["tokens"] == 128
    assert (tmp_path / "out" / "hot_token_ids.pt").is_file()
    assert "7 of 7 checks hold" in run("draft-head", "--model", tmp_path / "out", "--target", target, "--check")
    bad = changed(reduced, tmp_path / "bad", _set("d2t", 199, 9999))
    assert "FAIL" in run("draft-head", "--model", bad, "--target", target, "--check", status=1)
