"""Checks on what a loaded model does: its outputs, and where its generation stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import numpy as np

from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.models import input_embeddings, plain_generation, text_tower
from tokswap.evaluation.verify.configs import positions_of
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.reference import Reference
from tokswap.tokenizer.probes import PROMPTS

TOP = 50
"""Rows that are never predicted must stay out of this many most likely next tokens."""
_NEW_TOKENS, _STOPS_AT, _MOST_ENDS = 16, 3, 4


def running_checks(
    model: Any, folder: Folder, unpredicted: np.ndarray, ends: Sequence[int], device: str
) -> Iterator[Check]:
    """Test the outputs of a model.

    Args:
        model: The model.
        folder: Its folder, for the tokenizer.
        unpredicted: Ids that must never be predicted (int64).
        ends: Ids at which its generation must stop.
        device: Where torch computes.
    """
    model = text_tower(model)
    if model.main_input_name != "input_ids":
        yield Check("model runs", True, f"not tried: this model reads {model.main_input_name}")
        return
    if not folder.reads_text:
        yield Check("model runs", True, "not tried: the tokenizer reads words with their places on a page")
        return
    try:
        model = model.to(device)
        yield from _output_checks(model, folder, unpredicted)
        if model.can_generate():
            yield from _generation_checks(model, folder, ends)
    except Exception as error:  # an id past the last row, say, fails deep inside the model
        yield Check("model runs", False, f"{type(error).__name__}: {error}")


def expected_ends(
    models: tuple[Any, Any], folders: tuple[Folder, Folder | None], reference: Reference | None
) -> list[int]:
    """Return the ids at which the generation of a result must stop.

    Args:
        models: The result and its source model; None for an unknown one.
        folders: The folders of both.
        reference: What the tokenizer of the result should be.
    """
    (after, source), (folder, before) = models, folders
    if source is None or before is None or reference is None:
        return _ends(after)
    if reference.trim:
        kept = [token for token in _ends(source) if not reference.may_lack(token)]
        return [new for token in kept if (new := reference.new(token)) is not None]
    eos = folder.tokenizer.eos_token_id
    return [eos] if eos is not None and before.tokenizer.eos_token_id in _ends(source) else _ends(after)


def _ends(model: Any) -> list[int]:
    config = getattr(model, "generation_config", None) or model.config
    found = getattr(config, "eos_token_id", None)
    ids = [token for token in (found if isinstance(found, list) else [found]) if token is not None]
    rows = int(input_embeddings(model).weight.shape[0])
    return [token for token in ids if token < rows]


def _inputs(model: Any, folder: Folder, prompt: str) -> dict[str, Any]:
    """The tensors of a prompt, no longer than the model and its answer have positions."""
    reads_pairs = type(model).__name__.endswith("QuestionAnswering")  # Longformer's counts the tokens between them
    encoded = folder.tokenizer(prompt, prompt if reads_pairs else None, return_tensors="pt").to(model.device)
    room = max((positions_of(model) or 2**31) - _NEW_TOKENS - 2, 1)
    return {key: encoded[key][:, :room] for key in ("input_ids", "attention_mask") if key in encoded}


def _output_checks(model: Any, folder: Folder, unpredicted: np.ndarray) -> Iterator[Check]:
    import torch

    bad, likely = [], []
    for prompt in PROMPTS:
        inputs = _inputs(model, folder, prompt)
        if model.config.is_encoder_decoder and "decoder_input_ids" in signature(model.forward).parameters:
            inputs["decoder_input_ids"] = inputs["input_ids"]  # whole: a classifier looks for eos in both
        with torch.inference_mode():
            output = model(**inputs)
        scores = output.logits if "logits" in output else output[0]
        if "logits" in output and scores.shape[-1] >= 4 * TOP:
            best = scores[0, -1].float().topk(TOP).indices.cpu().numpy()
            likely += np.intersect1d(best, unpredicted).tolist()
        read = np.setdiff1d(np.arange(scores.shape[-1]), unpredicted) if "logits" in output else slice(None)
        if not torch.isfinite(scores[..., read]).all():
            bad.append(prompt)
    yield check_empty("finite outputs", "non-finite for", bad, f"{len(PROMPTS)} prompts")
    if len(unpredicted):
        yield check_empty(
            "padding rows",
            f"ids among the {TOP} most likely tokens",
            sorted(set(likely)),
            f"{len(unpredicted):,} padding and neutral rows, never among the {TOP} most likely tokens",
        )


def _generation_checks(model: Any, folder: Folder, ends: Sequence[int]) -> Iterator[Check]:
    begin, row = _generate(model, folder)
    text = folder.tokenizer.decode(row[begin:], skip_special_tokens=True)
    yield Check("greedy generation", len(row) > begin, f"{PROMPTS[0]!r} -> {text!r}")
    tried = {end: f"{folder.tokenizer.convert_ids_to_tokens(end)!r} ({end})" for end in ends[:_MOST_ENDS]}
    endless = []
    for end, named in tried.items():
        begin, row = _generate(model, folder, end)
        if len(row) - begin > _STOPS_AT + 1:
            endless.append(named)
    fine = f"at {', '.join(tried.values())}" if ends else "not tried: no eos is named"
    yield check_empty("generation stops", "goes on after", endless, fine)


def _generate(model: Any, folder: Folder, end: int | None = None) -> tuple[int, list[int]]:
    """Generate greedily: the length of the prompt, and all ids. end: the id that comes after a few others."""
    import torch

    inputs = _inputs(model, folder, PROMPTS[0])
    begin = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]

    def force(ids: Any, scores: Any) -> Any:
        if end is not None and ids.shape[1] == begin + _STOPS_AT - 1:
            scores = torch.full_like(scores, -float("inf"))
            scores[:, end] = 0
        return scores

    with torch.inference_mode(), plain_generation(model):
        output = model.generate(**inputs, max_new_tokens=_NEW_TOKENS, do_sample=False, logits_processor=[force])
    return begin, output[0].tolist()
