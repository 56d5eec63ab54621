"""The model that a hypernetwork is trained for: frozen, with its vocabulary tables replaced at every step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.errors import InputError
from tokswap.evaluation.losses import load_model
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Base:
    """A frozen causal language model. source: float32[V, n_in], input and output rows beside each other when untied.

    names: the parameter names of input table, output head (None when tied) and head bias (None without one).
    bos: the id that every text begins with, None without one.
    """

    folder: Path
    model: Any
    tokenizer: Tokenizer
    source: Tensor
    names: tuple[str, str | None, str | None]
    bos: int | None

    @property
    def width(self) -> int:
        """E, the elements of an input row."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def logits(self, ids: Tensor, rows: Tensor, head: Tensor | None, bias: Tensor | None) -> Tensor:
        """Run the model [B, T] -> [B, T, C] on a vocabulary of C tokens, with the rows that they have for now."""
        from torch.func import functional_call

        tables = zip(self.names, (rows, head, bias), strict=True)
        parameters = {name: table for name, table in tables if name is not None and table is not None}
        return functional_call(self.model, parameters, (ids,), {"use_cache": False}).logits  # type: ignore[no-any-return]


def open_base(folder: Path, *, bf16: bool, device: Any) -> Base:
    """Load and freeze a model. Raises InputError unsupported-base and what reading a checkpoint raises."""
    import torch

    tokenizer = read_tokenizer(folder)
    checkpoint = open_checkpoint(folder)
    roles = {table.role for table in checkpoint.matrices}
    if roles & {"per-layer", "lookup"}:
        raise InputError(
            "unsupported-base", "this model has a table a layer, which no hypernetwork predicts", folder=folder
        )
    if checkpoint.config.get("is_encoder_decoder"):
        raise _not_causal(folder)
    try:
        model, _ = load_model(folder, dtype="bfloat16" if bf16 else "float32")
    except ValueError as error:  # what transformers raises where a configuration is no causal language model's
        raise _not_causal(folder) from error
    with torch.inference_mode():
        first = model(torch.tensor([[0, 1], [0, 2]])).logits[:, 0].float()
    if not torch.allclose(first[0], first[1], atol=1e-3, rtol=1e-3):  # it has read what comes after
        raise _not_causal(folder)
    model.requires_grad_(False).to(device)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    table.padding_idx = None  # torch gives this row no gradient, and here any token may have its number
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    tied = head.weight is table.weight
    bias = getattr(head, "bias", None)
    parts = [table.weight] if tied else [table.weight, head.weight]
    names = (
        name_of[id(table.weight)],
        None if tied else name_of[id(head.weight)],
        None if bias is None else name_of[id(bias)],
    )
    bos = tokenizer.vocabulary.roles["bos"] if tokenizer.adds_bos else None
    source = torch.cat([part.detach().float() for part in parts], dim=1)
    return Base(folder, model, tokenizer, source, names, bos)


def _not_causal(folder: Path) -> InputError:
    message = "a hypernetwork is trained with a causal language model, and this is none"
    return InputError("unsupported-base", message, "published ones for encoders can be imported", folder=folder)
