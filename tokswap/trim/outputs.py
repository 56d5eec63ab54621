"""Compare the outputs of a model before and after a trim, on the same tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.trust import check_code
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.checks import ModelPair
from tokswap.trim.rebuild import Trimmed

_TEXTS, _TOKENS = 4, 96
"""How many sequences a model runs on, and their greatest number of tokens."""
_CHARACTERS = 4096
_ALIGNMENT = 64
_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states", "last_hidden_state")


def sequences(before: Tokenizer, trimmed: Trimmed, texts: Sequence[str]) -> list[list[int]]:
    """Choose a few sequences of kept tokens to run a model on.

    Args:
        before: The tokenizer of the source model.
        trimmed: The trimmed tokenizer.
        texts: Texts to take the sequences from.

    Returns:
        Ids of the source vocabulary.
    """
    kept = set(trimmed.kept.tolist())
    leading = [int(trimmed.kept[trimmed.tokenizer.vocabulary.roles["bos"]])] if trimmed.tokenizer.adds_bos else []
    step = max(1, len(texts) // _TEXTS)
    rows = [[token for token in before.encode(text[:_CHARACTERS]) if token in kept] for text in texts[::step][:_TEXTS]]
    return [leading + row[:_TOKENS] for row in rows if row]


def model_figures(models: ModelPair, source_of: np.ndarray, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Run both models, one after the other, on the same tokens.

    Args:
        models: The two folders, and how to run what is in them.
        source_of: Source id of each row of the result, -1 for none (int [V_new]).
        ids: Sequences of source ids, all of them kept.

    Returns:
        Plain data with these keys.
        tokens: Number of tokens.
        hidden_states: Number of hidden states that were compared.
        hidden_states_equal: Whether all of them are equal bit for bit.
        logit_difference: Largest difference of the logits of kept ids. This key and the next two are missing for a
            model without lm_head.
        removed_mass: Mean probability of the removed ids before the trim.
        argmax_agreement: Share of positions whose likeliest token is the same.

    Raises:
        InputError: cannot-run, remote-code.
    """
    import torch

    new_of = {int(old): new for new, old in reversed(list(enumerate(source_of.tolist())))}
    translated = [[new_of[token] for token in row] for row in ids]
    hidden, logits = _outputs(models.before, ids, models)
    hidden_after, logits_after = _outputs(models.after, translated, models)
    equal = all(torch.equal(a, b) for a, b in zip(hidden, hidden_after, strict=True))
    result = {"tokens": sum(map(len, ids)), "hidden_states": len(hidden), "hidden_states_equal": equal}
    return result | (_logit_figures(logits, logits_after, source_of) if logits else {})


def aligned(model: Any) -> Any:
    """Move each tensor of a model that does not begin on a multiple of 64 bytes to memory that does.

    Weights stay where their file is mapped, and sums over numbers that begin elsewhere can be rounded differently. The
    same tensor begins elsewhere in two files, so equal models could give outputs that differ in their last bits.

    Args:
        model: A torch module. It is changed in place.

    Returns:
        The same model.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
    return model


def _logit_figures(before: list[Any], after: list[Any], source_of: np.ndarray) -> dict[str, float]:
    import torch

    kept = torch.from_numpy(source_of.astype(np.int64))
    tokens = kept >= 0
    distinct = torch.from_numpy(np.unique(source_of[source_of >= 0]).astype(np.int64))
    worst, mass, agree, count = 0.0, 0.0, 0, 0
    for old, new in zip(before, after, strict=True):
        worst = max(worst, float((old[:, kept[tokens]] - new[:, tokens]).abs().max()))
        share = torch.softmax(old.double(), -1)
        mass += float((1 - share[:, distinct].sum(-1)).clamp(min=0).sum())
        agree += int((old.argmax(-1) == kept[new.argmax(-1)]).sum())
        count += len(old)
    return {"logit_difference": worst, "removed_mass": mass / count, "argmax_agreement": agree / count}


def _outputs(folder: Path, ids: Sequence[Sequence[int]], models: ModelPair) -> tuple[list[Any], list[Any]]:
    """Return the hidden states and the float32 logits of some sequences."""
    import torch
    import transformers

    check_code(folder, models.trust_remote_code)
    cls = getattr(transformers, models.architecture, transformers.AutoModel)
    model = aligned(cls.from_pretrained(str(folder), dtype="auto", local_files_only=True).to(models.device).eval())
    accepted = inspect.signature(model.forward).parameters
    hidden: list[Any] = []
    logits: list[Any] = []
    for row in ids:
        batch = torch.tensor([list(row)], device=models.device)
        more: dict[str, Any] = {"decoder_input_ids": batch} if model.config.is_encoder_decoder else {}
        if "use_cache" in accepted:
            more["use_cache"] = False
        try:
            with torch.inference_mode():
                output = model(input_ids=batch, output_hidden_states=True, **more)
        except Exception as error:  # a model of speech or pictures can need more than tokens, or memory runs out
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            message = f"{models.architecture} does not run on these tokens: {reason}"
            raise InputError("cannot-run", message, "--check tokens skips the comparison of outputs") from error
        for name in _STATES:
            hidden += _tensors(output.get(name))
        if output.get("logits") is not None and output.logits.dim() == 3:
            logits.append(output.logits[0].float().cpu())
    return [state.cpu() for state in hidden], logits


def _tensors(states: Any) -> list[Any]:
    """Return the tensors of a tuple in order, those of inner tuples too (Pegasus-X has some)."""
    if isinstance(states, (tuple, list)):
        return [tensor for part in states for tensor in _tensors(part)]
    return [] if states is None else [states]
