"""Bits per byte: how well a causal language model predicts a text, in a unit that no tokenizer can change."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.storage.json_files import read_json
from tokswap.storage.trust import check_code
from tokswap.tokenizer.offsets import encode_with_offsets
from tokswap.tokenizer.tokenizer import auto_tokenizer

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


def cache_name(method: Callable[..., Any]) -> str:
    """Return what a method of a model calls its cache: `cache` from transformers 5.24 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(method).parameters else "past_key_values"


def load_model(
    folder: str | Path, *, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a causal language model folder, in evaluation mode.

    Raises UsageError bad-device; InputError missing-config, remote-code, cannot-load, incomplete-weights, and not-causal
    for a model that does not predict a token from those before it alone.
    """
    check_device(device)
    import torch
    from transformers import AutoModelForCausalLM

    config = read_json(Path(folder) / "config.json", "config")
    if "auto_map" in config and not trust_remote_code:
        raise InputError(
            "remote-code",
            "this model runs Python code of its own",
            "read that code; `--trust-remote-code` lets it run",
            folder=folder,
        )
    check_code(folder, trust_remote_code)
    if config.get("is_encoder_decoder"):
        raise _not_causal("it is an encoder with a decoder", folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # transformers raises whatever the model's own code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "AutoModelForCausalLM" in reason:
            raise _not_causal(f"transformers has no such class for {config.get('model_type')}", folder) from error
        raise InputError("cannot-load", f"transformers cannot load this model: {reason}", folder=folder) from error
    made_up = sorted(info["missing_keys"])
    if made_up:
        raise InputError(
            "incomplete-weights",
            f"{len(made_up)} tensor(s) of this model are not in its files, the first is {made_up[0]}",
            "transformers would make them up at random; a model without its output head cannot be judged",
            folder=folder,
        )
    model = model.to(device).eval()
    if _reads_ahead(model):
        raise _not_causal("what it says of a token depends on the tokens after it", folder)
    return model, auto_tokenizer(Path(folder), trust_remote_code=trust_remote_code)


def _not_causal(reason: str, folder: str | Path) -> InputError:
    return InputError(
        "not-causal",
        f"this is no causal language model: {reason}",
        "bits per byte are for models that predict each token from those before it",
        folder=folder,
    )


def _reads_ahead(model: Any) -> bool:
    """Whether another last token changes what the model says before it, as in an encoder."""
    import torch

    some = [n * model.config.get_text_config().vocab_size // 7 for n in range(1, 6)]
    with torch.inference_mode():
        rows = model(torch.tensor([some[:4], [*some[:3], some[4]]], device=model.device)).logits[:, :3].float()
    return float((rows[0] - rows[1]).abs().max()) > 1e-2 * float(rows.std())


@dataclass(frozen=True)
class TokenLosses:
    """What each token of a text costs.

    ids: int64[n]. offsets: int64[n + 1]; token i stands for the bytes offsets[i]:offsets[i + 1] of the text.
    bits: float64[n]. read: the first tokens, which were read and not predicted; their bits are 0. Unpacks into
    ids, offsets, bits.
    """

    ids: np.ndarray
    offsets: np.ndarray
    bits: np.ndarray
    read: int

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.ids, self.offsets, self.bits))

    @property
    def score(self) -> Score:
        """The losses in one sum."""
        return Score(float(self.bits.sum()), int(self.offsets[-1] - self.offsets[self.read]), len(self.ids))


def token_losses(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    window: int = 512,
    overlap: int = 128,
    done: Callable[[int], object] | None = None,
) -> TokenLosses:
    """Say what each token of a text costs a loaded model, in bits.

    The text is encoded as the tokenizer encodes any text, so a model that wants a bos token gets one. Longer texts are
    read in windows of `window` tokens (each with the bos again), or of as many as the model has positions for; every
    token but those of the first `overlap` of a window is predicted with at least `overlap` tokens of context. Without
    a bos the first character is read, not predicted, and its bytes are not counted. done: called with the bytes of
    text that each window has added. Raises InputError empty-text, UsageError bad-window.
    """
    import torch

    if not text:
        raise InputError("empty-text", "there is no text to evaluate", "give a file with some text in it")
    found, offsets = encode_with_offsets(tokenizer, text)
    ids: list[int] = found.tolist()
    lead = _lead(tokenizer, text, ids)
    if not overlap >= 0 or window <= max(overlap, int(not lead)):
        raise UsageError("bad-window", f"windows of {window} tokens with an overlap of {overlap} do not get on")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < window + len(lead):
        window = positions - len(lead)
        overlap = min(overlap, window // 4)
    read = 0 if lead else _first_character(offsets, text)
    if read >= len(ids):
        raise InputError("empty-text", "the text has no second token: there is nothing to predict")
    bits = np.zeros(len(ids), np.float64)
    scored = read
    while scored < len(ids):
        begin = max(0, scored - max(overlap, int(not lead)))
        part = torch.tensor([lead + ids[begin : begin + window]], device=model.device)
        first = len(lead) + scored - begin
        with torch.inference_mode():
            logits = model(part).logits[0, first - 1 : -1]
            for start in range(0, len(logits), _HEAD_BLOCK):
                block = logits[start : start + _HEAD_BLOCK].float()
                wanted = part[0, first + start : first + start + len(block)]
                nats = torch.nn.functional.cross_entropy(block, wanted, reduction="none")
                at = scored + start
                bits[at : at + len(block)] = nats.double().cpu().numpy() / math.log(2)
        end = begin + part.shape[1] - len(lead)
        if done:
            done(int(offsets[end] - (offsets[scored] if scored > read else 0)))
        scored = end
    return TokenLosses(found, offsets, bits, read)


def _lead(tokenizer: Any, text: str, ids: list[int]) -> list[int]:
    """The ids that the tokenizer puts before every text: bos, or nothing."""
    full = tokenizer(text)["input_ids"]
    return next((full[:n] for n in range(len(full) - len(ids) + 1) if full[n : n + len(ids)] == ids), [])


def _first_character(offsets: np.ndarray, text: str) -> int:
    """The number of tokens that begin a text, cut where a character ends."""
    whole = text.encode("utf-8")
    for n, end in enumerate(offsets.tolist()):
        if end and (end == len(whole) or whole[end] & 0xC0 != 0x80):  # no byte in the middle of a character follows
            return n
    return len(offsets) - 1


def bits_per_byte(model: Any, tokenizer: Any, text: str, *, window: int = 512, overlap: int = 128) -> Score:
    """Score one text; see `token_losses`."""
    return token_losses(model, tokenizer, text, window=window, overlap=overlap).score


def greedy(model: Any, tokenizer: Any, prompt: str, tokens: int = 24) -> str:
    """Return the greedy continuation of a prompt."""
    import torch

    encoded = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **{key: encoded[key] for key in ("input_ids", "attention_mask")}, max_new_tokens=tokens, do_sample=False
        )
    return str(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True))
