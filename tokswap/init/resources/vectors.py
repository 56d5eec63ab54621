"""Static vectors: word vectors from a user's file, and token vectors that gensim trains (the `vectors` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tokswap.errors import InputError, count_of
from tokswap.init.resources.protocol import WordVectors

_BUCKETS = 100_000
_SENTENCE = 5000
"""Tokens of the longest sentence that gensim reads; it drops the rest."""


def read_vectors(path: str, most: int) -> WordVectors:
    """Read word vectors from a file.

    Args:
        path: A .npz file with `words` and `vectors`; or a text file with a word and its numbers on each line (.vec),
            which may begin with a line of its sizes.
        most: How many words to read. The frequent words come first in such files.

    Raises:
        InputError: bad-vectors.
    """
    file = Path(path).expanduser()
    try:
        found = _read_npz(file, most) if file.suffix == ".npz" else _read_text(file, most)
    except Exception as error:  # numpy and zipfile have many names for a damaged file
        raise InputError(
            "bad-vectors",
            f"cannot read word vectors from this file: {error}",
            "give a .vec text file (a word and its numbers on each line), or a .npz with `words` and `vectors`",
            file=file,
        ) from error
    if not len(found.words):
        raise InputError("bad-vectors", "the file of word vectors has no words", file=file)
    if not np.isfinite(found.rows).all():
        raise InputError("bad-vectors", "the file of word vectors has non-finite numbers", file=file)
    return found


def _read_npz(file: Path, most: int) -> WordVectors:
    with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as arrays:  # numpy leaves a damaged file open
        words, rows = arrays["words"][:most], np.asarray(arrays["vectors"][:most], np.float32)
    if rows.ndim != 2 or len(words) != len(rows):
        raise ValueError(f"`words` has {len(words)} entries, and `vectors` has the shape {rows.shape}")
    return WordVectors([str(word) for word in words.tolist()], rows)


def _read_text(file: Path, most: int) -> WordVectors:
    words: list[str] = []
    rows: list[np.ndarray] = []
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.rstrip().split(" ")
            if number == 1 and len(numbers) == 1:
                continue  # the line of sizes: words, and numbers per word
            rows.append(np.array(numbers, np.float32))
            words.append(word)
            if not len(numbers) or len(numbers) != len(rows[0]):
                raise ValueError(f"line {number} has {count_of(len(numbers), 'number')}, the first has {len(rows[0])}")
            if len(words) == most:
                break
    return WordVectors(words, np.stack(rows) if rows else np.zeros((0, 1), np.float32))


def check_training() -> None:
    """Check that gensim is installed.

    Raises:
        InputError: missing-extra.
    """
    if find_spec("gensim") is None:
        raise InputError(
            "missing-extra", "training token vectors needs the gensim library", "pip install 'tokswap[vectors]'"
        )


def train_vectors(
    sentences: Sequence[Sequence[int]], names: Sequence[str], *, width: int, epochs: int, least: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train fastText skip-gram vectors of tokens.

    Args:
        sentences: Token ids.
        names: A string for each id. Tokens whose names share character n-grams begin with similar vectors.
        width: Elements of a vector.
        epochs: How often training reads the sentences.
        least: Occurrences that a token needs for a vector.
        seed: The same seed gives the same vectors.

    Returns:
        Ids of the tokens that have a vector, ascending, int64 [n], and their vectors, float32 [n, width].

    Raises:
        InputError: missing-extra.

    Reference:
        arXiv 1607.04606
    """
    check_training()
    from gensim.models import FastText

    parts = [one[n : n + _SENTENCE] for one in sentences for n in range(0, len(one), _SENTENCE)]
    corpus = [[names[token] for token in part] for part in parts]
    count = np.bincount([token for part in parts for token in part] or [0], minlength=len(names))
    ids = np.flatnonzero(count >= max(least, 1)) if parts else np.zeros(0, np.int64)
    if len(ids) < 2:
        return np.zeros(0, np.int64), np.zeros((0, width), np.float32)
    model = FastText(
        corpus,
        vector_size=width,
        epochs=epochs,
        min_count=least,
        seed=seed,
        sg=1,
        negative=10,
        bucket=_BUCKETS,
        workers=1,
        max_vocab_size=None,
    )
    return ids, np.stack([model.wv[names[token]] for token in ids.tolist()]).astype(np.float32)
