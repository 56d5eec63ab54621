"""The chat probe: replies that end, replies that do not, and models without a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import torch
from click.testing import CliRunner
from tools import Writer

from tokswap.cli import main
from tokswap.errors import InputError
from tokswap.evaluation.evaluate import evaluate_models
from tokswap.evaluation.models import load_model
from tokswap.evaluation.probes import answers
from tokswap.evaluation.probes.ask import PROBES, ask
from tokswap.evaluation.probes.template import markers, opened

Make = Callable[..., Path]
TALKS = PROBES["chat"](10, 0)
TURNS = "{% for m in messages %}{{ m['role'].upper() + ': ' + m['content'] + '\\n' }}{% endfor %}{{ 'ASSISTANT:' }}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS


@pytest.fixture(scope="module")
def tokenizer(tokenizer_of: Make) -> Any:
    """A tokenizer whose chat template is ChatML, with special tokens for its markers."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(
        tokenizer_of("byte-level", vocab_size=640, chat_template=makers.CHAT_TEMPLATE)
    )
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return found


@pytest.mark.parametrize(
    ("reply", "ends", "right"),
    [
        ("Paris is the capital of France.", True, True),
        ("A user asks an assistant.", True, True),
        ("Paris is the capital of France.", False, False),
        ("", True, False),
        (" \n", True, False),
        ("Paris.<|im_start|>user\nAnd Rome?", True, False),
        ("Paris.\nuser\nAnd Rome?", True, False),
    ],
)
def test_a_reply_ends_and_has_nothing_of_the_template(reply: str, ends: bool, right: bool, tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
    model = Writer([*ids, end] if ends else (ids * 200)[: answers.REPLY_TOKENS + 5], end)
    found = ask(model, tokenizer, TALKS)
    assert found.measure == "replies that end"
    assert found.points.tolist() == [float(right)] * len(TALKS)
    assert {*found.chance.values()} == {0}


def test_markers_without_special_tokens_count_inside_a_line(tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=640), tmp_path / "plain")
    (folder / "chat_template.jinja").write_text(TURNS)
    found = AutoTokenizer.from_pretrained(folder)
    assert {"SYSTEM:", "USER:", "ASSISTANT:"} <= {*markers(found)}
    end = found.eos_token_id
    for reply, right in (("Paris. USER: and Rome?", 0), ("Paris, dear user: yes.", 1)):
        model = Writer([*found(reply, add_special_tokens=False)["input_ids"], end], end)
        assert ask(model, found, TALKS[:1]).points.tolist() == [right]


def test_conversations_are_what_the_template_renders(tokenizer: Any) -> None:
    for question in TALKS:
        talk = [{"role": role, "content": content} for role, content in question.messages]
        text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(opened(tokenizer, question.messages)) == text
        assert text.endswith(f"{question.prompt}<|im_end|>\n<|im_start|>assistant\n")
    assert {len(question.messages) for question in TALKS} == {1, 2, 3}


def test_a_template_without_system_messages_gets_them_from_the_user(tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = makers.copy_model(tokenizer_of("byte-level", vocab_size=640), tmp_path / "plain")
    (folder / "chat_template.jinja").write_text(NO_SYSTEM)
    found = AutoTokenizer.from_pretrained(folder)
    talk = [("system", "Be brief."), ("user", "Hello!")]
    assert found.decode(opened(found, talk)) == "USER: Be brief.\n\nHello!\nASSISTANT:"
    found.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(InputError, match="never") as error:
        opened(found, talk)
    assert error.value.code == "bad-chat"


def test_a_model_that_ends_passes_and_one_that_never_ends_fails(
    model_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "REPLY_TOKENS", 12)
    model, tokenizer = load_model(model_of("llama", vocab_size=640, chat_template=makers.CHAT_TEMPLATE))
    model.generation_config.eos_token_id = None
    replies = []
    for talk in TALKS[:6]:
        ids = torch.tensor([opened(tokenizer, talk.messages)])
        written = model.generate(ids, max_new_tokens=12, do_sample=False)
        replies.append(written[0, ids.shape[1] :].tolist())
    assert not ask(model, tokenizer, TALKS[:6]).points.any()
    end = next(reply[3] for reply in replies if reply[3] not in reply[:3])
    model.generation_config.eos_token_id = end
    marks = markers(tokenizer)
    expected = []
    for reply in replies:
        text = tokenizer.decode(reply[: reply.index(end)]) if end in reply else ""
        lines = text.split("\n")
        expected.append(bool(text.strip()) and not any(m in (lines if m.isalpha() else text) for m in marks))
    assert any(expected)
    assert not all(expected)
    assert ask(model, tokenizer, TALKS[:6]).points.tolist() == expected


def test_eval_shows_it_beside_the_source(model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "REPLY_TOKENS", 4)
    model = model_of("llama", vocab_size=640, chat_template=makers.CHAT_TEMPLATE)
    copy = makers.copy_model(model, tmp_path / "copy")
    arguments = ["eval", str(copy), "--text", str(model / "config.json"), "--against", str(model), "--tokens", "0"]
    done = CliRunner().invoke(main, [*arguments, "--probe", "chat", "--questions", "1", "--json"])
    assert done.exit_code == 0, done.output
    source, own = (one["probes"]["chat"] for one in json.loads(done.stdout)["models"])
    assert [*own["parts"]] == ["one turn", "system message", "two turns"]
    assert (own["questions"], own["difference"], source["difference"]) == (3, 0, None)


def test_a_model_without_a_template_is_refused_before_it_is_loaded(
    model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_template = model_of("llama", vocab_size=640, chat_template=makers.CHAT_TEMPLATE)
    without = model_of("llama", vocab_size=640)
    monkeypatch.setattr("tokswap.evaluation.evaluate.load_model", lambda *given, **more: pytest.fail("it was loaded"))
    for models, against in (([with_template], without), ([without], with_template), ([load_model(without)], None)):
        with pytest.raises(InputError, match="chat template") as error:
            evaluate_models(models, {"a": "text"}, against=against, probes=["chat"])
        assert error.value.code == "no-chat-template"
