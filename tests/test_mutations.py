"""Silent faults, put into the files of a right result by hand: `verify` must see each, with the check that is meant.

The results are made once. A fault changes files as json and safetensors read them, with no code of tokswap.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from makers import copy_model, edit_json, read_json, write_json

import tokswap

Fault = Callable[[Path], object]

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
TOOL_TOKENS = ("<tool_call>", "</tool_call>")


def failed(folder: Path, source: Path) -> dict[str, str]:
    """Check name -> detail of the checks that fail."""
    return {check.name: check.detail for check in tokswap.verify_checkpoint(folder, against=source) if not check.ok}


# Folders.


def add_tokens(folder: Path, *tokens: str, special: bool = False) -> None:
    """Add tokens, and rows for them where there is a model."""
    spec = read_json(folder / "tokenizer.json")
    first = makers.tokenizer_size(folder)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    spec["added_tokens"] += [{"id": first + n, "content": token, **flags} for n, token in enumerate(tokens)]
    write_json(folder / "tokenizer.json", spec)
    if (folder / "model.safetensors").exists():
        change_rows(folder, lambda matrix: _longer(matrix, len(tokens)))


def _longer(matrix: Any, count: int) -> Any:
    import torch

    return torch.cat([matrix, matrix[-count:].flip(-1) * 0.9])


def change_rows(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the vocabulary matrices, and vocab_size with them."""
    rows = read_json(folder / "config.json")["vocab_size"]

    def every(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if tensor.shape[0] == rows:
                tensors[name] = change(tensor).contiguous()
                edit_json(folder / "config.json", vocab_size=len(tensors[name]))

    tools.rewrite(folder, every)


@pytest.fixture(scope="module")
def transplant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Source, target and result. The source has 128 positions and an added token that shadows a model token."""
    folder = tmp_path_factory.mktemp("transplant")
    source = makers.make_model("gpt2", folder / "source", vocab_size=600)
    add_tokens(source, "  ")
    edit_json(source / "tokenizer_config.json", model_max_length=100)
    target = makers.make_tokenizer("byte-level", folder / "target", vocab_size=560, chat_template=TEMPLATE)
    edit_json(target / "tokenizer_config.json", model_max_length=100)
    add_tokens(target, *TOOL_TOKENS)
    add_tokens(target, "<|theirs|>", special=True)
    tokswap.transplant_tokenizer(str(source), str(target), init="subword", out=folder / "out", progress=False)
    return source, target, folder / "out"


@pytest.fixture(scope="module")
def trim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source and trimmed result. Of its two templates, one writes a word that the text does not have."""
    folder = tmp_path_factory.mktemp("trim")
    source = makers.make_model("llama", folder / "source", family="byte-level", vocab_size=900)
    add_tokens(source, *TOOL_TOKENS)
    corpus = folder / "corpus.txt"
    corpus.write_text(makers.shipped_text("english")[:3000], encoding="utf-8")
    templates = {"default": TEMPLATE, "rag": word_of_the_template(source, corpus.read_text("utf-8")) + ":" + TEMPLATE}
    named = [{"name": name, "template": text} for name, text in templates.items()]
    edit_json(source / "tokenizer_config.json", chat_template=named)
    tokswap.trim_vocabulary(str(source), corpora=[str(corpus)], out=folder / "out", progress=False)
    return source, folder / "out"


def word_of_the_template(source: Path, text: str) -> str:
    """Return a word that is one token, which the text does not use and no other token is built from."""
    model = read_json(source / "tokenizer.json")["model"]
    used = {part for merge in model["merges"] for part in merge} | set(tokens_of(source, text))
    return next(
        t[1:] and " " + t[1:] for t in reversed(model["vocab"]) if t[0] == "Ġ" and t[1:].isalpha() and t not in used
    )


def tokens_of(folder: Path, text: str) -> list[str]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).tokens)


def test_the_results_are_right(transplant: tuple[Path, Path, Path], trim: tuple[Path, Path]) -> None:
    for source, *_, out in (transplant, trim):
        assert failed(out, source) == {}


# Faults of a transplant.


def _tokenizer_config(**changes: Any) -> Fault:
    return lambda folder: edit_json(folder / "tokenizer_config.json", **changes)


def _no_roles(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", bos_token=..., pad_token=..., eos_token=...)


def _no_added_tokens(folder: Path) -> None:
    spec = read_json(folder / "tokenizer.json")
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] not in TOOL_TOKENS]
    write_json(folder / "tokenizer.json", spec)


def _shadowed_id(folder: Path) -> None:
    """Copy the row of the source's model token for two spaces, which its added token shadows."""
    source = folder.parent / "source"
    theirs, mine = (read_json(path / "tokenizer.json")["model"]["vocab"]["ĠĠ"] for path in (source, folder))
    report = read_json(folder / "tokswap.json")
    report["tokens"]["source_of"][mine] = theirs
    report["tokens"]["reason"][mine] = report["tokens"]["reasons"]["bytes"]
    write_json(folder / "tokswap.json", report)
    rows = tools.weights(source)["transformer.wte.weight"]
    tools.rewrite(folder, lambda tensors: tensors["transformer.wte.weight"][mine].copy_(rows[theirs]))


def _id_past_the_rows(folder: Path) -> None:
    change_rows(folder, lambda matrix: matrix[:-1])
    for name in ("source_of", "reason"):
        report = read_json(folder / "tokswap.json")
        report["tokens"][name].pop()
        write_json(folder / "tokswap.json", report)


def _no_eos(folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        edit_json(folder / name, eos_token_id=None)


def _old_eos(folder: Path) -> None:
    """The id of the source stays, which is another token now."""
    for name in ("config.json", "generation_config.json"):
        edit_json(folder / name, eos_token_id=17)


def _stale_weights(folder: Path) -> None:
    """Move the right weights to a shard and leave older ones where transformers looks first."""
    right = tools.weights(folder)
    tools.rewrite(
        folder, lambda tensors: tensors["transformer.wte.weight"].copy_(right["transformer.wte.weight"].flip(1))
    )
    from safetensors.torch import save_file

    shard = "model-00001-of-00001.safetensors"
    save_file(right, folder / shard, metadata={"format": "pt"})
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict.fromkeys(right, shard)})


def _neutral_is_predicted(folder: Path) -> None:
    """Give a row that must never be predicted the likeliest token's, a little longer."""
    from tokswap.tokenizer.probes import PROMPTS

    tokens = read_json(folder / "tokswap.json")["tokens"]
    neutral = int(np.flatnonzero(np.array(tokens["reason"]) == tokens["reasons"]["neutral"])[0])
    model, _ = tools.load(folder, "gpt2")
    best = int(tools.logits(model, tools.encode(folder, PROMPTS[0]))[-1].argmax())
    name = "transformer.wte.weight"
    tools.rewrite(folder, lambda tensors: tensors[name][neutral].copy_(tensors[name][best] * 1.01))


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(folder / "tokenizer_config.json", chat_template=...)


TRANSPLANT_FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "roles lost": (_no_roles, {"roles"}),
    "added tokens dropped": (_no_added_tokens, {"added tokens", "tokens", "tokenization", "chat templates"}),
    "shadowed id copied": (_shadowed_id, {"rows of unused ids"}),
    "a pad token that has no row": (_tokenizer_config(pad_token="[PAD]"), {"vocabulary size", "tokens", "roles"}),
    "an id past the rows": (_id_past_the_rows, {"vocabulary size"}),
    "eos lost": (_no_eos, {"config roles", "generation stops"}),
    "the eos of the old vocabulary": (_old_eos, {"config roles", "generation stops"}),
    "stale weights": (_stale_weights, {"copied rows"}),
    "a neutral row is predicted": (_neutral_is_predicted, {"padding rows"}),
    "template lost": (_no_template, {"chat templates"}),
    "maximum length of the target": (_tokenizer_config(model_max_length=131072), {"maximum length"}),
    "no maximum length": (_tokenizer_config(model_max_length=...), {"maximum length"}),
}


@pytest.mark.parametrize("fault", TRANSPLANT_FAULTS)
def test_a_fault_of_a_transplant_is_seen(fault: str, transplant: tuple[Path, Path, Path], tmp_path: Path) -> None:
    damage, seen_by = TRANSPLANT_FAULTS[fault]
    source, _, out = transplant
    copy_model(source, tmp_path / "source")
    damage(copy_model(out, tmp_path / "out"))
    assert set(failed(tmp_path / "out", tmp_path / "source")) == seen_by


def test_a_decoder_that_starts_with_nothing_is_seen(tmp_path: Path) -> None:
    """Also where it starts with a token that has no role, as the language tokens of mBART have none."""
    source, out = tmp_path / "source", tmp_path / "out"
    makers.make_model("bart", source, vocab_size=600)
    edit_json(source / "config.json", decoder_start_token_id=100)
    edit_json(source / "generation_config.json", decoder_start_token_id=100)
    target = makers.make_tokenizer("byte-level", tmp_path / "target", vocab_size=560)
    tokswap.transplant_tokenizer(source, target, init="subword", out=out)
    assert failed(out, source) == {}
    edit_json(out / "generation_config.json", decoder_start_token_id=...)
    assert set(failed(out, source)) == {"config roles"}


@tools.needs_release_5
def test_a_class_that_tokenizes_differently_is_seen(transplant: tuple[Path, Path, Path], tmp_path: Path) -> None:
    copy = copy_model(transplant[2], tmp_path / "out")
    edit_json(copy / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    assert {"tokenization"} <= set(failed(copy, transplant[0]))


def test_a_byte_token_with_the_row_of_its_piece_is_seen(tmp_path: Path) -> None:
    source = makers.make_model("gpt2", tmp_path / "source", vocab_size=600)
    target = makers.make_tokenizer("sentencepiece", tmp_path / "target", vocab_size=560)
    out = tmp_path / "out"
    tokswap.transplant_tokenizer(str(source), str(target), init="subword", out=out, progress=False)
    assert failed(out, source) == {}
    vocab, report = (read_json(out / name) for name in ("tokenizer.json", "tokswap.json"))
    piece, byte = (vocab["model"]["vocab"][text] for text in (".", "<0x2E>"))
    for column in ("source_of", "reason"):
        report["tokens"][column][byte] = report["tokens"][column][piece]
    write_json(out / "tokswap.json", report)
    tools.rewrite(
        out, lambda tensors: tensors["transformer.wte.weight"][byte].copy_(tensors["transformer.wte.weight"][piece])
    )
    assert set(failed(out, source)) == {"rows of unused ids"}


def test_the_target_can_be_named(transplant: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, target, out = transplant
    copy = copy_model(out, tmp_path / "out")
    report = read_json(copy / "tokswap.json")
    report["plan"]["tokenizer"] = "./nowhere"
    write_json(copy / "tokswap.json", report)
    _no_added_tokens(copy)
    unknown = {check.name: check for check in tokswap.verify_checkpoint(copy, against=source)}
    assert unknown["target tokenizer"].ok
    assert "--tokenizer" in unknown["target tokenizer"].detail
    named = {check.name: check for check in tokswap.verify_checkpoint(copy, against=source, tokenizer=target)}
    assert not named["added tokens"].ok
    assert "target tokenizer" not in named


# Faults of a trim.


def forget(folder: Path, text: str) -> None:
    """Drop a token from a trimmed byte-level tokenizer, with its merges, its row and its place in every file."""
    spec = read_json(folder / "tokenizer.json")
    model, added = spec["model"], {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    gone = (model["vocab"] | added)[text]

    def new(token: int) -> int:
        return token - (token > gone)

    model["vocab"] = {name: new(token) for name, token in model["vocab"].items() if token != gone}
    model["merges"] = [merge for merge in model["merges"] if text not in (*merge, "".join(merge))]
    spec["added_tokens"] = [{**e, "id": new(e["id"])} for e in spec["added_tokens"] if e["id"] != gone]
    write_json(folder / "tokenizer.json", spec)
    change_rows(folder, lambda matrix: matrix[[token for token in range(len(matrix)) if token != gone]])
    for name in ("config.json", "generation_config.json"):
        config = read_json(folder / name)
        ids = {key: new(token) for key, token in config.items() if key.endswith("_token_id") and token is not None}
        edit_json(folder / name, **ids)
    pairs = read_json(folder / "vocab_map.json")
    kept = {old: new(token) for old, token in pairs["new_id_of"].items() if token != gone}
    write_json(folder / "vocab_map.json", {**pairs, "new_id_of": kept, "rows_after": len(kept)})
    report = read_json(folder / "tokswap.json")
    for name in ("source_of", "reason"):
        del report["tokens"][name][gone]
    (folder / "tokswap.json").write_text(json.dumps(report), encoding="utf-8")


def _without(*tokens: str) -> Fault:
    return lambda folder: [forget(folder, token) for token in tokens]


def _without_the_word(folder: Path) -> None:
    templates = read_json(folder.parent / "source" / "tokenizer_config.json")["chat_template"]
    word = templates[1]["template"].partition(":")[0]
    forget(folder, "Ġ" + word.strip())


def _without_a_word_of_the_text(folder: Path) -> None:
    """As if it had only been counted at the edge of a block, as another token."""
    text = Path(read_json(folder / "tokswap.json")["plan"]["corpora"][0]["name"]).read_text("utf-8")
    merges = read_json(folder / "tokenizer.json")["model"]["merges"]
    used = {part for merge in merges for part in merge}
    forget(folder, next(t for t in tokens_of(folder, text) if t[0] == "Ġ" and len(t) > 3 and t not in used))


def _one_template(folder: Path) -> None:
    """The default alone is left of two."""
    for path in (folder / "additional_chat_templates").glob("*"):
        path.unlink()
    config = read_json(folder / "tokenizer_config.json")
    if isinstance(config.get("chat_template"), list):
        edit_json(folder / "tokenizer_config.json", chat_template=config["chat_template"][0]["template"])


def _swapped_tokens(folder: Path) -> None:
    """Two tokens change their ids, and nothing else does."""
    spec = read_json(folder / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    write_json(folder / "tokenizer.json", spec)


TRIM_FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "tool tokens dropped": (_without(*TOOL_TOKENS), {"added tokens", "chat templates"}),
    "a word of a template dropped": (_without_the_word, {"chat templates"}),
    "a word of the text dropped": (_without_a_word_of_the_text, {"trimmed texts"}),
    "a named template lost": (_one_template, {"chat templates"}),
    "tokens swapped": (_swapped_tokens, {"tokens", "tokenization", "chat templates", "trimmed texts"}),
    "eos lost": (_no_eos, {"config roles", "generation stops"}),
    "roles lost": (_no_roles, {"roles"}),
}


@pytest.mark.parametrize("fault", TRIM_FAULTS)
def test_a_fault_of_a_trim_is_seen(fault: str, trim: tuple[Path, Path], tmp_path: Path) -> None:
    damage, seen_by = TRIM_FAULTS[fault]
    source, out = trim
    copy_model(source, tmp_path / "source")
    damage(copy_model(out, tmp_path / "out"))
    assert set(failed(tmp_path / "out", tmp_path / "source")) == seen_by
