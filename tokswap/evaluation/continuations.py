"""Greedy continuations of prompts, many at once: what the prompts share is read once, and batches write together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tokswap.checkpoint.nested_configs import id_list
from tokswap.evaluation.caches import predicts_alike
from tokswap.evaluation.models import cache_name, only_last, plain_generation, without_cache
from tokswap.evaluation.prompts import prompt_ids, within_positions

_BATCH = 32
"""Most prompts that are continued at once."""
_LEAST_SHARED = 8
"""A shorter common beginning is not worth a pass of its own."""


def greedy(model: Any, tokenizer: Any, prompt: str, tokens: int = 24) -> str:
    """Continue a prompt with the most likely token each time.

    Args:
        model: A loaded causal language model.
        tokenizer: Its transformers tokenizer.
        prompt: The beginning of the text.
        tokens: Tokens to write at most.

    Returns:
        The continuation without special tokens.

    Raises:
        UsageError: bad-prompt, empty-prompt.
    """
    given = prompt_ids(tokenizer, prompt)
    with within_positions([model], len(given) + tokens):
        (ids,) = continuations(model, [given], [tokens])
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    most: Sequence[int],
    *,
    stop: Callable[[int, list[int]], bool] = lambda prompt, ids: False,
    padded: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[list[int]]:
    """Continue prompts with the most likely token each time.

    Args:
        model: A loaded causal language model.
        prompts: The token ids of each prompt. What all of them begin with is read once.
        most: Tokens to write at most after each prompt.
        stop: Whether a continuation is long enough, for the number of its prompt and the ids so far.
        padded: Whether prompts of different lengths may be padded on the left to make a batch. This is faster where
            the continuations are longer than the prompts. The common beginning is then read with every prompt.
        done: Called with the number of prompts that each batch continues.

    Returns:
        The ids of each continuation, with the token that ends the text, if it wrote one.
    """
    import torch

    padded = padded and not getattr(model, "_is_stateful", False)  # a recurrent state would contain the padding
    written: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode(), plain_generation(model):
        shared = None if padded else _read_shared(model, prompts)
        for batch in _batches(prompts, padded):
            limits = [most[n] for n in batch]
            watch = _Watch(batch, limits, stop)
            rows = _generate(model, [prompts[n] for n in batch], watch, shared)
            for n, ids in zip(batch, rows, strict=True):
                written[n] = ids[: most[n]]
            done(len(batch))
    return written


def end_tokens(model: Any) -> list[int]:
    """Return the ids that end a text when a model generates."""
    return id_list(model.generation_config.eos_token_id)


class _Watch:
    """Tells `generate` which continuations are finished."""

    def __init__(self, batch: Sequence[int], limits: Sequence[int], stop: Callable[[int, list[int]], bool]) -> None:
        self.batch, self.limits, self.stop = batch, limits, stop
        self.begin = 0
        self.finished: set[int] = set()

    def __call__(self, ids: Any, scores: Any, **more: Any) -> Any:
        import torch

        for place, number in enumerate(self.batch):
            if place not in self.finished:
                own = ids[place, self.begin :].tolist()
                if len(own) >= self.limits[place] or self.stop(number, own):
                    self.finished.add(place)
        return torch.tensor([place in self.finished for place in range(len(self.batch))], device=ids.device)


def _batches(prompts: Sequence[Sequence[int]], padded: bool) -> Iterator[list[int]]:
    """Yield the numbers of the prompts of each batch: those of one length, or any of similar length."""
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    batch: list[int] = []
    for n in order:
        if batch and (len(batch) == _BATCH or (not padded and len(prompts[n]) != len(prompts[batch[0]]))):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _read_shared(model: Any, prompts: Sequence[Sequence[int]]) -> Any:
    """Read what all prompts begin with.

    Returns:
        The model's cache, None where there is little to share or the model does not go on from its cache as it reads.
    """
    import torch
    from transformers import Cache

    least = min(map(len, prompts)) - 1  # the last token of a prompt must predict
    size = next((n for n in range(least) if len({prompt[n] for prompt in prompts}) > 1), least)
    if len(prompts) == 1 or size < _LEAST_SHARED:
        return None

    def after(ids: Sequence[int], **given: Any) -> Any:
        return model(input_ids=torch.tensor([list(ids)], device=model.device), **given, **only_last(model, 1))

    output = after(prompts[0][:size], use_cache=True)
    cache = output.get("cache" if "cache" in output else "past_key_values")
    if not isinstance(cache, Cache):
        return None
    # Jamba, Bamba and MiniMax go on from their caches otherwise than they read a whole text.
    given = {cache_name(model.forward): copy.deepcopy(cache), "use_cache": True}
    longest = max(prompts, key=len)
    outputs = (after(longest[size:], **given), after(longest, **without_cache(model)))
    found, plain = (one.logits[0, -1].float().log_softmax(-1).cpu().numpy() for one in outputs)
    return cache if predicts_alike(model, found, plain) else None


def _generate(model: Any, rows: Sequence[Sequence[int]], watch: _Watch, shared: Any) -> list[list[int]]:
    """Let transformers continue one batch."""
    import torch
    from transformers import StoppingCriteriaList

    ends = end_tokens(model)
    pad = ends[0] if ends else 0
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    given = {}
    if shared is not None:
        cache = copy.deepcopy(shared)
        cache.reorder_cache(torch.zeros(len(rows), dtype=torch.long, device=model.device))  # one copy for each row
        given = {cache_name(model.prepare_inputs_for_generation): cache, "use_cache": True}
    watch.begin = width
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max(watch.limits),
        do_sample=False,
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([watch]),
        **given,
    )
    return [_ended(row, ends) for row in output[:, width:].tolist()]


def _ended(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Return the ids up to the first that ends the text."""
    return ids[: next((n + 1 for n, one in enumerate(ids) if one in ends), len(ids))]
