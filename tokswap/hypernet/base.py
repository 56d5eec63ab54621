"""The model that a hypernetwork is trained for: frozen, with its embedding matrices replaced at every step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.checkpoint.facts import model_facts
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.rowless import with_rows
from tokswap.errors import InputError
from tokswap.evaluation.models import load_masked_model, load_model, without_cache
from tokswap.tokenizer.post_processor import trailing_ids
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Kind

if TYPE_CHECKING:
    from torch import Tensor

_TRIED = 8
"""Tokens that a model is tried with."""


@dataclass(frozen=True)
class MatrixNames:
    """The parameter names of a model's vocabulary matrices.

    Attributes:
        input: The input embeddings.
        output: lm_head, None where it is tied to the input embeddings.
        bias: The bias of lm_head, None without one.
    """

    input: str
    output: str | None
    bias: str | None


@dataclass(frozen=True)
class Base:
    """A frozen language model: a causal one, or an encoder that predicts masked tokens.

    Attributes:
        folder: Where it is.
        model: The transformers model.
        tokenizer: Its tokenizer.
        source: Its embeddings, float32 [V, n_in]. Each input embedding is followed by the row of lm_head if untied.
        names: The parameters that hold them.
        bos: Id of the token that every text begins with, None without one.
        eos: Id of the token that every text of an encoder ends with, None without one.
        mask: Id of an encoder's mask token, None for a causal model.
    """

    folder: Path
    model: Any
    tokenizer: Tokenizer
    source: Tensor
    names: MatrixNames
    bos: int | None
    eos: int | None = None
    mask: int | None = None

    @property
    def special(self) -> list[int]:
        """Ids of the special tokens in training texts. Their embeddings are the model's own."""
        return list(dict.fromkeys(token for token in (self.bos, self.eos, self.mask) if token is not None))

    @property
    def width(self) -> int:
        """Elements of an input embedding, E."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @cached_property
    def trained_ids(self) -> np.ndarray:
        """Ids that the model has learnt: all but reserved ones and padding rows, int64 [n]."""
        return np.flatnonzero(self.tokenizer.vocabulary.kind != Kind.UNUSED)

    def logits(self, ids: Tensor, rows: Tensor, head: Tensor | None, bias: Tensor | None) -> Tensor:
        """Run the model on another vocabulary.

        Args:
            ids: Tokens of that vocabulary, -1 past the end of a text, int64 [B, T].
            rows: Its input embeddings, [C, E].
            head: Its lm_head, [C, E]; None where the model is tied.
            bias: Its bias of lm_head, [C]; None where the model has none.

        Returns:
            Logits, [B, T, C].
        """
        from torch.func import functional_call

        names = (self.names.input, self.names.output, self.names.bias)
        given = zip(names, (rows, head, bias), strict=True)
        parameters = {name: value for name, value in given if name is not None and value is not None}
        # The model is not told the ids: RoBERTa numbers its places by that of its pad, and some know that of a picture.
        embedded = functional_call(self.model.get_input_embeddings(), {"weight": rows}, (ids.clamp(min=0),))
        inputs: dict[str, Any] = {"inputs_embeds": embedded, **without_cache(self.model)}
        if self.mask is not None:  # it reads past the end of a text
            inputs["attention_mask"] = (ids >= 0).long()
        logits: Tensor = functional_call(self.model, parameters, (), inputs).logits
        return logits


def open_base(folder: Path, *, bf16: bool, device: Any) -> Base:
    """Load and freeze a model.

    Args:
        folder: The model.
        bf16: Whether to load it in bfloat16 instead of float32.
        device: Where torch computes.

    Raises:
        InputError: unsupported-base, not-causal, and what reading and loading a checkpoint raises.
    """
    import torch

    checkpoint = open_checkpoint(folder)
    configs = (checkpoint.config, checkpoint.generation_config)
    tokenizer = with_rows(read_tokenizer(folder), checkpoint.matrices[0].rows, *configs).tokenizer
    if {matrix.role for matrix in checkpoint.matrices} & {"per-layer", "lookup"}:
        message = "this model has vocabulary matrices in its layers, which no hypernetwork predicts"
        raise InputError("unsupported-base", message, folder=folder)
    facts, dtype, roles = model_facts(checkpoint.config), "bfloat16" if bf16 else "float32", tokenizer.vocabulary.roles
    masked = facts.masked and "mask" in roles
    bos, eos = (next(iter(ids), None) for ids in (tokenizer.leading, trailing_ids(tokenizer.spec)))
    if masked:
        model = load_masked_model(folder, dtype=dtype)
    else:
        facts.require_causal(folder, "an encoder needs an lm_head (ForMaskedLM) and a tokenizer with a mask token")
        model, _ = load_model(folder, dtype=dtype)
    model.requires_grad_(False).to(device)
    model.get_input_embeddings().padding_idx = None  # torch gives this row no gradient, and here it is any token
    try:
        parts, names = _vocabulary_matrices(model)
        base = Base(
            folder=folder,
            model=model,
            tokenizer=tokenizer,
            source=torch.cat([part.detach().float() for part in parts], dim=1),
            names=names,
            bos=bos if masked or tokenizer.adds_bos else None,
            eos=eos if masked else None,
            mask=roles["mask"] if masked else None,
        )
        fits = _fits(base)
    except Exception:  # whatever a model does that computes in another way
        fits = False
    if not fits:
        message = "this model computes its logits otherwise than from input embeddings and an lm_head of one width"
        raise InputError("unsupported-base", message, folder=folder)
    return base


def _fits(base: Base) -> bool:
    """Return whether the model predicts some of its tokens, under other ids, as it does under its own."""
    import torch

    text = np.flatnonzero(base.tokenizer.vocabulary.kind == Kind.NORMAL)[::-1][:_TRIED]
    ids = torch.from_numpy(text.copy()).to(base.source.device)
    dtype, bias = next(base.model.parameters()).dtype, None
    rows, *head = base.source[ids].to(dtype).chunk(base.source.shape[1] // base.width, dim=1)
    if base.names.bias is not None:
        bias = base.model.get_output_embeddings().bias[ids]
    with torch.no_grad():
        wanted = base.model(input_ids=ids[None], **without_cache(base.model)).logits[..., ids].float()
        found = base.logits(torch.arange(len(ids), device=ids.device)[None], rows, head[0] if head else None, bias)
    error, largest = float((found.float() - wanted).abs().max()), float(wanted.abs().max())
    rounding: float = torch.finfo(dtype).eps ** 0.5  # as it can add up
    return error <= rounding * largest


def _vocabulary_matrices(model: Any) -> tuple[list[Tensor], MatrixNames]:
    """Return the embedding matrices of a model, one if they are tied, and the names of all its vocabulary matrices."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied, bias = head.weight is embeddings.weight, getattr(head, "bias", None)
    names = MatrixNames(
        input=name_of[id(embeddings.weight)],
        output=None if tied else name_of[id(head.weight)],
        bias=None if bias is None else name_of[id(bias)],
    )
    return [embeddings.weight] if tied else [embeddings.weight, head.weight], names
