"""Which tensors of a PEFT adapter have one row a token. The names are those of https://huggingface.co/docs/peft.

A full copy of a vocabulary matrix has its name. An embedding has the factor `lora_embedding_A` [r, V], and lm_head has
`lora_B.weight` [V, r], a DoRA magnitude [V] and the IA3 vector `ia3_l` [V, 1]: each of their rows belongs to one token.
Other kinds of adapters compute a matrix from all of its rows or from its size. They are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.checkpoint.embeddings import decode
from tokswap.checkpoint.find_matrices import explained
from tokswap.checkpoint.matrices import Role, role_by_name
from tokswap.checkpoint.reader import Checkpoint
from tokswap.errors import InputError

_PREFIX = "base_model.model."
_FULL = re.compile(r"((modules_to_save|original_module|base_layer)\.)?(weight|bias)")
_EMBEDDING_FACTOR = re.compile(r"lora_embedding_A")
_HEAD_FACTOR = re.compile(r"lora_B(\.weight|\.bias)?")
_MAGNITUDE = re.compile(r"lora_magnitude_vector(\.weight)?")
_SCALE = re.compile(r"ia3_l")
_NO_ROWS = re.compile(r"lora_A(\.weight)?|lora_E|ranknum|lora_embedding_B|(token_adapter\.)?trainable_tokens_delta")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to start LoRA that compute it from the whole matrix again whenever the adapter is loaded."""


def followed_axis(
    name: str, shape: Sequence[int], rows: int, changed: Checkpoint, settings: Mapping[str, Any]
) -> int | None:
    """Return the axis of an adapter's tensor that counts tokens, None where it has none.

    Args:
        name: Name of the tensor.
        shape: Its shape.
        rows: Rows of the vocabulary matrices before the change.
        changed: The trimmed or extended model.
        settings: The parsed adapter_config.json.

    Raises:
        InputError: adapter-format where the adapter belongs to a model with another number of rows;
            unsupported-adapter where the tensor depends on the vocabulary and cannot follow.
    """
    role, suffix = _place(name, changed)
    if role is None:
        other = explained(changed.config, rows) or rows in settings.values()
        if rows in shape and not other:
            raise _unsupported(name, "has a side of the vocabulary's size, and tokswap does not know what it is")
        return None
    if _NO_ROWS.fullmatch(suffix) or (_SCALE.fullmatch(suffix) and shape[0] == 1):
        return None
    if role == "input" and _MAGNITUDE.fullmatch(suffix):
        raise _unsupported(name, "is a DoRA magnitude of the input embeddings, which depends on the dropped rows too")
    axis = _axis(suffix)
    if axis is None:
        raise _unsupported(name, "depends on the vocabulary in a way that cannot follow a change")
    if len(shape) <= axis or shape[axis] != rows:
        raise InputError(
            "adapter-format",
            f"no side of {name} is {rows:,}, the number of rows of the model before its change",
            "name the trimmed or extended form of the model that this adapter belongs to",
        )
    return axis


def padded(name: str, tensor: Any, axis: int, rows: int, changed: Checkpoint) -> Any:
    """Add rows for the extra rows of the changed model. The new rows change nothing there.

    Args:
        name: Name of the tensor.
        tensor: Its rows of the kept ids.
        axis: The axis that counts tokens.
        rows: Rows of the vocabulary matrices of the changed model.
        changed: The trimmed or extended model.
    """
    import torch

    count = rows - tensor.shape[axis]
    if count <= 0:
        return tensor
    suffix = _place(name, changed)[1]
    if _FULL.fullmatch(suffix) or _MAGNITUDE.fullmatch(suffix):
        own = _own_rows(changed, "bias" if suffix.endswith("bias") else _place(name, changed)[0], tensor.shape[0])
        more = own.norm(dim=1) if _MAGNITUDE.fullmatch(suffix) else own.reshape(count, *tensor.shape[1:])
    else:
        shape = [count if n == axis else size for n, size in enumerate(tensor.shape)]
        more = torch.full(shape, 1.0 if _SCALE.fullmatch(suffix) else 0.0)
    return torch.cat([tensor, more.to(tensor.dtype)], dim=axis).contiguous()


def refuse_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse an adapter whose change of a vocabulary matrix depends on all rows of that matrix.

    Raises:
        InputError: unsupported-adapter.
    """
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise InputError(
            "unsupported-adapter",
            f"`init_lora_weights` is {start!r}: the adapter is computed from the whole matrices when it is loaded",
            "save it as a plain LoRA (peft: save_pretrained with path_initial_model_for_weight_conversion)",
            folder=folder,
        )


def _place(name: str, changed: Checkpoint) -> tuple[Role | None, str]:
    """Return the role of the vocabulary matrix that a tensor changes (None if none), and the rest of its name.

    A module is a vocabulary matrix by its name, unless it is a layer's, or the model has other tensors inside it.
    """
    parts = name.removeprefix(_PREFIX).split(".")
    if any(part.isdigit() for part in parts):
        return None, name
    others = set(changed.tensors) - {own for matrix in changed.matrices for own in matrix.names}
    for end in range(len(parts) - 1, 0, -1):
        module, suffix = ".".join(parts[:end]), ".".join(parts[end:])
        if _FULL.fullmatch(suffix):
            full = f"{module}.{parts[-1]}"
            role = role_by_name(full) if full not in others else None
        else:
            inside = any(other.startswith(f"{module}.") for other in others)
            role = role_by_name(f"{module}.weight") if not inside else None
        if role is not None:
            return role, suffix
    return None, name


def _axis(suffix: str) -> int | None:
    if _EMBEDDING_FACTOR.fullmatch(suffix):
        return 1
    rows_first = (_FULL, _HEAD_FACTOR, _MAGNITUDE, _SCALE)
    return 0 if any(pattern.fullmatch(suffix) for pattern in rows_first) else None


def _own_rows(changed: Checkpoint, role: Role | None, start: int) -> Any:
    """Return the padding rows of the changed model, float32 [n, D]."""
    import torch

    matrix = changed.matrix(role or "input") or changed.matrices[0]
    return torch.from_numpy(decode(changed.raw_rows(matrix.names[0], matrix.axis)[start:], matrix.dtype))


def _unsupported(name: str, why: str) -> InputError:
    return InputError(
        "unsupported-adapter",
        f"the adapter's tensor {name} {why}",
        "merge the adapter into its model (peft: merge_and_unload), and change the result",
    )
