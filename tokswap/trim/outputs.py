"""Compare the outputs of a model before and after a trim, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError
from tokswap.evaluation.models import without_cache
from tokswap.storage.trust import check_code
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.checks import ModelPair
from tokswap.trim.rebuild import Trimmed

_TEXTS, _TOKENS = 4, 96
"""How many sequences a model runs on, and their greatest number of tokens."""
_CHARACTERS = 4096
_ALIGNMENT = 64
_LOADED_BYTES, _LOADED_TOKEN_BYTES = 50_000_000, 700
"""Measured with 128,000 and 262,000 tokens: what is not given back of the choice and the check of tokens."""
_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states", "last_hidden_state")


def sequences(before: Tokenizer, trimmed: Trimmed, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
    """Choose a few sequences of kept tokens to run a model on.

    Args:
        before: The tokenizer of the source model.
        trimmed: The trimmed tokenizer.
        texts: Texts to take the sequences from.
        limit: Greatest number of tokens that the model reads, None for any.

    Returns:
        Ids of the source vocabulary.
    """
    kept = set(trimmed.kept.tolist())
    leading = [int(trimmed.kept[trimmed.tokenizer.vocabulary.roles["bos"]])] if trimmed.tokenizer.adds_bos else []
    step = max(1, len(texts) // _TEXTS)
    rows = [[token for token in before.encode(text[:_CHARACTERS]) if token in kept] for text in texts[::step][:_TEXTS]]
    most = _TOKENS if limit is None else min(_TOKENS, limit)
    return [(leading + row)[:most] for row in rows if row]


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
    hidden, logits = _outputs(models.before, ids, models, lambda row: _kept_logits(row, source_of))
    hidden_after, logits_after = _outputs(models.after, translated, models, lambda row: row)
    equal = all(torch.equal(a, b) for a, b in zip(hidden, hidden_after, strict=True))
    result = {"tokens": sum(map(len, ids)), "hidden_states": len(hidden), "hidden_states_equal": equal}
    return result | (_logit_figures(logits, logits_after, source_of) if logits else {})


def reload_bytes(tokenizer: Tokenizer) -> int:
    """Return about how much memory it takes to choose tokens, and to load both tokenizers with transformers.

    Args:
        tokenizer: The source tokenizer.
    """
    return _LOADED_BYTES + _LOADED_TOKEN_BYTES * len(tokenizer.vocabulary)


def comparison_bytes(checkpoint: Checkpoint) -> int:
    """Return about how much memory `model_figures` takes.

    Args:
        checkpoint: The source model.
    """
    moved = sum(info.nbytes for info in checkpoint.tensors.values() if info.start % _ALIGNMENT)
    logits = _TOKENS * checkpoint.matrices[0].rows * 6  # as the model gives them, and in float32
    return checkpoint.nbytes + max(moved, logits)


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


class _KeptLogits(NamedTuple):
    """What is kept of the logits of a sequence: with 200,000 rows, all of them would take more than the model.

    Attributes:
        logits: Those of the kept ids (float32 [T, kept]).
        removed: Sum of the probabilities of the removed ids.
        best: The likeliest id of each position (int64 [T]).
    """

    logits: Any
    removed: float
    best: Any


def _kept_logits(logits: Any, source_of: np.ndarray) -> _KeptLogits:
    import torch

    kept = torch.from_numpy(source_of[source_of >= 0].astype(np.int64))
    distinct = torch.unique(kept)
    shares = [torch.softmax(position.double(), -1)[distinct].sum() for position in logits]
    removed = float((1 - torch.stack(shares)).clamp(min=0).sum())
    return _KeptLogits(logits[:, kept], removed, logits.argmax(-1))


def _logit_figures(before: list[_KeptLogits], after: list[Any], source_of: np.ndarray) -> dict[str, float]:
    import torch

    kept = torch.from_numpy(source_of.astype(np.int64))
    tokens = kept >= 0
    worst, agree = 0.0, 0
    for old, new in zip(before, after, strict=True):
        worst = max(worst, float((old.logits - new[:, tokens]).abs().max()))
        agree += int((old.best == kept[new.argmax(-1)]).sum())
    count, removed = sum(map(len, after)), sum(old.removed for old in before)
    return {"logit_difference": worst, "removed_mass": removed / count, "argmax_agreement": agree / count}


def _outputs(
    folder: Path, ids: Sequence[Sequence[int]], models: ModelPair, keep: Callable[[Any], Any]
) -> tuple[list[Any], list[Any]]:
    """Return the hidden states of some sequences, and what is kept of the float32 logits of each."""
    import torch
    import transformers

    check_code(folder, models.trust_remote_code)
    cls = getattr(transformers, models.architecture, transformers.AutoModel)
    model = aligned(cls.from_pretrained(str(folder), dtype="auto", local_files_only=True).to(models.device).eval())
    hidden: list[Any] = []
    logits: list[Any] = []
    for row in ids:
        batch = torch.tensor([list(row)], device=models.device)
        more: dict[str, Any] = {"decoder_input_ids": batch} if model.config.is_encoder_decoder else {}
        more |= without_cache(model)
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
            logits.append(keep(output.logits[0].float().cpu()))
    return [state.cpu() for state in hidden], logits


def _tensors(states: Any) -> list[Any]:
    """Return the tensors of a tuple in order, those of inner tuples too (Pegasus-X has some)."""
    if isinstance(states, (tuple, list)):
        return [tensor for part in states for tensor in _tensors(part)]
    return [] if states is None else [states]
