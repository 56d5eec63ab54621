"""Model cards: what the hub reads, and what a person does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tokswap.report.card import license_of, model_card

CARD = "---\nlicense: other\nlicense_name: house\nlicense_link: LICENSE\ntags:\n- old\n---\n\n# The old card\n\nText.\n"


def report(operation: str = "transplant", **changes: Any) -> dict[str, Any]:
    """The parts of a tokswap.json that a card needs."""
    trim = operation == "trim"
    plan = {
        "operation": operation,
        "model": "Someone/Source-1B",
        "tokenizer": "Someone/Source-1B" if trim else "Other/Target",
        "donor": None if trim else "Other/Target",
        "out": "models/mine",
        "method": "" if trim else "omp",
        "settings": {} if trim else {"k": 64, "exact": False},
        "output_method": None,
        "options": {"languages": ["de"], "min_count": 2, "scripts": []} if trim else {},
        "coverage": {"observed": 300, "scaffold": 100} if trim else {"bytes": 1500, "missing": 490, "padding": 10},
        "corpora": [{"name": "/home/me/news.txt"}] if trim else [],
        "tables": [{"role": "input", "shape_before": [1000, 8]}, {"role": "output", "shape_before": None}],
        "parameters_before": 12_000_000,
        "parameters_after": 20_000_000,
        "bytes_before": 24_000_000,
        "bytes_after": 40_000_000,
    }
    return {"plan": plan | changes, "evidence": {}, "versions": {"tokswap": "9.9"}}


def read(text: str) -> tuple[dict[str, Any], str]:
    card = ModelCard(text)
    return card.data.to_dict(), card.text


def test_the_front_matter_of_a_transplant() -> None:
    data, _ = read(model_card(report(), source_card=CARD, target_license="mit"))
    assert data == {
        "base_model": "Someone/Source-1B",
        "library_name": "transformers",
        "license": "other",
        "license_name": "house",
        "license_link": "LICENSE",
        "tags": ["tokswap", "tokenizer-transplant"],
    }


@pytest.mark.parametrize(
    ("operation", "tags"),
    [("trim", ["vocabulary-trimming"]), ("draft", ["tokenizer-transplant", "speculative-decoding"])],
)
def test_tags_say_what_was_done(operation: str, tags: list[str]) -> None:
    data, _ = read(model_card(report(operation), source_card=None, target_license=None))
    assert data["tags"] == ["tokswap", *tags]
    assert "license" not in data


def test_only_training_makes_a_finetune() -> None:
    heal = {
        "teacher": "Someone/Source-1B",
        "text": {"bytes": 120_000, "tokens": 31_000, "written_by_the_teacher": 0},
        "train": {"what": "adapter"},
        "steps": 132,
        "excess_before": {"all": 0.5},
        "excess_after": {"all": 0.25},
    }
    trained = {**report(), "heal": heal}
    data, text = read(model_card(trained, source_card=None, target_license=None))
    assert data["base_model_relation"] == "finetune"
    assert "a LoRA adapter of the body, merged, on" in text
    apart = {**trained, "heal": {**heal, "train": {"what": "adapter", "save": "adapter"}}}
    assert "a LoRA adapter of the body, on" in read(model_card(apart, source_card=None, target_license=None))[1]
    data, _ = read(model_card(report(), source_card=None, target_license=None))
    assert "base_model_relation" not in data


@pytest.mark.parametrize("model", ["/home/me/source", "./source", "../a/source", "source", "~/source"])
def test_a_local_source_is_named_without_its_folders(model: str) -> None:
    data, text = read(model_card(report(model=model), source_card=CARD, target_license=None))
    assert "base_model" not in data
    assert "`source`" in text
    assert "/home/me" not in text
    assert "huggingface.co/Other/Target" in text


def test_a_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Someone/Source-1B").mkdir(parents=True)
    data, _ = read(model_card(report(), source_card=None, target_license=None))
    assert "base_model" not in data


def test_the_text_of_a_transplant() -> None:
    _, text = read(model_card(report(), source_card=None, target_license="mit", auto_class="AutoModelForMaskedLM"))
    for part in (
        "# mine\n",
        "method: `omp`",
        "settings: `k=64`, `exact=False`",
        "donor: `Target`",
        "| rows of the input embeddings | 1,000 | 2,000 |",
        "| weights | 24 MB | 40 MB |",
        "| copied, same bytes | 1,500 | 75.0 % |",
        "| initialised by omp | 490 | 24.5 % |",
        'AutoModelForMaskedLM.from_pretrained("mine")',
        "tokswap verify mine --against Someone/Source-1B\n",
        "tokswap eval mine --against Someone/Source-1B --text FILE",
        "- weights, from [Someone/Source-1B](https://huggingface.co/Someone/Source-1B): not stated on its card",
        "- tokenizer, from [Other/Target](https://huggingface.co/Other/Target): mit",
    ):
        assert part in text
    assert "\n---\n" not in text


def test_the_text_of_a_trim_and_of_a_draft() -> None:
    _, trim = read(model_card(report("trim"), source_card=None, target_license=None))
    for part in ("texts: `news.txt`", "languages: `de`", "min count: `2`", "| used by the text | 300 | 75.0 % |"):
        assert part in trim
    assert "tokenizer, from" not in trim
    assert "scripts" not in trim
    _, draft = read(model_card(report("draft"), source_card=None, target_license=None))
    assert "--draft-for Target" in draft


def test_the_method_that_auto_chose() -> None:
    chosen = {**report(method="auto"), "evidence": {"input": {"chosen": {"all": "kriging"}}, "healing": {}}}
    assert "chosen by it: `kriging`" in model_card(chosen, source_card=None, target_license=None)


def test_the_card_of_the_source_follows() -> None:
    text = model_card(report(), source_card=CARD, target_license=None)
    assert text.endswith("follows.\n\n# The old card\n\nText.\n")
    assert "- old" not in text
    assert text.index("## Licences") < text.index("\n\n---\n\n") < text.index("# The old card")
    assert "weights, from [Someone/Source-1B](https://huggingface.co/Someone/Source-1B): house" in text


@pytest.mark.parametrize(
    "matter",
    [
        "- a list",
        "license: [",
        "license: 3",
        "license: {a: b}",
        "1: 2",
        "license: 2024-13-45",
        "model-index: [x]",
        "[" * 3000,
        "a: &a [*a]",
    ],
)
def test_damaged_front_matter_is_left_out(matter: str) -> None:
    text = model_card(report(), source_card=f"---\n{matter}\n---\n# Old\n", target_license=None)
    data, body = read(text)
    assert "license" not in data
    assert body.endswith("follows.\n\n# Old\n")


@pytest.mark.parametrize(
    ("card", "found"),
    [
        (CARD, "house"),
        ("---\nlicense: mit\n---\n", "mit"),
        ("# Old", None),
        ("---\nlicense: [\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_of_a_card(card: str | None, found: str | None) -> None:
    assert license_of(card) == found


def test_a_card_without_front_matter_and_with_other_line_ends() -> None:
    assert model_card(report(), source_card="# Old", target_license=None).endswith("follows.\n\n# Old\n")
    text = model_card(report(), source_card="\ufeff---\r\nlicense: mit\r\n---\r\n# Old\r\n", target_license=None)
    assert read(text)[0]["license"] == "mit"
    assert text.endswith("# Old\n")


def test_names_cannot_break_the_front_matter() -> None:
    strange = report(model="x: [y\n---\n", out="a/b: c")
    data, text = read(model_card(strange, source_card="---\nlicense: 'a: b\n\n  ---'\n---\n", target_license=None))
    assert data["library_name"] == "transformers"
    assert data["tags"] == ["tokswap", "tokenizer-transplant"]
    assert "# b: c" in text
