"""Checks that the processor of a result writes tokens that its model has, as the one of its source does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.reference import Reference

_NAME = "processor"
_ENDS = ("_token_id", "_token_ids", "_token_index", "_ids", "_id")


def processor_check(folder: Folder, source: Folder, reference: Reference) -> Check | None:
    """Load the processors of a result and of its source with transformers, and compare what they ask of the tokenizer.

    A processor that does not find its tokens adds them, with ids past the rows of the model, or looks for ids that the
    model does not take for images.

    Args:
        folder: The result.
        source: The source model.
        reference: The tokenizer that the result should have.

    Returns:
        The check, None where the source has no processor.
    """
    if not source.path.is_dir() or not any(source.path.glob("*processor_config.json")):
        return None
    try:
        before = _loaded(source)
    except Exception as error:  # a package may be missing, or the files may lack what the class needs
        return Check(_NAME, True, f"not tried: that of the source does not load: {type(error).__name__}: {error}")
    if getattr(before, "tokenizer", None) is None:  # a feature extractor alone
        return None
    try:
        after = _loaded(folder)
    except Exception as error:  # whatever the class raises is the result
        return Check(_NAME, False, f"does not load: {type(error).__name__}: {error}")
    new = _adds(after, folder) - _adds(before, source)
    wrong = [f"adds {text!r}, which has no row" for text in sorted(new) if not reference.was_dropped(text)]
    wrong += list(_strays(before, source, after, folder))
    if not reference.dropped:
        wrong += list(_unknown(before, after))
    return check_empty(_NAME, "differs", wrong, f"{type(after).__name__} finds its tokens")


def _loaded(folder: Folder) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(
        str(folder.path), local_files_only=True, trust_remote_code=folder.trust_remote_code
    )


def _adds(processor: Any, folder: Folder) -> set[str]:
    """The tokens that a processor adds to the tokenizer of its folder."""
    return set(processor.tokenizer.get_vocab()) - set(folder.tokenizer.get_vocab())


def _strays(before: Any, source: Folder, after: Any, folder: Folder) -> Iterator[str]:
    """Yield the ids that the source's processor and config agree on, and those of the result do not."""
    old, new, now = source.defaults, folder.defaults, _ids(after)
    for name, value in _ids(before).items():
        there = now.get(name)
        for key in (name, name.replace("_token_id", "_token_index")):
            if type(value) is int and old.get(key) == value and new.get(key) != there:
                yield f"{name} is {there}, and {new.get(key)} in config.json"


def _unknown(before: Any, after: Any) -> Iterator[str]:
    """Yield the names of ids that the source's processor finds, and that of the result does not."""
    now = _ids(after)
    for name, value in _ids(before).items():
        if _finds(value, before) and name in now and not _finds(now[name], after):
            yield f"{name} names a token that is not there"


def _finds(value: Any, processor: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return not any(token is None or token == processor.tokenizer.unk_token_id for token in values)


def _ids(processor: Any) -> Mapping[str, Any]:
    return {name: value for name, value in vars(processor).items() if name.endswith(_ENDS)}
