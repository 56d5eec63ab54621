"""GGUF files: dequantised once into a bfloat16 checkpoint that the rest of tokswap can read.

transformers and the `gguf` package (the `gguf` extra) read the format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, OutputError
from tokswap.storage.atomic import workspace
from tokswap.storage.trust import check_code


def dequantised(path: Path, cache: Path) -> Path:
    """Return the folder of a converted GGUF file. The first use converts the file.

    The digest of the file's content is part of the folder's name. A conversion that fails or is killed leaves no such
    folder. bfloat16 keeps more digits than any quantised type.

    Args:
        path: The .gguf file.
        cache: The folder that holds converted files.

    Raises:
        InputError: missing-extra, bad-gguf, remote-code.
        OutputError: cannot-write.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    key = digest.hexdigest()[:16]
    for done in sorted(cache.glob(f"*-{key}")):  # converted before, maybe under another file name
        return done
    done = cache / f"{path.stem}-{key}"
    try:
        with workspace(done, force=False) as work:
            _convert(path, work)
    except OutputError as error:
        if error.code == "output-exists":  # another process finished first
            return done
        raise OutputError(
            "cannot-write",
            f"the converted model cannot be kept: {error.message}",
            "set TOKSWAP_CACHE to a folder on a disk with more room",
            cache=cache,
        ) from error
    return done


def _convert(path: Path, folder: Path) -> None:
    """Convert a GGUF file into a checkpoint and its tokenizer."""
    try:
        import accelerate  # noqa: F401  transformers needs both to read the format
        import gguf  # noqa: F401
    except ImportError as error:
        hint = "pip install 'tokswap[gguf]'"
        raise InputError("missing-extra", "reading a GGUF file needs two more packages", hint, file=path) from error
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_code(path.parent, trusted=False)
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(**where)
        _check_layers(config, path)
        loaded = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(**where)
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
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # Rust libraries raise their own types for a full disk
        raise OutputError("cannot-write", str(error)) from error


def _check_layers(config: Any, path: Path) -> None:
    """Raise InputError bad-gguf for an impossible number of layers. The reader would list the tensors of each layer."""
    with open(path, "rb") as file:
        tensors = int.from_bytes(file.read(16)[8:], "little")
    layers = getattr(config, "num_hidden_layers", 0)
    if layers > tensors:
        message = f"this file claims {layers:,} layers, but holds only {tensors:,} tensors"
        raise InputError("bad-gguf", message, file=path)
