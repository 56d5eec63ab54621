"""The big model that a draft is for, as far as a draft needs it: its tokenizer and its configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.class_defaults import with_class_size
from tokswap.checkpoint.loaded import ModelLike, as_loaded, loaded_checkpoint
from tokswap.checkpoint.nested_configs import text_config
from tokswap.checkpoint.rowless import ids_with_rows, with_rows
from tokswap.checkpoint.source import TargetTokenizer, open_target
from tokswap.errors import InputError
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class DraftTarget:
    """The big model that a draft is for: its tokenizer and configs. Its weights are not read.

    Attributes:
        model: How the user named it, as a teacher is named.
        opened: Its tokenizer, as a transplant takes it.
        name: Its name in the plan.
        folder: Its folder, for messages.
        config: Its config.json.
        generation: Its generation_config.json, {} without one.
        tokenizer: Its tokenizer.
    """

    model: Any
    opened: TargetTokenizer
    name: str
    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Tokenizer

    @property
    def rows(self) -> int:
        """Rows of its vocabulary matrices, padding included."""
        return int(text_config(self.config, self.folder)[1]["vocab_size"])


def open_draft_target(target: ModelLike, trust_remote_code: bool) -> DraftTarget:
    """Read the tokenizer and configs of the target. Raises InputError unequal-vocabulary."""
    loaded = as_loaded(target, trust_remote_code=trust_remote_code)
    if loaded is not None:
        checkpoint = loaded_checkpoint(loaded.model)
        target_tokenizer = open_target(loaded, trust_remote_code=trust_remote_code)
        opened = DraftTarget(
            model=loaded,
            opened=target_tokenizer,
            name=str(checkpoint.folder),
            folder=checkpoint.folder,
            config=checkpoint.config,
            generation=checkpoint.generation_config,
            tokenizer=target_tokenizer.tokenizer,
        )
    else:
        folder = resolve_tokenizer(str(target))
        folder = folder.parent if folder.is_file() else folder
        generation = folder / "generation_config.json"
        config = with_class_size(read_json(folder / "config.json", "config"))
        target_tokenizer = open_target(str(folder), trust_remote_code=trust_remote_code)
        opened = DraftTarget(
            model=str(folder),
            opened=target_tokenizer,
            name=str(target),
            folder=folder,
            config=config,
            generation=read_json(generation, "config") if generation.is_file() else {},
            tokenizer=target_tokenizer.tokenizer,
        )
    fit = with_rows(opened.tokenizer, opened.rows, opened.config, opened.generation)
    opened = dataclasses.replace(
        opened,
        tokenizer=fit.tokenizer,
        config=ids_with_rows(opened.config, opened.rows),
        generation=ids_with_rows(opened.generation, opened.rows),
    )
    if len(opened.tokenizer.vocabulary) > opened.rows:
        raise InputError(
            "unequal-vocabulary",
            f"the target's tokenizer has {len(opened.tokenizer.vocabulary):,} ids, and its vocab_size is "
            f"{opened.rows:,}: no draft can have both",
            "tokens without a row cannot be used: remove them from the tokenizer.json, or correct the vocab_size",
            target=opened.folder,
        )
    return opened
