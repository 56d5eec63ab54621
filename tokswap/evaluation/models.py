"""Loads language models and refuses those whose figures would be wrong: incomplete ones, and encoders as causal."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokswap.checkpoint.facts import ModelFacts, model_facts
from tokswap.errors import InputError, UsageError, count_of
from tokswap.evaluation.options import DTYPES
from tokswap.storage.json_files import read_json
from tokswap.storage.trust import check_code
from tokswap.tokenizer.auto import usable_tokenizer

_WHY_CAUSAL = "bits per byte need a model that predicts each token from those before it"


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use.

    Raises:
        UsageError: bad-device.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device).item()  # the device `meta` has no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["torch gives no reason"])[0]
        raise UsageError("bad-device", f"torch cannot use the device `{device}`: {reason}") from error


def cache_name(method: Callable[..., Any]) -> str:
    """Return what a method of a model calls its cache: `cache` from transformers 5.24 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(method).parameters else "past_key_values"


def only_last(model: Any, count: int) -> dict[str, int]:
    """Return the argument that limits the logits to those of the last tokens, {} for a model that takes none."""
    name = "logits_to_keep"
    return {name: count} if name in inspect.signature(model.forward).parameters else {}


def without_cache(model: Any) -> dict[str, bool]:
    """Return the argument that keeps a model from making a cache, {} for a model that takes none."""
    name = "use_cache"
    return {name: False} if name in inspect.signature(model.forward).parameters else {}


def text_tower(model: Any) -> Any:
    """Return the part of a model that reads text without images (CLIP, SigLIP); the model itself where it has none."""
    tower = getattr(model, "text_model", None)
    return tower if tower is not None and hasattr(model, "vision_model") else model


def input_embeddings(model: Any) -> Any:
    """Return the module with the input embeddings of a model's text tower."""
    import torch

    tower = text_tower(model)
    with contextlib.suppress(NotImplementedError):  # models that speak (VITS)
        found = tower.get_input_embeddings()
        if hasattr(found, "weight"):
            return found
    size = tower.config.get_text_config().vocab_size  # the class of Perceiver names its latents
    modules = (one for one in tower.modules() if isinstance(one, torch.nn.Embedding))
    return next((one for one in modules if one.num_embeddings == size), None)


def load_model(
    folder: str | Path, *, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Args:
        folder: The model folder.
        dtype: Type that torch computes in: float32, bfloat16 or float16.
        device: Where torch computes.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        UsageError: bad-device, bad-setting.
        InputError: missing-config; remote-code; cannot-load; incomplete-weights; not-causal, for a model whose
            prediction depends on later tokens.
    """
    check_device(device)
    _check_code(folder, trust_remote_code).require_causal(folder, _WHY_CAUSAL)
    model = _load_weights(folder, dtype, trust_remote_code).to(device).eval()
    if _reads_ahead(model):
        raise _not_causal("its prediction depends on later tokens", folder)
    return model, usable_tokenizer(Path(folder), trust_remote_code=trust_remote_code)


def load_masked_model(folder: str | Path, *, dtype: str = "float32") -> Any:
    """Load an encoder with the lm_head that predicts masked tokens.

    Args:
        folder: The model folder.
        dtype: Type that torch computes in: float32, bfloat16 or float16.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: missing-config, remote-code, cannot-load, incomplete-weights.
    """
    _check_code(folder, False)
    return _load_weights(folder, dtype, False, "AutoModelForMaskedLM").eval()


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Put a loaded model into evaluation mode; restore the mode of each module on exit.

    Raises:
        InputError: not-loaded, for a model without weights.
    """
    modes = [(module, module.training) for module in model.modules()] if hasattr(model, "modules") else []
    # accelerate has offloaded a model with a map, and brings its weights when they are needed.
    if modes and not hasattr(model, "hf_device_map") and all(one.is_meta for one in model.parameters()):
        message = "the weights of this model are not in memory (device `meta`)"
        raise InputError("not-loaded", message, "load the model with its weights, or pass its folder")
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Put a loaded model into evaluation mode for a while, and check that it is a causal language model.

    Raises:
        InputError: not-causal.
    """
    with without_dropout(model):
        name = getattr(model, "name_or_path", "") or type(model).__name__
        model_facts(model.config.to_dict()).require_causal(name, _WHY_CAUSAL)
        if _reads_ahead(model):
            raise _not_causal("its prediction depends on later tokens", name)
        yield


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Let a model generate without its own settings for a while; its special ids stay.

    A repetition penalty, or a limit on the time, would change what a model writes and so what is measured or learnt
    from it. Beams, stop strings or assisted generation would not go with batches and streams.

    Args:
        model: A transformers model that generates.
    """
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None:
        yield
        return
    plain = copy.deepcopy(own)
    for name, value in vars(GenerationConfig()).items():
        if not name.startswith("_") and (not name.endswith("_token_id") or name == "forced_eos_token_id"):
            setattr(plain, name, value)
    model.generation_config = plain
    try:
        yield
    finally:
        model.generation_config = own


def _check_code(folder: str | Path, trust_remote_code: bool) -> ModelFacts:
    """Refuse remote code that is not trusted, before a weight is read. Return the facts of the model."""
    facts = model_facts(read_json(Path(folder) / "config.json", "config"))
    if facts.remote_code and not trust_remote_code:
        message, hint = "this model runs Python code of its own", "read that code; `--trust-remote-code` lets it run"
        raise InputError("remote-code", message, hint, folder=folder)
    check_code(folder, trust_remote_code)
    return facts


def _load_weights(
    folder: str | Path, dtype: str, trust_remote_code: bool, auto_class: str = "AutoModelForCausalLM"
) -> Any:
    import torch
    import transformers

    if dtype not in DTYPES:
        raise UsageError("bad-setting", f"`dtype` must be one of {', '.join(DTYPES)}, not {dtype!r}")
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            return_dict=True,  # a config may ask for tuples
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # transformers raises whatever the model's own code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "AutoModelForCausalLM" in reason:
            raise _not_causal("transformers has no such class for it", folder) from error
        raise InputError("cannot-load", f"transformers cannot load this model: {reason}", folder=folder) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            "incomplete-weights",
            f"the files of this model lack {count_of(len(missing), 'tensor')}, the first is {missing[0]}",
            "transformers would fill them with random numbers; evaluate the whole checkpoint",
            folder=folder,
        )
    return model


def _not_causal(reason: str, folder: str | Path) -> InputError:
    return InputError("not-causal", f"this is not a causal language model: {reason}", _WHY_CAUSAL, folder=folder)


def _reads_ahead(model: Any) -> bool:
    """Whether another last token changes the predictions before it, as in an encoder."""
    import torch

    some = [n * model.config.get_text_config().vocab_size // 7 for n in range(1, 6)]
    with torch.inference_mode():
        ids = torch.tensor([some[:4], [*some[:3], some[4]]], device=model.device)
        # The cache of xLSTM has a wrong shape.
        rows = model(ids, **without_cache(model)).logits[:, :3].float()
    return float((rows[0] - rows[1]).abs().max()) > 1e-2 * float(rows.std())
