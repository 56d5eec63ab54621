"""Bits per byte: how well a causal language model predicts a text, in a unit that no tokenizer can change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, UsageError
from tokswap.tokenizer import auto_tokenizer

_HEAD_BLOCK = 128


@dataclass(frozen=True)
class Score:
    """The loss of a text: bits in all, the bytes that they pay for, and the tokens that the text was cut into."""

    bits: float
    bytes: int
    tokens: int

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of UTF-8 text; the unit in which models of any tokenizer compare."""
        return self.bits / self.bytes

    @property
    def tokens_per_byte(self) -> float:
        """Tokens a byte of UTF-8 text."""
        return self.tokens / self.bytes


def check_device(device: str) -> None:
    """Raise UsageError bad-device where torch cannot compute on a device."""
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["torch gives no reason"])[0]
        raise UsageError("bad-device", f"torch cannot use the device `{device}`: {reason}") from error


def load_model(folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> tuple[Any, Any]:
    """Return (model, tokenizer) of a causal language model folder, in evaluation mode. Raises UsageError bad-device."""
    check_device(device)
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device).eval(), auto_tokenizer(Path(folder))


def bits_per_byte(model: Any, tokenizer: Any, text: str, *, window: int = 512, overlap: int = 128) -> Score:
    """Score one text.

    The text is encoded as the tokenizer encodes any text, so a model that wants a bos token gets one. Longer texts are
    read in windows of `window` tokens (each with the bos again), or of as many as the model has positions for; every
    token but those of the first `overlap` of a window is predicted with at least `overlap` tokens of context. Without
    a bos the first character is read, not predicted, and its bytes are not counted. Raises InputError empty-text,
    UsageError bad-window.
    """
    import torch

    if not text:
        raise InputError("empty-text", "there is no text to evaluate", "give a file with some text in it")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = tokenizer(text)["input_ids"]
    lead: list[int] = next((full[:n] for n in range(len(full) - len(ids) + 1) if full[n : n + len(ids)] == ids), [])
    if not overlap >= 0 or window <= max(overlap, int(not lead)):
        raise UsageError("bad-window", f"windows of {window} tokens with an overlap of {overlap} do not get on")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < window + len(lead):
        window = positions - len(lead)
        overlap = min(overlap, window // 4)
    size = len(text.encode("utf-8"))
    scored = 0
    if not lead:
        # A character may begin with tokens that are no text on their own.
        whole = (n for n in range(1, len(ids)) if not tokenizer.decode(ids[:n]).endswith("\ufffd"))
        scored = next(whole, len(ids))
        size -= len(tokenizer.decode(ids[:scored]).encode("utf-8"))
    if size <= 0 or scored >= len(ids):
        raise InputError("empty-text", "the text has no second token: there is nothing to predict")
    bits = 0.0
    while scored < len(ids):
        begin = max(0, scored - max(overlap, int(not lead)))
        part = torch.tensor([lead + ids[begin : begin + window]], device=model.device)
        first = len(lead) + scored - begin
        with torch.inference_mode():
            logits = model(part).logits[0, first - 1 : -1]
            for start in range(0, len(logits), _HEAD_BLOCK):
                block = logits[start : start + _HEAD_BLOCK].float()
                wanted = part[0, first + start : first + start + len(block)]
                bits += float(torch.nn.functional.cross_entropy(block, wanted, reduction="sum")) / math.log(2)
        scored = begin + part.shape[1] - len(lead)
    return Score(bits, size, len(ids))


def greedy(model: Any, tokenizer: Any, prompt: str, tokens: int = 24) -> str:
    """Return the greedy continuation of a prompt."""
    import torch

    encoded = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **{key: encoded[key] for key in ("input_ids", "attention_mask")}, max_new_tokens=tokens, do_sample=False
        )
    return str(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True))
