"""Trims keep what no corpus shows: added tokens, and what chats write. Checked with plain transformers and safetensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from transformers import AutoTokenizer

from tokswap.errors import UsageError
from tokswap.evaluation.verify import verify_checkpoint
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.trim.chat import render_chats
from tokswap.trim.plan import trim_vocabulary

ADDED = ("<tool_call>", "</tool_call>", "<think>", "<|fim_prefix|>", "<|0.02|>", "<|START|>", "<image>")
SPOKEN = ("<|fim_prefix|>", "<|START|>")  # special, as their models have them; the others are not
TALK = [{"role": "user", "content": "x"}]


@pytest.fixture
def source(model_of: Callable[..., Path], tmp_path: Path) -> Path:
    """A model with added tokens that no corpus contains."""
    folder = makers.copy_model(model_of("llama-tied", vocab_size=600, rows=620), tmp_path / "source")
    spec = makers.read_json(folder / "tokenizer.json")
    first = spec["added_tokens"][0]
    spec["added_tokens"] += [
        {**first, "id": 600 + n, "content": text, "special": text in SPOKEN} for n, text in enumerate(ADDED)
    ]
    makers.write_json(folder / "tokenizer.json", spec)
    return folder


def trimmed(source: Path, **options: Any) -> tuple[Any, Any]:
    """Trim to a text without any added token; return the tokenizers of both folders, as users load them."""
    corpus = source.parent / "corpus.txt"
    corpus.write_text("The ferry crosses the harbour.\n", encoding="utf-8")
    out = source.parent / "out"
    trim_vocabulary(str(source), corpora=[str(corpus)], out=out, **options)
    return AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(out)


def test_added_tokens_keep_their_rows(source: Path) -> None:
    before, after = trimmed(source)
    rows = [tools.weights(source.parent / name)["model.embed_tokens.weight"] for name in ("source", "out")]
    assert len(after) == len(rows[1]) < 400
    for text in (*ADDED, "<|endoftext|>"):
        assert tools.bits(rows[1][after.get_vocab()[text]]) == tools.bits(rows[0][before.get_vocab()[text]])
    assert before.get_added_vocab().keys() == after.get_added_vocab().keys()


def test_added_tokens_go_by_name(source: Path) -> None:
    makers.edit_json(source / "tokenizer_config.json", image_token="<image>")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>{% endif %}"
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    _, after = trimmed(source, drop_tokens=["<image>", "<tool_call>", "<|fim_prefix|>"])
    gone = {text for text in ADDED if text not in after.get_vocab()}
    assert gone == {"<image>", "<tool_call>", "<|fim_prefix|>"}
    assert len(after) == len(tools.weights(source.parent / "out")["model.embed_tokens.weight"])


def test_added_tokens_go_by_pattern(source: Path) -> None:
    """A token that is named on both sides stays; what verify demands follows the pattern."""
    kept = "<|reserved_special_token_1|>"
    before, after = trimmed(source, drop_tokens=["<|reserved*|>"], keep_tokens=[kept])
    gone = before.get_added_vocab().keys() - after.get_added_vocab().keys()
    assert gone == {f"<|reserved_special_token_{n}|>" for n in (0, 2, 3)}
    assert all(check.ok for check in verify_checkpoint(source.parent / "out", against=source))


def test_a_pattern_that_no_added_token_matches_is_refused(source: Path) -> None:
    with pytest.raises(UsageError) as caught:
        trimmed(source, drop_tokens=["<nothing*>"])
    assert caught.value.code == "unknown-token"


TEMPLATES = {
    "tools": "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %} station{% endif %}",
    "calls": "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %} station{% endfor %}{% endfor %}",
    "string arguments": (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ ' station' + c.function.arguments }}{% endfor %}{% endfor %}"
    ),
    "results": "{% for m in messages %}{% if m.role == 'tool' %} station{% endif %}{{ m.content }}{% endfor %}",
    "thoughts": ("{% for m in messages %}{% if m.reasoning_content %} station{% endif %}{{ m.content }}{% endfor %}"),
    "thinking": "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is false %} station{% endif %}",
    "its own setting": (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if deep_mode is defined and deep_mode %} station{% endif %}"
    ),
    "images": (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'image' %} station{% endif %}{% endfor %}{% endif %}{% endfor %}"
    ),
    "documents": "{% for m in messages %}{{ m.content }}{% endfor %}{% for d in documents or [] %} station{% endfor %}",
    "answer": "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} station{% endif %}",
    "no system": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}"
        "{% endfor %} station"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_words_of_a_template_are_kept(name: str, source: Path) -> None:
    (source / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
    _, after = trimmed(source)
    assert after.tokenize(" station") == ["Ġstation"]
    assert after.tokenize(" column") != ["Ġcolumn"]


def named(folder: Path, kind: str) -> None:
    """Give a model two chat templates, each with a word of its own."""
    plain, tools_ = ("{% for m in messages %}{{ m.content }}{% endfor %}" + word for word in (" station", " column"))
    if kind == "list":
        templates = [{"name": "default", "template": plain}, {"name": "tool_use", "template": tools_}]
        makers.edit_json(folder / "tokenizer_config.json", chat_template=templates)
        return
    if kind == "processor":
        makers.write_json(folder / "chat_template.json", {"chat_template": tools_})
        makers.edit_json(folder / "tokenizer_config.json", chat_template=plain)
        return
    if kind == "processor's settings":
        makers.write_json(folder / "processor_config.json", {"chat_template": tools_, "processor_class": "P"})
        makers.write_json(folder / "chat_template.json", {"chat_template": " library"})  # transformers reads the other
        makers.edit_json(folder / "tokenizer_config.json", chat_template=plain)
        return
    (folder / "chat_template.jinja").write_text(plain, encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(tools_, encoding="utf-8")


@pytest.mark.parametrize("kind", ["list", "files", "processor", "processor's settings"])
def test_every_named_template_counts(kind: str, source: Path) -> None:
    named(source, kind)
    before, after = trimmed(source)
    for word in ("station", "column"):
        assert after.tokenize(f" {word}") == [f"Ġ{word}"]
    assert before.chat_template == after.chat_template
    if not kind.startswith("processor"):
        assert set(before.chat_template) == set(read_tokenizer(source).chat_templates)
        for name in before.chat_template:
            for tokenizer in (before, after):
                ids = tokenizer.apply_chat_template(TALK, chat_template=name, return_dict=True)["input_ids"]
                assert tokenizer.decode(ids).endswith(" station" if name == "default" else " column")


def test_named_templates_in_memory(source: Path) -> None:
    from transformers import AutoModelForCausalLM

    named(source, "list")
    loaded = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    corpus = source.parent / "corpus.txt"
    corpus.write_text("The ferry.\n", encoding="utf-8")
    _, tokenizer = trim_vocabulary(loaded, corpora=[str(corpus)]).load()
    assert tokenizer.chat_template == loaded[1].chat_template
    assert tokenizer.tokenize(" column") == ["Ġcolumn"]


def test_a_template_that_refuses_everything_is_named(source: Path) -> None:
    (source / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
    corpus = source.parent / "corpus.txt"
    corpus.write_text("The ferry.\n", encoding="utf-8")
    assert render_chats(read_tokenizer(source)).refusing == ("default",)
    report = trim_vocabulary(str(source), corpora=[str(corpus)], out=source.parent / "out")
    assert any("refuses plain conversations" in note and "default" in note for note in report.plan.notes)


def test_what_plain_chats_write_cannot_be_dropped(source: Path) -> None:
    (source / "chat_template.jinja").write_text("{{ '<|START|>' + messages[0].content }}", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        trimmed(source, drop_tokens=["<|START|>"])
    assert caught.value.code == "needed-token"
