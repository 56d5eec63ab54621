"""Tensors that a model needs and its files lack, as transformers loads them. No weight is read.

transformers initialises them at random and goes on. So it does with all of them where the names have a prefix that a
compiled or wrapped model left (`_orig_mod.`, `module.`), and with an lm_head that was left out of a model whose config
does not tie it to the input embeddings.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from typing import Any

from tokswap.checkpoint.loaded import DTYPES
from tokswap.checkpoint.matrices import role_by_name
from tokswap.checkpoint.nested_configs import configs
from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError, count_of


def check_missing(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Refuse a model folder that transformers would fill up with random numbers that matter.

    These are all tensors of a language model, and the vocabulary matrices of any model. The others may be a head that
    nobody has trained, or an encoder of images that was left out: a note names them.

    Args:
        checkpoint: A model folder.

    Returns:
        A note where other tensors are missing, or where transformers cannot make such a model. Nothing where it cannot
        tell, for classes that it does not have. Of quantised weights the vocabulary matrices alone are known.

    Raises:
        InputError: incomplete-weights.
    """
    try:
        with _quiet():
            model_class, config = _class_of(checkpoint)
            missing, vocabulary = _missing(checkpoint, model_class, config)
    except _UnknownError:
        return ()
    except Exception as error:  # a class may raise anything
        return () if _is_quantised(checkpoint) else (_cannot_load(error),)
    facts = checkpoint.facts
    language_model = facts.has_head and facts.kind != "other" and not facts.multimodal
    found = missing if language_model else vocabulary
    if not found:
        return (_note(missing),) if missing else ()
    raise InputError(
        "incomplete-weights",
        f"the files of this {facts.architecture} lack {count_of(len(missing), 'tensor')}, the first is {found[0]}: "
        "transformers would initialise what is missing at random",
        _hint(checkpoint, missing),
        folder=checkpoint.folder,
    )


class _UnknownError(Exception):
    """This transformers has no such class, or not all that it needs."""


def _class_of(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Return the class that loads a folder, and its config. Raises _UnknownError."""
    import transformers

    try:
        found = transformers.AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        return getattr(transformers, checkpoint.facts.architecture), found
    except Exception as error:
        raise _UnknownError from error


def _missing(checkpoint: Checkpoint, model_class: Any, config: Any) -> tuple[list[str], list[str]]:
    """Return the names of missing tensors, and of those among them that are input embeddings or lm_head."""
    import torch

    quantised = _is_quantised(checkpoint)
    for part in (config, config.get_text_config()) if quantised else ():
        part.__dict__.pop("quantization_config", None)  # its loader needs packages, and often a device
    types = {short: getattr(torch, name.removeprefix("torch.")) for name, short in DTYPES.items()}
    tensors = {
        name: torch.empty(info.shape, dtype=types.get(info.dtype, torch.uint8), device="meta")
        for name, info in checkpoint.tensors.items()
    }
    try:
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=quantised,
        )
    except ImportError as error:  # another library would be needed
        raise _UnknownError from error
    weights, ends = dict(model.named_parameters(remove_duplicate=False)), _ends(model)
    missing = sorted(name for name in info["missing_keys"] if name in weights)  # buffers begin with values of their own
    found = [name for name in missing if any(weights[name] is weight for weight in ends)]
    if not quantised:
        return missing, found
    stored = {name.rpartition(".")[0] for name in checkpoint.tensors}  # maybe quantised too
    known = [name for name in found if name.rpartition(".")[0] not in stored]
    return known, known


def _is_quantised(checkpoint: Checkpoint) -> bool:
    return any("quantization_config" in child for _, child in configs(checkpoint.config))


def _ends(model: Any) -> list[Any]:
    """Return the weights of input embeddings and lm_head, as far as a class can name them."""
    found = []
    for end in (model.get_input_embeddings, model.get_output_embeddings):
        with contextlib.suppress(NotImplementedError, AttributeError):
            found.append(end().weight)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting on a model that is only looked at."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _cannot_load(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"transformers cannot load this model, and so not the result: {type(error).__name__}: {reason:.200}"


def _note(missing: list[str]) -> str:
    return (
        f"the files of this model lack {count_of(len(missing), 'tensor')}, the first is {missing[0]}: transformers "
        "initialises what is missing at random, in the result as in the source"
    )


def _hint(checkpoint: Checkpoint, missing: list[str]) -> str:
    """Say what to do, where the names of the files tell."""
    prefix = next((found for name in checkpoint.tensors if (found := _prefix(name, set(missing)))), "")
    if prefix:
        return f"the files name them with `{prefix}` in front, as a wrapped model does: save the model inside it"
    unnamed = "" if checkpoint.config.get("architectures") else "; name its class in `architectures` if it is another"
    if len(missing) == 1 and role_by_name(missing[0]) == "output":
        return "set `tie_word_embeddings` to true in config.json if its lm_head is the input embeddings" + unnamed
    return "use the complete checkpoint" + unnamed


def _prefix(name: str, missing: Collection[str]) -> str:
    """Return what stands before the name of a missing tensor, "" where a name does not end in one."""
    starts = (n + 1 for n, character in enumerate(name) if character == ".")
    return next((name[:start] for start in starts if name[start:] in missing), "")
