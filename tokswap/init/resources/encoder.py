"""Text encoders: any sentence-transformers folder. Vectors of a vocabulary are cached on disk.

The sentence-transformers library (the `encoder` extra) reads and runs the encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from tokswap.errors import InputError
from tokswap.storage.atomic import CACHE, allocate, scratch, write_error
from tokswap.storage.resolve import cache_folder, resolve_encoder

_BATCH = 256
_CHUNK = 16 * _BATCH
_LIBRARY = "sentence_transformers."


def find_encoder(name: str) -> Path:
    """Return the folder of an encoder, after the checks that need no loading.

    Args:
        name: A folder, hub id or alias.

    Raises:
        UsageError: bad-encoder.
        InputError: unknown-encoder, offline, gated-model, not-an-encoder, remote-code, missing-extra.
    """
    folder = resolve_encoder(name)
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]) for module in modules]
    except FileNotFoundError as error:
        raise _not_an_encoder(folder, "it has no modules.json") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _not_an_encoder(folder, f"its modules.json is damaged ({error})") from error
    foreign = [kind for kind in kinds if not kind.startswith(_LIBRARY)]
    if foreign:
        raise InputError(
            "remote-code",
            f"this encoder runs its own Python code: {foreign[0]}",
            "choose an encoder that needs no code of its own",
            encoder=folder,
        )
    if find_spec("sentence_transformers") is None:
        raise InputError(
            "missing-extra",
            "a text encoder needs the sentence-transformers library",
            "pip install 'tokswap[encoder]'",
            encoder=folder,
        )
    return folder


def encode(
    name: str, lists: Sequence[Sequence[str]], *, device: str = "cpu", progress: bool = False
) -> list[np.ndarray]:
    """Encode lists of texts.

    Vectors are cached under the cache folder, by the content of the encoder's files and of the texts.

    Args:
        name: A folder, hub id or alias.
        lists: Lists of texts. A text should occur once in its list.
        device: Where torch computes.
        progress: Whether to show a progress bar.

    Returns:
        float32 [len(texts), width] for each list, memory-mapped. A vector has norm 1. It is zero where the encoder's
        tokenizer finds an unknown token in the text, because all such texts would look the same.

    Raises:
        UsageError: as `find_encoder`.
        InputError: as `find_encoder`; not-an-encoder, where the encoder fails.
        OutputError: disk-full, cannot-write.
    """
    folder = find_encoder(name)
    files = _digest_files(folder)
    model: Any = None
    arrays = []
    for texts in lists:
        path = cache_folder() / "encoder" / f"{_digest(files, texts)}.npy"
        found = _cached(path)
        if found is None:
            model = model or _load(folder, device)
            try:
                found = _write(model, folder, texts, path, progress)
            except OSError as error:
                raise write_error(error, path.parent, CACHE) from error
        arrays.append(found)
    return arrays


def _cached(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (ValueError, OSError, EOFError):  # not there, or damaged: it is made again
        return None


def _write(model: Any, folder: Path, texts: Sequence[str], path: Path, progress: bool) -> np.ndarray:
    """Encode texts into a cache file that appears whole."""
    with scratch(path.with_name("encoding"), CACHE) as temporary:
        work = temporary / path.name
        _encode(model, folder, texts, work, progress)
        os.replace(work, path)
    return np.asarray(np.load(path, mmap_mode="r"))


def _load(folder: Path, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        # Pickled weights and code that comes with the model are refused here, as everywhere.
        return SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # a damaged folder can fail anywhere inside the library
        raise _not_an_encoder(folder, _first_line(error)) from error


def _encode(model: Any, folder: Path, texts: Sequence[str], work: Path, progress: bool) -> None:
    """Write vectors to a .npy file, a chunk of texts at a time, the longest texts first."""
    from tqdm.auto import tqdm

    vectors: np.memmap | None = None
    order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
    title = f"encode with {folder.name}"
    with tqdm(total=len(texts), desc=title, unit=" texts", disable=None if progress else True) as bar:
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            rows = _encode_chunk(model, folder, [texts[n] for n in part])
            if vectors is None:
                shape = (len(texts), rows.shape[1])
                vectors = open_memmap(work, mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
                allocate(work)
            vectors[part] = rows
            bar.update(len(part))
    if vectors is None:
        np.save(work, np.zeros((0, 1), np.float32))
    else:
        vectors.flush()


def _encode_chunk(model: Any, folder: Path, texts: list[str]) -> np.ndarray:
    """Return float32 [len(texts), width]: rows of norm 1, zeros for texts with unknown tokens."""
    try:
        rows = model.encode(texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
    except Exception as error:  # an image model, say, fails somewhere inside
        raise _not_an_encoder(folder, f"it cannot read text ({_first_line(error)})") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise _not_an_encoder(folder, "it does not return one vector per text")
    if not np.isfinite(rows).all():
        raise _not_an_encoder(folder, "its vectors are non-finite")
    rows[_has_unknown(model, texts)] = 0
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _has_unknown(model: Any, texts: list[str]) -> np.ndarray:
    """Return which texts hold an unknown token of the encoder's tokenizer, bool [n]."""
    tokenizer = getattr(model, "tokenizer", None)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if tokenizer is None or unknown is None:
        return np.zeros(len(texts), bool)
    return np.array([unknown in ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]], bool)


def _digest_files(folder: Path) -> bytes:
    """Digest the content of an encoder's files, except documentation and hidden files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".") and path.suffix != ".md":
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.digest()


def _digest(files: bytes, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(files)
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _not_an_encoder(folder: Path, reason: str) -> InputError:
    return InputError(
        "not-an-encoder",
        f"sentence-transformers cannot load this folder as a text encoder: {reason}",
        "give the folder or hub id of a sentence-transformers model, such as sentence-transformers/all-MiniLM-L6-v2",
        encoder=folder,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
