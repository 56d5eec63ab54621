"""The rules of inference engines, each on its own: a change to a draft, and exactly the engines that refuse it then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import CHAT_TEMPLATE, copy_model, edit_json, read_json, write_json
from verdicts import ENGINES, found, refusals


@pytest.fixture
def copy(drafted: Path, tmp_path: Path) -> Path:
    return copy_model(drafted, tmp_path / "copy")


def test_a_verdict_is_plain_data(drafted: Path, big: Path, small: Path) -> None:
    for name, verdict in found(drafted, big).items():
        plain = verdict.as_dict()
        assert (plain["engine"], plain["ok"], plain["reasons"]) == (name, True, [])
        assert plain["release"] or name == "tokswap"
        assert plain["tried"] == (name in ("vLLM", "llama.cpp", "transformers", "mlx-lm", "tokswap"))
    refused = found(small, big)["vLLM"]
    [reason] = refused.as_dict()["reasons"]
    assert reason.startswith("vocab_size is 640, the target's 720; only `use_heterogeneous_vocab`")
    assert list(found(small, big)) == ENGINES


def _config(**changes: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _spec(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        spec = read_json(folder / "tokenizer.json")
        change(spec)
        write_json(folder / "tokenizer.json", spec)

    return apply


def _swap(first: int, second: int) -> Callable[[Path], object]:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        name = {token: text for text, token in vocab.items()}
        vocab[name[first]], vocab[name[second]] = second, first

    return _spec(change)


def _rename_added(old: str, new: str) -> Callable[[Path], object]:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        vocab[new] = vocab.pop(old)
        for entry in spec["added_tokens"]:
            entry["content"] = new if entry["content"] == old else entry["content"]

    return _spec(change)


def _add_token(spec: dict[str, Any]) -> None:
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 700, "content": "<more>"})


def _template(*parts: str) -> Callable[[Path], object]:
    def change(spec: dict[str, Any]) -> None:
        ids = {"<|im_start|>": 1, "<|im_end|>": 2}
        single = [
            {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in parts
        ]
        known = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in parts if part != "A"}
        pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
        spec["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}

    return _spec(change)


def _chat(text: str | None) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.unlink() if text is None else path.write_text(text)

    return apply


CHANGES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "nothing": (lambda folder: None, [], ""),
    "one row more": (
        _config(vocab_size=721),
        ["vLLM", "transformers", "TensorRT-LLM", "tokswap"],
        "721, the target's 720",
    ),
    "128 rows more": (_config(vocab_size=848), ["vLLM", "transformers", "TensorRT-LLM", "tokswap"], "848"),
    "129 rows more": (_config(vocab_size=849), ["vLLM", "llama.cpp", "transformers", "TensorRT-LLM", "tokswap"], "849"),
    "one row less": (
        _config(vocab_size=719),
        ["vLLM", "llama.cpp", "transformers", "mlx-lm", "SGLang", "TensorRT-LLM", "tokswap"],
        "aborts on the first id from 719 on",
    ),
    "other merges": (_spec(lambda spec: spec["model"]["merges"].reverse()), ["tokswap"], "probe texts get other ids"),
    "two tokens swapped": (
        _swap(500, 501),
        ["llama.cpp", "tokswap"],
        "2 ids mean something else than to the target: 500 (",
    ),
    "the last token swapped": (_swap(400, 699), ["llama.cpp", "tokswap"], ", 699 ("),
    "a name below 5": (_rename_added("<|reserved_special_token_1|>", "<x>"), ["tokswap"], "4 ('<x>'"),
    "a name above 5": (_rename_added("<|reserved_special_token_2|>", "<x>"), ["llama.cpp", "tokswap"], "5 ('<x>'"),
    "an added token": (_spec(_add_token), ["llama.cpp", "tokswap"], "701 ids, the target's 700"),
    "another bos": (_config(bos_token_id=0), ["tokswap"], "bos is 0, the target's 1"),
    "another pad": (_config(pad_token_id=0), ["tokswap"], "pad is 0, the target's 2"),
    "bos of the tokenizer": (
        lambda folder: edit_json(folder / "tokenizer_config.json", bos_token="<|endoftext|>"),
        [],
        "",
    ),
    "eos of the tokenizer": (
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>"),
        [],
        "",
    ),
    "bos of the tokenizer alone": (
        lambda folder: (
            edit_json(folder / "config.json", bos_token_id=None),
            edit_json(folder / "tokenizer_config.json", bos_token="<|endoftext|>"),
        ),
        ["tokswap"],
        "bos is 0, the target's 1",
    ),
    "eos of the tokenizer alone": (
        lambda folder: (
            edit_json(folder / "config.json", eos_token_id=None),
            edit_json(folder / "generation_config.json", eos_token_id=...),
            edit_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>"),
        ),
        ["tokswap"],
        "generation stops at 0, the target's at 0, 2",
    ),
    "adds bos": (_template("<|im_start|>", "A"), ["llama.cpp", "tokswap"], "adds bos, the target's does not"),
    "adds eos": (_template("A", "<|im_end|>"), ["llama.cpp", "tokswap"], "adds eos, the target's does not"),
    "stops elsewhere": (
        lambda folder: edit_json(folder / "generation_config.json", eos_token_id=2),
        ["tokswap"],
        "stops at 2, the target's at 0, 2",
    ),
    "no chat template": (_chat(None), ["tokswap"], "the target has a chat template, the draft has none"),
    "another chat template": (_chat(CHAT_TEMPLATE.replace("<|im_end|>", "")), ["tokswap"], "rendered conversation"),
    "a broken chat template": (_chat("{{ no_such_function() }}"), ["tokswap"], "cannot use the tokenizer of the draft"),
    "another tokenization": (
        _spec(lambda spec: spec["pre_tokenizer"].update(use_regex=False)),
        ["tokswap"],
        "probe texts get other ids",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_by_the_engines_that_look_at_it(name: str, copy: Path, big: Path) -> None:
    change, refused_by, reason = CHANGES[name]
    change(copy)
    told = refusals(copy, big)
    assert list(told) == refused_by, told
    assert not refused_by or any(reason in text for text in told.values()), told
    if name == "one row more":
        sizes = [text for text in told.values() if "vocab_size" in text]
        assert len(sizes) == 4
        assert all("vocab_size is 721, the target's 720" in text for text in sizes)


def test_sliding_windows_need_a_setting_of_vllm(copy: Path, big: Path) -> None:
    edit_json(copy / "config.json", layer_types=["sliding_attention", "full_attention"])
    verdict = found(copy, big)["vLLM"]
    assert verdict.ok
    assert "the draft has sliding-window layers" in verdict.notes[0]
    assert "disable_hybrid_kv_cache_manager" in verdict.notes[0]


def test_mlx_does_not_count_added_tokens(copy: Path, big: Path) -> None:
    def move(spec: dict[str, Any]) -> None:
        """Take one token out of the model, and add it again as an added one."""
        vocab = spec["model"]["vocab"]
        last = max(vocab, key=vocab.__getitem__)
        spec["added_tokens"].append(
            {**spec["added_tokens"][0], "id": vocab.pop(last), "content": last, "special": False}
        )
        spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "".join(m) != last]

    _spec(move)(copy)
    assert "mlx-lm" in refusals(copy, big)


def test_ten_ids_are_named_and_the_rest_counted(copy: Path, big: Path) -> None:
    for n in range(300, 330, 2):
        _swap(n, n + 1)(copy)
    reason = found(copy, big)["llama.cpp"].reasons[0]
    assert reason.startswith("30 ids")
    assert reason.endswith("... and 20 more")
    assert reason.count("(") == 10
