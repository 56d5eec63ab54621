"""One model writes: prompts that end inside a token and gaps to fill in, against plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import one_document, run
from makers import copy_model, edit_json
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

import tokswap
from tokswap.ensemble.boundary import Prompt, beginnings, read_ends
from tokswap.ensemble.generate import continue_text
from tokswap.errors import InputError, TokswapError, UsageError
from tokswap.generation.infill import KNOWN, find_markers, gap_prompt
from tokswap.tokenizer.tokenizer import read_tokenizer

Make = Callable[..., Path]
MARKERS = KNOWN[1]
PREFIX, SUFFIX = "The old bri", " was closed for repairs\n"


@pytest.fixture(scope="module")
def folder(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with StarCoder's markers. Read-only."""
    made = copy_model(model_of("llama", family="byte-level", adds_bos=True), tmp_path_factory.mktemp("fim") / "model")
    text = (made / "tokenizer.json").read_text(encoding="utf-8")
    for n, marker in enumerate(MARKERS):
        text = text.replace(f"<|reserved_special_token_{n}|>", marker)
    (made / "tokenizer.json").write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def plain_ids(plain: tuple[Any, Any], order: str, prefix: str = PREFIX) -> list[int]:
    """What a user of transformers writes by hand."""
    before, after, middle = MARKERS
    text = {"psm": f"{before}{prefix}{after}{SUFFIX}{middle}", "spm": f"{before}{after}{SUFFIX}{middle}{prefix}"}[order]
    ids: list[int] = plain[1](text)["input_ids"]
    return ids


def own_prompt(folder: Path, order: str, prefix: str = PREFIX) -> Prompt:
    tokenizer = read_tokenizer(folder)
    return gap_prompt(tokenizer, prefix, SUFFIX, markers=find_markers(tokenizer), order=order)


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_gap_is_shown_as_models_are_trained(order: str, folder: Path, plain: tuple[Any, Any]) -> None:
    found = own_prompt(folder, order)
    assert list(found.ids) == plain_ids(plain, order)
    assert found.ends is not None
    assert {*plain[1].all_special_ids, *plain[1].convert_tokens_to_ids(MARKERS)} <= set(found.ends)


def covers(plain: tuple[Any, Any], data: bytes) -> Iterator[tuple[list[int], bytes, bool]]:
    """Every tokenization of a text that begins with these bytes up to the first token that goes past them.

    With its bytes past them, and whether its last character is whole: what is not whole is not tried.
    """
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    spelt = {
        token: bytes(map(byte_of.__getitem__, text))
        for text, token in plain[1].get_vocab().items()
        if token not in plain[1].added_tokens_decoder
    }

    def grow(ids: list[int], at: int) -> Iterator[tuple[list[int], bytes]]:
        for token, own in spelt.items():
            left = data[at:]
            if own.startswith(left) and len(own) > len(left):
                yield [*ids, token], own[len(left) :]
            elif left.startswith(own):
                yield from grow([*ids, token], at + len(own))

    for ids, new in grow([], 0):
        try:
            text = b"".join(spelt[token] for token in ids).decode()
        except UnicodeDecodeError:
            yield ids, new, False
            continue
        if plain[1](text, add_special_tokens=False)["input_ids"] == ids:
            yield ids, new, True


def test_the_end_of_a_gap_has_the_exact_probabilities(folder: Path, plain: tuple[Any, Any]) -> None:
    """The sum over all tokenizations of the prefix and one more token, with the suffix before it."""
    head = plain_ids(plain, "spm", "")
    expected, known = np.zeros(256), np.arange(256) < 128
    for ids, new, whole in covers(plain, b"br"):
        with torch.inference_mode():
            logs = torch.log_softmax(plain[0](torch.tensor([[*head, *ids]])).logits[0].double(), -1)
        expected[new[0]] += float(torch.exp(sum(logs[len(head) - 1 + n, token] for n, token in enumerate(ids))))
        known[new[0]] &= whole
    found = beginnings(plain[0], read_tokenizer(folder), own_prompt(folder, "spm", "br"), tolerance=0.0)
    assert found is not None
    assert all(list(ids[: len(head)]) == head for ids in found.ids), "the suffix stays as it is"
    chances = np.zeros(256)
    np.add.at(chances, [new[0] for new in found.new], found.chances)
    expected, chances = expected[known], chances[known]
    assert (expected > 0).sum() > 80
    np.testing.assert_allclose(chances / chances.sum(), expected / expected.sum(), atol=1e-7)


@pytest.mark.parametrize("suffix", [None, SUFFIX])
def test_without_exactness_it_is_what_transformers_writes(
    suffix: str | None, folder: Path, plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    ids = torch.tensor([plain_ids(plain, "psm") if suffix else tokenizer(PREFIX)["input_ids"]])
    ends = {} if suffix is None else {"eos_token_id": tokenizer.all_special_ids}
    written = model.generate(ids, max_new_tokens=12, do_sample=False, **ends)[0, ids.shape[1] :]
    found = tokswap.generate_text(folder, PREFIX, suffix=suffix, exact_prompt=False, tokens=12)
    assert found.text == tokenizer.decode(written, skip_special_tokens=True)
    assert not found.exact
    assert tokswap.generate_text(plain, PREFIX, suffix=suffix, exact_prompt=False, tokens=12).text == found.text


def test_the_middle_follows_the_prefix(folder: Path, plain: tuple[Any, Any]) -> None:
    """With the suffix first, the middle may complete the last word of the prefix; the likeliest beginning does."""
    found = beginnings(plain[0], read_tokenizer(folder), own_prompt(folder, "spm"))
    assert found is not None
    place = found.choose(None, np.random.default_rng())
    written = tokswap.generate_text(plain, PREFIX, suffix=SUFFIX, fim_order="spm", tokens=1)
    assert written.exact
    assert written.text.encode() == found.new[place].decode("utf-8", "replace").encode()
    one, other = (
        tokswap.generate_text(plain, PREFIX, suffix=SUFFIX, fim_order="spm", tokens=6, sample=True, seed=seed).text
        for seed in (3, 3)
    )
    assert one == other


def test_markers_may_be_plain_tokens(folder: Path, plain: tuple[Any, Any]) -> None:
    """Nothing before the prefix is left open, whatever the markers are."""
    tokenizer = read_tokenizer(folder)
    assert "th" in plain[1].get_vocab(), "what the middle's marker and the prefix would be as one text"
    prompt = gap_prompt(tokenizer, "h", "q", markers=find_markers(tokenizer, ("x", "y", "t")), order="spm")
    head = [*tokenizer.leading, *plain[1].convert_tokens_to_ids(["x", "y", "q", "t"])]
    assert [*prompt.ids] == [*head, *plain[1].convert_tokens_to_ids(["h"])]
    found = beginnings(plain[0], tokenizer, prompt)
    assert found is not None
    assert all(ids[: len(head)] == head for ids in found.ids)
    first = plain[0].generate(torch.tensor([prompt.ids]), max_new_tokens=1, do_sample=False)[0, -1]
    written = continue_text(*plain, Prompt(prompt.ids, ends=(int(first),)), exact=False)
    assert (written.text, written.tokens) == ("", 1), "what ends a text is no part of it"


def test_markers_may_be_named(folder: Path, model_of: Make, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder)
    assert find_markers(tokenizer, MARKERS) == find_markers(tokenizer)
    assert find_markers(tokenizer, MARKERS[::-1]) == find_markers(tokenizer)[::-1]
    weightless = copy_model(model_of("llama"), tmp_path / "weightless")
    (weightless / "model.safetensors").write_bytes(b"")
    wrong: tuple[tuple[dict[str, Any], type[TokswapError], str], ...] = (
        ({}, InputError, "no-fim-markers"),
        ({"fim_markers": MARKERS[:2]}, UsageError, "bad-setting"),
        ({"fim_markers": ("<fim_prefix>", "b", "c")}, UsageError, "unknown-token"),
        ({"fim_order": "mps"}, UsageError, "bad-setting"),
        ({"prompt": "\ud800"}, UsageError, "bad-prompt"),
        ({"suffix": "\ud800"}, UsageError, "bad-prompt"),
    )
    for options, kind, code in wrong:
        with pytest.raises(kind) as caught:
            tokswap.generate_text(weightless, **{"prompt": "a", "suffix": "b", **options})
        assert caught.value.code == code, "before a weight is read"


def test_the_command(folder: Path, model_of: Make) -> None:
    flags = ["generate", folder, "The old bri", "The old", "--tokens", 5]
    shown = run(*flags, "-q").stdout
    document = one_document(run(*flags, "--json").stdout)
    assert [one["prompt"] for one in document["texts"]] == ["The old bri", "The old"]
    assert shown == "".join(one["text"] + "\n" for one in document["texts"])
    assert all(one["exact_prompt"] and one["tokens"] <= 5 for one in document["texts"])
    assert document["texts"][0]["text"] == tokswap.generate_text(folder, "The old bri", tokens=5).text
    gap = run("generate", folder, PREFIX, "--suffix", SUFFIX, "--fim-markers", ",".join(MARKERS), "--tokens", 4, "-q")
    assert gap.stdout == tokswap.generate_text(folder, PREFIX, suffix=SUFFIX, tokens=4).text + "\n"
    other = model_of("llama", family="unigram")
    assert "as it is tokenized" in run("generate", other, "The", "--tokens", 2).stderr
    refused = run("generate", other, "The", "--exact-prompt", "--json", status=1)
    assert one_document(refused.stdout)["error"]["code"] == "not-bytewise"
    pair = AutoModelForCausalLM.from_pretrained(other), AutoTokenizer.from_pretrained(other)
    with pytest.raises(InputError, match="not-bytewise"):
        tokswap.generate_text(pair, "The", exact_prompt=True)


STATES: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "rwkv": {"attention_hidden_size": 32},
    "jamba": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "bamba": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 4,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 4,
    },
    "minimax": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "num_local_experts": 2,
        "block_size": 4,
    },
}


def recurrent(model_type: str) -> Any:
    from transformers import AutoConfig

    torch.manual_seed(0)
    size = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "eos_token_id": 2}
    size["initializer_range"] = 0.3  # with small weights all that is read matters little
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **size, **STATES[model_type])).eval()


@pytest.mark.parametrize("model_type", STATES)
def test_nothing_is_forgotten_where_a_model_goes_on_from_its_cache(model_type: str) -> None:
    """Jamba goes on wrongly by several tokens at once, Bamba and MiniMax by one too, without a sign."""
    model = recurrent(model_type)
    shared = [11, 12, 13, 14, 15, 16]
    sequences = [[*shared, *rest] for rest in ([20], [30, 31, 32], [40, 41], [])]
    found = read_ends(model, sequences)
    for ids, (log, after) in zip(sequences, found, strict=True):
        with torch.inference_mode():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(float(logs[n - 1, ids[n]]) for n in range(len(shared), len(ids)))
        assert log == pytest.approx(expected, abs=0.02)
        np.testing.assert_allclose(after, logs[-1].numpy(), atol=0.02)


def test_what_prompts_share_is_read_once(plain: tuple[Any, Any]) -> None:
    """Where the cache fails, all is read again and again, with the same result: nothing but the time would tell."""
    shared, read = [*range(20, 60)], []
    hook = plain[0].register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    read_ends(plain[0], [[*shared, *rest] for rest in ([3], [4, 5], [6], [7], [8])])
    hook.remove()
    assert sum(read) == 40 + 6 + 40 + 42, "the longest is read without the cache too, to see that it is right"


@pytest.mark.parametrize("model_type", STATES)
def test_a_prompt_that_a_recurrent_model_reads(model_type: str, model_of: Make) -> None:
    """The beginnings have the probabilities of plain passes, whatever a model keeps in place of a cache."""
    folder, model = model_of("llama", family="byte-level", adds_bos=True), recurrent(model_type)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = Prompt(tuple(tokenizer(PREFIX)["input_ids"]))
    found = beginnings(model, read_tokenizer(folder), prompt, tolerance=0)
    assert found is not None
    logs, tried = [], np.unique(found.splits, return_index=True)[1]
    for ids in (found.ids[place] for place in tried):
        with torch.no_grad():
            after = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        logs.append(sum(float(after[n - 1, ids[n]]) for n in range(1, len(ids))))
    expected = np.log(found.chances[tried])
    assert np.abs((np.array(logs) - logs[0]) - (expected - expected[0])).max() < 1e-2
    assert continue_text(model, tokenizer, PREFIX, tokens=3).exact


def test_a_prompt_without_a_common_first_token(model_of: Make) -> None:
    folder = model_of("llama", family="byte-level")
    for prompt in ("   ", "The", "T"):
        assert tokswap.generate_text(str(folder), prompt, tokens=2).tokens == 2


SETTINGS: dict[str, dict[str, Any]] = {
    "penalty": {"repetition_penalty": 1.9, "no_repeat_ngram_size": 1, "bad_words_ids": [[7]], "top_p": 0.1},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "more returned": {"return_dict_in_generate": True, "output_scores": True},
    "stop strings": {"stop_strings": ["e"], "prompt_lookup_num_tokens": 3, "max_time": 1e-5},
    "another cache": {"cache_implementation": "quantized"},
}


def written(model: Path) -> list[object]:
    """What a model writes in each of the ways that tokswap lets it write."""
    from tokswap.evaluation.continuations import continuations
    from tokswap.evaluation.models import load_model
    from tokswap.heal.self_text import write_text
    from tokswap.heal.text import Side

    loaded, tokenizer = load_model(model), read_tokenizer(model)
    beginning = [lambda rows: np.ones((rows, 1), np.int64)]
    sampled = [*write_text(loaded[0], Side(tokenizer, tokenizer.leading), beginning, 40)]
    assert loaded[0].generation_config.eos_token_id == 2
    texts = [tokswap.generate_text(loaded, PREFIX, tokens=6, temperature=t).text for t in (None, 0.8)]
    return [*texts, continuations(loaded[0], [[1, 20, 30]], [6]), sampled]


def failing(folder: Path) -> list[object]:
    return [check for check in tokswap.verify_checkpoint(folder) if not check.ok]


@pytest.fixture(scope="module")
def without_settings(model_of: Make) -> tuple[list[object], list[object]]:
    folder = model_of("llama", family="byte-level", adds_bos=True)
    return written(folder), failing(folder)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_models_own_settings_do_not_count(
    name: str, without_settings: tuple[list[object], list[object]], model_of: Make, tmp_path: Path
) -> None:
    """Greedy is greedy, samples are from the model's distribution, and special ids stay."""
    folder = model_of("llama", family="byte-level", adds_bos=True)
    changed = copy_model(folder, tmp_path / "changed")
    edit_json(changed / "generation_config.json", **SETTINGS[name])
    assert (written(changed), failing(changed)) == without_settings
