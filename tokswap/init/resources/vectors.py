"""Static word vectors: read from a user's files, or trained on a user's text. Training is left to gensim (`vectors` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tokswap.errors import InputError, UsageError

_BUCKETS = 100_000
_SENTENCE = 5000


@dataclass(frozen=True)
class WordVectors:
    """Words, most frequent first, and their vectors float32[len(words), D]."""

    words: Sequence[str]
    rows: np.ndarray


def check_file(path: str, setting: str, what: str) -> None:
    """Raise UsageError missing-setting where no file is named, InputError unknown-file where it is not there."""
    if not path:
        raise UsageError(
            "missing-setting", f"`{setting}` is not set, and there is no default", f"--set {setting}={what}"
        )
    if not Path(path).expanduser().is_file():
        raise InputError("unknown-file", f"`{setting}` names a file that is not there", file=path)


def read_vectors(path: str, most: int) -> WordVectors:
    """Read a .npz file with `words` and `vectors`, or text with a word and its numbers on each line (.vec).

    most: how many words to read; files list the frequent ones first. Text may begin with a line of its sizes.
    Raises InputError bad-vectors.
    """
    file = Path(path).expanduser()
    try:
        found = _read_npz(file, most) if file.suffix == ".npz" else _read_text(file, most)
    except Exception as error:  # numpy and zipfile have many names for a damaged file
        raise InputError(
            "bad-vectors",
            f"no word vectors can be read from this file: {error}",
            "give a .vec text file (a word and its numbers on each line), or a .npz with `words` and `vectors`",
            file=file,
        ) from error
    if not len(found.words) or not np.isfinite(found.rows).all():
        reason = "has numbers that are not finite" if len(found.words) else "has no words"
        raise InputError("bad-vectors", f"the file of word vectors {reason}", file=file)
    return found


def _read_npz(file: Path, most: int) -> WordVectors:
    with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as arrays:  # numpy leaves a damaged file open
        words, rows = arrays["words"][:most], np.asarray(arrays["vectors"][:most], np.float32)
    if rows.ndim != 2 or len(words) != len(rows):
        raise ValueError(f"`words` has {len(words)} entries, and `vectors` the shape {rows.shape}")
    return WordVectors([str(word) for word in words.tolist()], rows)


def _read_text(file: Path, most: int) -> WordVectors:
    words: list[str] = []
    rows: list[np.ndarray] = []
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.rstrip().split(" ")
            if number == 1 and len(numbers) == 1:
                continue  # how many words there are, and how many numbers each
            rows.append(np.array(numbers, np.float32))
            words.append(word)
            if not len(numbers) or len(numbers) != len(rows[0]):
                raise ValueError(f"line {number} has {len(numbers)} numbers, the first has {len(rows[0])}")
            if len(words) == most:
                break
    return WordVectors(words, np.stack(rows) if rows else np.zeros((0, 1), np.float32))


def check_training() -> None:
    """Raise InputError missing-extra where gensim is not installed."""
    if find_spec("gensim") is None:
        raise InputError(
            "missing-extra", "training word vectors needs the gensim library", "pip install 'tokswap[vectors]'"
        )


def read_text(path: str) -> str:
    """Return the text of a file. Raises InputError bad-text."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError("bad-text", f"cannot read this text: {error}", "convert it to UTF-8", file=path) from error


def train_vectors(
    sentences: Sequence[Sequence[int]], names: Sequence[str], *, width: int, epochs: int, least: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train fastText skip-gram vectors of tokens. Returns their ids int64[n], ascending, and float32[n, width].

    names: what a token is called, by id; tokens with like names begin alike. Only tokens that occur at least `least`
    times have vectors. The same seed gives the same vectors. Raises InputError missing-extra.
    """
    check_training()
    from gensim.models import FastText

    # gensim cuts longer sentences off.
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
