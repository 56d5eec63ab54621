"""Bits per byte: how well a causal language model predicts a text, in a unit that does not depend on the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.checkpoint.loaded import as_loaded
from tokswap.checkpoint.positions import longest_input_of
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.models import only_last, without_dropout
from tokswap.options.kinds import typed
from tokswap.tokenizer.offsets import encode_with_offsets

_HEAD_BLOCK = 128
"""Tokens whose logits are turned into losses at once."""
_ROWS = 32
"""Most rows that are read at once."""


@dataclass(frozen=True)
class Score:
    """The loss of a text.

    Attributes:
        bits: Loss in bits.
        bytes: Bytes that are predicted.
        tokens: Tokens of the text.
    """

    bits: float
    bytes: int
    tokens: int

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8 text. In this unit models of any tokenizer compare."""
        return self.bits / self.bytes

    @property
    def tokens_per_byte(self) -> float:
        """Tokens per byte of UTF-8 text."""
        return self.tokens / self.bytes


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each token of a text. Unpacks into ids, offsets, bits.

    Attributes:
        ids: Token ids (int64 [n]).
        offsets: Boundaries in bytes (int64 [n + 1]); token i stands for the bytes offsets[i]:offsets[i + 1].
        bits: Loss of each token in bits (float64 [n]).
        read: How many of the first tokens are read and not predicted; their loss is 0.
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


@typed
def token_losses(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    window: int = 512,
    overlap: int = 128,
    done: Callable[[int], object] | None = None,
) -> TokenLosses:
    """Compute the loss of each token of a text.

    The text is encoded as the tokenizer encodes any text, so a tokenizer that adds bos adds one here. A text longer
    than the window is read in several windows, each with the bos again. Every token has at least `overlap` tokens of
    context, except at the beginning of the text. Without a bos the first character is read, not predicted, and its
    bytes do not count.

    Args:
        model: A loaded causal language model.
        tokenizer: Its transformers tokenizer.
        text: The text.
        window: Tokens that the model reads at once; fewer if the model has fewer positions.
        overlap: Tokens of context that windows share.
        done: Called with the number of bytes that each window adds.

    Returns:
        Ids, byte offsets and bits of every token.

    Raises:
        InputError: empty-text.
        UsageError: bad-window, bad-model, bad-setting.
    """
    if not text:
        raise InputError("empty-text", "there is no text to evaluate", "give a file with some text in it")
    as_loaded((model, tokenizer))  # refuses what is neither
    ids, offsets = encode_with_offsets(tokenizer, text)
    lead = _lead(tokenizer, text, ids.tolist())
    window, overlap = _fitting_windows(model, window, overlap, lead)
    read = 0 if lead else _first_character(offsets, text)
    if read >= len(ids):
        raise InputError("empty-text", "the text has no second token: there is nothing to predict")
    bits = np.zeros(len(ids), np.float64)
    scored = read
    while scored < len(ids):
        begin = max(0, scored - max(overlap, int(not lead)))
        part = ids[begin : begin + window].tolist()
        end = begin + len(part)
        with without_dropout(model):
            (bits[scored:end],) = _losses(model, [[*lead, *part]], len(lead) + scored - begin)
        if done:
            done(int(offsets[end] - (offsets[scored] if scored > read else 0)))
        scored = end
    return TokenLosses(ids=ids, offsets=offsets, bits=bits, read=read)


def _fitting_windows(model: Any, window: int, overlap: int, lead: list[int]) -> tuple[int, int]:
    """Check window and overlap and fit them to the model's positions."""
    if overlap < 0:
        raise UsageError("bad-window", f"--overlap must be at least 0, not {overlap}")
    if window <= overlap:
        raise UsageError("bad-window", f"--overlap ({overlap}) must be smaller than --window ({window})")
    if window < 2 and not lead:
        raise UsageError("bad-window", "--window must be at least 2 for a tokenizer that adds no bos token")
    positions = longest_input_of(model)
    if positions is not None and 0 < positions < window + len(lead):
        window = positions - len(lead)
        overlap = min(overlap, window // 4)
    return window, overlap


def ending_bits(
    model: Any,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    *,
    done: Callable[[int], object] = lambda n: None,
) -> np.ndarray:
    """Compute the loss of endings after their prompts, in batches of equal length.

    Args:
        model: A loaded causal language model, in evaluation mode.
        tokenizer: Its transformers tokenizer.
        texts: Prompts and endings; a prompt with its ending fits in the model's positions.
        done: Called with the number of endings of each batch.

    Returns:
        The loss of the tokens that reach past the prompt, in bits (float64 [n]).
    """
    alike: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
    for n, (prompt, ending) in enumerate(texts):
        ids, offsets = encode_with_offsets(tokenizer, prompt + ending)
        lead = _lead(tokenizer, prompt + ending, ids.tolist())
        past = int(np.searchsorted(offsets[1:], len(prompt.encode("utf-8")), side="right"))
        row = [*lead, *ids.tolist()]
        alike.setdefault((len(row), max(len(lead) + past, 1)), []).append((n, row))
    bits = np.zeros(len(texts), np.float64)
    for (_, first), rows in alike.items():
        for start in range(0, len(rows), _ROWS):
            batch = rows[start : start + _ROWS]
            bits[[n for n, _ in batch]] = _losses(model, [row for _, row in batch], first).sum(1)
            done(len(batch))
    return bits


def _losses(model: Any, rows: Sequence[Sequence[int]], first: int) -> np.ndarray:
    """Return the losses of the tokens of rows of equal length from place `first` on, in bits (float64 [rows, n])."""
    import torch

    ids = torch.tensor(rows, device=model.device)
    count = ids.shape[1] - first
    with torch.inference_mode():
        logits = model(ids, **only_last(model, count + 1)).logits[:, -count - 1 : -1].flatten(0, 1)
        wanted = ids[:, first:].flatten()
        nats = [
            torch.nn.functional.cross_entropy(
                logits[start : start + _HEAD_BLOCK].float(), wanted[start : start + _HEAD_BLOCK], reduction="none"
            )
            for start in range(0, len(wanted), _HEAD_BLOCK)
        ]
        return np.asarray(torch.cat(nats).double().cpu().numpy().reshape(len(rows), count) / math.log(2))


def _lead(tokenizer: Any, text: str, ids: list[int]) -> list[int]:
    """Return the ids that the tokenizer puts before every text: bos, or nothing."""
    full = tokenizer(text)["input_ids"]
    return next((full[:n] for n in range(len(full) - len(ids) + 1) if full[n : n + len(ids)] == ids), [])


def _first_character(offsets: np.ndarray, text: str) -> int:
    """Return how many tokens the first character takes; more if tokens end inside the characters after it."""
    whole = text.encode("utf-8")
    for n, end in enumerate(offsets.tolist()):
        if end and (end == len(whole) or whole[end] & 0xC0 != 0x80):  # the next byte does not continue a character
            return n
    return len(offsets) - 1


@typed
def bits_per_byte(model: Any, tokenizer: Any, text: str, *, window: int = 512, overlap: int = 128) -> Score:
    """Compute the loss of a text in bits per byte, which compares across tokenizers.

    Args:
        model: A loaded causal language model.
        tokenizer: Its transformers tokenizer.
        text: The text.
        window: Tokens that the model reads at once; fewer if the model has fewer positions.
        overlap: Tokens of context that windows share.

    Returns:
        The loss: `.bits_per_byte`, `.tokens_per_byte` and what they are made of.

    Raises:
        InputError: empty-text.
        UsageError: bad-window.
    """
    return token_losses(model, tokenizer, text, window=window, overlap=overlap).score
