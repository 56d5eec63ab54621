from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
import torch
from commands import one_document, run
from makers import CHAT_TEMPLATE, copy_model, edit_json, read_json, shipped_text, write_json
from transformers import DynamicCache

from tokswap.ensemble.boundary import Prompt, beginnings
from tokswap.ensemble.bytewise import END, ByteModel
from tokswap.ensemble.check import check_ensemble
from tokswap.ensemble.evidence import DECAY, STRENGTH, Track
from tokswap.ensemble.generate import continue_text
from tokswap.ensemble.members import FILE
from tokswap.ensemble.mix import MixedModel, load_ensemble
from tokswap.ensemble.mix_options import MIXES
from tokswap.ensemble.prepare import prepare_ensemble
from tokswap.ensemble.score import MIX, evaluate_ensemble
from tokswap.errors import InputError, TokswapError, UsageError
from tokswap.evaluation.losses import token_losses
from tokswap.evaluation.models import load_model
from tokswap.tokenizer.loaded import read_loaded

Make = Callable[..., Path]
WEIGHTS = (0.5, 0.3, 0.2)
PROMPT = "The old bridge was closed for repairs"


@pytest.fixture(scope="module")
def folder(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three architectures on one tokenizer, one of them with a sliding window. Read-only."""
    base = {"family": "byte-level", "vocab_size": 600}
    models = [
        str(model_of("gemma3", vocab_size=500, adds_bos=True)),
        str(model_of("gpt2", chat_template=CHAT_TEMPLATE, **base)),
        str(model_of("llama", seed=4, **base)),
    ]
    out = tmp_path_factory.mktemp("mix") / "abc"
    prepare_ensemble(models, models[1], out, init="subword", weights=WEIGHTS)
    return out


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[MixedModel, Any]:
    return load_ensemble(folder)


def mixed(loaded: tuple[MixedModel, Any], mix: str) -> MixedModel:
    model = loaded[0]
    model.mix = mix
    return model


def ids_of(loaded: tuple[MixedModel, Any], text: str = PROMPT) -> torch.Tensor:
    ids: torch.Tensor = loaded[1](text, return_tensors="pt")["input_ids"]
    return ids


def direct(model: MixedModel, ids: torch.Tensor, mix: str) -> torch.Tensor:
    """The definition, member by member and without a cache, in float64."""
    with torch.inference_mode():
        logits = [member(ids).logits.double() for member in model.members]
    if mix == "probabilities":
        return torch.stack([w * torch.softmax(x, -1) for w, x in zip(WEIGHTS, logits, strict=True)]).sum(0).log()
    if mix == "adaptive":
        return adaptive([torch.log_softmax(x, -1) for x in logits], ids)
    product = torch.stack([torch.log_softmax(x, -1) * w for w, x in zip(WEIGHTS, logits, strict=True)]).sum(0).exp()
    return (product / product.sum(-1, keepdim=True)).log()


def adaptive(logs: list[torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The definition, token by token."""
    evidence, found = [0.0] * len(logs), []
    for n in range(ids.shape[1]):
        if n:
            evidence = [DECAY * (e + float(x[0, n - 1, ids[0, n]])) for e, x in zip(evidence, logs, strict=True)]
        shares = torch.tensor([w * math.exp(STRENGTH * e) for w, e in zip(WEIGHTS, evidence, strict=True)])
        shares = shares / shares.sum()
        found.append(sum(s * x[:, n].exp() for s, x in zip(shares, logs, strict=True)))
    return torch.stack(found, 1).log()  # type: ignore[arg-type]


@pytest.mark.parametrize("mix", MIXES)
def test_the_mix_is_the_mean(loaded: tuple[MixedModel, Any], mix: str) -> None:
    model, ids = mixed(loaded, mix), ids_of(loaded)
    with torch.inference_mode():
        found = model(ids).logits
        last = model(ids, logits_to_keep=1).logits
    assert last.shape[1] == 1
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), direct(model, ids, mix), atol=1e-5)
    assert torch.allclose(last, found[:, -1:], atol=1e-5)


def test_the_ways_of_mixing_differ(loaded: tuple[MixedModel, Any]) -> None:
    ids = ids_of(loaded)
    with torch.inference_mode():
        found = [mixed(loaded, mix)(ids).logits for mix in MIXES]
    for one, other in itertools.combinations(found, 2):
        assert not torch.allclose(one, other, atol=1e-3)


def test_an_adaptive_mix_goes_over_to_the_member_that_knows_the_text(loaded: tuple[MixedModel, Any]) -> None:
    """A text of the last member, whose weight is the least: the mix comes nearer to it than with fixed weights."""
    member = loaded[0].members[-1]
    ids = member.generate(ids_of(loaded), max_new_tokens=60, min_new_tokens=60, do_sample=False)
    with torch.inference_mode():
        own = torch.log_softmax(member(ids).logits, -1)
        fixed, moved = (mixed(loaded, mix)(ids).logits for mix in ("probabilities", "adaptive"))
    likely = own[:, -1].argmax()
    assert fixed[0, -1, likely] < moved[0, -1, likely] <= own[0, -1, likely]


def test_a_long_text_counts_by_its_end(loaded: tuple[MixedModel, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt predicts its last token alone, and members need predict no more than what counts."""
    for module in ("mix", "evidence"):
        monkeypatch.setattr(f"tokswap.ensemble.{module}.HORIZON", 8)
    model, ids = mixed(loaded, "adaptive"), ids_of(loaded, shipped_text("english")[:120])[:, :40]
    with torch.inference_mode():
        whole, last = model(ids).logits[:, -1:], model(ids, logits_to_keep=1).logits
        short = model(ids[:, -9:]).logits[:, -1:]
    assert torch.allclose(last, whole, atol=1e-5)
    assert not torch.allclose(short, whole, atol=1e-3), "the members still read the beginning"
    monkeypatch.setattr("tokswap.ensemble.mix.HORIZON", 1)
    with torch.inference_mode():
        assert not torch.allclose(model(ids, logits_to_keep=1).logits, whole, atol=1e-5)


@pytest.mark.parametrize("mix", MIXES)
def test_the_cache_changes_nothing(loaded: tuple[MixedModel, Any], mix: str) -> None:
    """Forty tokens, one by one: past the sliding window of one member."""
    model, ids = mixed(loaded, mix), ids_of(loaded, shipped_text("english")[:120])[:, :40]
    assert ids.shape[1] == 40
    with torch.inference_mode():
        whole = model(ids).logits
        cache = model.new_cache()
        steps = [model(ids[:, n : n + 1], past_key_values=cache).logits for n in range(40)]
    assert cache.get_seq_length() == 40
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-4)
    cache.reset()
    with torch.inference_mode():
        assert torch.allclose(model(ids[:, :8], past_key_values=cache).logits, whole[:, :8], atol=1e-4)


@pytest.mark.parametrize("mix", MIXES)
def test_greedy_is_the_most_likely_token_each_time(loaded: tuple[MixedModel, Any], mix: str) -> None:
    model, ids = mixed(loaded, mix), ids_of(loaded)
    found = model.generate(ids, max_new_tokens=12, do_sample=False)
    expected = ids
    while expected.shape[1] < found.shape[1]:
        step = direct(model, expected, mix)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, step], 1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mix", ["probabilities", "adaptive"])
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_reorder_every_cache(loaded: tuple[MixedModel, Any], options: dict[str, Any], mix: str) -> None:
    model, ids = mixed(loaded, mix), ids_of(loaded)
    found = model.generate(ids, max_new_tokens=24, do_sample=False, **options)
    assert torch.equal(found, model.generate(ids, max_new_tokens=24, do_sample=False, use_cache=False, **options))
    greedy = model.generate(ids, max_new_tokens=24, do_sample=False)
    assert not torch.equal(found[:1], greedy), "the beams did find something else, so they did move"


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda cache: cache.reorder_cache(torch.tensor([1, 0])), [1, 0]),
        (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
    ],
)
def test_what_a_cache_remembers_moves_with_its_rows(
    loaded: tuple[MixedModel, Any], change: Callable[[Any], None], rows: list[int]
) -> None:
    """Two texts, of which the members think differently."""
    model = mixed(loaded, "adaptive")
    texts = ids_of(loaded, shipped_text("english")[:200])[:, :40].reshape(2, 20)
    cache = model.new_cache()
    with torch.inference_mode():
        model(texts[:, :-1], past_key_values=cache)
        change(cache)
        found = model(texts[rows, -1:], past_key_values=cache).logits
        expected = model(texts[rows]).logits[:, -1:]
    assert torch.allclose(found, expected, atol=1e-4)


def test_what_no_member_expects_and_what_padding_gives_leave_finite_weights() -> None:
    predicted = torch.log_softmax(torch.zeros(1, 4, 8), -1)
    predicted[0, 0] = math.nan  # after padding
    predicted[0, 1, 3] = -math.inf
    found = Track().read(torch.tensor([[0, 5, 3, 2]]), predicted, torch.tensor([[False, False, True, True]]))
    assert found[0].tolist() == pytest.approx([0, 0, -30 * DECAY, -30 * DECAY**2 - math.log(8) * DECAY], rel=1e-5)


def test_padding_is_no_evidence(loaded: tuple[MixedModel, Any]) -> None:
    model, ids = mixed(loaded, "adaptive"), ids_of(loaded)
    pads = torch.full((1, 9), int(ids[0, 3]))
    padded, mask = torch.cat([pads, ids], 1), torch.cat([torch.zeros_like(pads), torch.ones_like(ids)], 1)
    places = torch.cat([torch.zeros_like(pads), torch.arange(ids.shape[1])[None]], 1)
    with torch.inference_mode():
        found = model(padded, attention_mask=mask, position_ids=places).logits[:, 9:]
        alone = model(ids).logits
    assert torch.allclose(found, alone, atol=1e-4)


@pytest.mark.parametrize("mix", MIXES)
def test_sampling_is_from_the_mix(loaded: tuple[MixedModel, Any], mix: str) -> None:
    model, ids = mixed(loaded, mix), ids_of(loaded)
    drawn = []
    for cached in (True, False):
        torch.manual_seed(3)
        drawn.append(model.generate(ids, max_new_tokens=16, do_sample=True, top_k=0, use_cache=cached))
    assert torch.equal(*drawn)
    torch.manual_seed(4)
    assert not torch.equal(drawn[0], model.generate(ids, max_new_tokens=16, do_sample=True, top_k=0))


@pytest.mark.parametrize("mix", MIXES)
def test_a_batch_of_prompts_of_two_lengths(loaded: tuple[MixedModel, Any], mix: str) -> None:
    model, tokenizer = mixed(loaded, mix), loaded[1]
    tokenizer.pad_token_id, tokenizer.padding_side = model.generation_config.pad_token_id, "left"
    texts = [PROMPT, "Once upon"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    together = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    for row, text in zip(together, texts, strict=True):
        alone = model.generate(ids_of(loaded, text), max_new_tokens=6, min_new_tokens=6, do_sample=False)
        assert row[-6:].tolist() == alone[0, -6:].tolist()


@pytest.mark.parametrize("mix", MIXES)
@tools.needs_release_5  # before it, what lies outside a window is lost
def test_a_member_can_draft_for_the_mix(loaded: tuple[MixedModel, Any], mix: str) -> None:
    """Rejected drafts are cropped out of every cache."""
    model, ids = mixed(loaded, mix), ids_of(loaded)
    found = model.generate(ids, max_new_tokens=20, do_sample=False)
    cache = model.new_cache()
    with torch.inference_mode():
        model(found[:, :-1], past_key_values=cache)
        cache.activate_past_recording()
        model(found[:, -1:].repeat(1, 4), past_key_values=cache)
        cache.crop(-4)
        again = model(found[:, -1:], past_key_values=cache).logits
        whole = model(found).logits[:, -1:]
    assert torch.allclose(again, whole, atol=1e-4)


def test_other_caches_are_refused(loaded: tuple[MixedModel, Any]) -> None:
    model, ids = mixed(loaded, MIXES[0]), ids_of(loaded)
    for call in (
        lambda: model(ids, past_key_values=DynamicCache()),
        lambda: model.generate(ids, max_new_tokens=2, cache_implementation="static"),
    ):
        with pytest.raises(UsageError) as found:
            call()
        assert found.value.code == "bad-cache"


def test_text_comes_in_pieces_that_add_up(loaded: tuple[MixedModel, Any]) -> None:
    model, tokenizer = mixed(loaded, MIXES[0]), loaded[1]
    pieces: list[str] = []
    found = continue_text(model, tokenizer, PROMPT, tokens=12, write=pieces.append)
    open_end = beginnings(model, read_loaded(tokenizer), Prompt(tuple(ids_of(loaded)[0].tolist())))
    assert open_end is not None
    begun = torch.tensor([open_end.ids[open_end.choose(None, np.random.default_rng())]])
    whole = model.generate(begun, max_new_tokens=11, do_sample=False)[0]
    assert found.tokens == 12
    assert "".join(pieces) == found.text
    assert PROMPT + found.text == tokenizer.decode(whole, skip_special_tokens=True)
    one, other = (continue_text(model, tokenizer, PROMPT, tokens=8, temperature=1.5, seed=7).text for _ in range(2))
    assert one == other
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError) as error:
            continue_text(model, tokenizer, PROMPT, temperature=bad)
        assert error.value.code == "bad-temperature"


@pytest.mark.parametrize("prompt", ["The old bri", "The old ", "for n in ra", "über die Brü", "x"])
def test_a_prompt_may_end_inside_a_token(prompt: str, loaded: tuple[MixedModel, Any]) -> None:
    """The bytes that may come next have the probabilities of the exact reader of bytes."""
    member, tokenizer = loaded[0].members[1], read_loaded(loaded[1])
    exact = ByteModel(member, tokenizer, tolerance=0.0)
    ids = loaded[1](prompt, add_special_tokens=False)["input_ids"]
    found = beginnings(member, tokenizer, Prompt((*exact.start, *ids)), tolerance=0.0)
    assert found is not None
    assert found.chances.sum() + found.end == pytest.approx(1)
    chances = np.zeros(257)
    np.add.at(chances, [new[0] for new in found.new], found.chances)
    chances[END] = found.end
    assert np.allclose(chances, exact.read(prompt.encode()).distribution(), atol=1e-6)


def test_weights_and_ways_of_mixing_are_checked_before_a_model_is_loaded(folder: Path) -> None:
    for options, code in (({"weights": "1,2"}, "bad-weights"), ({"mix": "votes"}, "bad-mix")):
        with pytest.raises(UsageError) as found:
            load_ensemble(folder, **options)  # type: ignore[arg-type]
        assert found.value.code == code
    assert load_ensemble(folder, weights="1,1,2")[0].weights == (0.25, 0.25, 0.5)


# Evaluation.


def test_the_loss_of_the_mix_is_that_of_the_mean_distribution(folder: Path, loaded: tuple[MixedModel, Any]) -> None:
    text = shipped_text("english")[:500]
    result = evaluate_ensemble(folder, {"text": text}, window=64, overlap=16, tokens=2, prompts=["Once"])
    names = [judged.model for judged in result.models]
    assert names[-1] == MIX
    assert len(names) == 4
    losses = [token_losses(member, loaded[1], text, window=64, overlap=16).bits for member in loaded[0].members]
    expected = -sum(w * 2.0**-bits for w, bits in zip(WEIGHTS, losses, strict=True))
    bits = -torch.log2(torch.tensor(-expected)).sum()
    assert result.models[-1].score.bits == pytest.approx(float(bits), rel=1e-5)
    for judged, own in zip(result.models, losses, strict=False):
        assert judged.score.bits == pytest.approx(float(own.sum()))
    assert result.settings["weights"] == pytest.approx(dict(zip(names, WEIGHTS, strict=False)))
    assert set(result.models[-1].samples) == {"Once"}


def test_sources_are_evaluated_with_their_own_tokenizers(folder: Path) -> None:
    text = shipped_text("english")[:500]
    result = evaluate_ensemble(folder, {"text": text}, sources=True, window=64, overlap=16, tokens=0)
    source = read_json(folder / FILE)["members"][0]["model"]
    assert result.models[0].model == f"{source} (own tokenizer)"
    own = token_losses(*load_model(source), text, window=64, overlap=16)
    begin = len(text.encode()) - result.models[0].score.bytes
    assert result.models[0].score.bits == pytest.approx(float(own.bits[own.offsets[:-1] >= begin].sum()))
    assert len({judged.score.bytes for judged in result.models}) == 1, "the same bytes"


def test_commands_mix(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(shipped_text("english")[:300], encoding="utf-8")
    flags = ["ensemble", "eval", folder, "--text", tmp_path / "notes.txt", "--window", 64, "--overlap", 16]
    shown = run(*flags, "--tokens", 2, "--prompt", "Once", "--weights", "1,1,2").stdout
    assert "mean of probabilities, 0.25" in shown
    assert MIX in shown
    assert "'Once' goes on:" in shown
    document = one_document(run(*flags, "--tokens", 0, "--mix", "logits", "--json").stdout)
    assert document["settings"]["mix"] == "logits"
    assert document["models"][-1]["model"] == MIX
    flags = ["ensemble", "generate", folder, "--prompt", PROMPT, "--tokens", 5]
    text = run(*flags, "-q").stdout
    found = one_document(run(*flags, "--json").stdout)
    assert found["text"] + "\n" == text
    assert found["tokens"] <= 5
    drawn = one_document(run(*flags, "--sample", "--seed", 2, "--json").stdout)
    assert drawn == {
        **drawn,
        "text": one_document(run(*flags, "--temperature", 1, "--seed", 2, "--json").stdout)["text"],
    }
    wrong = run(*flags, "--weights", "1,1", "--json", status=2)
    assert one_document(wrong.stdout)["error"]["code"] == "bad-weights"
    lost = run("ensemble", "generate", tmp_path, "--prompt", PROMPT, "--json", status=1)
    assert one_document(lost.stdout)["error"]["code"] == "missing-ensemble"
    member = next(path.parent for path in sorted(folder.glob("*/config.json")))
    single = run("ensemble", "generate", member, "--prompt", "The old bri", "--json", status=1)
    assert "tokswap generate" in one_document(single.stdout)["error"]["hint"]


# Checking.


def failed(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in check_ensemble(folder) if not check.ok}


def test_prepared_members_pass_every_check(folder: Path) -> None:
    checks = check_ensemble(folder)
    assert [check.name for check in checks if not check.ok] == []
    assert {
        "vocabulary",
        "as prepared",
        "added tokens",
        "vocab_size",
        "eos",
        "same ids",
        "chat template",
        "members load",
        *(f"averaged {mix}" for mix in MIXES),
    } == {check.name for check in checks}
    document = one_document(run("ensemble", "check", folder, "--json").stdout)
    assert document["ok"]
    assert len(document["checks"]) == len(checks)


def test_members_of_bytes(folder: Path, model_of: Make, tmp_path: Path) -> None:
    """Any models, each with its own tokenizer; a prepared folder stands for its members and their weights."""
    from tokswap.ensemble.bytewise import byte_mix
    from tokswap.ensemble.members import read_ensemble

    ensemble = read_ensemble(folder)
    parts = [str(ensemble.path_of(member)) for member in ensemble.members]
    other = str(model_of("gemma3", family="sentencepiece"))
    text = tmp_path / "short.txt"
    text.write_text("The ferry leaves at nine, and the bridge is closed for repairs", encoding="utf-8")

    def asked(*arguments: str, status: int = 0) -> Any:
        return one_document(run("ensemble", *arguments, "--json", status=status).stdout)

    for names, shares, models, window in (
        ([str(folder)], ensemble.weights, parts, {}),
        ([parts[0], other], (0.25, 0.75), [parts[0], other], {"window": 4, "overlap": 1}),
    ):
        weights = ["--weights", "1,3"] if len(names) > 1 else []
        flags = [word for name, value in window.items() for word in (f"--{name}", str(value))]
        found = asked("eval", "--byte-level", *names, *weights, *flags, "--text", str(text))
        wanted = byte_mix(models, shares, **window).score(
            "The ferry leaves at nine, and the bridge is closed for repairs"
        )
        whole = (
            byte_mix(models, shares)
            .score("The ferry leaves at nine, and the bridge is closed for repairs")
            .bits_per_byte
        )
        assert (wanted.bits_per_byte != pytest.approx(whole, rel=1e-4)) == bool(window)
        assert found["weights"] == pytest.approx(shares)
        assert list(found["bits_per_byte"]["short.txt"].values()) == pytest.approx(
            [*wanted.member_bits_per_byte, wanted.bits_per_byte], rel=1e-5
        )
        said = asked("generate", "--byte-level", *names, *weights, "--prompt", "The", "--tokens", "3")
        assert said["bytes"] <= 3
        assert said["text"] == "".join(byte_mix(models, shares).generate("The", most=3))
    refused = asked("generate", "--byte-level", parts[0], "--prompt", "The", "--mix", "logits", status=2)
    assert refused["error"]["code"] == "bad-mix"
    refused = asked("generate", *parts, "--prompt", "The", status=2)
    assert refused["error"]["code"] == "too-many-folders"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy to damage, and the folder of its last member."""
    out = tmp_path / "abc"
    shutil.copytree(folder, out)
    return out, out / read_json(out / FILE)["members"][-1]["folder"]


def test_other_ids_are_named(copied: tuple[Path, Path]) -> None:
    out, member = copied
    spec = read_json(member / "tokenizer.json")
    vocab, taken = spec["model"]["vocab"], {entry["content"] for entry in spec["added_tokens"]}
    first, second = [token for token in vocab if token not in taken][300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    write_json(member / "tokenizer.json", spec)
    found = failed(out)
    assert f"{vocab[first]} is" in found["vocabulary"]
    assert f"{vocab[second]} is" in found["vocabulary"]
    with pytest.raises(InputError, match=f"{vocab[first]} is") as error:
        load_ensemble(out)
    assert error.value.code == "members-disagree"
    shown = run("ensemble", "check", out, status=1).stdout
    assert "FAIL  vocabulary" in shown


def _another_eos(member: Path) -> None:
    edit_json(member / "generation_config.json", eos_token_id=[7, 9])


def _another_template(member: Path) -> None:
    (member / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("assistant", "model"), encoding="utf-8")


def _no_template(member: Path) -> None:
    (member / "chat_template.jinja").unlink()


def _another_added_token(member: Path) -> None:
    spec = read_json(member / "tokenizer.json")
    spec["added_tokens"][-1]["lstrip"] = True
    write_json(member / "tokenizer.json", spec)


def _no_bos(member: Path) -> None:
    spec = read_json(member / "tokenizer.json")
    spec["post_processor"] = None
    write_json(member / "tokenizer.json", spec)


def _not_finite(member: Path) -> None:
    tools.rewrite(member, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))


def _no_weights(member: Path) -> None:
    tools.rewrite(member, lambda tensors: tensors.pop("model.norm.weight"))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (_another_eos, {"eos"}),
        (_another_template, {"chat template"}),
        (_no_template, {"chat template"}),
        (_another_added_token, {"added tokens"}),
        (_no_bos, {"same ids"}),
        (_not_finite, {f"averaged {mix}" for mix in MIXES}),
        (_no_weights, {"members load"}),
    ],
)
def test_what_keeps_members_from_agreeing_is_found(
    copied: tuple[Path, Path], change: Callable[[Path], None], names: set[str]
) -> None:
    out, member = copied
    change(member)
    found = failed(out)
    assert set(found) == names
    assert all(found.values())


def test_matrices_of_two_sizes_are_found(copied: tuple[Path, Path], model_of: Make) -> None:
    out, member = copied
    bigger = model_of("llama", seed=4, family="byte-level", vocab_size=600, rows=640)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(bigger / name, member / name)
    found = failed(out)
    assert "640" in found["vocab_size"]
    assert "600" in found["vocab_size"]
    with pytest.raises(InputError) as error:
        load_ensemble(out)
    assert error.value.code == "members-disagree"


def test_members_of_another_kind_are_refused(copied: tuple[Path, Path], model_of: Make) -> None:
    out, member = copied
    shutil.rmtree(member)
    copy_model(model_of("bert"), member)
    with pytest.raises(TokswapError) as error:
        check_ensemble(out)
    assert error.value.code == "not-causal"
