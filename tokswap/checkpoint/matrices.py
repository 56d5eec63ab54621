"""What a vocabulary matrix is, and the names by which models store them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

Role = Literal["input", "output", "bias", "per-layer", "lookup"]
"""What the rows of a vocabulary matrix are for.

- input: input embeddings.
- output: lm_head.
- bias: one number per token, added to its logit.
- per-layer: further embeddings that are read inside the layers (Gemma-3n).
- lookup: integers, such as the experts of each token (DeepSeek-V4). They can be copied but not computed.
"""
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The dtypes that a vocabulary matrix may have, and their bytes per element."""
INTEGERS = {"I64": 8, "I32": 4}
"""The same for a lookup matrix."""

_HEADS = (
    r"lm_head|lm_head\.out_proj|embed_out|proj_out|output_projection|generator_lm_head|vocab_projector|lm_loss"
    r"|pred_layer\.proj|log_softmax\.mlp\.layer0|text_lm_head|decoder|embedding_decoder|head|output|cls|unembed"
)
_NAMES: Mapping[Role, re.Pattern[str]] = {
    "lookup": re.compile(r"(^|\.)tid2eid$"),
    "per-layer": re.compile(r"(^|\.)(embed_tokens_per_layer|value_embeddings)\.weight$"),
    "output": re.compile(rf"(^|\.)({_HEADS})\.weight$"),
    "bias": re.compile(rf"(^|\.)(({_HEADS}|predictions)\.bias|final_logits_bias)$"),
    "input": re.compile(
        r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|embed_in|shared|tokens_embed|token_embedding"
        r"|token_embeddings|input_embedding|word_embed_proj|embeddings|embedding|embed|transformer\.w)\.weight$"
    ),
}
_FURTHER = re.compile(r"(^|\.)(layers|mtp[^.]*)\.")


@dataclass(frozen=True)
class VocabMatrix:
    """A matrix with one row per token.

    Attributes:
        names: Names of the tensors that hold it, several where copies are stored; that of the input embeddings first.
        role: What its rows are for.
        dtype: Type of its elements, as safetensors names it.
        shape: Shape as stored.
        axis: The axis that counts tokens.
        is_head: Whether input embeddings are the lm_head too.
    """

    names: tuple[str, ...]
    role: Role
    dtype: str
    shape: tuple[int, ...]
    axis: int = 0
    is_head: bool = False

    @property
    def rows(self) -> int:
        """Number of rows, padding rows included."""
        return self.shape[self.axis]

    @property
    def further(self) -> bool:
        """Whether it belongs to a layer that predicts further tokens (MTP), which the model itself does not read."""
        return all(_FURTHER.search(name) for name in self.names)

    @property
    def width(self) -> int:
        """Elements per row."""
        return prod(self.shape) // max(self.rows, 1)

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return self.width * (FLOATS | INTEGERS)[self.dtype]


def role_by_name(name: str) -> Role | None:
    """Return the role of a vocabulary matrix with this tensor name, None where no model names one so."""
    return next((role for role, pattern in _NAMES.items() if pattern.search(name)), None)


def role_of(name: str, shape: tuple[int, ...], sizes: Collection[int]) -> Role | None:
    """Return the role of a tensor, None where it is not a vocabulary matrix.

    Args:
        name: Name of the tensor.
        shape: Its shape.
        sizes: The numbers of rows that a vocabulary matrix of the model may have.
    """
    role = role_by_name(name)
    if role == "bias":
        return role if shape[-1:] and shape[-1] in sizes and prod(shape) == shape[-1] else None
    return role if len(shape) == 2 and shape[0] in sizes else None


def head_name(matrix: VocabMatrix) -> str | None:
    """Return the tensor name of a separate lm_head beside these input embeddings.

    The name is known for causal models whose head lies beside the body. None for others: the head of T5 or BERT is
    more than a matrix.
    """
    name = matrix.names[0]
    if name.startswith("language_model.model."):
        return "language_model.lm_head.weight"
    if re.search(r"(^|\.)(embed_tokens|wte)\.weight$", name) and not re.search(
        r"(encoder|decoder)\.embed_tokens", name
    ):
        return "lm_head.weight"
    return "embed_out.weight" if name.endswith("embed_in.weight") else None
