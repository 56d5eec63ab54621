"""Checks on the tokenizer and the model of a checkpoint as transformers loads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tokswap.checkpoint.reader import Checkpoint
from tokswap.evaluation.checks import Check, check_empty
from tokswap.storage.trust import check_code
from tokswap.tokenizer.probes import PROMPTS, TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer

TOP = 50
"""Rows that are never predicted must stay out of this many most likely next tokens."""
_NEW_TOKENS = 16


def tokenizer_checks(checkpoint: Checkpoint, tokenizer: Tokenizer, loaded: Any) -> list[Check]:
    """Test that a loaded tokenizer does what tokenizer.json says, on a few texts.

    Args:
        checkpoint: The checkpoint.
        tokenizer: Its tokenizer.json.
        loaded: Its transformers tokenizer.
    """
    differ, lossy, outside, unknown = [], [], [], 0
    for name, text in TEXTS.items():
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        if ids != tokenizer.encode(text):
            differ.append(name)
        if any(token >= checkpoint.matrices[0].rows for token in ids):
            outside.append(name)
        if loaded.unk_token_id in ids:
            unknown += 1  # an unknown token loses text, so this text proves nothing
        elif not _is_stable(loaded, ids):
            lossy.append(name)
    tested = f"{len(TEXTS) - unknown} texts" + (f"; {unknown} more have unknown characters" if unknown else "")
    return [
        check_empty(
            "AutoTokenizer",
            "tokenizes these texts differently than tokenizer.json",
            differ,
            "agrees with tokenizer.json",
        ),
        check_empty("tokenizer round trip", "decoding changes these texts", lossy, tested),
        check_empty("ids in range", "ids past the last row in these texts", outside, f"{len(TEXTS)} texts"),
    ]


def _is_stable(loaded: Any, ids: list[int]) -> bool:
    """Whether a decoded text, tokenized and decoded again, stays as it is. The first pass may normalise."""
    once = loaded.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    again = loaded(once, add_special_tokens=False)["input_ids"]
    return bool(loaded.decode(again, skip_special_tokens=True, clean_up_tokenization_spaces=False) == once)


def load_check(
    checkpoint: Checkpoint, source: Checkpoint | None, *, trust_remote_code: bool
) -> tuple[Any | None, Check]:
    """Load a model with the class that its config names, and test that its files hold every tensor.

    Args:
        checkpoint: The checkpoint.
        source: Its source model; a tensor that the source lacks too may be missing.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The model, None if it cannot be loaded, and the check.
    """
    import transformers

    name = (checkpoint.config.get("architectures") or ["AutoModel"])[0]
    cls = getattr(transformers, name, transformers.AutoModel)
    try:
        check_code(checkpoint.folder, trust_remote_code)
        model, info = cls.from_pretrained(
            str(checkpoint.folder),
            output_loading_info=True,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # whatever transformers says about the checkpoint is the result
        return None, Check("model loads", False, f"{name}: {error}")
    missing = [key for key in info["missing_keys"] if source is None or key in source.tensors]
    mismatched = [str(key) for key in info.get("mismatched_keys") or []]
    return model, check_empty("model loads", "tensors missing or of another shape", [*missing, *mismatched], name)


def running_checks(model: Any, loaded: Any, unpredicted: np.ndarray, device: str) -> Iterator[Check]:
    """Test the outputs of a model.

    Args:
        model: The model.
        loaded: Its transformers tokenizer.
        unpredicted: Ids of padding rows and neutral rows, which must never be predicted (int64).
        device: Where torch computes.
    """
    try:
        model = model.to(device).eval()
        yield from _output_checks(model, loaded, unpredicted)
        if model.can_generate():
            yield _generation_check(model, loaded)
    except Exception as error:  # an id past the last row, say, fails deep inside the model
        yield Check("model runs", False, f"{type(error).__name__}: {error}")


def _output_checks(model: Any, loaded: Any, unpredicted: np.ndarray) -> Iterator[Check]:
    import torch

    bad, likely = [], []
    for prompt in PROMPTS:
        encoded = loaded(prompt, return_tensors="pt").to(model.device)
        inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = inputs["input_ids"][:, :1]
        with torch.inference_mode():
            output = model(**inputs)
        scores = output.logits if "logits" in output else output[0]
        if not torch.isfinite(scores).all():
            bad.append(prompt)
        elif "logits" in output and scores.shape[-1] >= 4 * TOP:
            best = scores[0, -1].float().topk(TOP).indices.cpu().numpy()
            likely += np.intersect1d(best, unpredicted).tolist()
    yield check_empty("finite outputs", "non-finite for", bad, f"{len(PROMPTS)} prompts")
    if len(unpredicted):
        yield check_empty(
            "padding rows",
            f"ids among the {TOP} most likely tokens",
            sorted(set(likely)),
            f"{len(unpredicted):,} padding and neutral rows, never among the {TOP} most likely tokens",
        )


def _generation_check(model: Any, loaded: Any) -> Check:
    import torch

    encoded = loaded(PROMPTS[0], return_tensors="pt").to(model.device)
    inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=_NEW_TOKENS, do_sample=False)
    begin = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    text = loaded.decode(output[0, begin:], skip_special_tokens=True)
    return Check("greedy generation", output.shape[1] > begin, f"{PROMPTS[0]!r} -> {text!r}")
