"""The GGUF file of a result: checked before a weight is read, and written from the finished folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokswap.checkpoint.edit import Edit
from tokswap.checkpoint.layout import Layout
from tokswap.checkpoint.nested_configs import token_ids
from tokswap.errors import OutputError, UsageError
from tokswap.options.groups import GgufOptions
from tokswap.storage.atomic import Place, check_room, scratch, write_error
from tokswap.storage.gguf.architectures import find_architecture, window_note
from tokswap.storage.gguf.write import GgufModel, check_installed, file_bytes, write_model
from tokswap.storage.resolve import gguf_file, output_path
from tokswap.tokenizer.gguf_keys import gguf_tokenizer
from tokswap.tokenizer.tokenizer import Tokenizer

_PLACE = Place("the GGUF file", "file", "choose another --gguf")


@dataclass(frozen=True)
class GgufTarget:
    """The tokenizer of a result, and where it goes.

    Attributes:
        tokenizer: The tokenizer.
        out: The folder of the result, None where it stays in memory.
        bos: Id that encoded texts are made to begin with, None for no change.
        owner: How the user named the model that owns the tokenizer: the keys of a .gguf file are copied.
    """

    tokenizer: Tokenizer
    out: Path | None
    bos: int | None = None
    owner: str = ""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that is ready to be written.

    Attributes:
        path: The file.
        model: What goes into it besides tensors.
        notes: What the user should know.
    """

    path: Path
    model: GgufModel
    notes: tuple[str, ...]


@contextlib.contextmanager
def beside(file: GgufFile | None) -> Iterator[Callable[[Path], None]]:
    """Give a function that writes the file from a finished folder. The file appears when the block ends well.

    Args:
        file: The file; None for a function that does nothing.

    Raises:
        InputError: gguf-architecture.
        OutputError: disk-full, cannot-write.
    """
    if file is None:
        yield lambda folder: None
        return
    with scratch(file.path, _PLACE) as work:
        made = work / file.path.name

        def write(folder: Path) -> None:
            try:
                write_model(made, file.model, folder)
                with open(made, "rb") as written:
                    os.fsync(written.fileno())
            except OSError as error:
                raise write_error(error, file.path, _PLACE) from error

        yield write
        made.replace(file.path)


def plan_gguf(options: GgufOptions, edit: Edit, layout: Layout, target: GgufTarget, *, force: bool) -> GgufFile | None:
    """Check that a result can be written as GGUF too; None where nobody asks for it.

    Args:
        options: What the user asked for.
        edit: The result.
        layout: Its weight files.
        target: Its tokenizer and folder.
        force: Whether the file may be replaced.

    Raises:
        UsageError: bad-gguf-path.
        InputError: gguf-architecture, gguf-tokenizer, missing-extra.
        OutputError: output-exists, disk-full, cannot-write.
    """
    if options.gguf is None:
        return None
    path = output_path(options.gguf)
    _check_path(path, target.out, force)
    check_installed()
    config, generation = edit.configs.model, edit.configs.generation or {}
    architecture, filled = find_architecture(config)
    architecture.keys(filled)  # refuses what llama.cpp computes otherwise, before a row is made
    tensors = [tensor for shard in layout.shards for tensor in shard.tensors]
    for tensor in tensors:
        architecture.tensor(tensor.name)
    tokenizer = gguf_tokenizer(
        target.tokenizer,
        rows=edit.matrices[0].shape[0],
        stops=token_ids(generation, "eos_token_id") or token_ids(config, "eos_token_id"),
        bos=target.bos,
        copied=gguf_file(target.owner),
        name=path.stem,
    )
    model = GgufModel(
        architecture=architecture,
        config=filled,
        name=tokenizer.name,
        tokenizer=tokenizer.keys,
        dtype=options.gguf_type,
        tied=bool(getattr(filled, "tie_word_embeddings", False)),
    )
    needed = file_bytes(options.gguf_type, layout.parameters, layout.nbytes)
    check_room(path, needed, _PLACE)
    notes = [f"{path}: {note}" for note in (*tokenizer.notes, *window_note(filled))]
    return GgufFile(
        path,
        model,
        (f"writes {path} too, a GGUF file of the result for llama.cpp, about {needed / 1e6:,.1f} MB", *notes),
    )


def _check_path(path: Path, out: Path | None, force: bool) -> None:
    if path.suffix != ".gguf":
        raise UsageError("bad-gguf-path", f"--gguf names a file that ends in .gguf, not {path}")
    if out is None:
        message, hint = "the GGUF file is made from a written result", "name its folder with --out (`out=`)"
        raise UsageError("bad-gguf-path", message, hint)
    if out.resolve() in path.resolve().parents:
        hint = "name a file beside the folder: the folder holds the checkpoint and appears as a whole"
        raise UsageError("bad-gguf-path", "the GGUF file would lie in the output folder", hint)
    if path.is_dir() or (os.path.lexists(path) and not force):
        raise OutputError(
            "output-exists", "the GGUF file exists already", "choose another --gguf, or --force", out=path
        )
