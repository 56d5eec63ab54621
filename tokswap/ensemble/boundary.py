"""The end of a prompt, read byte by byte: which token may come next where the prompt ends inside of one.

A prompt such as "The weat" ends inside a token. Its own tokenization is one that the model has never seen before
"her". So the last tokens are left open: every token counts that spells the end of the prompt and goes on, by the
probability that the models give it (cover encodings, see `tokswap.ensemble.bytewise.reader`). With the first token
chosen so, text is written token by token, and its probabilities are those of the exact reader of bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.ensemble.bytewise import utf8
from tokswap.ensemble.bytewise.canonical import Canonical
from tokswap.ensemble.bytewise.covers import Covers
from tokswap.ensemble.bytewise.order import TokenOrder
from tokswap.ensemble.bytewise.paths import End
from tokswap.ensemble.bytewise.reader import text_ends
from tokswap.evaluation.caches import predicts_alike
from tokswap.evaluation.models import cache_name, without_cache
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind


@dataclass(frozen=True)
class Prompt:
    """The tokens that a text goes on after.

    Attributes:
        ids: Their ids.
        closed: How many of the first ones are settled, such as a suffix that is shown before. Special tokens and what
            comes before them are settled in any case.
        ends: Ids of the tokens that end the text, None for those of the model and its tokenizer.
    """

    ids: tuple[int, ...]
    closed: int = 0
    ends: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Beginnings:
    """How a text may go on after a prompt.

    Attributes:
        ids: The tokens of each beginning, the whole prompt included; the last one goes past it.
        new: The bytes of each past the prompt.
        splits: A number for each; those of one number split the prompt in the same way. The last number is that of the
            prompt as it is, int64 [n].
        chances: The probability of each, float64 [n].
        end: The probability that the text ends with the prompt.
        count: How many splits there are.
    """

    ids: tuple[list[int], ...]
    new: tuple[bytes, ...]
    splits: np.ndarray
    chances: np.ndarray
    end: float
    count: int

    def choose(self, temperature: float | None, random: np.random.Generator) -> int:
        """Choose a beginning, len(ids) for the end.

        Args:
            temperature: None takes the likeliest token after the likeliest split of the prompt.
            random: What to draw with.
        """
        chances = np.append(self.chances, self.end)
        if temperature is None:
            splits = np.append(self.splits, self.count - 1)
            return int((chances * (splits == np.bincount(splits, chances).argmax())).argmax())
        logs = np.log(np.maximum(chances, 1e-300)) / temperature
        sharp = np.exp(logs - logs.max()) * (chances > 0)
        return int(random.choice(len(chances), p=sharp / sharp.sum()))


def beginnings(model: Any, tokenizer: Tokenizer, prompt: Prompt, *, tolerance: float = 1e-3) -> Beginnings | None:
    """Return how a text may go on after a prompt, as exact as the tokens allow.

    Args:
        model: A causal language model or a `MixedModel`.
        tokenizer: Its tokenizer.
        prompt: The prompt, as the tokenizer encodes it. Only the text after its last special token is left open.
        tolerance: See `ByteModel`.

    Returns:
        The beginnings, or None where nothing can be left open: the tokenizer is no BPE tokenizer, it changes text, or
        the prompt has no token that every split of it begins with.
    """
    if tokenizer.family not in (BYTE_LEVEL, SENTENCEPIECE):
        return None
    vocabulary, ids = tokenizer.vocabulary, list(prompt.ids)
    inside = [len(vocabulary) > token and vocabulary.kind[token] in (Kind.NORMAL, Kind.BYTE) for token in ids]
    first = max(prompt.closed, next((n + 1 for n in range(len(ids) - 1, -1, -1) if not inside[n]), 0))
    lead, own = ids[:first], ids[first:]
    data = b"".join(vocabulary.token_bytes[token] for token in own)
    canonical, order = Canonical(tokenizer), TokenOrder(vocabulary)
    if canonical.encodings(data) != [own]:
        return None
    least = max(len(data) - max(map(len, vocabulary.token_bytes)), 0 if lead else 1)
    starts = [n for n in range(least, len(data) + 1) if np.diff(order.longer_than(data[n:]))[0] > 0]
    found = [(start, encoding) for start in starts for encoding in canonical.encodings(data[:start])]
    found = [(start, encoding) for start, encoding in found if lead or encoding]
    if not lead and len({encoding[0] for _, encoding in found}) > 1:
        return None  # nothing comes before their first tokens, so nothing says how likely these are
    ends = text_ends(model, tokenizer) if prompt.ends is None else prompt.ends
    covers = Covers(order, canonical, ends=ends, tolerance=tolerance)
    read = read_ends(model, [[*lead, *encoding] for _, encoding in found])
    for n, ((start, encoding), (log, after)) in enumerate(zip(found, read, strict=True)):
        rest = (utf8.split(data[:start]) or (b"", b""))[1]
        covers.add(start, End(n, encoding[-1] if encoding else None), log, rest, after=after)
    covers.narrow(data)
    tokens = covers.tokens(len(data))
    total = float(tokens.mass.sum()) + tokens.end
    return Beginnings(
        ids=tuple([*lead, *found[node][1], token] for node, token in zip(tokens.nodes, tokens.ids, strict=True)),
        new=tuple(
            vocabulary.token_bytes[token][len(data) - found[node][0] :]
            for node, token in zip(tokens.nodes, tokens.ids, strict=True)
        ),
        splits=np.array(tokens.nodes, np.int64),
        chances=tokens.mass / total,
        end=tokens.end / total,
        count=len(found),
    )


def read_ends(model: Any, sequences: Sequence[Sequence[int]]) -> list[tuple[float, np.ndarray]]:
    """Let a model read sequences that differ at their ends. What they share is read once, if it has a cache for that.

    Returns:
        The log-probability of each after what all have in common, and those of the tokens after it, float32 [V].
    """
    import torch

    common = 0
    while all(len(one) > common and one[common] == sequences[0][common] for one in sequences):
        common += 1
    with torch.inference_mode():
        try:
            shared, ends = _with_cache(model, sequences, common)
            reads_on = _reads_on(model, sequences, common, ends)
        except Exception:  # a cache that takes one token at a time only, or has a wrong shape
            reads_on = False
        if not reads_on:
            shared, ends = _with_cache(model, sequences, common, cached=False)
    found = []
    for one, after in zip(sequences, ends, strict=True):
        rows = [shared[-1], *after]
        log = sum(float(row[token]) for row, token in zip(rows, one[common:], strict=False))
        found.append((log, rows[-1].cpu().numpy()))
    return found


def _reads_on(model: Any, sequences: Sequence[Sequence[int]], common: int, ends: Sequence[Any]) -> bool:
    """Return whether a model predicts the same with its cache as without it, on the longest sequence.

    Jamba forgets what it has read where it goes on by several tokens at once; Bamba and MiniMax go on wrongly in any
    case. None of them gives a sign.
    """
    longest = max(range(len(sequences)), key=lambda n: len(sequences[n]))
    if len(sequences[longest]) == common:
        return True
    _, [plain] = _with_cache(model, [sequences[longest]], common, cached=False)
    return predicts_alike(model, ends[longest].cpu().numpy(), plain.cpu().numpy())


def _with_cache(
    model: Any, sequences: Sequence[Sequence[int]], common: int, *, cached: bool = True
) -> tuple[Any, list[Any]]:
    """Return log-probabilities after the tokens that all sequences share, and after the other tokens of each.

    Mamba and RWKV have states of their own in place of a cache: then each sequence is read as a whole.
    """
    import torch

    def run(ids: Sequence[int], cache: Any = None) -> tuple[torch.Tensor, Any]:
        given = {"use_cache": True} if cached else without_cache(model)
        given |= {} if cache is None else {cache_name(model.forward): cache}
        done = model(input_ids=torch.tensor([list(ids)], device=model.device), **given)
        return torch.log_softmax(done.logits[0].float(), -1), done.get("cache", done.get("past_key_values"))

    shared, cache = run(sequences[0][:common])
    ends = []
    for one in sequences:
        if len(one) == common:
            ends.append(shared[:0])
        elif cache is None or not cached:
            ends.append(run(one)[0][common:])
        else:
            ends.append(run(one[common:], copy.deepcopy(cache))[0])
    return shared, ends
