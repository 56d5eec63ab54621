"""Verifies a written checkpoint: its files, its tokenizer, its rows, and the model as transformers loads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from tokswap.checkpoint.loaded import ModelLike, as_folder
from tokswap.checkpoint.nested_configs import configs, text_config, token_ids
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.evaluation.checks import Check
from tokswap.evaluation.models import check_device
from tokswap.evaluation.verify_model import load_check, running_checks, tokenizer_checks
from tokswap.evaluation.verify_rows import row_checks, source_checks
from tokswap.report.provenance import read_provenance
from tokswap.report.wording import listed
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer, read_tokenizer


def verify_checkpoint(
    model: ModelLike, *, against: ModelLike | None = None, device: str = "cpu", trust_remote_code: bool = False
) -> list[Check]:
    """Test the invariants of a checkpoint, on its files and on the loaded model.

    The provenance of rows is read from tokswap.json if there is one.

    Args:
        model: The checkpoint: a folder, hub id, alias or .gguf file; or a loaded model with its tokenizer, which is
            tested as it would be saved.
        against: The source model, given in the same way. Copied rows and all other tensors are compared with it bit
            for bit.
        device: Where torch computes.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The checks.

    Raises:
        UsageError: bad-device.
        InputError: if the folder is not a checkpoint at all.
    """
    check_device(device)
    with ExitStack() as stack:
        folder = stack.enter_context(as_folder(model))
        source = open_checkpoint(stack.enter_context(as_folder(against))) if against is not None else None
        return _checks(open_checkpoint(folder), source, device, trust_remote_code)


def _checks(checkpoint: Checkpoint, source: Checkpoint | None, device: str, trust_remote_code: bool) -> list[Check]:
    tokenizer = read_tokenizer(checkpoint.folder, trust_remote_code=trust_remote_code)
    provenance = read_provenance(checkpoint.folder)
    checks = [*_config_checks(checkpoint, tokenizer), *row_checks(checkpoint, tokenizer, provenance)]
    try:
        loaded = auto_tokenizer(checkpoint.folder, trust_remote_code=trust_remote_code)
        checks += tokenizer_checks(checkpoint, tokenizer, loaded)
    except Exception as error:  # a class that does not fit the files may fail in any way
        loaded = None
        checks.append(Check("AutoTokenizer", False, f"fails: {error}"))
    if source is not None:
        checks += source_checks(checkpoint, source, provenance)
    loaded_model, check = load_check(checkpoint, source, trust_remote_code=trust_remote_code)
    checks.append(check)
    if loaded_model is not None and loaded is not None:
        padding = np.arange(len(tokenizer.vocabulary), checkpoint.matrices[0].rows)
        neutral = np.flatnonzero(provenance.reason == Reason.NEUTRAL)
        checks += running_checks(loaded_model, loaded, np.concatenate([padding, neutral]), device)
    return checks


def _config_checks(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Iterator[Check]:
    rows = checkpoint.matrices[0].rows
    size = text_config(checkpoint.config)[1]["vocab_size"]
    tokens = len(tokenizer.vocabulary)
    yield Check(
        "vocabulary size", rows == size and tokens <= rows, f"{tokens:,} ids, {rows:,} rows, vocab_size {size:,}"
    )
    wrong = []
    for where, config in (("config", checkpoint.config), ("generation_config", checkpoint.generation_config)):
        for path, child in configs(config):
            if any(word in path for word in ("vision", "audio")):
                continue
            keys = [key for key in child if key.endswith(("_token_id", "_token_ids", "_token_index"))]
            wrong += [f"{where}.{path}{key}" for key in keys for i in token_ids(child, key) if not -1 <= i < rows]
    yield Check("token ids in range", not wrong, listed(wrong) or "every id of config and generation_config")
