from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from makers import copy_model, edit_json, read_json, write_json
from safetensors.torch import load_file, save_file

import tokswap
from tokswap.errors import InputError, OutputError, TokswapError, UsageError

Make = Callable[..., Path]

TEXT = "The old bridge was closed: 3 ferries, naïve Übung, def f(x): return x  # год 2024\n"
DONORS = {"byte-level": "gpt-neox", "sentencepiece": "llama", "unigram": "t5", "wordpiece": "bert"}
FAMILY_NAMES = {
    "byte-level": "byte-level BPE",
    "sentencepiece": "SentencePiece BPE",
    "unigram": "Unigram",
    "wordpiece": "WordPiece",
}


# Every architecture onto every family.


@dataclass(frozen=True)
class Case:
    architecture: str
    family: str
    dtype: str
    shards: int
    rows: int | None

    def __str__(self) -> str:
        form = f"{self.dtype}-{self.shards}{'-padded' if self.rows else ''}"
        return f"{self.architecture}-to-{self.family}-{form}"


ARCHITECTURES = ("llama", "llama-tied", "qwen2", "gemma3", "gpt2", "gpt-neox", "bert", "t5", "bart")
CASES = [
    Case(
        architecture,
        family,
        ("float32", "bfloat16")[(a + f) % 2],
        (1, 3)[(a + f // 2) % 2],
        (None, None, 677)[(a + 2 * f) % 3],
    )
    for (a, architecture), (f, family) in product(enumerate(ARCHITECTURES), enumerate(DONORS))
]


@dataclass(frozen=True)
class Done:
    case: Case
    source: Path
    donor: Path
    out: Path
    report: tokswap.Report
    before: dict[str, str]


@pytest.fixture(scope="module", params=CASES, ids=str)
def done(request: pytest.FixtureRequest, model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Done:
    case: Case = request.param
    source = model_of(case.architecture, vocab_size=640, dtype=case.dtype, shards=case.shards, rows=case.rows)
    donor = model_of(DONORS[case.family], family=case.family, vocab_size=700, rows=707, seed=5)
    out = tmp_path_factory.mktemp("out") / "result"
    before = tools.snapshot(source)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=out)
    return Done(case, source, donor, out, report, before)


def test_every_check_of_verify_holds(done: Done) -> None:
    checks = tokswap.verify_checkpoint(done.out, against=done.source)
    assert [check for check in checks if not check.ok] == []
    assert {"vocabulary size", "copied rows", "other tensors", "model loads", "padding rows"} <= {
        check.name for check in checks
    }


def test_the_result_loads_like_the_source(done: Done) -> None:
    model, info = tools.load(done.out, done.case.architecture)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.config.vocab_size == 707
    assert model.get_input_embeddings().weight.shape[0] == 707
    assert str(model.dtype) == f"torch.{done.case.dtype}"
    assert tools.logits(model, [5, 6, 7]).shape == (3, 707)


def test_the_result_has_the_targets_tokenizer(done: Done) -> None:
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(done.out, local_files_only=True)
    theirs = AutoTokenizer.from_pretrained(done.donor, local_files_only=True)
    assert ours.get_vocab() == theirs.get_vocab()
    bare = {"add_special_tokens": False}
    assert ours(TEXT, **bare)["input_ids"] == theirs(TEXT, **bare)["input_ids"]
    assert done.report.plan.change.family_after == FAMILY_NAMES[done.case.family]


def test_the_matrices_hold_copied_rows_bit_for_bit(done: Done) -> None:
    old, new = tools.weights(done.source), tools.weights(done.out)
    source_of = np.array(read_json(done.out / "tokswap.json")["tokens"]["source_of"])
    copied = np.flatnonzero(source_of >= 0)
    assert len(copied) > 100
    for name in tools.matrices_of(done.case.architecture):
        width = 32 if name.endswith("weight") else 1
        rows, origin = new[name].reshape(-1, width), old[name].reshape(-1, width)
        assert rows.shape[0] == len(source_of) == 707
        assert rows.dtype == origin.dtype
        assert tools.bits(rows[copied]) == tools.bits(origin[source_of[copied]])


def test_every_other_tensor_is_the_sources_byte_for_byte(done: Done) -> None:
    old, new = tools.weights(done.source), tools.weights(done.out)
    assert set(new) == set(old)
    others = set(old) - set(tools.matrices_of(done.case.architecture))
    assert len(others) > 10
    assert [name for name in others if tools.bits(old[name]) != tools.bits(new[name])] == []


def test_files_shards_and_configs_keep_their_form(done: Done) -> None:
    assert tools.snapshot(done.source) == done.before
    assert sorted(path.name for path in done.out.glob("*.safetensors*")) == sorted(
        path.name for path in done.source.glob("*.safetensors*")
    )
    old, new = read_json(done.source / "config.json"), read_json(done.out / "config.json")
    assert new["vocab_size"] == 707
    assert new.get("tie_word_embeddings") == old.get("tie_word_embeddings")
    changed = {key for key in old if old[key] != new[key]}
    assert all(key == "vocab_size" or key.endswith("_token_id") for key in changed)
    for path in done.out.glob("*.index.json"):
        index = read_json(path)
        assert index["metadata"]["total_size"] == sum(len(tools.bits(t)) for t in tools.weights(done.out).values())


# A tokenizer with the same tokens under other ids: nothing is missing, so nothing may change but the order.

RENUMBERED = [
    *((architecture, {}) for architecture in (*ARCHITECTURES, "roberta")),
    ("llama", {"family": "unigram"}),
    ("llama-tied", {"family": "wordpiece"}),
    ("t5", {"family": "sentencepiece", "rows": 677}),
    ("gpt2", {"rows": 677, "dtype": "bfloat16", "shards": 3}),
]


@pytest.mark.parametrize(("architecture", "options"), RENUMBERED, ids=lambda value: str(value))
def test_renumbering_the_tokens_renumbers_the_logits_and_nothing_else(
    architecture: str, options: dict[str, Any], model_of: Make, tmp_path: Path
) -> None:
    import torch

    source = model_of(architecture, vocab_size=640, **options)
    donor = copy_model(model_of(architecture, vocab_size=640, seed=7, **options), tmp_path / "donor")
    pad = makers.role_ids(source)["pad"]
    new_of = tools.renumbered(donor, keep=(pad,) if architecture == "roberta" else ())
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    assert "missing" not in report.plan.coverage

    before, after = tools.encode(source, TEXT), tools.encode(tmp_path / "out", TEXT)
    assert after == new_of[before].tolist()
    old, new = (tools.load(folder, architecture)[0] for folder in (source, tmp_path / "out"))
    scores, expected = tools.logits(new, after)[:, new_of], tools.logits(old, before)[:, : len(new_of)]
    produced = [token for token in range(len(new_of)) if token not in tools.unused_bytes(source)]
    scores, expected = scores[:, produced], expected[:, produced]
    # The same products in another order of columns: a matrix product may round the last bit differently.
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5 if old.dtype == torch.float32 else 0.02)
    more = [
        {"decoder_input_ids": torch.tensor([ids])} if old.config.is_encoder_decoder else {} for ids in (before, after)
    ]
    with torch.inference_mode():
        was = old(torch.tensor([before]), output_hidden_states=True, **more[0])
        now = new(torch.tensor([after]), output_hidden_states=True, **more[1])
    names = [name for name in was if name.endswith("hidden_states")]
    assert names
    for name in names:
        assert all(torch.equal(a, b) for a, b in zip(was[name], now[name], strict=True))


def test_generation_is_the_same_text_after_renumbering(model_of: Make, tmp_path: Path) -> None:
    from tokswap.evaluation.continuations import greedy
    from tokswap.evaluation.losses import bits_per_byte
    from tokswap.evaluation.models import load_model

    source = model_of("llama", family="byte-level", vocab_size=640, adds_bos=True)  # every token can be produced
    donor = copy_model(source, tmp_path / "donor")
    tools.renumbered(donor)
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    (old, its), (new, theirs) = load_model(source), load_model(tmp_path / "out")
    assert greedy(new, theirs, "The old", 12) == greedy(old, its, "The old", 12)
    was, now = (bits_per_byte(m, t, TEXT, window=24, overlap=8) for m, t in ((old, its), (new, theirs)))
    assert (now.tokens, now.bytes) == (was.tokens, was.bytes)
    assert now.bits == pytest.approx(was.bits, rel=1e-5)


# Tied and untied.


@pytest.mark.parametrize(
    ("architecture", "head"),
    [("llama-tied", "lm_head.weight"), ("gemma3", "lm_head.weight"), ("gpt2", "lm_head.weight")],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_an_untied_result_has_the_logits_of_the_tied_one(
    architecture: str, head: str, shards: int, model_of: Make, tmp_path: Path
) -> None:
    import torch

    source = model_of(architecture, vocab_size=640, shards=shards)
    donor = model_of("llama", vocab_size=700)
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "tied")
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "untied", tie=False)
    assert not report.plan.change.tied
    # Compared on copied rows: those that omp computes for the new head come from the donor's head.
    tied, untied = tools.weights(tmp_path / "tied"), tools.weights(tmp_path / "untied")
    assert set(untied) == {*tied, head}
    assert read_json(tmp_path / "untied" / "config.json")["tie_word_embeddings"] is False
    one, _ = tools.load(tmp_path / "tied", architecture)
    two, info = tools.load(tmp_path / "untied", architecture)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    copied = np.flatnonzero(np.array(read_json(tmp_path / "tied/tokswap.json")["tokens"]["source_of"]) >= 0)
    ids = copied[:40].tolist()
    torch.testing.assert_close(tools.logits(two, ids)[:, copied], tools.logits(one, ids)[:, copied], rtol=0, atol=1e-5)
    assert two.get_output_embeddings().weight.data_ptr() != two.get_input_embeddings().weight.data_ptr()
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "untied", against=source))


def test_untying_makes_the_same_logits_everywhere_where_both_matrices_are_solved_alike(
    model_of: Make, tmp_path: Path
) -> None:
    import torch

    source, target = model_of("llama-tied", vocab_size=640), model_of("gpt2", vocab_size=700)
    for name, tie in (("tied", None), ("untied", False)):
        tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / name, tie=tie, init="subword")
    scores = [tools.logits(tools.load(tmp_path / name, "llama")[0], [40, 50, 60, 650]) for name in ("tied", "untied")]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shards", [1, 3])
def test_tying_drops_the_head_and_says_so(shards: int, model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640, shards=shards), model_of("gpt2", vocab_size=700)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", tie=True)
    assert report.plan.change.tied
    assert any("--tie" in note for note in report.plan.notes)
    assert [matrix.shape_after for matrix in report.plan.matrices if matrix.role == "output"] == [None]
    assert set(tools.weights(source)) - set(tools.weights(tmp_path / "out")) == {"lm_head.weight"}
    model, info = tools.load(tmp_path / "out", "llama")
    assert not info["missing_keys"]
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=source))


@pytest.mark.parametrize("flag", [True, False])
def test_a_head_that_the_config_denies_is_named(flag: bool, model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    edit_json(source / "config.json", tie_word_embeddings=flag)
    plan = tokswap.plan_transplant(source, model_of("gpt2", vocab_size=700), init="subword", out=tmp_path / "out").plan
    assert any("lm_head.weight is another matrix" in note for note in plan.notes) == flag


def test_a_tie_keeps_the_heads_of_layers_that_predict_further_tokens(model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    further = "model.layers.2.shared_head.head.weight"
    tools.rewrite(source, lambda all: all.update({further: all["lm_head.weight"] * 2}))
    target = model_of("gpt2", vocab_size=700)
    tokswap.transplant_tokenizer(source, target, init="subword", out=tmp_path / "out", tie=True)
    assert "lm_head.weight" not in tools.weights(tmp_path / "out")
    assert tools.weights(tmp_path / "out")[further].shape[0] == 700


# Rows.


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, 707),
        ({"vocab_size": "tight"}, 700),
        ({"vocab_size": 700}, 700),
        ({"vocab_size": "900"}, 900),
        ({"pad_to_multiple": 64}, 768),
        ({"vocab_size": "tight", "pad_to_multiple": 100}, 700),
        ({"vocab_size": 701, "pad_to_multiple": 100}, 800),
    ],
    ids=str,
)
def test_rows(options: dict[str, Any], rows: int, model_of: Make) -> None:
    donor = model_of("gpt-neox", family="byte-level", vocab_size=700, rows=707, seed=5)
    job = tokswap.plan_transplant(str(model_of("llama", vocab_size=640)), str(donor), out="nowhere", **options)
    assert sum(job.plan.coverage.values()) == rows
    assert job.plan.coverage.get("padding", 0) == rows - 700
    assert [matrix.shape_after for matrix in job.plan.matrices] == [(rows, 32)] * 2


# Tokens by hand, and the beginning of texts.


def _with_tokens(folder: Path, *tokens: str) -> Path:
    """Add special tokens at the end of a tokenizer without weights."""
    spec, size = read_json(folder / "tokenizer.json"), makers.tokenizer_size(folder)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] += [{"id": size + n, "content": token, **flags} for n, token in enumerate(tokens)]
    write_json(folder / "tokenizer.json", spec)
    return folder


def test_map_tokens(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640)
    target = _with_tokens(copy_model(tokenizer_of("byte-level", vocab_size=700), tmp_path / "t"), "<a=b>", "<tool>")
    pairs = ["<a=b>=<eos>", "<tool>=▁the", "<|im_start|>=<unused3>", "==="]
    job = tokswap.plan_transplant(str(source), str(target), init="subword", map_tokens=pairs, out="nowhere")
    ours, theirs = job.task.source.tokenizer.vocabulary, job.task.target.vocabulary
    source_of = {
        theirs.text[t]: ours.text[job.task.alignment.source_of[t]]
        for t in np.flatnonzero(job.task.alignment.reason == 5)
    }
    assert source_of == {"<a=b>": "<eos>", "<tool>": "▁the", "<|im_start|>": "<unused3>", "=": "="}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("<|im_strat|>=<eos>", "the target tokenizer has no token '<|im_strat|>'. Did you mean `<|im_start|>`?"),
        ("<|im_end|>=<eoss>", "the source tokenizer has no token '<eoss>'. Did you mean `<eos>`?"),
        ("<|im_end|>", "'<|im_end|>'"),
        ("=", "'='"),
    ],
)
def test_unknown_mapped_tokens(pair: str, message: str, model_of: Make, tokenizer_of: Make) -> None:
    with pytest.raises(UsageError) as caught:
        tokswap.plan_transplant(
            str(model_of("llama", vocab_size=640)), str(tokenizer_of("byte-level")), init="subword", map_tokens=[pair]
        )
    assert caught.value.code == "unknown-token"
    assert message in caught.value.message
    assert "TARGET=SOURCE" in caught.value.hint


def test_bos_is_added_where_the_model_expects_it(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    source, target = model_of("llama", vocab_size=640, adds_bos=True), tokenizer_of("byte-level")
    report = tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "auto", init="subword")
    assert report.plan.change.bos_added
    assert tools.encode(tmp_path / "auto", "hello")[0] == 1  # <|im_start|>, the target's bos
    assert tools.encode(tmp_path / "auto", "hello")[1:] == tools.encode(target, "hello")
    model, _ = tools.load(tmp_path / "auto", "llama")
    assert model.config.bos_token_id == 1

    report = tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "keep", init="subword", bos="keep")
    assert not report.plan.change.bos_added
    assert any("will not add it" in note for note in report.plan.notes)
    assert tools.encode(tmp_path / "keep", "hello") == tools.encode(target, "hello")


def test_bos_without_a_candidate_is_a_note_until_one_is_named(
    model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    target = copy_model(tokenizer_of("byte-level"), tmp_path / "t")
    edit_json(target / "tokenizer_config.json", bos_token=...)
    common = {"out": "nowhere", "init": "subword"}
    source = str(model_of("llama", vocab_size=640, adds_bos=True))
    plan = tokswap.plan_transplant(source, str(target), **common).plan
    assert not plan.change.bos_added
    assert any("--map-token 'TARGET=<bos>'" in note for note in plan.notes)
    mapped = tokswap.plan_transplant(source, str(target), map_tokens=["<|im_start|>=<bos>"], **common).plan
    assert mapped.change.bos_added


def test_bos_stays_off_where_the_model_never_saw_it(model_of: Make, tokenizer_of: Make) -> None:
    plan = tokswap.plan_transplant(
        str(model_of("llama", vocab_size=640)), str(tokenizer_of("byte-level")), init="subword", out="nowhere"
    ).plan
    assert not plan.change.bos_added


# Donors.


def test_the_donor_defaults_to_the_tokenizers_own_model(model_of: Make) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700)
    job = tokswap.plan_transplant(str(source), str(donor), out="nowhere")
    assert job.plan.names.donor == str(donor)
    assert tokswap.plan_transplant(str(source), str(donor), out="nowhere", init="subword").plan.names.donor is None


def test_an_explicit_donor_serves_a_tokenizer_without_weights(model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2", vocab_size=700, rows=707)
    target = donor / "tokenizer.json"
    tokswap.transplant_tokenizer(str(source), str(target), donor=str(donor), out=tmp_path / "explicit")
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "default")
    a, b = (tools.weights(tmp_path / name) for name in ("explicit", "default"))
    assert all(tools.bits(a[name]) == tools.bits(b[name]) for name in b)


def test_a_donor_without_a_head_lends_its_input_embeddings_to_both(model_of: Make, tmp_path: Path) -> None:
    donor = copy_model(model_of("gpt-neox", vocab_size=700), tmp_path / "donor")
    tools.rewrite(donor, lambda tensors: tensors.pop("embed_out.weight"))
    edit_json(donor / "config.json", architectures=["GPTNeoXModel"])
    source = model_of("llama", vocab_size=640)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", init="omp")
    assert (
        report.rows.diagnostics["output"]["residual"].tolist() == report.rows.diagnostics["input"]["residual"].tolist()
    )
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=source))


def _donor_error(code: str, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(out="nowhere", **options)
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


def test_wrong_donors(model_of: Make, tokenizer_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = str(model_of("llama", vocab_size=640)), tokenizer_of("byte-level", vocab_size=700)
    small, other = model_of("gpt2", vocab_size=600), model_of("llama", vocab_size=700)
    _donor_error("donor-too-small", model=source, tokenizer=str(target), donor=str(small))
    assert "the first is 0" in str(
        _donor_error("donor-mismatch", model=source, tokenizer=str(target), donor=str(other))
    )
    without = _donor_error("missing-donor", init="omp", model=source, tokenizer=str(target))
    assert "--donor" in without.hint
    assert "subword" in without.hint
    _donor_error("missing-donor", init="omp", model=source, tokenizer=str(target / "tokenizer.json"))
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path))
    from tokswap.storage.resolve import set_alias

    set_alias("mine", str(target))
    _donor_error("missing-donor", init="omp", model=source, tokenizer="mine")


# The output folder.


def test_the_output_is_named_after_both(model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_model(model_of("llama", vocab_size=640), tmp_path / "my-model")
    copy_model(model_of("gpt2"), tmp_path / "their.model")
    monkeypatch.chdir(tmp_path)
    report = tokswap.transplant_tokenizer("my-model", "./their.model/", init="mean")
    assert report.plan.names.out == "my-model-their.model"
    assert (tmp_path / "my-model-their.model" / "model.safetensors").is_file()
    job = tokswap.plan_transplant("my-model", "their.model/tokenizer.json", init="zero", force=True)
    assert job.plan.names.out == "my-model-their.model"


def test_link_shares_untouched_shards_only(model_of: Make, tmp_path: Path) -> None:
    source, donor = copy_model(model_of("llama", vocab_size=640, shards=3), tmp_path / "source"), model_of("gpt2")
    job = tokswap.plan_transplant(str(source), str(donor), out=tmp_path / "out", link=True)
    job.run()
    same = {path.name for path in source.glob("*.safetensors") if path.samefile(tmp_path / "out" / path.name)}
    placed = read_json(source / "model.safetensors.index.json")["weight_map"]
    touched = {placed[name] for name in tools.matrices_of("llama")}
    assert same == set(placed.values()) - touched
    assert same
    assert job.plan.sizes.bytes_written == job.plan.sizes.bytes_after - sum(
        (source / name).stat().st_size for name in same
    )


def test_a_plan_reads_no_weights_and_writes_nothing(model_of: Make, tmp_path: Path) -> None:
    source, donor = copy_model(model_of("llama", vocab_size=640), tmp_path / "source"), model_of("gpt2")
    before = tools.snapshot(tmp_path)
    plan = tokswap.plan_transplant(str(source), str(donor), out=tmp_path / "out").plan
    assert tools.snapshot(tmp_path) == before
    assert json.loads(json.dumps(plan.as_dict()))["coverage"] == plan.coverage
    assert plan.sizes.bytes_before == sum(path.stat().st_size for path in source.glob("*.safetensors"))
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert plan.sizes.bytes_after == plan.sizes.bytes_written == written
    assert plan.sizes.parameters_after == sum(tensor.numel() for tensor in tools.weights(tmp_path / "out").values())
    assert report.plan.coverage == plan.coverage


def test_force_replaces_a_result(model_of: Make, tmp_path: Path) -> None:
    source, donor = str(model_of("llama", vocab_size=640)), str(model_of("gpt2"))
    out = tmp_path / "out"
    tokswap.transplant_tokenizer(source, donor, out=out, init="mean")
    before = tools.snapshot(out)
    with pytest.raises(OutputError) as caught:
        tokswap.transplant_tokenizer(source, donor, out=out)
    assert caught.value.code == "output-exists"
    assert tools.snapshot(out) == before
    tokswap.transplant_tokenizer(source, donor, out=out, force=True)
    assert read_json(out / "tokswap.json")["plan"]["method"] == "auto"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_failure_halfway_leaves_nothing(model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokswap.init.methods.subword import Subword

    def fail(self: object, problem: object) -> None:
        raise RuntimeError("halfway")

    monkeypatch.setattr(Subword, "__call__", fail)
    with pytest.raises(RuntimeError, match="halfway"):
        tokswap.transplant_tokenizer(
            str(model_of("llama", vocab_size=640)), str(model_of("gpt2")), out=tmp_path / "x", init="subword"
        )
    assert list(tmp_path.iterdir()) == []


# Refusals.

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("bad-vocab-size", {"vocab_size": 599}),
    ("bad-vocab-size", {"vocab_size": "-5"}),
    ("bad-vocab-size", {"vocab_size": "big"}),
    ("bad-vocab-size", {"pad_to_multiple": 0}),
    ("bad-bos", {"bos": "maybe"}),
    ("unknown-method", {"init": "opm"}),
    ("unknown-setting", {"settings": {"kk": 3}}),
    ("bad-setting", {"init": "omp", "settings": {"k": 0}}),
    ("bad-setting", {"init": "omp", "settings": {"k": "many"}}),
    ("unknown-model", {"model": "no-such-thing"}),
    ("unknown-tokenizer", {"tokenizer": "./no/such/thing"}),
]


@pytest.mark.parametrize(("code", "change"), REFUSED, ids=str)
def test_refusals_come_before_anything_is_written(
    code: str, change: dict[str, Any], model_of: Make, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"model": str(model_of("llama", vocab_size=640)), "tokenizer": str(model_of("gpt2"))}
    with pytest.raises(TokswapError) as caught:
        tokswap.transplant_tokenizer(**{**given, "out": tmp_path / "out", **change})
    assert caught.value.code == code
    assert caught.value.exit_status == (1 if code.startswith(("unknown-model", "unknown-tokenizer")) else 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["cuda", "no-such-device"])
def test_a_device_that_is_not_there_is_refused(device: str, model_of: Make, tmp_path: Path) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a cuda device")
    with pytest.raises(UsageError) as caught:
        tokswap.transplant_tokenizer(
            str(model_of("llama", vocab_size=640)), str(model_of("gpt2")), out=tmp_path / "out", device=device
        )
    assert caught.value.code == "bad-device"
    assert device in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "tie", "code"), [("t5", False, "cannot-untie"), ("bert", False, "cannot-untie")]
)
def test_heads_that_cannot_be_split(architecture: str, tie: bool, code: str, model_of: Make) -> None:
    with pytest.raises(UsageError) as caught:
        tokswap.plan_transplant(
            str(model_of(architecture, vocab_size=640)), str(model_of("gpt2")), out="nowhere", tie=tie
        )
    assert caught.value.code == code


@pytest.mark.parametrize(("tie", "code"), [(True, "cannot-tie"), (False, "cannot-untie")])
def test_a_model_without_a_head_can_be_neither_tied_nor_untied(
    tie: bool, code: str, model_of: Make, tmp_path: Path
) -> None:
    source = copy_model(model_of("gpt-neox", vocab_size=640), tmp_path / "source")
    tools.rewrite(source, lambda tensors: tensors.pop("embed_out.weight"))
    edit_json(source / "config.json", architectures=["GPTNeoXModel"])
    with pytest.raises(UsageError) as caught:
        tokswap.plan_transplant(str(source), str(model_of("gpt2")), out="nowhere", tie=tie)
    assert caught.value.code == code


@pytest.mark.parametrize("architecture", ["llama-tied", "gpt2", "gemma3"])
def test_a_config_that_names_no_class(architecture: str, model_of: Make, tmp_path: Path) -> None:
    """The lm_head of a tied model was missing in a result that is not tied, without a sign."""
    from transformers import AutoModelForCausalLM

    source = copy_model(model_of(architecture), tmp_path / "source")
    edit_json(source / "config.json", architectures=...)
    report = tokswap.transplant_tokenizer(
        source, model_of("llama", vocab_size=640), init="subword", out=tmp_path / "out", tie=False
    )
    assert not any("cannot load" in note for note in report.plan.notes)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert model.lm_head.weight.equal(model.get_input_embeddings().weight)
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=source))


@pytest.mark.parametrize("whose", ["model", "donor"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_rows_stop_the_run(whose: str, value: float, model_of: Make, tmp_path: Path) -> None:
    folders = {"model": model_of("llama", vocab_size=640), "donor": model_of("gpt-neox", vocab_size=600)}
    name = {"model": "lm_head.weight", "donor": "embed_out.weight"}[whose]
    folders[whose] = copy_model(folders[whose], tmp_path / whose)

    def damage(tensors: dict[str, Any]) -> None:
        tensors[name][123, 4] = value

    tools.rewrite(folders[whose], damage)
    with pytest.raises(InputError) as caught:
        tokswap.transplant_tokenizer(str(folders["model"]), str(folders["donor"]), out=tmp_path / "out")
    assert caught.value.code == "nan-in-table"
    assert f"the {whose}'s" in caught.value.message
    assert "row 123" in caught.value.message
    assert str(tmp_path / whose) in caught.value.where["folder"]
    assert [path.name for path in tmp_path.iterdir()] == [whose]


def test_vocabularies_without_a_common_token_are_refused(model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("t5", vocab_size=640), tmp_path / "source")
    spec = read_json(source / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    spec["model"]["vocab"] = [*vocab[:4], *([chr(0x4E00 + n) * 5, score] for n, (_, score) in enumerate(vocab[4:]))]
    write_json(source / "tokenizer.json", spec)
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(str(source), str(model_of("gpt2")), out="nowhere", init="mean")
    assert caught.value.code == "no-shared-token"


def test_a_token_that_the_config_needs_must_have_a_place(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    edit_json(source / "config.json", image_token_id=makers.role_ids(source)["unk"])
    common = {"init": "mean", "out": tmp_path / "out"}
    with pytest.raises(InputError) as caught:
        tokswap.transplant_tokenizer(str(source), str(tokenizer_of("byte-level")), **common)
    assert caught.value.code == "unmapped-id"
    assert "'<unk>'" in caught.value.message
    assert not (tmp_path / "out").exists()
    pairs = ["<|reserved_special_token_0|>=<unk>"]
    tokswap.transplant_tokenizer(str(source), str(tokenizer_of("byte-level")), map_tokens=pairs, **common)
    assert read_json(tmp_path / "out" / "config.json")["image_token_id"] == 3


def test_a_tokenizer_larger_than_its_model_is_refused(model_of: Make, tmp_path: Path) -> None:
    source = _with_tokens(copy_model(model_of("llama", vocab_size=640), tmp_path / "source"), "<one>", "<more>")
    edit_json(source / "tokenizer_config.json", eos_token="<more>")
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(str(source), str(model_of("gpt2")), out="nowhere", init="mean")
    assert caught.value.code == "source-too-small"
    assert "642" in caught.value.message


def test_remote_code_comes_along_only_when_trusted(model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    (source / "modeling_own.py").write_text("raise SystemExit('this code ran')\n", encoding="utf-8")
    auto_map = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.OwnConfig"}
    edit_json(source / "config.json", auto_map=auto_map)
    donor = str(model_of("gpt2"))

    report = tokswap.transplant_tokenizer(str(source), donor, out=tmp_path / "built-in")
    assert any("auto_map" in note for note in report.plan.notes)
    assert "auto_map" not in read_json(tmp_path / "built-in" / "config.json")
    assert not list((tmp_path / "built-in").glob("*.py"))

    edit_json(source / "config.json", model_type="own")
    with pytest.raises(InputError) as caught:
        tokswap.transplant_tokenizer(str(source), donor, out=tmp_path / "refused")
    assert caught.value.code == "remote-code"
    assert "--trust-remote-code" in caught.value.hint
    assert not (tmp_path / "refused").exists()
    tokswap.transplant_tokenizer(str(source), donor, out=tmp_path / "trusted", trust_remote_code=True)
    assert read_json(tmp_path / "trusted" / "config.json")["auto_map"] == auto_map
    assert (tmp_path / "trusted" / "modeling_own.py").is_file()


def test_the_tokenizers_own_code_is_left_behind(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    target = copy_model(tokenizer_of("byte-level"), tmp_path / "t")
    auto_map = {"AutoTokenizer": ["tokenization_own.Own", None]}
    edit_json(target / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Own")
    tokswap.transplant_tokenizer(str(model_of("llama", vocab_size=640)), str(target), out=tmp_path / "out", init="mean")
    config = read_json(tmp_path / "out" / "tokenizer_config.json")
    assert "auto_map" not in config
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("trust", [None, False, True])
@pytest.mark.parametrize("family", makers.FAMILIES)
def test_a_model_type_with_a_tokenizer_class_of_its_own_loads_the_new_tokenizer(
    family: str, trust: bool | None, model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    """transformers 5 loads every tokenizer of a qwen2 model as Qwen2Tokenizer, whatever its files say."""
    from transformers import AutoTokenizer

    target = tokenizer_of(family, vocab_size=700)
    tokswap.transplant_tokenizer(str(model_of("qwen2", vocab_size=640)), str(target), out=tmp_path / "out", init="mean")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True, trust_remote_code=trust)
    assert loaded(TEXT)["input_ids"] == tools.encode(target, TEXT)


# What lies beside the weights.


def test_report(model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt-neox", vocab_size=700, rows=707)
    report = tokswap.transplant_tokenizer(
        str(source), str(donor), out=tmp_path / "out", init="omp", settings={"k": "16"}, seed=3
    )
    written = read_json(tmp_path / "out" / "tokswap.json")
    assert written["plan"] == json.loads(json.dumps(report.plan.as_dict()))
    assert written["plan"]["settings"]["k"] == 16
    tokens = written["tokens"]
    reasons = {code: name for name, code in tokens["reasons"].items()}
    counted = {name: sum(reasons[code] == name for code in tokens["reason"]) for name in report.plan.coverage}
    assert counted == report.plan.coverage
    assert tokens["source_of"] == report.alignment.source_of.tolist()
    missing = report.plan.coverage["missing"]
    assert missing > 50
    for role in ("input", "output"):
        for name in ("residual", "coefficient_norm", "support"):
            values = tokens["diagnostics"][role][name]
            assert len(values) == missing
            assert written["diagnostics"][role][name]["most"] == pytest.approx(max(values), abs=1e-4)
        assert max(tokens["diagnostics"][role]["support"]) <= 16
        assert all(0 <= value <= 1 for value in tokens["diagnostics"][role]["residual"])
        assert written["checks"][f"{role} rows made"] == missing
    residuals = [residual for _, residual in written["worst"]]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[0] == pytest.approx(max(tokens["diagnostics"]["input"]["residual"]), abs=1e-3)
    by_reason = sum((Counter(counts) for counts in written["groups"].values()), Counter())
    assert by_reason == written["plan"]["coverage"]
    assert sum(written["groups_before"].values()) == 640
    rows = {
        name: tools.weights(folder)["model.embed_tokens.weight"].norm(dim=1)
        for name, folder in (("source", source), ("result", tmp_path / "out"))
    }
    for name, ids in (("copied", report.alignment.shared), ("made", report.alignment.missing)):
        assert np.allclose(report.rows.norms["input"][name], rows["result"][ids], rtol=1e-5)
    assert np.allclose(
        report.rows.norms["input"]["copied"], rows["source"][report.alignment.source_of[report.alignment.shared]]
    )
    norms = [norm for _, norm, _ in written["unusual"]]
    median = float(np.median(report.rows.norms["input"]["made"]))
    away = np.abs(np.log(np.array(norms) / median))
    assert (np.diff(away) <= 1e-3).all()
    assert len(away) == 0 or away.min() > 0.05
    assert {"tokswap", "transformers", "tokenizers", "torch", "safetensors", "numpy"} == set(written["versions"])
    assert "unknown" not in written["versions"].values()
    assert set(written["seconds"]) == {"prepare", "rows", "write", "all"}


def test_unusual_rows_are_named_with_their_pieces(model_of: Make, tmp_path: Path) -> None:
    source, donor = model_of("llama", vocab_size=640), model_of("gpt-neox", vocab_size=700, rows=707)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", init="gaussian")
    assert len(report.rows.unusual) == 10
    token, norm, pieces = report.rows.unusual[0]
    norms = report.rows.norms["input"]["made"]
    far = np.abs(np.log(norms / np.median(norms)))
    assert norm == pytest.approx(norms[far.argmax()], abs=1e-4)
    spelled = "".join(
        eval(piece) if piece[0] in "'\"" else "?" for piece in pieces
    )  # they are shown as Python writes them
    assert token[0] in "'\"b"
    assert "?" in spelled or spelled == eval(token)
    same = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "same", init="mean")
    assert same.rows.unusual == ()


def test_two_runs_write_the_same_bytes(model_of: Make, tmp_path: Path) -> None:
    source, donor = str(model_of("llama", vocab_size=640, dtype="bfloat16")), str(model_of("gpt2", vocab_size=700))
    for method in ("omp", "gaussian"):
        for name in ("one", "two"):
            tokswap.transplant_tokenizer(source, donor, out=tmp_path / method / name / "result", init=method)
        one, two = (tools.snapshot(tmp_path / method / name / "result") for name in ("one", "two"))
        assert {path for path in one if one[path] != two[path]} == {"tokswap.json"}
    tokswap.transplant_tokenizer(source, donor, out=tmp_path / "seed", init="gaussian", seed=1)
    assert tools.snapshot(tmp_path / "seed")["model.safetensors"] != one["model.safetensors"]


def test_the_generation_config_gets_the_donors_ends_too(model_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    donor = copy_model(model_of("gpt2", vocab_size=700), tmp_path / "donor")
    edit_json(source / "generation_config.json", eos_token_id=[1, 4], temperature=0.6, top_p=0.9, do_sample=True)
    edit_json(donor / "generation_config.json", eos_token_id=[0, 2, 5000])
    pairs = ["<|reserved_special_token_1|>=<unused0>"]
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", map_tokens=pairs)
    written = read_json(tmp_path / "out" / "generation_config.json")
    assert written["eos_token_id"] == [2, 4, 0]
    assert (written["temperature"], written["top_p"], written["do_sample"]) == (0.6, 0.9, True)
    assert written["bos_token_id"] == 1
    model, _ = tools.load(tmp_path / "out", "llama")
    assert model.generation_config.eos_token_id == [2, 4, 0]


def test_the_chat_template_is_the_targets(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = model_of("llama", vocab_size=640, chat_template="{{ 'the old template' }}")
    target = tokenizer_of("byte-level", chat_template=makers.CHAT_TEMPLATE)
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="mean")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    talk = [{"role": "user", "content": "hi"}]
    expected = "<|im_start|>user\nhi<|im_end|>\n"
    assert loaded.apply_chat_template(talk, tokenize=False) == expected
    plan = tokswap.transplant_tokenizer(
        str(source), str(tokenizer_of("byte-level")), out=tmp_path / "bare", init="mean"
    ).plan
    assert any("no chat template" in note for note in plan.notes)
    assert not (tmp_path / "bare" / "chat_template.jinja").exists()


def test_chat_markers_of_other_families_take_each_others_place(
    model_of: Make, tokenizer_of: Make, tmp_path: Path
) -> None:
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    spec = read_json(source / "tokenizer.json")
    for old, new in (("<unused0>", "<start_of_turn>"), ("<unused1>", "<end_of_turn>")):
        entry = next(entry for entry in spec["added_tokens"] if entry["content"] == old)
        entry |= {"content": new, "special": True}
        spec["model"]["vocab"][new] = spec["model"]["vocab"].pop(old)
    write_json(source / "tokenizer.json", spec)
    target = copy_model(tokenizer_of("byte-level", vocab_size=700), tmp_path / "t")
    edit_json(target / "tokenizer_config.json", bos_token=..., pad_token=..., eos_token="<|endoftext|>")
    job = tokswap.plan_transplant(str(source), str(target), init="mean", out="nowhere")
    assert job.plan.coverage["preset"] == 2
    assert job.task.alignment.source_of[:3].tolist() == [1, 4, 5]  # <eos> by role, then the two markers


def test_other_files_of_the_model_come_along(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    source = copy_model(model_of("bert", vocab_size=640), tmp_path / "source")
    for name in ("LICENSE", "modules.json", "old_vocab.txt", "vocab.txt"):
        (source / name).write_text(name, encoding="utf-8")
    (source / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    tokswap.transplant_tokenizer(str(source), str(tokenizer_of("byte-level")), out=tmp_path / "out", init="mean")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {
        "1_Pooling/config.json",
        "LICENSE",
        "README.md",
        "config.json",
        "model.safetensors",
        "modules.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokswap.json",
    }


def test_new_tokens_are_looked_up_as_their_first_piece(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """DeepSeek-V4 looks up the experts of each token in a matrix; integers can be copied, and not computed."""
    import torch

    from tokswap.tokenizer.tokenizer import read_tokenizer

    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    name = "model.layers.0.ffn.gate.tid2eid"
    matrix = torch.arange(640 * 2).reshape(640, 2)
    tools.rewrite(source, lambda tensors: tensors.update({name: matrix}))
    target = tokenizer_of("byte-level", vocab_size=700)
    report = tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", vocab_size=707)
    assert any("matrix of integers" in note for note in report.plan.notes)
    new = tools.weights(tmp_path / "out")[name]
    assert new.shape == (707, 2)
    source_of = report.alignment.source_of
    copied = np.flatnonzero(source_of >= 0)
    assert tools.bits(new[copied]) == tools.bits(matrix[source_of[copied]])
    token_bytes = read_tokenizer(target).vocabulary.token_bytes
    missing = report.alignment.missing.tolist()
    pieces = read_tokenizer(source).tokenize_bytes([token_bytes[token] for token in missing])
    assert sum(map(bool, pieces)) > 50
    assert new[missing].tolist() == [matrix[row[0] if row else 0].tolist() for row in pieces]
    assert new[700:].tolist() == [matrix[0].tolist()] * 7
    checks = {check.name: check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=source)}
    assert checks["copied rows"]
    assert checks["other tensors"]


def test_a_bias_that_all_tokens_share_survives_omp(model_of, tmp_path) -> None:
    """Sparse codes do not add up to one: a common offset must not be scaled with them."""
    source = copy_model(model_of("bert"), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    for name in tensors:
        if name.endswith(("predictions.bias", "decoder.bias")):
            tensors[name] = tensors[name] - 30
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    donor = model_of("llama")
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", vocab_size="tight")
    result = load_file(tmp_path / "out" / "model.safetensors")
    report = json.loads((tmp_path / "out" / "tokswap.json").read_text())
    missing = [n for n, reason in enumerate(report["tokens"]["reason"]) if reason == 0]
    assert missing
    bias = result["cls.predictions.bias"][missing]
    assert (bias > -40).all()
    assert (bias < -20).all()
