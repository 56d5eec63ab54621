from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from click.testing import CliRunner
from makers import copy_model, shipped_text

import tokswap
from tokswap.cli import main
from tokswap.errors import InputError, TokswapError
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.heal import fit as fitting
from tokswap.heal.calibration import Calibration

Make = Callable[..., Path]

TEXT = shipped_text("english") + shipped_text("german")
# Large steps, because the models are random and the tests must be short.
QUICK = Calibration(tokens=4000, epochs=2, rate=0.1, map_rate=1e-3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokswap.heal.calibrate.Calibration", lambda: QUICK)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((TEXT * 10)[:10_000], encoding="utf-8")
    return path


def with_head_bias(folder: Path, out: Path) -> Path:
    """A model whose lm_head has a bias: GPT-J."""
    import torch
    from transformers import GPTJConfig, GPTJForCausalLM

    out = makers.copy_model(folder, out)
    for path in (*out.glob("*.safetensors*"), out / "config.json", out / "generation_config.json"):
        path.unlink(missing_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPTJConfig(
            vocab_size=640,
            n_positions=128,
            n_embd=32,
            n_layer=2,
            n_head=4,
            rotary_dim=4,
            bos_token_id=None,
            eos_token_id=2,
            tie_word_embeddings=False,
        )
        model = GPTJForCausalLM(config)
        makers._randomise(model)
    model.eval().save_pretrained(out)
    return out


@pytest.fixture(params=["llama-tied", "llama", "gpt2", "gemma3", "bias"])
def source(request: pytest.FixtureRequest, model_of: Make, tmp_path: Path) -> Path:
    if request.param == "bias":
        return with_head_bias(model_of("llama", vocab_size=640), tmp_path / "source")
    return model_of(request.param, vocab_size=640)


def loss(folder: Path, text: Path) -> float:
    model, tokenizer = load_model(folder)
    return bits_per_byte(model, tokenizer, text.read_text("utf-8"), window=100, overlap=20).bits_per_byte


# The result.


def test_a_calibrated_result_predicts_the_text_better(source: Path, text: Path, model_of: Make, tmp_path: Path) -> None:
    pair = (str(source), str(model_of("gpt-neox", vocab_size=700, seed=5)))
    tokswap.transplant_tokenizer(*pair, init="subword", out=tmp_path / "plain")
    report = tokswap.transplant_tokenizer(*pair, init="subword", calibrate=[text], out=tmp_path / "out")
    before, after = report.evidence["calibration"]["held_out_bits_per_byte"]
    assert after < before
    assert loss(tmp_path / "out", text) < loss(tmp_path / "plain", text)
    old, plain, new = (tools.weights(folder) for folder in (source, tmp_path / "plain", tmp_path / "out"))
    assert set(new) == set(plain)
    assert set(report.calibrated) == {name for name in new if tools.bits(new[name]) != tools.bits(plain[name])}
    for name in report.calibrated:
        assert name not in old or new[name].shape[1] == old[name].shape[1]
        assert (new[name] != plain[name]).any(dim=1).all(), "the map changes every row"
    checks = {check.name: check for check in tokswap.verify_checkpoint(tmp_path / "out", against=source)}
    assert [check for check in checks.values() if not check.ok] == []
    assert "calibration changed every row of" in checks["copied rows"].detail
    assert report.calibrated[0] in checks["copied rows"].detail


def test_the_same_seed_gives_the_same_file(text: Path, model_of: Make, tmp_path: Path) -> None:
    pair = (str(model_of("llama", vocab_size=640)), str(model_of("gpt2", vocab_size=700)))
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        tokswap.transplant_tokenizer(*pair, init="subword", calibrate=[text], seed=seed, out=tmp_path / name)
    one, two, three = (tools.snapshot(tmp_path / name)["model.safetensors"] for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_half_precision_stays_so(text: Path, model_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640, dtype="bfloat16")
    report = tokswap.transplant_tokenizer(
        str(source), str(model_of("gpt2", vocab_size=700)), init="subword", calibrate=[text], out=tmp_path / "out"
    )
    assert len(report.calibrated) == 2
    assert {str(tensor.dtype) for tensor in tools.weights(tmp_path / "out").values()} == {"torch.bfloat16"}


def test_the_text_chooses_the_method_for_auto(text: Path, model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700)
    report = tokswap.transplant_tokenizer(str(source), str(donor), calibrate=[text], out=tmp_path / "out")
    found = report.evidence["text"]
    losses = {entry["method"]: entry["bits_per_byte"] for entry in found["candidates"]}
    assert {"kriging", "omp", "subword"} < set(losses)
    assert found["chosen"]["all"] == min(losses, key=losses.__getitem__)
    assert json.loads((tmp_path / "out/tokswap.json").read_text("utf-8"))["evidence"]["text"] == found


def test_without_a_donor_the_text_chooses_too(text: Path, model_of: Make, tmp_path: Path) -> None:
    source, tokenizer = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700) / "tokenizer.json"
    report = tokswap.transplant_tokenizer(str(source), str(tokenizer), calibrate=[text], out=tmp_path / "out")
    assert report.plan.names.donor is None
    assert all(entry["method"].startswith("subword") for entry in report.evidence["text"]["candidates"])


def test_a_text_that_makes_things_worse_changes_no_row(
    text: Path, model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm = Calibration(tokens=2000, rate=20.0, map_rate=1.0)
    monkeypatch.setattr("tokswap.heal.calibrate.Calibration", lambda: harm)
    pair = (str(model_of("llama", vocab_size=640)), str(model_of("gpt2", vocab_size=700)))
    tokswap.transplant_tokenizer(*pair, init="subword", out=tmp_path / "plain")
    report = tokswap.transplant_tokenizer(*pair, init="subword", calibrate=[text], out=tmp_path / "out")
    before, after = report.evidence["calibration"]["held_out_bits_per_byte"]
    assert not after < before
    assert report.calibrated == ()
    assert any("no easier to predict" in note for note in report.notes)
    old, new = (tools.snapshot(tmp_path / name)["model.safetensors"] for name in ("plain", "out"))
    assert old == new
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=pair[0]))


# The command line.


def test_the_command_shows_the_cost_and_the_outcome(text: Path, model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700)
    args = ["transplant", "--model", source, "--tokenizer", donor, "--calibrate", text, "--out", tmp_path / "out"]
    dry = CliRunner().invoke(main, [*map(str, args), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "every row of its matrices will change" in dry.stdout
    assert "calibration reads 10,0" in dry.stdout
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*map(str, args)])
    assert done.exit_code == 0, done.output
    assert "all matrices: method chosen by the text, bits per byte" in done.stdout
    assert done.stdout.count("(chosen)") == 1
    assert re.search(r"held-out text: \d\.\d+ -> \d\.\d+ bits per byte\n", done.stdout)
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "out"), "--against", str(source)])
    assert checked.exit_code == 0, checked.output
    assert "calibration changed every row of model.embed_tokens.weight, lm_head.weight" in checked.output


# Bad input.


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-text"),
        (b" \n ", "empty-text"),
        (b"A short text.", "text-too-small"),
        (b"word " * 500, "text-too-small"),
        ("Größe ".encode("latin1") * 2000, "bad-text"),
        (None, "bad-text"),
    ],
    ids=["empty", "space", "tiny", "small", "latin1", "missing"],
)
def test_texts_that_cannot_be_used(content: bytes | None, code: str, model_of: Make, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    before = tools.snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(
            str(model_of("llama", vocab_size=640)),
            str(model_of("gpt2", vocab_size=700)),
            calibrate=[path],
            out=tmp_path / "out",
        )
    assert caught.value.code == code
    assert "text.txt" in str(caught.value)
    assert tools.snapshot(tmp_path) == before


@pytest.mark.parametrize("family", ["unigram", "wordpiece"])
def test_a_script_that_the_tokenizer_does_not_know(
    family: str, tokenizer_of: Make, model_of: Make, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(shipped_text("japanese") * 20, encoding="utf-8")
    target = tokenizer_of(family, seed_text=[shipped_text("english")])
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(
            str(model_of("llama", vocab_size=640)), str(target), calibrate=[tmp_path / "text.txt"], out=tmp_path / "out"
        )
    assert caught.value.code == "text-not-spelt"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "bart"])
def test_models_that_do_not_predict_the_next_token(
    architecture: str, text: Path, model_of: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(
            str(model_of(architecture)), str(model_of("gpt2", vocab_size=700)), calibrate=[text], out=tmp_path / "out"
        )
    assert caught.value.code == "not-causal"


def test_a_run_that_breaks_off_writes_nothing(
    text: Path, model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise KeyboardInterrupt

    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    before = tools.snapshot(tmp_path)
    job = tokswap.plan_transplant(
        str(source), str(model_of("gpt2", vocab_size=700)), init="subword", calibrate=[text], out=tmp_path / "out"
    )
    monkeypatch.setattr(fitting, "_token_losses", broken)
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert tools.snapshot(tmp_path) == before


def test_a_model_without_its_weights_is_not_trained(text: Path, model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    tools.rewrite(source, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(TokswapError) as caught:
        tokswap.transplant_tokenizer(
            str(source), str(model_of("gpt2", vocab_size=700)), init="subword", calibrate=[text], out=tmp_path / "out"
        )
    assert caught.value.code == "incomplete-weights"
    assert not (tmp_path / "out").exists()


# A method for the head.


def test_the_head_gets_rows_of_its_own_method(model_of: Make, tmp_path: Path) -> None:
    pair = (str(model_of("llama", vocab_size=640)), str(model_of("gpt2", vocab_size=700)))
    first = "subword(weights=first)"
    tokswap.transplant_tokenizer(*pair, init="subword", out=tmp_path / "one")
    tokswap.transplant_tokenizer(*pair, init=first, out=tmp_path / "two")
    report = tokswap.transplant_tokenizer(*pair, init="subword", output_init=first, out=tmp_path / "out")
    assert (report.plan.request.method, report.plan.request.output_method) == ("subword", first)
    assert report.plan.request.output_settings["weights"] == "first"
    one, two, out = (tools.weights(tmp_path / name) for name in ("one", "two", "out"))
    assert tools.bits(out["model.embed_tokens.weight"]) == tools.bits(one["model.embed_tokens.weight"])
    assert tools.bits(out["lm_head.weight"]) == tools.bits(two["lm_head.weight"])
    assert tools.bits(one["lm_head.weight"]) != tools.bits(two["lm_head.weight"])


def test_a_tied_head_has_no_method_of_its_own(model_of: Make, tmp_path: Path) -> None:
    pair = [
        "--model",
        str(model_of("llama-tied", vocab_size=640)),
        "--tokenizer",
        str(model_of("gpt2", vocab_size=700)),
    ]
    args = [
        "transplant",
        *pair,
        "--init",
        "subword",
        "--init-output",
        "subword(weights=first)",
        "--out",
        str(tmp_path / "out"),
    ]
    refused = CliRunner().invoke(main, args)
    assert refused.exit_code == 2
    assert "[no-output-head]" in refused.stderr
    assert "--untie" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*args, "--untie"])
    assert done.exit_code == 0, done.output
    assert "lm_head    subword(weights=first)" in done.stderr
    assert len(tools.matrices_of("llama")) == 2
    weights = tools.weights(tmp_path / "out")
    assert tools.bits(weights["model.embed_tokens.weight"]) != tools.bits(weights["lm_head.weight"])


def test_the_screen_shows_the_candidates_of_the_self_test(model_of: Make, tmp_path: Path) -> None:
    pair = ["--model", str(model_of("llama", vocab_size=640)), "--tokenizer", str(model_of("gpt2", vocab_size=700))]
    done = CliRunner().invoke(main, ["transplant", *pair, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for role in ("input", "output"):
        assert f"  {role}: method chosen by " in done.stdout
    assert "hidden shared tokens, mean error" in done.stdout
    assert done.stdout.count("(chosen)") == 2
    for name in ("kriging", "omp", "linear", "subword"):
        assert name in done.stdout
    assert makers.read_json(tmp_path / "out/tokswap.json")["evidence"]["input"]["candidates"]
