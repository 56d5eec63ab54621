"""Extensions from end to end, looked at with plain transformers and safetensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
import torch
import transformers
from commands import one_document, run
from transformers import AutoTokenizer

import tokswap
from tokswap.errors import OutputError, TokswapError, UsageError
from tokswap.extend.terms import read_terms
from tokswap.report.plan import ExtendFacts
from tokswap.tokenizer.output import spec_bytes
from tokswap.trim.ids import read_map

Make = Callable[..., Path]
TERMS = "harbourmaster\nBrückenbau\nferryman\n ferrymen\nthe\n"
ARCHITECTURES = ("llama", "llama-tied", "gemma3", "gpt2", "bert", "t5", "bart")


@pytest.fixture
def terms(tmp_path: Path) -> Path:
    path = tmp_path / "terms.txt"
    path.write_text(TERMS, encoding="utf-8")
    return path


def test_terms_in_json_lines(model_of: Make, terms: Path, tmp_path: Path) -> None:
    """The JSON itself became a token where the tokenizer splits no text."""
    records = [{"term": term, "note": "x"} for term in TERMS.splitlines()]
    lines = tmp_path / "terms.jsonl"
    lines.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    model = model_of("gemma3", vocab_size=640)
    first, second = (
        tokswap.plan_extend(model, init="subword", tokens=[path], field="term").plan.counted for path in (terms, lines)
    )
    assert first == second
    with pytest.raises(TokswapError, match="it has `term`") as caught:
        tokswap.plan_extend(model, init="subword", tokens=[lines])
    assert caught.value.code == "missing-field"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "german.txt"
    path.write_text(makers.shipped_text("german") * 3 + makers.shipped_text("english"), encoding="utf-8")
    return path


def facts_of(done: Any) -> ExtendFacts:
    """What a job or a report says about the new tokens."""
    facts = done.plan.counted
    assert isinstance(facts, ExtendFacts)
    return facts


def failed(folder: Path, source: Path) -> list[str]:
    return [f"{one.name}: {one.detail}" for one in tokswap.verify_checkpoint(folder, against=source) if not one.ok]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_old_rows_stay_and_new_tokens_work(architecture: str, model_of: Make, terms: Path, tmp_path: Path) -> None:
    source, out = model_of(architecture, vocab_size=640), tmp_path / "out"
    terms.write_text(TERMS.lower() if architecture == "bert" else TERMS, encoding="utf-8")
    report = tokswap.extend_model(source, tokens=[terms], init="subword", out=out)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    new = len(after) - len(before)
    assert report.path == out
    assert new == len(facts_of(report).added) >= 3
    old, rows = tools.weights(source), tools.weights(out)
    for name in tools.matrices_of(architecture):
        axis = 1 if name == "final_logits_bias" else 0
        assert rows[name].shape[axis] == old[name].shape[axis] + new
        kept = rows[name].narrow(axis, 0, old[name].shape[axis])
        assert tools.bits(kept) == tools.bits(old[name])
        assert torch.isfinite(rows[name]).all()
    others = set(old) - set(tools.matrices_of(architecture))
    assert all(tools.bits(rows[name]) == tools.bits(old[name]) for name in others)
    model = getattr(transformers, tools.AUTO.get(architecture, "AutoModelForCausalLM")).from_pretrained(out)
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == len(after)
    assert makers.read_json(out / "vocab_map.json")["rows_after"] == len(after)
    word = "ferryman" if architecture == "bert" else "a ferryman"
    assert max(after(word, add_special_tokens=False)["input_ids"]) >= len(before)
    assert failed(out, source) == []


@pytest.mark.parametrize("family", ["unigram", "wordpiece"])
@pytest.mark.parametrize("flags", [{"single_word": True, "normalized": True}, {"single_word": False}])
def test_added_tokens_are_not_found_in_more_texts(
    family: str, flags: dict[str, bool], tokenizer_of: Make, model_of: Make, tmp_path: Path
) -> None:
    """The library numbers added tokens after the model's, so the grown model holds them, and could give them itself."""
    source, out = makers.copy_model(model_of("llama", family=family, rows=640), tmp_path / "source"), tmp_path / "out"
    spec = makers.read_json(source / "tokenizer.json")
    entry = {"lstrip": False, "rstrip": False, "normalized": False, "special": False, **flags}
    spec["added_tokens"].append({"id": makers.tokenizer_size(source), "content": "gym", **entry})
    makers.write_json(source / "tokenizer.json", spec)
    terms = tmp_path / "words.txt"
    terms.write_text("harbourmaster\n")
    if family == "wordpiece":
        with pytest.raises(TokswapError, match="'gym' in more texts than before") as caught:
            tokswap.extend_model(source, tokens=[terms], init="subword", out=out)
        assert caught.value.code == "unsupported-tokenizer"
        return
    tokswap.extend_model(source, tokens=[terms], init="subword", out=out)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    assert max(after("the harbourmaster")["input_ids"]) > max(before.get_vocab().values())
    for text in ("gym time", "gyms instead", "a ｇｙｍ", "gymgym gym", "☕gym☕"):
        assert after(text)["input_ids"] == before(text)["input_ids"]


def test_a_pad_token_without_a_row(model_of: Make, tmp_path: Path) -> None:
    """Left behind by trainings that add [PAD] and do not resize the model: the result does without it."""
    source, out = makers.copy_model(model_of("llama-tied"), tmp_path / "source"), tmp_path / "out"
    pad = {"id": makers.tokenizer_size(source), "content": "[PAD]", "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spec = makers.read_json(source / "tokenizer.json")
    makers.write_json(source / "tokenizer.json", {**spec, "added_tokens": [*spec["added_tokens"], {**pad, **flags}]})
    makers.edit_json(source / "tokenizer_config.json", pad_token="[PAD]")
    (tmp_path / "corpus.txt").write_text("the harbourmaster [PAD] the harbourmaster\n")
    (tmp_path / "terms.txt").write_text("harbourmaster\n")
    given = {"tokens": [tmp_path / "terms.txt"], "corpora": [tmp_path / "corpus.txt"]}
    tokswap.extend_model(source, init="subword", out=out, **given)
    assert failed(out, source) == []
    after = AutoTokenizer.from_pretrained(out)
    assert max(after("a harbourmaster")["input_ids"]) < len(tools.weights(out)["model.embed_tokens.weight"])


def test_norms(model_of: Make, terms: Path, tmp_path: Path) -> None:
    """Input embeddings get the median norm of the old rows; rows that score tokens keep that of the mean."""
    for architecture in ("llama", "llama-tied"):
        source, out = model_of(architecture, vocab_size=640), tmp_path / architecture
        tokswap.extend_model(source, tokens=[terms], init="subword", out=out)
        old, rows = tools.weights(source), tools.weights(out)
        before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
        (token,) = (one for one in after(" ferrymen", add_special_tokens=False)["input_ids"] if one >= 640)
        pieces = before(" ferrymen", add_special_tokens=False)["input_ids"]
        name = "lm_head.weight" if architecture == "llama" else "model.embed_tokens.weight"
        torch.testing.assert_close(rows[name][token], old[name][pieces].mean(0))
        if architecture == "llama":
            norms = rows["model.embed_tokens.weight"][640:].norm(dim=1)
            assert norms.numpy() == pytest.approx(
                float(old["model.embed_tokens.weight"].norm(dim=1).median()), rel=0.02
            )


def test_padding_rows_are_used_first(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source = model_of("qwen2", vocab_size=640, rows=704)
    out = tmp_path / "out"
    report = tokswap.extend_model(source, tokens=[terms], out=out)
    added = len(facts_of(report).added)
    old, rows = (tools.weights(path)["model.embed_tokens.weight"] for path in (source, out))
    assert rows.shape == old.shape
    assert [tools.bits(rows[n]) == tools.bits(old[n]) for n in range(704)] == [
        not 640 <= n < 640 + added for n in range(704)
    ]
    assert failed(out, source) == []


def test_rows_that_the_config_names_are_no_room(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", vocab_size=640, rows=704), tmp_path / "source")
    makers.edit_json(source / "config.json", image_token_id=642)
    report = tokswap.extend_model(source, tokens=[terms], out=tmp_path / "out")
    assert facts_of(report).added[0][0] == 643
    config = makers.read_json(tmp_path / "out" / "config.json")
    assert config["image_token_id"] == 642
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()) == 640 + len(facts_of(report).added)


def test_rows_to_a_multiple(model_of: Make, terms: Path, tmp_path: Path) -> None:
    tokswap.extend_model(model_of("llama", vocab_size=640), tokens=[terms], pad_to_multiple=64, out=tmp_path / "out")
    assert tools.weights(tmp_path / "out")["lm_head.weight"].shape[0] == 704
    assert failed(tmp_path / "out", model_of("llama", vocab_size=640)) == []


def test_named_rows(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source, out = model_of("llama-tied", vocab_size=640), tmp_path / "out"
    pairs = ["ferryman= the", " ferrymen= the+ and"]
    tokswap.extend_model(source, tokens=[terms], init="subword", map_tokens=pairs, out=out)
    old, rows = (tools.weights(path)["model.embed_tokens.weight"] for path in (source, out))
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    one, both = (after(f" {word}", add_special_tokens=False)["input_ids"][-1] for word in ("ferryman", "ferrymen"))
    the, and_ = (before(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("the", "and"))
    assert tools.bits(rows[one]) == tools.bits(old[the])
    torch.testing.assert_close(rows[both], (old[the] + old[and_]) / 2)
    assert failed(out, source) == []


def test_less_working_memory_is_in_the_plan(model_of: Make, terms: Path) -> None:
    """A search for nearest tokens holds less at a time, and the plan says so."""

    def needed(memory: int) -> int:
        plan = tokswap.plan_extend(model_of("llama"), tokens=[terms], init="tokenadapt", memory=memory).plan
        return plan.estimate.memory_bytes

    assert needed(50_000) < needed(1 << 30)


@pytest.mark.parametrize("norms", ["median", "method"])
def test_rows_are_made_as_the_user_says(norms: str, model_of: Make, terms: Path, tmp_path: Path) -> None:
    source, out = model_of("llama", vocab_size=640), tmp_path / "out"
    how: dict[str, Any] = {"init": "gaussian", "settings": {"scale": 0}, "output_init": "zero", "input_norms": norms}
    tokswap.extend_model(source, tokens=[terms], **how, out=out)
    old, new = tools.weights(source), tools.weights(out)
    made = new["model.embed_tokens.weight"][640:]
    assert len(made) > 3
    assert torch.equal(made, made[:1].expand_as(made)), "without a deviation all are the mean row"
    assert not new["lm_head.weight"][640:].any()
    typical = old["model.embed_tokens.weight"].norm(dim=1).median()
    assert float(made[0].norm() / typical) == pytest.approx(1 if norms == "median" else 0.2, abs=0.15)


def test_a_corpus_chooses_what_saves_most(model_of: Make, corpus: Path, tmp_path: Path) -> None:
    source, out = model_of("llama", vocab_size=640), tmp_path / "out"
    report = tokswap.extend_model(source, corpora=[str(corpus)], add=60, out=out)
    facts = facts_of(report)
    assert len(facts.added) == 60
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    text = corpus.read_text("utf-8")
    old, new = (len(one(text, add_special_tokens=False)["input_ids"]) for one in (before, after))
    used, held = facts.text_bytes
    assert 0.03 < held / used < 0.12
    both = (facts.saving[-1].used * used + facts.saving[-1].held_out * held) / (used + held)
    assert 1 - new / old == pytest.approx(both, abs=0.01)
    assert [row.used for row in facts.saving] == sorted(row.used for row in facts.saving)
    assert facts.saving[-1].used > 0.09
    assert failed(out, source) == []


@pytest.mark.parametrize("architecture", ["bert", "t5", "gemma3"])
def test_every_family_learns_from_a_corpus(architecture: str, model_of: Make, corpus: Path, tmp_path: Path) -> None:
    source, out = model_of(architecture, vocab_size=640), tmp_path / "out"
    report = tokswap.extend_model(source, corpora=[str(corpus)], add=40, out=out)
    assert len(facts_of(report).added) == 40
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    old, new = (len(one(corpus.read_text("utf-8"))["input_ids"]) for one in (before, after))
    assert new < 0.93 * old
    assert failed(out, source) == []


def test_the_first_tokens_save_what_the_table_says(model_of: Make, corpus: Path, tmp_path: Path) -> None:
    """A row of the table is what an extension of that size saves."""
    source = model_of("llama", vocab_size=640)
    whole = facts_of(tokswap.plan_extend(source, corpora=[str(corpus)], add=60, out=tmp_path / "a"))
    row = whole.saving[2]
    names = [text for _, text, _ in whole.added[: row.tokens]]
    (tmp_path / "first.txt").write_text("\n".join(names), encoding="utf-8")
    terms = [name[1:-1] for name in names if "\\" not in name]
    (tmp_path / "first.txt").write_text("\n".join(terms), encoding="utf-8")
    some = facts_of(
        tokswap.plan_extend(
            source, tokens=[tmp_path / "first.txt"], forms="bare", corpora=[str(corpus)], out=tmp_path / "b"
        )
    )
    if len(some.added) == row.tokens:
        assert some.saving[-1].used == pytest.approx(row.used, abs=1e-4)
    else:
        pytest.fail(f"{len(some.added)} of {row.tokens}: {some.skipped}")


def test_a_vocabulary_of_constant_size(model_of: Make, corpus: Path, tmp_path: Path) -> None:
    source, out = model_of("llama", vocab_size=900), tmp_path / "out"
    report = tokswap.extend_model(source, corpora=[str(corpus)], add=40, replace=True, out=out)
    facts = facts_of(report)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, out))
    assert len(after) == len(before) == 900
    assert (facts.dropped, len(facts.added)) == (40, 40)
    new_of = read_map(out).new_of
    assert len(new_of) == 860
    old, rows = (tools.weights(path)["lm_head.weight"] for path in (source, out))
    assert all(tools.bits(rows[new]) == tools.bits(old[token]) for token, new in new_of.items())
    assert after.convert_ids_to_tokens(list(new_of.values())) == before.convert_ids_to_tokens(list(new_of))
    text = makers.shipped_text("german")
    assert len(after(text)["input_ids"]) < 0.95 * len(before(text)["input_ids"])
    assert failed(out, source) == []


def test_in_memory(model_of: Make, terms: Path) -> None:
    source = model_of("llama", vocab_size=640)
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    new_model, new_tokenizer = tokswap.extend_model((model, tokenizer), tokens=[terms])
    assert len(new_tokenizer) == new_model.get_input_embeddings().weight.shape[0] > 640
    assert torch.equal(new_model.get_output_embeddings().weight[:640], model.get_output_embeddings().weight)
    assert new_tokenizer("a ferryman", add_special_tokens=False)["input_ids"][-1] >= 640
    assert len(tokenizer) == 640


def test_what_lies_beside_the_weights(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640, chat_template=makers.CHAT_TEMPLATE, family="byte-level")
    out = tmp_path / "out"
    tokswap.extend_model(source, tokens=[terms], out=out, gguf=tmp_path / "out.gguf")
    assert (out / "chat_template.jinja").read_bytes() == (source / "chat_template.jinja").read_bytes()
    assert read_map(out).new_of == {token: token for token in range(640)}
    assert "vocabulary-extension" in (out / "README.md").read_text("utf-8")
    assert makers.read_json(out / "tokswap.json")["checks"]["old_texts"]["without"] > 100
    reader = __import__("gguf").GGUFReader(tmp_path / "out.gguf")
    count = len(reader.fields["tokenizer.ggml.tokens"].data)
    assert count == len(AutoTokenizer.from_pretrained(out))


def test_healing_is_the_last_step(
    model_of: Make, terms: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def heal(make: Any, out: Path, step: Any, **more: Any) -> Any:
        asked.append(step)
        return make(out)

    monkeypatch.setattr("tokswap.transplant.run.with_healing", heal)
    source = model_of("llama", vocab_size=640)
    tokswap.extend_model(source, tokens=[terms], heal=[corpus], heal_train="new", out=tmp_path / "out")
    (step,) = asked
    assert (step.texts, step.options.teacher) == ((corpus,), str(source))
    assert step.options.train == "new"


# The command line.


def test_the_plan_lists_what_will_be_added(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source = model_of("llama", vocab_size=640)
    flags = ("extend", "--model", source, "--tokens", terms, "--out", tmp_path / "out")
    text = run(*flags, "--dry-run").stdout
    assert "' ferryman'" in text
    assert "it is a token already" in text
    plan = one_document(run(*flags, "--dry-run", "--json").stdout)["plan"]
    assert plan["skipped"].keys() == {" the"}
    assert [text for _, text, _ in plan["added"]].count("' ferrymen'") == 1
    assert plan["options"]["tokens"] == [str(terms)]
    assert not (tmp_path / "out").exists()
    done = run(*flags)
    assert "texts without a new token exact" in done.stdout
    assert run(*flags, "--force", "-q").stdout.strip() == str(tmp_path / "out")
    page = tmp_path / "page.html"
    run("report", tmp_path / "out", "--out", page)
    assert "ferryman" in page.read_text("utf-8")


# Bad input.


def refused(model: Path, **options: Any) -> TokswapError:
    with pytest.raises(TokswapError) as caught:
        tokswap.plan_extend(model, **options)
    return caught.value


def test_options_that_say_nothing(model_of: Make, corpus: Path, terms: Path) -> None:
    model = model_of("llama", vocab_size=640)
    for options in (
        {},
        {"corpora": [str(corpus)]},
        {"add": 5},
        {"add": 5, "tokens": [terms]},
        {"tokens": [terms], "replace": True},
    ):
        error = refused(model, **options)
        assert isinstance(error, UsageError)
        assert error.code == "nothing-to-add"
    assert refused(model, corpora=[str(corpus)], add=0).code == "bad-add"
    assert refused(model, tokens=[terms], init="omp").code == "missing-donor"
    assert refused(model, tokens=[terms], map_tokens=["nowhere=the"]).code == "unknown-token"
    assert refused(model, tokens=[terms], map_tokens=["ferryman=notatoken"]).code == "unknown-token"
    assert refused(model, tokens=["nowhere.txt"]).code == "bad-text"


def test_a_corpus_that_is_too_small(model_of: Make, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("One short line.\n", encoding="utf-8")
    model = model_of("llama", vocab_size=640)
    error = refused(model, corpora=[str(tmp_path / "small.txt")], add=500)
    assert error.code == "corpus-too-small"
    assert refused(model, corpora=[str(tmp_path / "none.txt")], add=5).code == "missing-corpus"
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert refused(model, corpora=[str(tmp_path / "empty.txt")], add=5).code == "empty-corpus"
    assert refused(model, corpora=[str(tmp_path / "small.txt")], add=1, replace=True).code == "corpus-too-small"


def test_too_many_tokens_to_replace(model_of: Make, corpus: Path, terms: Path) -> None:
    model = model_of("llama", vocab_size=640, family="byte-level")
    assert refused(model, corpora=[str(corpus)], add=290, replace=True).code == "no-room"


@pytest.mark.parametrize(
    ("family", "term", "why"),
    [
        ("sentencepiece", "ferry\u1234x", "no token for '\u1234'"),
        ("unigram", "ferry\u1234x", "no token for '\u1234'"),
        ("wordpiece", "ferry\u1234x", "no token for '\u1234'"),
        ("wordpiece", "Harbour", "normalizer changes it to 'harbour'"),
        ("unigram", "\ufb01sh", "normalizer changes it to ' fish'"),
        ("byte-level", "the", "a token already"),
        ("byte-level", "<|endoftext|>", "a special token has this name"),
        ("sentencepiece", "x<eos>y", "added token '<eos>'"),
        ("byte-level", "two words", "splits it first:  two |  words"),
        ("byte-level", "x" * 300, "longer than"),
    ],
)
def test_terms_that_cannot_be_tokens(family: str, term: str, why: str, model_of: Make, tmp_path: Path) -> None:
    model = model_of("llama" if family != "unigram" else "t5", vocab_size=640, family=family)
    path = tmp_path / "terms.txt"
    path.write_text(f"{term}\n", encoding="utf-8")
    error = refused(model, tokens=[path])
    assert error.code == "no-new-token"
    assert ("as the tokenizer spells them" in error.hint) is ("normalizer" in why)
    path.write_text(f"{term}\nferryman\n\nferryman\n", encoding="utf-8")
    skipped = facts_of(tokswap.plan_extend(model, tokens=[path], out=tmp_path / "out")).skipped
    assert len(skipped) == 2
    assert why in next(reason for name, reason in skipped.items() if "ferryman" not in name)
    assert "it is listed twice" in skipped.values()


def test_a_pre_tokenizer_that_removes_characters(model_of: Make, tmp_path: Path) -> None:
    """The normalizer was named as the cause."""
    source = makers.copy_model(model_of("llama", family="unigram", vocab_size=640), tmp_path / "source")
    split = {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": False}
    own = makers.read_json(source / "tokenizer.json")["pre_tokenizer"]
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, own]}
    makers.edit_json(source / "tokenizer.json", pre_tokenizer=pre_tokenizer)
    for term, why in (("harbour-sea", "splits it first:  harbour | sea"), ("harbour-", "pre-tokenizer changes it to")):
        (tmp_path / "terms.txt").write_text(f"{term}\n", encoding="utf-8")
        assert why in str(refused(source, tokens=[tmp_path / "terms.txt"]))


def test_a_line_of_spaces_is_no_term(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("\u2581\n  \n\u2581harbour\nferry \n", encoding="utf-8")
    assert read_terms(tmp_path / "terms.txt") == [" harbour", "ferry"]


def test_a_tokenizer_without_a_file(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    (source / "tokenizer.json").unlink()
    makers.write_json(source / "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    assert refused(source, tokens=[terms]).code in ("unsupported-tokenizer", "source-too-small")


def test_a_result_that_is_not_exact_is_not_written(
    model_of: Make, terms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the merges is found in the written folder."""
    model = model_of("llama", vocab_size=640, family="byte-level")
    job = tokswap.plan_extend(model, tokens=[terms], out=tmp_path / "out")
    spec = job.prepared.inputs.target.tokenizer.spec
    all_merges = spec["model"]["merges"]
    faults = {"without a new token differently": all_merges[40:], "never gives 1 of": all_merges[:-1]}
    for wrong, merges in faults.items():
        content = spec_bytes({**spec, "model": {**spec["model"], "merges": merges}})
        edit = dataclasses.replace(job.edit, files={**job.edit.files, "tokenizer.json": content})
        with pytest.raises(OutputError) as caught:
            dataclasses.replace(job, edit=edit).run()
        assert caught.value.code == "check-failed"
        assert wrong in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_verify_finds_what_is_wrong(model_of: Make, terms: Path, tmp_path: Path) -> None:
    source, out = model_of("llama", vocab_size=640, family="byte-level"), tmp_path / "out"
    tokswap.extend_model(source, tokens=[terms], out=out)
    assert failed(out, source) == []
    spec = makers.read_json(out / "tokenizer.json")
    merges = spec["model"]["merges"]
    makers.write_json(out / "tokenizer.json", {**spec, "model": {**spec["model"], "merges": merges[60:]}})
    assert any(one.startswith("tokenization") for one in failed(out, source))
    makers.write_json(out / "tokenizer.json", spec)
    tools.rewrite(out, lambda tensors: tensors["lm_head.weight"][3].add_(1))
    assert any(one.startswith("copied rows") for one in failed(out, source))
