"""Models that are in memory, read as checkpoints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokswap.checkpoint.configs import set_tie
from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.matrices import role_by_name
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.shards import Shard, TensorInfo
from tokswap.errors import InputError, UsageError
from tokswap.storage.atomic import temporary_copy
from tokswap.storage.json_files import ADAPTER_CONFIG, read_json
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.auto import auto_tokenizer
from tokswap.tokenizer.loaded import as_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_FILE = "model.safetensors"
DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
}


@dataclass(frozen=True)
class Loaded:
    """A transformers model in memory and its tokenizer. A tuple `(model, tokenizer)` means the same."""

    model: Any
    tokenizer: Any


ModelLike = str | Path | Loaded | tuple[Any, Any] | Any
"""A folder, hub id, alias or .gguf file; or a loaded model with its tokenizer: `Loaded`, a tuple of both, or a model
whose `name_or_path` has the tokenizer."""


def as_loaded(model: ModelLike, *, trust_remote_code: bool = False) -> Loaded | None:
    """Return a loaded model with its tokenizer, None for a name.

    Raises:
        UsageError: bad-model for anything else; missing-tokenizer where a model comes without its tokenizer.
    """
    if isinstance(model, (str, Path)):
        return None
    pair = (model.model, model.tokenizer) if isinstance(model, Loaded) else model
    if not isinstance(pair, tuple):
        return _with_its_tokenizer(_model_of(pair), trust_remote_code)
    tokenizer = as_tokenizer(pair[1]) if len(pair) == 2 else None
    if tokenizer is None:
        raise _no_model(f"a tuple of {', '.join(type(one).__name__ for one in pair)}")
    return Loaded(_model_of(pair[0]), tokenizer)


def name_of(model: Any) -> str:
    """Return the folder or hub id that a loaded model is from, "" where it does not know."""
    return getattr(model, "name_or_path", "") or getattr(model.config, "_name_or_path", "") or ""


def check_whole(model: Any) -> None:
    """Check that the tensors of a loaded model have the names under which its class loads them.

    Raises:
        UsageError: wrapped-model.
    """
    from torch.nn.utils.parametrize import is_parametrized
    from transformers import PreTrainedModel

    inner = (module for _, module in model.named_modules())
    strange = (one for one in inner if type(one).__module__.startswith("peft.") or is_parametrized(one))
    found = next(strange, None if isinstance(model, PreTrainedModel) else model)
    if found is not None:
        raise UsageError(
            "wrapped-model",
            f"{type(found).__name__} gives the tensors of the model other names, so a folder of them would not load",
            "take the model out first: PEFT's merge_and_unload(), or torch's remove_parametrizations()",
        )


def load_folder(folder: Path) -> tuple[Any, Any]:
    """Load a model folder with the class that its config names, or an adapter with the model that it names.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: missing-config. transformers would take the name of a missing folder for a hub id.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        from peft import AutoPeftModelForCausalLM

        base = read_json(folder / ADAPTER_CONFIG, "config")["base_model_name_or_path"]
        return AutoPeftModelForCausalLM.from_pretrained(folder, dtype="auto"), auto_tokenizer(resolve_model(base))
    import transformers

    read_json(folder / "config.json", "config")
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, (config.architectures or ["AutoModel"])[0], transformers.AutoModel)
    return cls.from_pretrained(folder, dtype="auto"), auto_tokenizer(folder)


@contextlib.contextmanager
def as_folder(model: ModelLike) -> Iterator[Path]:
    """Give the folder of a model; one that is in memory is saved to a temporary folder that vanishes at the end."""
    loaded = as_loaded(model)
    if loaded is None:
        yield resolve_model(str(model))
        return
    check_whole(loaded.model)

    def save(folder: Path) -> None:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)

    with temporary_copy(save) as folder:
        yield folder


def loaded_checkpoint(model: Any) -> Checkpoint:
    """Return a view of a loaded model as a checkpoint. Its tensors stay where they are; tied ones appear once.

    Raises:
        InputError: not-loaded where a tensor is on no device (`meta`).
        UsageError: bad-model where a tokenizer is part of the model: a result would go on with it.
    """
    if as_tokenizer(getattr(model, "tokenizer", None)) is not None:
        message = f"{type(model).__name__} has a tokenizer inside, which would not fit a result"
        raise UsageError("bad-model", message, "give the transformers model that it wraps: (model, tokenizer)")
    state = _distinct(model)
    infos, at = [], 0
    for name, tensor in state.items():
        if tensor.device.type == "meta":
            raise InputError("not-loaded", f"the tensor {name} is not in memory", "load the model without offloading")
        dtype = DTYPES.get(str(tensor.dtype), str(tensor.dtype))
        size = tensor.numel() * tensor.element_size()
        infos.append(TensorInfo(name, dtype, tuple(tensor.shape), file=_FILE, start=at, end=at + size))
        at += size
    config = _config_of(model)
    shard = Shard(Path(_FILE), tuple(infos), {"format": "pt"}, size=at)
    return Checkpoint(
        folder=Path(name_of(model) or "loaded model"),
        config=config,
        generation_config=_generation_of(model),
        shards=(shard,),
        tensors={info.name: info for info in infos},
        memory=state,
    )


def _model_of(value: Any) -> Any:
    """Return the model itself of what the user gave: torch.compile wraps one.

    Raises:
        UsageError: bad-model.
    """
    model = getattr(value, "_orig_mod", value)
    if not hasattr(model, "state_dict") or not hasattr(model, "config"):
        raise _no_model(type(value).__name__)
    return model


def _with_its_tokenizer(model: Any, trust_remote_code: bool) -> Loaded:
    name, message = name_of(model), "the model is loaded, and its tokenizer is not known"
    if not name:
        raise UsageError("missing-tokenizer", message, "give both: (model, tokenizer)")
    try:
        return Loaded(model, auto_tokenizer(Path(name), trust_remote_code=trust_remote_code))
    except InputError as error:
        raise UsageError("missing-tokenizer", message, "give both: (model, tokenizer)") from error


def _no_model(what: str) -> UsageError:
    return UsageError("bad-model", f"this is not a model: {what}", "give a name, a Path, or (model, tokenizer)")


def _config_of(model: Any) -> dict[str, Any]:
    """Return the config.json of a loaded model: what it is now, which its config may not know."""
    config: dict[str, Any] = json.loads(model.config.to_json_string())
    config.setdefault("architectures", [type(model).__name__])
    config.pop("transformers_weights", None)  # names a file of the folder that the model was loaded from
    dtype = str(getattr(model, "dtype", "")).removeprefix("torch.")
    config |= {key: dtype for key in ("dtype", "torch_dtype") if dtype and key in config}
    return set_tie(config, True) if model_facts(config).tied is False and _is_tied(model) else config


def _generation_of(model: Any) -> dict[str, Any]:
    """Return the generation config of a model, {} where it has none but that which follows from its config."""
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None:
        return {}
    settings = own.to_dict()
    if settings.pop("_from_model_config", own._from_model_config):  # true still where the user has changed it since
        follows = GenerationConfig.from_model_config(model.config).to_dict()
        if all(value is None or follows.get(key) == value for key, value in settings.items()):
            return {}
    return {key: value for key, value in json.loads(own.to_json_string()).items() if key != "_from_model_config"}


def _is_tied(model: Any) -> bool:
    """Whether the lm_head of a model is its input embeddings."""
    groups = ({role_by_name(name) for name in (first, *more)} for first, more in tied_names(model).items())
    return any({"input", "output"} <= roles for roles in groups)


def _distinct(model: Any) -> dict[str, Tensor]:
    """The state of a model without the second names of tied tensors."""
    seconds = {name for names in tied_names(model).values() for name in names}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in seconds}


def tied_names(model: Any) -> dict[str, list[str]]:
    """The first name of each tied tensor, and its other names."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    others: dict[str, list[str]] = {}
    for name, tensor in model.state_dict().items():
        if not tensor.numel():
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in first:
            others.setdefault(first[key], []).append(name)
        else:
            first[key] = name
    return others
