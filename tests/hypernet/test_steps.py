"""What a step computes, against transformers and plain torch: batches, losses, gradients, first weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
import torch

from tokswap.hypernet.batches import MainBatch, Share
from tokswap.hypernet.prepare import prepare
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.steps import StepResult, Trainer

TEXT = makers.TEXTS / "english.txt"
SMALL: dict[str, Any] = {
    **{"steps": 1, "identity_steps": 0, "batch": 6, "length": 16, "identity_batch": 64, "vocabulary": 600},
    **{"negatives": 30, "queue": 1, "hidden": 16, "layers": 1, "clip": 0.0, "warmup": 0.0, "lexical": 0.7},
}
MODELS = {"llama": {"adds_bos": True}, "gemma3": {}, "bert": {}}
"""Untied with bos; tied, with scaled embeddings; an encoder with a bias."""


@pytest.fixture(params=MODELS)
def base(request: pytest.FixtureRequest, model_of: Callable[..., Path]) -> Path:
    return model_of(request.param, **MODELS[request.param])


def made(base: Path, **changes: Any) -> Trainer:
    """Return a training. Two of the same settings are equal."""
    return prepare(str(base), [TEXT], TrainSettings(**{**SMALL, **changes}))


def plain_model(base: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    masked = makers.read_json(base / "config.json")["model_type"] == "bert"
    return (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(base).eval()


def matrices(model: Any) -> list[torch.Tensor]:
    """Return the input embeddings, and lm_head where it is another matrix, of a transformers model."""
    both = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return both[:1] if both[0] is both[1] else both


def total(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in gradients))


def test_the_first_stage(base: Path) -> None:
    """The loss is the squared distance to the model's rows, in units of the mean square of what it has learnt."""
    trainer, plain = made(base, identity_steps=1, steps=0), plain_model(base)
    batch = trainer.batches.identity(0)
    rows = torch.cat([one.detach() for one in matrices(plain)], dim=1)
    found = [one for one in trainer.network(torch.tensor(batch.forms).long(), rows)[:2] if one is not None]
    errors = (torch.cat(found, dim=1) - rows[torch.tensor(batch.ids)]).square().sum(1)
    loss = errors.mean() / rows[trainer.base.trained_ids].square().sum(1).mean()
    loss.backward()
    norm = total([one.grad for one in trainer.network.parameters() if one.grad is not None])
    result = made(base, identity_steps=1, steps=0, clip=norm / 2).compute(0)
    assert result.stage == "identity"
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert result.norm == pytest.approx(norm, rel=1e-4)


def test_the_main_stage(base: Path) -> None:
    """The model reads predicted rows as transformers does, and special tokens with its own."""
    trainer, plain = made(base), plain_model(base)
    own, special = [one.detach().clone() for one in matrices(plain)], trainer.base.special
    batch = trainer.batches.main(0)
    source = torch.cat(own, dim=1)
    predicted = trainer.network(torch.from_numpy(trainer.batches.surface.pack(batch.pieces)).long(), source)
    rows = [torch.cat([made, one[special]]) for made, one in zip(predicted[:2], own, strict=False)]
    given = torch.tensor(batch.ids)
    # A model with these rows alone, as transformers has it.
    plain.resize_token_embeddings(len(rows[0]), mean_resizing=False)
    plain.get_input_embeddings().padding_idx = None  # torch gives this row no gradient
    names = {id(one): name for name, one in plain.named_parameters()}
    parameters = {names[id(one)]: new for one, new in zip(matrices(plain), rows, strict=True)}
    if predicted[2] is not None:
        old = plain_model(base).get_output_embeddings().bias[special]
        parameters[names[id(plain.get_output_embeddings().bias)]] = torch.cat([predicted[2], old])
    inputs = {"input_ids": given.clamp(min=0), "attention_mask": (given >= 0).long()}
    logits = torch.func.functional_call(plain, parameters, (), inputs).logits
    asked = torch.tensor(batch.labels)
    token_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), asked.flatten(), ignore_index=-1)
    whole = [(n, ids[0]) for n, ids in enumerate(batch.pieces) if len(ids) == 1 and ids[0] < len(source)]
    places, ids = map(list, zip(*whole, strict=True))
    learnt = trainer.base.trained_ids
    far = [
        (mine[places] - one[ids]).norm(dim=1).mean() / one[learnt].norm(dim=1).mean()
        for mine, one in zip(predicted[:2], own, strict=False)
    ]
    loss = token_loss + 0.7 * sum(far) / len(far)
    loss.backward()
    norm = total([one.grad for one in trainer.network.parameters() if one.grad is not None])

    tried = made(base, clip=norm / 3)
    result = tried.compute(0)
    assert result.stage == "main"
    assert result.figures["token_loss"] == pytest.approx(float(token_loss.detach()), rel=1e-4)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert result.norm == pytest.approx(norm, rel=1e-3)
    clipped = total([one.grad for one in tried.network.parameters() if one.grad is not None])
    assert clipped == pytest.approx(norm / 3, rel=1e-3)
    if trainer.base.mask is None:  # WordPiece spells no space
        spelled = trainer.batches.surface.tokenizer.vocabulary.token_bytes
        length = sum(len(spelled[n]) for place in batch.labels[batch.labels >= 0] for n in batch.pieces[place])
        bits = float(token_loss.detach()) * (batch.labels >= 0).sum() / math.log(2)
        assert result.figures["bits_per_byte"] == pytest.approx(bits / length, rel=1e-4)


def test_a_causal_model_predicts_the_next_token(model_of: Callable[..., Path]) -> None:
    batch = made(model_of("llama", adds_bos=True)).batches.main(0)
    assert (batch.ids[:, 0] == len(batch.pieces)).all(), "bos"
    assert (batch.labels[:, :-1] == batch.ids[:, 1:]).all()
    assert (batch.labels[:, -1] == -1).all()
    assert batch.ids.shape[1] == 17


def test_tokens_of_the_first_stage_are_split(model_of: Callable[..., Path]) -> None:
    """Anywhere between two bytes, and always where --split is 1."""
    base = model_of("llama-tied")
    for split in (0.0, 1.0):
        trainer = made(base, split=split, identity_batch=256, pieces=12)
        vocabulary, pad = trainer.base.tokenizer.vocabulary, trainer.batches.surface.config.pad_token_id
        batch = trainer.batches.identity(0)
        first = set()
        for token, form in zip(batch.ids.tolist(), batch.forms.tolist(), strict=True):
            pieces = [n for n in form if n != pad] or [token]
            assert b"".join(vocabulary.token_bytes[n] for n in pieces) == vocabulary.token_bytes[token]
            if token > 300 and len(vocabulary.token_bytes[token]) > 3:
                assert (len(pieces) > 1) == (split == 1)
                first.add(len(vocabulary.token_bytes[pieces[0]]))
        assert len(first) > 2


def test_the_first_weights(model_of: Callable[..., Path]) -> None:
    """The network reads numbers of unit variance; what it predicts has the means and deviations of the model's rows."""
    base = model_of("llama")
    trainer = made(base)
    rows = torch.cat([one.detach() for one in matrices(plain_model(base))], dim=1)[trainer.base.trained_ids]
    network = trainer.network
    read = network.in_scaler(rows)
    torch.testing.assert_close(read.std(0), torch.ones(64), rtol=0, atol=1e-4)
    torch.testing.assert_close(read.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    for scaler, part in ((network.scaler, rows[:, :32]), (network.out_scaler, rows[:, 32:])):
        torch.testing.assert_close(scaler(torch.zeros(1, 32))[0], part.mean(0))
        torch.testing.assert_close((scaler(torch.ones(1, 32)) - part.mean(0))[0], part.std(0))
    places = network.model["embeddings"]["position_embeddings"].weight
    assert float(places.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_what_decays(model_of: Callable[..., Path]) -> None:
    trainer = made(model_of("llama"), decay=0.3)
    name_of = {id(one): name for name, one in trainer.network.named_parameters()}
    groups = {
        group["weight_decay"]: {name_of[id(one)] for one in group["params"]} for group in trainer.optimizer.param_groups
    }
    assert set(groups) == {0.3, 0.0}
    assert sum(map(len, groups.values())) == len(name_of)
    assert not [name for name in groups[0.3] if name.endswith(("bias", ".b")) or "ln" in name or "LayerNorm" in name]
    assert {"fallback_embeddings.weight", "output_projection.1.weight"} <= groups[0.3]
    assert {"scaler.w", "model.embeddings.token_type_embeddings.weight"} <= groups[0.0]


def test_settings_reach_the_steps(model_of: Callable[..., Path]) -> None:
    def steps(**changes: Any) -> tuple[Trainer, list[MainBatch]]:
        trainer = made(base, batch=3, **changes)
        trainer.batches.warm_up(0)
        return trainer, [trainer.batches.main(step) for step in range(4)]

    base = model_of("llama-tied")
    trainer, plain = steps()
    for batch in plain:
        assert len(batch.ids) == 3
        assert len(batch.pieces) - len({*batch.ids.ravel().tolist()} - {-1}) == 30
    assert trainer.network.config.hn_hidden_size == 16
    assert made(base, hidden=0).network.config.hn_hidden_size == 64
    for changes in ({"noise": 60.0}, {"queue": 4}, {"seed": 1}):
        assert [one.pieces for one in steps(**changes)[1]] != [one.pieces for one in plain], changes
    name = "output_projection.1.weight"
    weights = [made(base, seed=seed).network.state_dict()[name] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_half_precision(model_of: Callable[..., Path]) -> None:
    """In one process with others: it ended in a traceback, because accelerate allows one choice."""
    base = model_of("llama", adds_bos=True)
    half = made(base, bf16=True)
    assert {one.dtype for one in half.base.model.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in half.network.parameters()} == {torch.float32}
    assert half.compute(0).loss == pytest.approx(made(base).compute(0).loss, rel=0.05)


def test_processes_share_a_batch() -> None:
    parts = [list(range(12))[Share(n, 3).of(12)] for n in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_loss_or_a_gradient_that_is_not_finite(loss: float, norm: float) -> None:
    assert not StepResult("main", loss, norm, {}).finite
    assert StepResult("main", 1.0, 1.0, {}).finite
