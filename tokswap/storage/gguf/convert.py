"""GGUF files: dequantised once into a bfloat16 checkpoint that the rest of tokswap can read.

transformers and the `gguf` package (the `gguf` extra) read the weights. The tokenizer is built from the file's keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, OutputError
from tokswap.storage.atomic import CACHE, workspace
from tokswap.storage.gguf.metadata import read_metadata
from tokswap.storage.gguf.splits import SPLITS
from tokswap.storage.gguf.tokenizer import tokenizer_files
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.storage.own_class import CLASS_OF_MODEL_TYPE, with_own_class
from tokswap.storage.trust import check_code

_VERSION = 5
"""Part of the folder's name. Raise it with every change of what a conversion writes."""
_PRE_OF_MODEL_TYPE = {"qwen2": "qwen2"}
"""Pre-tokenizer of the class that transformers takes for a type of model, where it reads files of this type."""


def dequantised(path: Path, cache: Path) -> Path:
    """Return the folder of a converted GGUF file. The first use converts the file.

    The digest of the file's content is part of the folder's name. A conversion that fails or is killed leaves no such
    folder. bfloat16 keeps more digits than any quantised type.

    Args:
        path: The .gguf file.
        cache: The folder that holds converted files.

    Raises:
        InputError: missing-extra, bad-gguf, unsupported-tokenizer, remote-code.
        OutputError: disk-full, cannot-write.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    key = f"{digest.hexdigest()[:16]}-v{_VERSION}"
    for done in sorted(cache.glob(f"*-{key}")):  # converted before, maybe under another file name
        return done
    done = cache / f"{path.stem}-{key}"
    try:
        with workspace(done, force=False, place=CACHE) as work:
            _convert(path, work)
    except OutputError as error:
        if error.code == "output-exists":  # another process finished first
            return done
        raise
    return done


def _convert(path: Path, folder: Path) -> None:
    """Convert a GGUF file into a checkpoint and its tokenizer."""
    try:
        import accelerate  # noqa: F401  transformers needs both to read the weights
        import gguf  # noqa: F401
    except ImportError as error:
        hint = "pip install 'tokswap[gguf]'"
        raise InputError("missing-extra", "reading a GGUF file needs two more packages", hint, file=path) from error
    check_code(path.parent, trusted=False)
    metadata = read_metadata(path)
    files = _tokenizer(metadata, path)
    model = _model(metadata, path)
    model.generation_config.eos_token_id = _stops(model.generation_config.eos_token_id, metadata)
    model.save_pretrained(folder)
    config = folder / "config.json"
    config.write_bytes(json_bytes(with_rope_theta(read_json(config, "config"))))
    if not _is_of_its_class(metadata, model.config.model_type):
        settings, code = with_own_class(json.loads(files["tokenizer_config.json"]))
        files |= {"tokenizer_config.json": json_bytes(settings), **code}
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def _tokenizer(metadata: Mapping[str, Any], path: Path) -> dict[str, bytes]:
    """Return the tokenizer's files. The tokenizers library has accepted them."""
    from tokenizers import Tokenizer

    try:
        files = tokenizer_files(metadata)
        Tokenizer.from_str(files["tokenizer.json"].decode())
    except InputError as error:
        error.where["file"] = str(path)
        raise
    except Exception as error:  # damaged keys can fail anywhere; Rust libraries raise Exception itself
        raise InputError("bad-gguf", f"this GGUF file has no usable tokenizer: {error}", file=path) from error
    return files


def _is_of_its_class(metadata: Mapping[str, Any], model_type: str) -> bool:
    """Whether the class that transformers takes for a type of model, if it takes one, reads this tokenizer."""
    if model_type not in CLASS_OF_MODEL_TYPE:
        return True
    split = SPLITS.get(str(metadata.get("tokenizer.ggml.pre")))
    return metadata["tokenizer.ggml.model"] == "gpt2" and split == SPLITS.get(_PRE_OF_MODEL_TYPE.get(model_type, ""))


def _model(metadata: Mapping[str, Any], path: Path) -> Any:
    """Return the dequantised model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(**where)
        _check_layers(config, metadata["tensors"], path)
        if config.model_type == "gpt2":  # transformers leaves the default of 1,024 positions
            config.n_positions = int(metadata.get("gpt2.context_length", config.n_positions))
        loaded = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.bfloat16)
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        raise InputError("bad-gguf", f"transformers cannot read this GGUF file: {error}", file=path) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # otherwise save_pretrained refuses the model as quantised
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.to(torch.bfloat16)
    model.generation_config = loaded.generation_config
    return model


def _stops(eos: int | list[int] | None, metadata: Mapping[str, Any]) -> int | list[int] | None:
    """Return the ids that end a text: eos, and the ends of a turn and of a message that the file names."""
    known = eos if isinstance(eos, list) else [] if eos is None else [eos]
    named = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    found = list(dict.fromkeys([*known, *(number for number in named if number is not None)]))
    return found if len(found) > 1 else eos


def _check_layers(config: Any, tensors: int, path: Path) -> None:
    """Raise InputError bad-gguf for an impossible number of layers. The reader would list the tensors of each layer."""
    layers = getattr(config, "num_hidden_layers", 0)
    if layers > tensors:
        message = f"this file claims {layers:,} layers, but holds only {tensors:,} tensors"
        raise InputError("bad-gguf", message, file=path)


def with_rope_theta(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with RoPE's base at the top level too.

    transformers 5 writes it into `rope_parameters` only. Other readers take a default where the top level has none.
    """
    rope = config.get("rope_parameters") or {}
    layers = {"rope_theta": rope.get("full_attention", rope), "rope_local_base_freq": rope.get("sliding_attention", {})}
    top = {key: values["rope_theta"] for key, values in layers.items() if "rope_theta" in values}
    if rope.get("rope_type", "default") != "default":
        top["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {**config, **top}
