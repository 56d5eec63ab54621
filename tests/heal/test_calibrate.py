from __future__ import annotations

import json
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
from tokswap.evaluation.losses import bits_per_byte, load_model
from tokswap.heal import fit as fitting
from tokswap.heal.calibration import Calibrated, Calibration, Tables, cost
from tokswap.heal.passages import read_passages
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]

TEXT = shipped_text("english") + shipped_text("german")
# Random models: rows have much to learn, and a few hundred tokens must be enough for a test.
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
    """A Phi-like head: here GPT-J's, the one causal family of makers' size with a bias beside its head."""
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


# What it makes.


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
    assert "calibrated, so changed everywhere" in checks["copied rows"].detail
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


def test_the_text_chooses_where_the_method_is_left_to_auto(text: Path, model_of: Make, tmp_path: Path) -> None:
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
    assert report.plan.donor is None
    assert all(entry["method"].startswith("subword") for entry in report.evidence["text"]["candidates"])


def test_a_text_that_makes_things_worse_leaves_the_rows_alone(
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


def test_a_small_text_has_one_passage_to_judge_by(model_of: Make) -> None:
    """Even then what came out worse is not kept."""
    folder = model_of("llama", vocab_size=640)
    model, _ = load_model(folder)
    rows = model.get_input_embeddings().weight.detach().numpy().copy()
    head = model.get_output_embeddings().weight.detach().numpy().copy()
    passages = read_passages(sorted(makers.TEXTS.glob("*.txt")), read_tokenizer(folder))[:4]
    made = fitting.fit(model, Tables(rows, head), passages, [], Calibration(tokens=2000, rate=20.0, map_rate=1.0))
    assert made.tables is None
    assert made.notes()


# The command line.


def test_the_command_says_what_it_costs_and_what_came_of_it(text: Path, model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700)
    args = ["transplant", "--model", source, "--tokenizer", donor, "--calibrate", text, "--out", tmp_path / "out"]
    dry = CliRunner().invoke(main, [*map(str, args), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "every row of its tables will change" in dry.stdout
    assert "calibration reads 10,0" in dry.stdout
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*map(str, args)])
    assert done.exit_code == 0, done.output
    assert "all tables: method chosen by the text, bits per byte" in done.stdout
    assert done.stdout.count("(chosen)") == 1
    assert "bits per byte, " in done.stdout
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "out"), "--against", str(source)])
    assert checked.exit_code == 0, checked.output
    assert "calibrated, so changed everywhere: model.embed_tokens.weight, lm_head.weight" in checked.output


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
def test_a_script_that_the_tokenizer_cannot_spell(
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


# The parts.


def test_passages_hold_the_whole_text(text: Path, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    passages = read_passages([text], tokenizer)
    assert sum(passage.bytes for passage in passages) == text.stat().st_size
    assert max(passage.bytes for passage in passages) <= 1000
    whole = b"".join(tokenizer.vocabulary.token_bytes[token] for passage in passages for token in passage.ids.tolist())
    assert whole == text.read_bytes()


def test_no_passage_is_longer_than_the_model_can_read(text: Path, tokenizer_of: Make) -> None:
    tokenizer = read_tokenizer(tokenizer_of("byte-level"))
    passages = read_passages([text], tokenizer, 50)
    assert max(len(passage.ids) for passage in passages) <= 50
    # A piece of one token has nothing to predict and is left out.
    assert sum(passage.bytes for passage in passages) > 0.98 * text.stat().st_size


def test_text_without_a_space_is_cut_between_characters(tokenizer_of: Make, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("日本" * 1000, encoding="utf-8")
    passages = read_passages([tmp_path / "text.txt"], read_tokenizer(tokenizer_of("byte-level")))
    assert sum(passage.bytes for passage in passages) == 6000
    assert all(passage.bytes % 3 == 0 for passage in passages)


def test_the_cost_is_bounded_whatever_the_text() -> None:
    settings = Calibration()
    assert cost(settings, 10_000_000, 100, 10) == cost(settings, 10**9, 100, 10)
    assert cost(settings, 1000, 100, 10) < cost(settings, 10_000, 100, 10)


def test_a_long_text_is_trained_on_in_part(model_of: Make, text: Path) -> None:
    folder = model_of("llama-tied", vocab_size=640)
    model, _ = load_model(folder)
    rows = model.get_input_embeddings().weight.detach().numpy().copy()
    passages = read_passages([text], read_tokenizer(folder))
    made = fitting.fit(model, Tables(rows), passages, [], Calibration(tokens=600))
    assert isinstance(made, Calibrated)
    assert made.history["tokens_trained"] < 1300 < made.history["tokens"]


# A method for the head.


def test_the_head_gets_rows_of_its_own_method(model_of: Make, tmp_path: Path) -> None:
    pair = (str(model_of("llama", vocab_size=640)), str(model_of("gpt2", vocab_size=700)))
    first = "subword(weights=first)"
    tokswap.transplant_tokenizer(*pair, init="subword", out=tmp_path / "one")
    tokswap.transplant_tokenizer(*pair, init=first, out=tmp_path / "two")
    report = tokswap.transplant_tokenizer(*pair, init="subword", output_init=first, out=tmp_path / "out")
    assert (report.plan.method, report.plan.output_method) == ("subword", first)
    assert report.plan.output_settings["weights"] == "first"
    one, two, out = (tools.weights(tmp_path / name) for name in ("one", "two", "out"))
    assert tools.bits(out["model.embed_tokens.weight"]) == tools.bits(one["model.embed_tokens.weight"])
    assert tools.bits(out["lm_head.weight"]) == tools.bits(two["lm_head.weight"])
    assert tools.bits(one["lm_head.weight"]) != tools.bits(two["lm_head.weight"])


def test_a_head_that_is_the_input_table_has_no_method_of_its_own(model_of: Make, tmp_path: Path) -> None:
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
    assert "for the head  subword(weights=first)" in done.stderr
    assert len(tools.tables_of("llama")) == 2
    tables = tools.weights(tmp_path / "out")
    assert tools.bits(tables["model.embed_tokens.weight"]) != tools.bits(tables["lm_head.weight"])


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
