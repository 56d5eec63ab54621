"""What commands print for people, to the letter: the figures of made-up findings, each in its place."""

from __future__ import annotations

import json
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokswap.cli import (
    _compare_text,
    _eval_text,
    _extend_text,
    _heal_text,
    _output,
    _plan_text,
    _trim_text,
    compare,
    draft_head,
    inspect,
    tokenizer,
)
from tokswap.draft.engines import Verdict
from tokswap.evaluation.breakdown import Part, Piece
from tokswap.evaluation.checks import Check
from tokswap.report.plan import ExtendFacts, Saving


def measured() -> list[str]:
    texts = {"renyi": 0.5, "whole_words": 0.25, "noise_growth": 1.5, "noise_kept": 0.75}
    terms = {"terms": 3, "tokens_per_term": 2.0, "single": 0.125, "longest": {"watchtower": 4, "ferry": 3, "inn": 2}}
    tokens = {"unreachable": 1200, "ambiguous": 3, "unreachable_tokens": [*"abcdefgh"]}
    hardly = {"indicator": "norms", "tied": True, "unused": 1, "count": 2100, "tokens": [*"stuvwxyz"]}
    return _compare_text.measured_lines(
        {
            "on_texts": {"a.txt": (texts, {name: 2 * value for name, value in texts.items()})},
            "parity": ({"en": 1.0, "de": 1.75}, {"en": 1.0, "de": 1.25}),
            "terms": (terms, {**terms, "tokens_per_term": 1.0, "single": 1.0}),
            "tokens": (tokens, {"unreachable": 0, "ambiguous": 0, "unreachable_tokens": []}),
            "undertrained": [hardly, {**hardly, "tied": False, "unused": 0, "tokens": []}],
        }
    )


def compared() -> list[str]:
    spaces = {"longest_spaces": 1, "longest_newlines": 2, "newline_with_indent": True}
    facts = {
        "families": ("BPE", "Unigram"),
        "sizes": (50000, 600),
        "shared": 500,
        "shared_share": (0.01, 0.8333),
        "digits": ("single digits", "whole"),
        "whitespace": (spaces, {**spaces, "longest_spaces": 16, "newline_with_indent": False}),
        "begins_with_bos": (True, False),
        "scripts": {f"script {n}": (1000 + n, n, n) for n in range(3)},
        "tokens_per_byte": {"English": (0.25, 0.2)},
        "specials": {f"<{n}>": "<s>" if n else None for n in range(3)},
    }
    parts = (compare._overview, compare._scripts, compare._lengths, compare._special_tokens)
    return [line for part in parts for line in part(facts)] + compare._special_tokens({"specials": {}})


def inspected() -> list[str]:
    model = {"architecture": "X", "parameters": 1234567, "bytes": 5_000_000, "shards": 1, "tied": False}
    row = {"role": "input", "rows": 600, "padding": 7, "width": 32, "dtype": "F32", "names": ["a", "b"]}
    matrices = [row, {**row, "role": "output", "padding": -2}, {**row, "role": "bias", "padding": 0}]
    words = {
        "family": "BPE",
        "ids": 1600,
        "kinds": {"normal": 1500, "byte": 0, "special": 20},
        "roles": {"bos": {"token": "<s>", "id": 1}, "eos": {"token": "</s>", "id": 2}},
        "specials": ["<a>", "<b>", "<c>", "<d>"],
        "begins_with_bos": True,
        "chat_templates": ["default", "tool_use"],
        "digits": "groups",
        "whitespace": {
            "longest_spaces": 16,
            "longest_newlines": 1,
            "longest_tabs": 0,
            "newline_with_indent": False,
        },
    }
    return [
        *inspect._model(model, matrices),
        *inspect._tokenizer(words),
        inspect._templates([]),
        inspect._templates(["default"]),
    ]


def extended() -> list[str]:
    saving = (Saving(tokens=1000, used=0.1, held_out=0.08, per_thousand=0.08),)
    facts = ExtendFacts(
        added=tuple((600 + n, f"'{n}'", ("a", "b")) for n in range(3)),
        intermediate=4,
        skipped={f"term {n}": "a token already" for n in range(3)},
        text_bytes=(20_000, 1000),
        saving=saving,
        cost=0.02,
        pays=2000,
    )
    one = ExtendFacts(added=facts.added[:1], intermediate=0, skipped={}, text_bytes=(9, 0), saving=saving, pays=None)
    none = ExtendFacts(
        added=facts.added[:1], intermediate=0, skipped={"x": "why"}, text_bytes=(9, 9), saving=saving, pays=0
    )
    parts = (_extend_text._added, _extend_text._skipped, _extend_text._saving)
    return [line for each in (facts, one, none) for part in parts for line in part(each)]


def trained() -> list[str]:
    figures = SimpleNamespace(
        ids=8000,
        tokens_per_byte=0.25,
        renyi=0.5,
        crossing=0.125,
        dead=1200,
        longest=["x" * 41, *"bcdefg"],
        dead_named=["q" * 40],
    )
    job = SimpleNamespace(figures=(figures,), notes=("a note",), out=None, options=SimpleNamespace(size=8000))
    done = SimpleNamespace(**{**vars(job), "notes": (), "out": "./out"})
    return [*tokenizer._lines(job, False), "", *tokenizer._lines(done, True)[-1:], *tokenizer._lines(done, False)]


def reduced() -> list[str]:
    choice = SimpleNamespace(coverage={"en": {100: 0.5, 20000: 0.75}, "de": {100: 0.25, 20000: 1.0}}, ids=range(1000))
    job = SimpleNamespace(choice=choice, notes=("a note",), out="./head", target_size=2000)
    return [*draft_head._lines(job, True), *draft_head._lines(job, False)[-1:]]


def checked(quiet: bool = False) -> list[str]:
    checks = [Check("one", True, "fine"), Check("the other", False, "broken")]
    verdicts = [
        Verdict("vLLM", "same ids", (), release="0.32", tried=True),
        Verdict("llama.cpp", "same texts", ("id 3 differs",), release="b1", notes=("slow",)),
        Verdict("tokswap", "all alike", ()),
    ]
    with redirect_stdout(StringIO()) as shown, pytest.raises(SystemExit):
        _output.checks(checks, False, quiet, verdicts)
    return shown.getvalue().splitlines() + ([] if quiet else checked(True))


def evaluated() -> list[str]:
    def score(**more: Any) -> Any:
        parts = [
            Part("shared", 20, 80, 100.0, 90.0),
            Part("missing", 0, 0, 0.0, 0.0),
            Part("missing", 5, 20, 50.0, 25.0),
        ]
        pieces = [Piece(b" the", "missing", 4, 4, 20.0, 10.0), Piece(b"of", "shared", 1, 1, 2.0, 3.0)]
        given = {
            "bytes": 100,
            "tokens": 25,
            "bits_per_byte": 1.5,
            "interval": (1.25, 1.75),
            "excess": 0.35,
            "excess_interval": (0.25, 0.5),
            "word_perplexity_ratio": 2.5,
            "parts": parts,
            "source": {},
            "known": True,
            "costliest_excess": pieces,
            "costliest": pieces,
        }
        found = SimpleNamespace(**{**given, **more})
        found.only = lambda name: SimpleNamespace(**{**vars(found), "bytes": 50})
        return found

    def probe(**more: Any) -> Any:
        given = {
            "score": 0.5,
            "interval": (0.25, 0.75),
            "difference": -0.125,
            "difference_interval": (-0.25, 0.0),
            "chance": 0.25,
            "asked": SimpleNamespace(measure="share right"),
            "questions": 40,
            "parts": ["add", "count"],
            "note": "hard",
        }
        found = SimpleNamespace(**{**given, **more})
        found.only = lambda part: found
        return found

    alone = {"excess": None, "excess_interval": None, "word_perplexity_ratio": None, "source": None}
    untold = {"difference": None, "difference_interval": None}
    source = SimpleNamespace(
        model="A",
        is_source=True,
        score=score(**alone),
        samples={"Hi": " there"},
        notes=[],
        probes={"sums": probe(**untold)},
    )
    other = SimpleNamespace(
        model="B", is_source=False, score=score(), samples={"Hi": " you"}, notes=["slow"], probes={"sums": probe()}
    )
    units = SimpleNamespace(edges={"a": range(11), "b": range(21)}, kind="paragraphs")
    result = SimpleNamespace(models=[source, other], texts=["a", "b"], against="A", units=units)
    lines = _eval_text.evaluation_lines(result, details=True)  # type: ignore[arg-type]
    single = SimpleNamespace(
        model="C",
        is_source=False,
        score=score(**alone, parts=[], interval=None, costliest=[Piece(b"x", "missing", 2, 2, 9.0)]),
        samples={},
        notes=[],
        probes={},
    )
    result = SimpleNamespace(models=[single], texts=[*"abcdefghijk"], against=None, units=units)
    return [*lines, *_eval_text.evaluation_lines(result, details=True)]  # type: ignore[arg-type]


def chosen() -> list[str]:
    candidates = [{"error": 0.5, "method": "mean"}, {"error": 0.25, "method": "omp"}]
    found = {"candidates": candidates, "hidden": 1, "chosen": {"all": "omp", "Latin": "mean", "Han": "clp"}}
    return [*_plan_text._choice("input", found), *_plan_text._choice("output", {"chosen": {"all": "omp"}})]


def healed() -> list[str]:
    healing = {
        "excess_before": {"all": 0.5, "a.txt": 0.25},
        "excess_after": {"all": 0.125, "a.txt": -0.1},
        "steps": 1,
        "text": {"tokens": 2000},
        "stopped": "no gain",
        "seconds": 61.0,
    }
    plan = SimpleNamespace(out="./h", teacher="./t")
    seconds = {"all": 90.0, "teach": 30.0, "train": 60.0}
    report = SimpleNamespace(healing=healing, plan=plan, seconds=seconds)
    return [*_heal_text.report_lines(report), *_heal_text.step_lines(healing)]  # type: ignore[arg-type]


def trimmed() -> list[str]:
    tokens = {"pieces": 2000, "kept": 1, "exact": 1, "tokens_kept": 0.5, "tokens_per_byte": (0.25, 0.5)}
    tokens |= {"unknown": (0.0, 0.01), "byte_fallback": (0.02, 0.0)}
    checks = {
        "corpus": tokens,
        "held_out": {**tokens, "pieces": 0},
        "reloaded": {"exact": 3, "pieces": 4, "chats": 1, "chats_equal": 1},
        "unreachable": (1000, 7),
        "model": {
            "hidden_states_equal": True,
            "tokens": 96,
            "logit_difference": 0.001,
            "removed_mass": 0.02,
            "argmax_agreement": 0.99,
        },
    }
    sizes = SimpleNamespace(parameters_before=3e6, parameters_after=1e6, bytes_before=12_000_000, bytes_after=4_000_000)
    plan = SimpleNamespace(names=SimpleNamespace(out="./o", model="./m"), sizes=sizes)
    report = SimpleNamespace(plan=plan, checks=checks, seconds={"all": 2.0}, evidence={}, notes=["a note"])
    lines = _trim_text.report_lines(report)  # type: ignore[arg-type]
    less = {"hidden_states_equal": False, "tokens": 1}
    more = {"model": less, "not_compared": {"reason": "too large"}, "reloaded": {**checks["reloaded"], "chats": 0}}
    other = SimpleNamespace(**{**vars(report), "checks": {**checks, **more}})
    unread = SimpleNamespace(
        **{**vars(report), "checks": {**checks, "reloaded": {"pieces": 0, "exact": 0, "chats": 0, "chats_equal": 0}}}
    )
    assert not any("AutoTokenizer" in line for line in _trim_text.report_lines(unread))  # type: ignore[arg-type]
    return lines + _trim_text.report_lines(other)[2:-3]  # type: ignore[arg-type]


SHOWN = {
    one.__name__: one
    for one in (measured, compared, inspected, extended, trained, reduced, checked, evaluated, chosen, healed, trimmed)
}
TEXTS = dict(
    part.split(" ==\n", 1) for part in (Path(__file__).parent / "printed.txt").read_text("utf-8").split("== ")[1:]
)


@pytest.mark.parametrize("name", SHOWN)
def test_every_figure_is_in_its_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("compare._SCRIPTS_SHOWN", "compare._SPECIAL_TOKENS_SHOWN", "inspect._SPECIAL_TOKENS_SHOWN"):
        monkeypatch.setattr(f"tokswap.cli.{place}", 2)
    monkeypatch.setattr("tokswap.cli._extend_text._SHOWN", 2)
    monkeypatch.setattr("tokswap.cli._extend_text._SKIPPED", 2)
    assert "\n".join(SHOWN[name]()) + "\n" == TEXTS[name]


def test_facts_that_are_empty_are_left_out() -> None:
    assert _output.facts("what", [("none", None), ("no name", ""), ("no list", []), ("rows", 0)]) == [
        "what",
        "  rows  0",
    ]


@pytest.mark.parametrize(("check", "verdict"), [(True, True), (False, True), (True, False)])
def test_a_program_reads_whether_all_is_well(check: bool, verdict: bool) -> None:
    checks, verdicts = [Check("one", check, "")], [Verdict("vLLM", "same ids", () if verdict else ("no",))]
    fails = not (check and verdict)
    with redirect_stdout(StringIO()) as shown, pytest.raises(SystemExit) if fails else nullcontext():
        _output.checks(checks, True, False, verdicts)
    found = json.loads(shown.getvalue())
    assert (found["ok"], found["checks"][0]["ok"], found["engines"][0]["ok"]) == (not fails, check, verdict)
