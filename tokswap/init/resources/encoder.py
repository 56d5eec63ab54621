"""Text encoders from outside: any sentence-transformers folder. What they say about a vocabulary is kept on disk.

Reading and running them is left to the sentence-transformers library (the `encoder` extra).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError, OutputError
from tokswap.storage.resolve import cache_folder, resolve_encoder

_BATCH = 256
_CHUNK = 16 * _BATCH
_LIBRARY = "sentence_transformers."


def find_encoder(name: str) -> Path:
    """Return the folder of an encoder after what can be checked without loading it.

    name: a folder, hub id or alias. Raises UsageError bad-encoder; InputError: unknown-encoder, offline, gated-model,
    not-an-encoder, remote-code, missing-extra.
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
            f"this encoder runs Python code of its own: {foreign[0]}",
            "choose an encoder that needs none",
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
    """Return an encoder's vectors for each list of texts: float32[len(texts), D], memory-mapped.

    A vector has length one, or is zero where the encoder's tokenizer has no piece for some of the text: all texts of
    unknown pieces would look the same to it.

    The vectors are kept under the cache folder by the content of the encoder's files and of the texts, and encoded
    only where they are not there yet, in batches of texts of like length. Texts are best given once each.
    Raises what `find_encoder` raises; InputError not-an-encoder; OutputError cannot-write.
    """
    folder = find_encoder(name)
    files = _digest_files(folder)
    model: Any = None
    arrays = []
    for texts in lists:
        cache = cache_folder() / "encoder"
        path = cache / f"{_digest(files, texts)}.npy"
        found = _cached(path)
        if found is None:
            model = model or _load(folder, device)
            try:
                cache.mkdir(parents=True, exist_ok=True)
                _sweep(cache)
                handle, work = tempfile.mkstemp(prefix=".encoding-", suffix=".npy", dir=cache)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)  # as long as its writer lives
                    _encode(model, folder, texts, work, progress)
                    os.replace(work, path)
                finally:
                    Path(work).unlink(missing_ok=True)
                    os.close(handle)
                found = np.load(path, mmap_mode="r")
            except OSError as error:
                hint = "set TOKSWAP_CACHE to a folder on a disk with more room"
                message = f"the encoder's vectors cannot be kept: {error}"
                raise OutputError("cannot-write", message, hint, cache=cache) from error
        arrays.append(found)
    return arrays


def _sweep(cache: Path) -> None:
    """Remove what killed runs have left."""
    for stale in cache.glob(".encoding-*.npy"):
        with contextlib.suppress(OSError), open(stale, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stale.unlink()


def _cached(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (ValueError, OSError, EOFError):  # not there, or damaged: it is made again
        return None


def _load(folder: Path, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        # Pickled weights are refused here as everywhere, and so is code that comes with the model.
        return SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # a damaged folder can fail anywhere inside the library
        raise _not_an_encoder(folder, _first_line(error)) from error


def _encode(model: Any, folder: Path, texts: Sequence[str], work: str, progress: bool) -> None:
    """Write the vectors to a .npy file, a chunk of texts at a time, the longest first."""
    from tqdm import tqdm

    table: np.memmap | None = None
    order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
    with tqdm(
        total=len(texts), desc=f"encode with {folder.name}", unit=" texts", disable=None if progress else True
    ) as bar:
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            try:
                rows = model.encode(
                    [texts[n] for n in part], batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
                )
            except Exception as error:  # an image model, say, fails somewhere inside
                raise _not_an_encoder(folder, f"it cannot read text ({_first_line(error)})") from error
            if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
                raise _not_an_encoder(folder, "it does not give one vector a text")
            if not np.isfinite(rows).all():
                raise _not_an_encoder(folder, "its vectors are not finite numbers")
            if table is None:
                shape = (len(texts), rows.shape[1])
                table = np.lib.format.open_memmap(work, mode="w+", dtype=np.float32, shape=shape)
            rows[_unread(model, [texts[n] for n in part])] = 0
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            table[part] = rows / np.maximum(norms, np.finfo(np.float32).tiny)
            bar.update(len(part))
    if table is None:
        np.save(work, np.zeros((0, 1), np.float32))
    else:
        table.flush()


def _unread(model: Any, texts: list[str]) -> np.ndarray:
    """Which texts the encoder's tokenizer turns into unknown pieces, bool[n]."""
    tokenizer = getattr(model, "tokenizer", None)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if tokenizer is None or unknown is None:
        return np.zeros(len(texts), bool)
    return np.array([unknown in ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]], bool)


def _digest_files(folder: Path) -> bytes:
    """The content of an encoder's files; what is only for people is left out."""
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
        f"this is no text encoder that sentence-transformers can load: {reason}",
        "give the folder or hub id of a sentence-transformers model, such as sentence-transformers/all-MiniLM-L6-v2",
        encoder=folder,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
