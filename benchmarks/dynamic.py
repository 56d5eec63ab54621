"""Dynamic tokenization (arXiv 2411.18553): what merging the frequent neighbours of a batch saves, and what it costs.

    python benchmarks/dynamic.py [--rows 'smollm2: mean' ...] [--texts DIR] [--folder DIR]

A batch has 16 texts of 128 tokens. Its most frequent pair of neighbours within a word becomes one token, again and
again, until a share of the tokens is saved. A method computes the embeddings of the new tokens from their parts.

- Decoders read the first 96 tokens of each text, merged, and predict the 32 after them in their own tokens: the loss is
  on the same tokens whatever is merged. Beside it stands the loss of whole texts whose merged tokens are also predicted,
  among all tokens old and new.
- The encoder embeds both halves of up to 128 documents, in separate batches: how near a text stays to its own embedding,
  how alike it ranks all others, and how soon a half finds the other half of its document (mean reciprocal rank).

`shorter` is the control: the same share of tokens left out, the oldest of a prompt or the last of a text. Each row is a
process of its own; rows that have results are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _dynamic_encoder import Encoder, Trained, documents, encoder, minilm
from _dynamic_rows import (
    BATCH,
    BUDGETS,
    Compute,
    NewTokens,
    OfTransplants,
    Regression,
    Text,
    chunks,
    left_out,
    merged,
    saved,
)
from _machine import missing_rows, row_parser
from quality_texts import fetch_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.hypernet.base import Base, open_base
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.tokenizer import Tokenizer

PARTS = ("en", "code", "de")
PROMPT = 96


def decoder(
    base: Base, method: str, held: Mapping[str, str], compute: Compute, scoring: Compute | None
) -> dict[str, Any]:
    """Score a decoder on each text at each budget."""
    rows = base.source[:, : base.width].numpy()
    found: dict[str, Any] = {}
    short = method == "shorter"
    for part, text in held.items():
        whole = chunks(base.tokenizer.encode(text), BATCH)
        prompts = [text[:PROMPT] for text in whole]
        endings = [[token for (token,) in text[PROMPT:]] for text in whole]
        budgets = (0.0,) if method == "none" else BUDGETS if scoring is not None or short else BUDGETS[:2]
        begin = time.process_time()
        states = list(
            left_out(prompts, budgets, True) if short else merged(prompts, base.tokenizer.vocabulary, budgets)
        )
        seconds = time.process_time() - begin
        tokens = NewTokens(base.tokenizer, rows, compute)
        tokens.add(states)
        found[part] = {"merge_cpu_s": round(seconds, 2)}
        size = sum(len(tokens.spelt[token]) for ending in endings for token in ending)
        for budget, state in zip(budgets, states, strict=True):
            begin = time.process_time()
            bits = ending_bits(base, tokens, state, endings)
            found[part][str(budget)] = {
                "saved": saved(state, prompts),
                "bits_per_byte": round(bits / size, 4),
                "cpu_s": round(time.process_time() - begin, 1),
            }
        if scoring is not None:
            scored = NewTokens(base.tokenizer, rows, scoring)
            states = list(merged(whole, base.tokenizer.vocabulary, budgets[:2]))
            scored.add(states)
            for budget, state in zip(budgets, states, strict=False):
                loss, size_of = predicted_bits(base, scored, state)
                found[part][str(budget)] |= {
                    "saved, predicted": saved(state, whole),
                    "bits_per_byte, predicted": round(loss / size_of, 4),
                }
    return found


def _run(base: Base, weight: torch.Tensor, ids: list[int], keep: int) -> torch.Tensor:
    """Return the logits of the last tokens, float32 [keep, rows of the matrix]."""
    lead = [] if base.bos is None else [base.bos]
    inputs = {"input_ids": torch.tensor([lead + ids]), "use_cache": False, "logits_to_keep": keep}
    with torch.inference_mode():
        logits: torch.Tensor = torch.func.functional_call(base.model, {base.names.input: weight}, (), inputs).logits
    return logits[0].float()


def ending_bits(base: Base, tokens: NewTokens, prompts: Sequence[Text], endings: Sequence[list[int]]) -> float:
    """Return the bits of endings in the model's own tokens, after prompts with merged ones."""
    weight, own, bits = torch.from_numpy(tokens.all), len(tokens.rows), 0.0
    for prompt, ending in zip(prompts, endings, strict=True):
        ids = [tokens.id_of(token) for token in prompt] + ending
        logits = _run(base, weight, ids, len(ending) + 1)[:-1, :own]
        bits += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ending), reduction="sum")) / np.log(2)
    return bits


def predicted_bits(base: Base, tokens: NewTokens, texts: Sequence[Text]) -> tuple[float, int]:
    """Return the bits of texts whose tokens, old and new, are all predicted, and their bytes."""
    weight, bits, size = torch.from_numpy(tokens.all), 0.0, 0
    first = int(base.bos is None)
    for text in texts:
        ids = [tokens.id_of(token) for token in text]
        logits = _run(base, weight, ids, len(ids) + 1 - first)[:-1]
        bits += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[first:]), reduction="sum"))
        size += sum(len(tokens.spelt[part]) for token in text[first:] for part in token)
    return bits / float(np.log(2)), size


ROWS: dict[str, str] = {
    f"{model}: {method}": method
    for model, methods in {
        "smollm2": ("none", "shorter", "mean", "auto, old norms", "regression"),
        "gemma": ("none", "mean"),
        "minilm": ("none", "shorter", "mean", "regression", "trained"),
    }.items()
    for method in methods
}
"""Row -> method."""


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-dynamic")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given)))
        return
    print("\n".join(table(missing_rows("dynamic", given.rows))))


def one_row(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Score a model with the rows of one method, in this process."""
    model, method = name.split(": ")[0], ROWS[name]
    if model == "minilm":
        reader = Encoder(minilm(given.folder))
        compute = method_of(method, reader.tokenizer, reader.rows)
        begin = time.process_time()
        if isinstance(compute, Trained):
            select = fetch_texts(given.texts, ["select"]) / "select"
            corpora = [(select / f"{part}.txt").read_text("utf-8") for part in PARTS]
            compute.train(reader.losses(compute, corpora), rate=1e-3)
        trained = {"train_cpu_s": round(time.process_time() - begin)} if isinstance(compute, Trained) else {}
        return {**trained, **encoder(reader, method, documents(given.texts), compute)}
    texts = fetch_texts(given.texts, ["held"])
    held = {part: (texts / "held" / f"{part}.txt").read_text("utf-8") for part in PARTS}
    base = open_base(resolve_model(str(fetch(model))), bf16=False, device="cpu")
    rows = base.source[:, : base.width].numpy()
    also = model == "smollm2" and method in ("none", "mean")
    scoring = method_of(method, base.tokenizer, rows, scores=True) if also else None
    return decoder(base, method, held, method_of(method, base.tokenizer, rows), scoring)


def method_of(method: str, tokenizer: Tokenizer, rows: np.ndarray, *, scores: bool = False) -> Compute:
    """Return what computes the rows of new tokens."""
    if method == "trained":
        return Trained(rows)
    if method == "regression":
        return Regression(tokenizer, rows)
    if method == "auto, old norms":
        return OfTransplants(tokenizer, rows, "auto", old_norms=True, scores=scores)
    return OfTransplants(tokenizer, rows, "subword", scores=scores)


def table(rows: Mapping[str, Any]) -> list[str]:
    """Return two Markdown tables, English, code and German in one field: the loss of decoders, and the encoder."""
    lines = [f"| more bits per byte | {' | '.join(f'{budget:.0%}' for budget in BUDGETS)} |"]
    for name, row in rows.items():
        own = rows[f"{name.split(': ')[0]}: none"]
        for kind in ("", ", predicted"):
            key = f"bits_per_byte{kind}"
            if key in row["en"].get(str(BUDGETS[0]), {}):
                cells = [
                    slashed(
                        f"{row[part][str(budget)][key] / own[part]['0.0'][key] - 1:+.1%}{fewer(row, part, budget)}"
                        for part in PARTS
                    )
                    for budget in BUDGETS
                    if key in row["en"].get(str(budget), {})
                ]
                lines.append(f"| {name}{kind} | {' | '.join(cells)} |")
    for key in ("cosine", "rank_agreement", "found"):
        lines += ["", f"| {key} | {' | '.join(f'{budget:.0%}' for budget in BUDGETS)} |"]
        for name, row in rows.items():
            if key in row["en"].get(str(BUDGETS[0]), {}):
                cells = [
                    slashed(f"{row[part][str(budget)][key]:.3f}{fewer(row, part, budget)}" for part in PARTS)
                    for budget in BUDGETS
                ]
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def fewer(row: Mapping[str, Any], part: str, budget: float) -> str:
    """Return the share of the tokens that is saved, where a text has no more to merge."""
    share = row[part][str(budget)]["saved"]
    return f" ({share:.0%})" if share < budget - 0.02 else ""


def slashed(cells: Iterable[str]) -> str:
    """Join the cells of all texts."""
    return " / ".join(cells)


if __name__ == "__main__":
    main()
