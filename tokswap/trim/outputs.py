"""Compare the outputs of a model before and after a trim, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError
from tokswap.evaluation.models import text_tower, without_cache
from tokswap.storage.trust import check_code
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.trim.checks import ModelPair
from tokswap.trim.rebuild import Trimmed

_TEXTS, _TOKENS = 4, 96
"""How many sequences a model runs on, and their greatest number of tokens."""
_CHARACTERS = 4096
_ALIGNMENT = 64
_STATES_READ = 8
"""States of an encoder of sound or pictures that its decoder is given."""
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


def model_figures(
    models: ModelPair, source_of: np.ndarray, ids: Sequence[Sequence[int]], *, may_fail: bool = False
) -> dict[str, Any]:
    """Run both models, one after the other, on the same tokens.

    Args:
        models: The two folders, and how to run what is in them.
        source_of: Source id of each row of the result, -1 for none (int [V_new]).
        ids: Sequences of source ids, all of them kept.
        may_fail: Whether a source model that cannot run here is no error.

    Returns:
        Plain data with these keys; with the key `reason` alone where the source model cannot run.
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
    try:
        least = int(source_of.max()) + 1
        hidden, logits = _outputs(models.before, ids, models, least, lambda row: _kept_logits(row, source_of))
    except InputError as error:
        if not may_fail or error.code != "cannot-run":
            raise
        return {"reason": error.message}
    rows = len(source_of)
    hidden_after, logits_after = _outputs(models.after, translated, models, rows, lambda row: row)
    equal = all(torch.equal(a, b) for a, b in zip(hidden, hidden_after, strict=True))
    result = {"tokens": sum(map(len, ids)), "hidden_states": len(hidden), "hidden_states_equal": equal}
    spoken = [one.shape[-1] == rows for one in logits_after]  # otherwise they are of labels, or of units of sound
    return result | (_logit_figures(logits, logits_after, source_of) if logits and all(spoken) else {})


def reload_bytes(tokenizer: Tokenizer) -> int:
    """Estimate the memory for choosing tokens and loading both tokenizers with transformers.

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
    """Copy the tensors of a model that do not begin on a multiple of 64 bytes, so that they do.

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
    """The part of a sequence's logits that is compared: all logits of 200,000 rows would outweigh the model.

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
    folder: Path, ids: Sequence[Sequence[int]], models: ModelPair, rows: int, keep: Callable[[Any], Any]
) -> tuple[list[Any], list[Any]]:
    """Return the hidden states of some sequences, and what is kept of the float32 logits of each.

    rows: Least number of logits of a token; fewer are labels, as those of a token classifier.
    """
    import torch

    model = _loaded(folder, models)
    hidden: list[Any] = []
    logits: list[Any] = []
    for row in ids:
        try:
            with torch.inference_mode():
                output = model(**_inputs(model, row), output_hidden_states=True)
        except Exception as error:  # a model of speech or pictures can need more than tokens, or memory runs out
            raise _cannot_run(models, "does not run on these tokens", error) from error
        for name in _STATES:
            hidden += _tensors(output.get(name))
        scores = output.get("logits")
        if scores is not None and scores.dim() == 3 and scores.shape[-1] >= rows:
            logits.append(keep(scores[0].float().cpu()))
    return [state.cpu() for state in hidden], logits


def _loaded(folder: Path, models: ModelPair) -> Any:
    """Load a model. Raises InputError cannot-run, for a quantised body whose package is missing for instance."""
    import transformers

    check_code(folder, models.trust_remote_code)
    cls = getattr(transformers, models.architecture, transformers.AutoModel)
    try:
        model = cls.from_pretrained(str(folder), dtype="auto", local_files_only=True).to(models.device).eval()
        return aligned(text_tower(model))
    except Exception as error:  # transformers raises whatever the model's own code raises
        raise _cannot_run(models, "cannot be loaded", error) from error


def _inputs(model: Any, ids: Sequence[int]) -> dict[str, Any]:
    """Return what a model reads a sequence of tokens with.

    An encoder of sound or pictures reads no tokens. Its decoder does, beside any states of the encoder.
    """
    import torch

    batch = torch.tensor([list(ids)], device=model.device)
    inputs: dict[str, Any] = {"input_ids": batch}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = batch
        if model.main_input_name != "input_ids":
            width = getattr(model.config, "encoder", model.config).hidden_size
            inputs = {
                "decoder_input_ids": batch,
                "encoder_outputs": (torch.ones(1, _STATES_READ, width, device=model.device, dtype=model.dtype),),
            }
    return inputs | without_cache(model)


def _cannot_run(models: ModelPair, what: str, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    hint = "--check tokens skips the comparison of outputs"
    return InputError("cannot-run", f"{models.architecture} {what}: {reason}", hint)


def _tensors(states: Any) -> list[Any]:
    """Return the tensors of a tuple in order, those of inner tuples too (Pegasus-X has some)."""
    if isinstance(states, (tuple, list)):
        return [tensor for part in states for tensor in _tensors(part)]
    return [] if states is None else [states]
