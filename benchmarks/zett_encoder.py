"""A hypernetwork for a real encoder: all-MiniLM-L6-v2 with other tokenizers, judged by its embeddings of texts.

    python benchmarks/zett_encoder.py --work DIR [--handbook FOLDER] [--head-steps 400] [--steps 900]

MiniLM comes without an lm_head. So a masked language model with MiniLM's embeddings is made first: the embeddings stay
as they are, and the layers learn to predict masked tokens. The hypernetwork is trained for that model, as ZeTT's are for
a base model, and then predicts rows for MiniLM itself. The texts are those of zett.py, and Python's documentation, from
which nothing learns. What is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _dynamic_encoder import found_halves, minilm, rank_agreement
from _machine import keep
from zett import HANDBOOK, texts, train_hypernet

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

BATCH, LENGTH, MASKED = 32, 64, 0.15
PAIRS, HALF = 128, 600
"""Passages of each kind that are embedded, and characters of each half."""
TOKENS = 16384


def train_masked_model(source: Path, documents: list[str], folder: Path, steps: int) -> None:
    """Make a masked language model of an encoder whose embeddings stay as they are."""
    from transformers import AutoTokenizer, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = BertForMaskedLM.from_pretrained(source)
    model.tie_weights()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    own = sorted(set(tokenizer.all_special_ids))
    stream = torch.tensor(tokenizer("\n".join(documents), add_special_tokens=False, verbose=False)["input_ids"])
    learning = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=5e-4, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    used = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1.0, (step + 1) / 40) * (1.0 - 0.95 * step / steps)
        starts = torch.randint(0, len(stream) - LENGTH, (BATCH,)).tolist()
        body = torch.stack([stream[at : at + LENGTH] for at in starts])
        around = [torch.full((BATCH, 1), one) for one in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
        ids = torch.cat([around[0], body, around[1]], dim=1)
        asked = (torch.rand(ids.shape) < MASKED) & ~torch.isin(ids, torch.tensor(own))
        shown = ids.masked_fill(asked & (torch.rand(ids.shape) < 0.8), tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.bert(shown).last_hidden_state[asked]
            loss = torch.nn.functional.cross_entropy(model.cls(hidden).float(), ids[asked])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(f"masked model: step {step}, loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    minutes = round((time.process_time() - used) / 60, 1)
    result = {"steps": steps, "last_loss": round(loss.item(), 3), "cpu_minutes": minutes}
    (folder / "training.json").write_text(json.dumps(result))


def make_wordpiece(documents: list[str], folder: Path) -> None:
    """Train a WordPiece tokenizer of BERT's kind on the text of the hypernetwork."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(documents, vocab_size=TOKENS, show_progress=False)
    (file,) = trained.save_model(str(folder))
    BertTokenizerFast(vocab=file, do_lower_case=True).save_pretrained(folder)


def embed(folder: Path, parts: list[str]) -> np.ndarray:
    """Return embeddings of texts as sentence-transformers makes them: the mean of the last states, at norm 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(parts), 16):
            batch = tokenizer(
                parts[start : start + 16], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            mask = batch["attention_mask"][..., None]
            hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            vectors.append(torch.nn.functional.normalize((hidden * mask).sum(dim=1)))
    return torch.cat(vectors).numpy()


def halves(documents: list[str]) -> list[str]:
    """Return the first halves of passages, and then their second halves. A document gives up to eight passages."""
    starts = range(0, 16 * HALF, 2 * HALF)
    whole = [text[start : start + 2 * HALF] for text in documents for start in starts if len(text) >= start + 2 * HALF]
    draw = np.random.default_rng(0).permutation(len(whole))[:PAIRS]
    whole = [whole[at] for at in sorted(draw)]
    return [text[:HALF] for text in whole] + [text[HALF:] for text in whole]


def compare(model: Path, targets: dict[str, Path], work: Path, held: dict[str, list[str]]) -> dict[str, Any]:
    """Transplant with every target tokenizer and every method, and compare the embeddings with the model's own."""
    import tokswap

    parts = {kind: halves(documents) for kind, documents in held.items()}
    own = {kind: embed(model, some) for kind, some in parts.items()}
    result: dict[str, Any] = {
        "texts": {kind: len(some) for kind, some in parts.items()},
        "own": {kind: found_halves(vectors) for kind, vectors in own.items()},
        "rows": [],
    }
    print(result, flush=True)
    for target, folder in targets.items():
        for method, settings in {"subword": {}, "auto": {}, "zett": {"path": str(work / "hypernet")}}.items():
            out = work / "result"
            report = tokswap.transplant_tokenizer(
                str(model), str(folder), init=method, settings=settings, out=out, force=out.exists()
            )
            row: dict[str, Any] = {"target": target, "method": method, "tokens": len(report.alignment)}
            row["initialised"] = report.plan.coverage["missing"]
            for kind, some in parts.items():
                vectors = embed(out, some)
                row[kind] = {
                    "cosine": round(float((vectors * own[kind]).sum(axis=1).mean()), 4),
                    "rank_agreement": round(rank_agreement(own[kind], vectors), 4),
                    "found": found_halves(vectors),
                }
            result["rows"].append(row)
            print(row, flush=True)
    return result


def main() -> None:
    import pydoc_data.topics

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--head-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=900)
    args = parser.parse_args()
    learnt, held, _ = texts(args.handbook)
    documents = learnt["code"] + 2 * learnt["english"]  # there is more code than prose
    held["documentation"] = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    source, base = minilm(args.work), args.work / "masked"
    if not (base / "training.json").is_file():
        train_masked_model(source, documents, base, args.head_steps)
    targets = {"WordPiece": args.work / "wordpiece", "SmolLM2": fetch("smollm2")}
    if not (targets["WordPiece"] / "tokenizer.json").is_file():
        make_wordpiece(learnt["code"] + learnt["english"], targets["WordPiece"])
    figures = train_hypernet(documents, base, args.work / "hypernet", steps=args.steps, identity_steps=1000)
    result = compare(source, targets, args.work, held)
    result.update(masked_model=json.loads((base / "training.json").read_text()), hypernet=figures)
    print(keep("zett-encoder", result))


if __name__ == "__main__":
    main()
