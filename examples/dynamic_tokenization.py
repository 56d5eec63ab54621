"""Dynamic tokenization (arXiv 2411.18553): merge the most frequent token pairs of a batch, and embed the new tokens.

    python examples/dynamic_tokenization.py MODEL HYPERNET TEXT [--batch 16] [--length 128] [--merges 0 50 100 200]

MODEL is a causal language model with a byte-level BPE tokenizer, and HYPERNET a hypernetwork for it. The model's own
tokenizer tokenizes each batch of the text. Then the most frequent pair of neighbours becomes one token, again and
again. `Hypernet.predict` returns the embeddings of the new tokens and keeps them for later batches. The model reads
the merged tokens and predicts them among all tokens, old and new. The loss is in bits per byte, so it can be compared
across tokenizations. docs/quality.md has what merging costs without a trained hypernetwork.
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
from tokswap.tokenizer.vocabulary import Kind

Token = bytes
Text = list[Token]


def merge(batch: list[Text], merges: int, start_of_word: bytes = b" \n\t") -> list[Text]:
    """Join the most frequent pair of neighbours, `merges` times. A pair never crosses into another word."""
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
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))  # of equally frequent pairs always the same one
        if pairs[best] < 2:
            break
        batch = [_joined(text, best) for text in batch]
    return batch


def _joined(text: Text, pair: tuple[Token, Token]) -> Text:
    out: Text = []
    for token in text:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def bits(base: Base, hypernet: Hypernet, batch: list[Text], own: dict[Token, int]) -> tuple[float, int]:
    """Return the loss of a batch in bits, and the bytes of the tokens that are predicted."""
    new = sorted({token for text in batch for token in text} - set(own))
    id_of = own | {token: len(base.source) + n for n, token in enumerate(new)}
    lead = [] if base.bos is None else [base.bos]
    lines = [lead + [id_of[token] for token in text] for text in batch]
    longest = max(map(len, lines))
    ids = torch.tensor([line + [-1] * (longest - len(line)) for line in lines])
    with torch.inference_mode():
        logits = base.logits(ids.clamp(min=0), *embeddings(base, hypernet, new))[:, :-1].float()
        wanted = ids[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted, ignore_index=-1, reduction="sum"
        )
    size = sum(len(token) for text in batch for token in text[0 if lead else 1 :])
    return float(loss) / math.log(2.0), size


def embeddings(
    base: Base, hypernet: Hypernet, new: list[Token]
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return input embeddings, lm_head (None if tied) and its bias (None without one), with new tokens at the end."""
    rows, head = base.source[:, : base.width], base.source[:, base.width :]
    bias = None if base.names.bias is None else base.model.get_output_embeddings().bias
    if new:
        predicted = hypernet.predict(new)
        rows = torch.cat([rows, torch.from_numpy(predicted.input)])
        if predicted.output is not None:
            head = torch.cat([head, torch.from_numpy(predicted.output)])
        if bias is not None:
            more = np.zeros(len(new), np.float32) if predicted.bias is None else predicted.bias
            bias = torch.cat([bias, torch.from_numpy(more)])
    return rows, None if base.names.output is None else head, bias


def main() -> None:
    """Print what merging saves and costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("hypernet")
    parser.add_argument("text", type=Path)
    parser.add_argument("--batch", type=int, default=16, help="texts per batch")
    parser.add_argument("--length", type=int, default=128, help="tokens of a text before merging")
    parser.add_argument("--merges", type=int, nargs="+", default=[0, 50, 100, 200], help="merges per batch")
    args = parser.parse_args()
    base = open_base(resolve_model(args.model), bf16=False, device="cpu")
    hypernet = load_hypernet(args.hypernet).attach(base.source)
    vocabulary = base.tokenizer.vocabulary
    ids = base.tokenizer.encode(args.text.read_text("utf-8"))
    tokens = [vocabulary.token_bytes[token] for token in ids if vocabulary.kind[token] == Kind.NORMAL]
    own = {vocabulary.token_bytes[token]: token for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()}
    texts = [tokens[n : n + args.length] for n in range(0, len(tokens) - args.length + 1, args.length)]
    batches = [texts[n : n + args.batch] for n in range(0, len(texts), args.batch)]
    print(f"{len(tokens):,} tokens of {args.text.name} in {len(batches)} batches")
    print("merges per batch   tokens saved   bits per byte   against the first")
    first = None
    for merges in args.merges:
        merged = [merge(batch, merges) for batch in batches]
        loss, size = map(sum, zip(*(bits(base, hypernet, batch, own) for batch in merged), strict=True))
        count = sum(len(text) for batch in merged for text in batch)
        saved = 1.0 - count / sum(map(len, texts))
        first = loss / size if first is None else first
        print(f"{merges:16}   {saved:12.1%}   {loss / size:13.4f}   {loss / size - first:+17.4f}", flush=True)


if __name__ == "__main__":
    main()
