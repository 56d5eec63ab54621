"""Dynamic tokenization (arXiv 2411.18553): merge the commonest pairs of subwords in a batch, embed them on the fly.

    python examples/dynamic_tokenization.py MODEL HYPERNET TEXT [--batch 16] [--length 128] [--merges 0 50 100 200]

MODEL is a causal language model with a byte-level BPE tokenizer and HYPERNET a hypernetwork for it. Each batch of the
text is cut by the model's own tokenizer; then the pair of neighbours that occurs most often becomes one token, again and
again. `Hypernet.predict` gives the rows of the new tokens and keeps them for the batches to come. The model reads the
merged tokens and predicts them among all tokens, old and new; the loss is told in bits per byte, which no merge can
change by itself.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from tokswap.hypernet import Hypernet, load_hypernet
from tokswap.hypernet.base import Base, open_base
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.tokenizer.vocabulary import Kind

Token = bytes


def merge(batch: list[list[Token]], merges: int, start_of_word: bytes = b" \n\t") -> list[list[Token]]:
    """Join the commonest pair of neighbours, `merges` times; a pair never crosses into another word."""
    batch = [list(text) for text in batch]
    for _ in range(merges):
        pairs = Counter(
            (left, right)
            for text in batch
            for left, right in itertools.pairwise(text)
            if right[:1] not in start_of_word
        )
        if not pairs:
            break
        # Among equals the first in order, so that a run can be repeated.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        batch = [_joined(text, best) for text in batch]
    return batch


def _joined(text: list[Token], pair: tuple[Token, Token]) -> list[Token]:
    out: list[Token] = []
    for token in text:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def bits(base: Base, hypernet: Hypernet, batch: list[list[Token]], own: dict[Token, int]) -> tuple[float, int, int]:
    """Return the bits of a batch, the bytes that they pay for and the tokens that were predicted."""
    new = sorted({token for text in batch for token in text} - set(own))
    rows, head = base.source[:, : base.width], base.source[:, base.width :]
    bias = None if base.names[2] is None else base.model.get_output_embeddings().bias
    if new:
        made = hypernet.predict(new)
        rows = torch.cat([rows, torch.from_numpy(made.input)])
        if made.output is not None:
            head = torch.cat([head, torch.from_numpy(made.output)])
        if bias is not None:
            more = np.zeros(len(new), np.float32) if made.bias is None else made.bias
            bias = torch.cat([bias, torch.from_numpy(more)])
    place = own | {token: len(base.source) + n for n, token in enumerate(new)}
    lead = [] if base.bos is None else [base.bos]
    lines = [lead + [place[token] for token in text] for text in batch]
    size = max(map(len, lines))
    ids = torch.tensor([line + [-1] * (size - len(line)) for line in lines])
    with torch.inference_mode():
        logits = base.logits(ids.clamp(min=0), rows, head if base.names[1] else None, bias)[:, :-1].float()
        wanted = ids[:, 1:]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=-1, reduction="sum"
        )
    paid = sum(len(token) for text in batch for token in text[0 if lead else 1 :])
    return float(loss) / math.log(2.0), paid, int((wanted >= 0).sum())


def main() -> None:
    """Print what merging saves and costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("hypernet")
    parser.add_argument("text", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128, help="tokens of a text before merging")
    parser.add_argument("--merges", type=int, nargs="+", default=[0, 50, 100, 200])
    args = parser.parse_args()
    folder = resolve_model(args.model)
    base, tokenizer = open_base(folder, bf16=False, device="cpu"), read_tokenizer(folder)
    hypernet = load_hypernet(args.hypernet).attach(base.source)
    vocabulary = tokenizer.vocabulary
    text = args.text.read_text("utf-8")
    ids = [token for token in tokenizer.encode(text) if vocabulary.kind[token] == Kind.NORMAL]
    tokens = [vocabulary.token_bytes[token] for token in ids]
    own = {vocabulary.token_bytes[token]: token for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()}
    texts = [tokens[n : n + args.length] for n in range(0, len(tokens) - args.length + 1, args.length)]
    batches = [texts[n : n + args.batch] for n in range(0, len(texts), args.batch)]
    print(f"{len(tokens):,} tokens of {args.text.name} in {len(batches)} batches")
    print("merges a batch   tokens saved   bits per byte   against none")
    first = None
    for merges in args.merges:
        merged = [merge(batch, merges) for batch in batches]
        parts = [bits(base, hypernet, batch, own) for batch in merged]
        loss, paid, _ = (sum(column) for column in zip(*parts, strict=True))
        count = sum(len(text) for batch in merged for text in batch)
        saved = 1.0 - count / sum(map(len, texts))
        first = loss / paid if first is None else first
        print(f"{merges:14}   {saved:12.1%}   {loss / paid:13.4f}   {loss / paid - first:+12.4f}", flush=True)


if __name__ == "__main__":
    main()
