"""The inputs of a run, opened: the source model, and the tokenizer that it is to get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokswap.checkpoint.built_in_ids import with_true_eos
from tokswap.checkpoint.class_defaults import with_class_ids
from tokswap.checkpoint.loaded import Loaded, ModelLike, as_loaded, check_whole, loaded_checkpoint
from tokswap.checkpoint.missing_tensors import check_missing
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.checkpoint.rowless import with_rows
from tokswap.errors import InputError
from tokswap.storage.resolve import output_path, resolve_model, resolve_tokenizer, short_name
from tokswap.storage.trust import check_remote_code
from tokswap.tokenizer.loaded import TokenizerLike, as_tokenizer, read_loaded
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer


@dataclass(frozen=True)
class SourceModel:
    """The model whose weights are kept.

    Attributes:
        name: How the user named it.
        checkpoint: Its headers and configs.
        tokenizer: Its tokenizer, without tokens that have no row.
        loaded: The objects, where it is in memory.
        notes: What the user should know about its files.
    """

    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    loaded: Loaded | None = None
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """Its folder, None where it is in memory."""
        return self.checkpoint.folder if self.loaded is None else None


@dataclass(frozen=True)
class TargetTokenizer:
    """The tokenizer that a model is to get.

    Attributes:
        name: How the user named it.
        path: Its folder or tokenizer.json; None where it is in memory.
        tokenizer: The tokenizer.
        loaded: The transformers tokenizer, or the model with it, where they are in memory.
    """

    name: str
    path: Path | None
    tokenizer: Tokenizer
    loaded: Any = None


def open_source(model: ModelLike | SourceModel, *, trust_remote_code: bool = False) -> SourceModel:
    """Open a source model: headers and configs, no weights. One that is open already is returned.

    Raises:
        InputError: source-too-small where text needs a token that has no row; incomplete-weights; remote-code; and what
            reading a checkpoint and a tokenizer raises.
    """
    if isinstance(model, SourceModel):
        return model
    loaded = as_loaded(model, trust_remote_code=trust_remote_code)
    if loaded is not None:
        checkpoint, tokenizer = loaded_checkpoint(loaded.model), read_loaded(loaded.tokenizer)
    else:
        checkpoint = open_checkpoint(resolve_model(str(model)))
        check_remote_code(checkpoint.folder, checkpoint.config, trust_remote_code)
        tokenizer = read_tokenizer(checkpoint.folder, trust_remote_code=trust_remote_code)
        checkpoint = replace(checkpoint, config=with_class_ids(checkpoint.config, tokenizer.vocabulary))
    checkpoint = replace(checkpoint, config=with_true_eos(checkpoint.config, tokenizer.vocabulary))
    rows = checkpoint.matrices[0].rows
    missing = check_missing(checkpoint) if loaded is None else ()
    fit = with_rows(tokenizer, rows, checkpoint.config, checkpoint.generation_config)
    size = len(fit.tokenizer.vocabulary)
    if size > rows:
        raise InputError(
            "source-too-small",
            f"the source tokenizer has {size:,} ids, and the model only {rows:,} rows",
            "the model and its tokenizer do not belong together",
            model=checkpoint.folder,
        )
    name = str(model) if loaded is None else str(checkpoint.folder)
    notes = (*checkpoint.notes, *missing, *_tie_notes(checkpoint), *fit.notes)
    return SourceModel(name, checkpoint, fit.tokenizer, loaded=loaded, notes=notes)


def _tie_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say that engines read a model differently that has a tie by its config and another lm_head in its files."""
    heads = [matrix for matrix in checkpoint.matrices if matrix.role == "output" and not matrix.further]
    if checkpoint.facts.tied is not True or checkpoint.tied or not heads:
        return ()
    return (
        f"config.json ties lm_head to the input embeddings, and {heads[0].names[0]} is another matrix: transformers 5 "
        "uses it, and earlier releases and some inference engines do not; `tie_word_embeddings` should be false",
    )


def open_target(
    tokenizer: TokenizerLike | TargetTokenizer, *, prefer_file: bool = False, trust_remote_code: bool = False
) -> TargetTokenizer:
    """Open a target tokenizer; see `read_tokenizer`. One that is open already is returned.

    Raises:
        InputError: what reading a tokenizer raises.
    """
    if isinstance(tokenizer, TargetTokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, Path)):
        path = resolve_tokenizer(str(tokenizer))
        read = read_tokenizer(path, prefer_file=prefer_file, trust_remote_code=trust_remote_code)
        return TargetTokenizer(str(tokenizer), path, read)
    found = as_tokenizer(tokenizer)
    if found is not None:
        read = read_loaded(found)
        return TargetTokenizer(str(read.path), None, read, loaded=found)
    pair = as_loaded(tokenizer, trust_remote_code=trust_remote_code)
    assert pair is not None
    read = read_loaded(pair.tokenizer)
    return TargetTokenizer(str(read.path), None, read, loaded=pair)


def result_folder(out: str | Path | None, default: str, source: SourceModel) -> Path | None:
    """Return where a result goes: `out`, a folder named `default` here, or None to leave it in memory.

    Raises:
        UsageError: wrapped-model where a folder would not load as the model in memory.
    """
    if source.loaded is None:
        return Path(default) if out is None else output_path(out)
    if out is None:
        return None
    check_whole(source.loaded.model)
    return output_path(out)


def named(model: ModelLike) -> str:
    """Return a name fit for a folder for what the user gave."""
    return short_name(str(model)) if isinstance(model, (str, Path)) else "model"
