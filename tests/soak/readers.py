"""What reads damaged files. Each function gets the damaged folder, reads it, and returns how that ended.

Beside the damaged folder lie `model` and `other`, good models, `text.txt`, and `out` for results.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

from tokswap.errors import TokswapError


def cli(*arguments: object) -> str:
    """Run a command in this process. Return "ok", "usage", "checks failed", or the code of an error."""
    import click

    from tokswap.cli import main

    out, said = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with redirect_stdout(out), redirect_stderr(said):
            status = main.main([str(argument) for argument in arguments], prog_name="tokswap", standalone_mode=False)
    except click.ClickException:
        return "usage"
    except SystemExit as end:
        return "ok" if not end.code else "checks failed"
    if not status:
        return "ok"
    first = said.buffer.getvalue().decode().split("error: ", 1)[-1].split("\n\n")[0]
    if "[" not in first:
        return "checks failed"
    return first.rsplit("  [", 1)[-1].split("]")[0]


def call(function: Callable[..., object], *arguments: Any) -> str:
    """Call a function of the package. Return "ok" or the code of an error."""
    try:
        function(*arguments)
    except TokswapError as error:
        return error.code or "an error without a code"
    return "ok"


def plan_or_read(folder: Path, random: Random) -> str:
    """Plan with a damaged model on either side or describe it, and sometimes run the plan."""
    root, other = folder.parent, folder.parent / "other"
    out = root / "out" / "result"
    kind = random.randrange(160)
    if kind >= 40:
        return call(_read, folder)
    plain = ("--init", "subword", "--out", out, "-q")
    if kind < 10:
        return cli("transplant", "--model", folder, "--tokenizer", other, "--dry-run", *plain)
    if kind < 20:
        return cli(
            "transplant",
            "--model",
            other,
            "--tokenizer",
            folder,
            "--dry-run",
            *plain,
            *random.choice(((), ("--json",))),
        )
    if kind < 26:
        return cli("inspect", folder, *random.choice(((), ("--json",))))
    if kind < 30:
        return cli("compare", folder, other, *random.choice(((), ("--json",))))
    if kind < 36:
        return cli("trim", "--model", folder, "--corpus", root / "text.txt", "--dry-run", "--out", out, "-q")
    if kind < 37:
        return cli("transplant", "--model", folder, "--tokenizer", other, *plain)
    if kind < 38:
        return cli("transplant", "--model", other, "--tokenizer", folder, *plain)
    if kind < 39:
        return cli("trim", "--model", folder, "--corpus", root / "text.txt", "--out", out, "-q", "--check", "tokens")
    return cli("verify", folder)


def _read(folder: Path) -> None:
    """Read what a plan reads of a model folder, and tokenize a text."""
    from tokswap.checkpoint.configs import needed_ids
    from tokswap.checkpoint.reader import open_checkpoint
    from tokswap.tokenizer.tokenizer import read_tokenizer
    from tokswap.trim.rebuild import forced_ids

    checkpoint = open_checkpoint(folder)
    assert checkpoint.matrices
    needed_ids(checkpoint.config), needed_ids(checkpoint.generation_config)
    tokenizer = read_tokenizer(folder)
    forced_ids(tokenizer), tokenizer.merge_pairs(), tokenizer.adds_bos, tokenizer.chat_templates
    tokenizer.tokenize_bytes([b" the", b"\xff", "\u00e9".encode()])
    tokenizer.encode("It costs 12,50 euros.")
    tokenizer.output_files()


def read_weights(folder: Path, random: Random) -> str:
    from tokswap.checkpoint.reader import Checkpoint, open_checkpoint

    def read() -> None:
        checkpoint: Checkpoint = open_checkpoint(folder)
        for name in [name for matrix in checkpoint.matrices for name in matrix.names] or list(checkpoint.tensors)[:2]:
            for _ in checkpoint.blocks(name):
                pass

    if random.random() < 0.8:
        return call(read)
    out = folder.parent / "out" / "result"
    if random.random() < 0.8:
        return cli("inspect", folder)
    return cli(
        "transplant", "--model", folder, "--tokenizer", folder.parent / "other", "--init", "subword", "--out", out, "-q"
    )


def read_corpus(folder: Path, random: Random) -> str:
    from tokswap.tokenizer.tokenizer import read_tokenizer
    from tokswap.trim.corpora import count, find_corpus

    file = next(folder.glob("text.*"))

    def run() -> None:
        count(find_corpus(str(file)), read_tokenizer(folder.parent / "other"))

    return call(run)


def read_word_vectors(folder: Path, random: Random) -> str:
    from tokswap.init.resources.vectors import read_vectors

    return call(lambda: read_vectors(str(next(folder.glob("vectors.*"))), random.choice((2, 10_000))))


def read_plain_text(folder: Path, random: Random) -> str:
    from tokswap.storage.texts import read_texts
    from tokswap.trim.words import read_words

    return call(read_words, folder / "text.txt") if random.random() < 0.5 else call(read_texts, [folder / "text.txt"])


def read_hypernet(folder: Path, random: Random) -> str:
    from tokswap.hypernet import load_hypernet

    if random.random() < 0.8:
        return call(load_hypernet, folder)
    return cli("hypernet", "import", folder, "--out", folder.parent / "out" / "result")


def read_adapter(folder: Path, random: Random) -> str:
    adapter, trimmed = folder / "adapter", folder / "trimmed"
    more = () if random.random() < 0.2 else ("--dry-run",)
    return cli("trim", "--model", adapter, "--like", trimmed, "--out", folder.parent / "out" / "result", *more)


def read_like(folder: Path, random: Random) -> str:
    if random.random() < 0.5:
        return read_adapter(folder, random)
    return cli(
        "trim",
        "--model",
        folder.parent / "model",
        "--like",
        folder / "trimmed",
        "--dry-run",
        "--out",
        folder.parent / "out" / "r",
    )


def read_report(folder: Path, random: Random) -> str:
    from tokswap.report.provenance import read_provenance

    return call(read_provenance, folder) if random.random() < 0.9 else cli("verify", folder)


def _members(folder: Path) -> list[object]:
    root = folder.parent
    return ["--model", root / "model", "--model", root / "other", "--tokenizer", root / "other", "--init", "subword"]


def read_ensemble(folder: Path, random: Random) -> str:
    from tokswap.ensemble import members

    kind = random.random()
    if kind < 0.6:
        return call(members.read_ensemble, folder)
    if kind < 0.9:
        return cli("ensemble", "prepare", *_members(folder), "--dry-run", "--out", folder)
    return cli("ensemble", "check", folder)


def read_aliases(folder: Path, random: Random) -> str:
    import os

    os.environ["TOKSWAP_HOME"] = str(folder)
    return cli("alias") if random.random() < 0.5 else cli("inspect", "mine")


def read_gguf(folder: Path, random: Random) -> str:
    from tokswap.storage.gguf.convert import dequantised

    cache = folder.parent / "out" / "gguf"
    try:
        return call(dequantised, folder / "model.gguf", cache)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
