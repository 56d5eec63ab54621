"""The network (arXiv 2405.07883): it reads surface forms and source embeddings, and predicts embeddings.

Modules have the names of the published PyTorch checkpoints, so that their state dicts load. Everything is computed on
the device and in the dtype of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokswap.hypernet.config import HypernetConfig

Source = Tensor | Callable[[Tensor], Tensor]
"""Source embeddings [V, n_in], or what reads the rows of some ids."""
Embeddings = tuple[Tensor, Tensor | None, Tensor | None]
"""Input embeddings [n, E]; rows of lm_head [n, E], None if tied; its bias [n], None without one."""


class ProjectorBlock(nn.Module):
    """LayerNorm(x + gelu(W2 gelu(W1 x))), with the tanh approximation of gelu."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., H] to [..., H]."""
        inner = F.gelu(self.dense1(x), approximate="tanh")
        y: Tensor = self.ln(x + F.gelu(self.dense2(inner), approximate="tanh"))
        return y


class Rescaler(nn.Module):
    """Compute w x + b, element by element."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.ones(1, width)), nn.Parameter(torch.zeros(1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return self.w * x + self.b


class Layer(nn.Module):
    """A RoBERTa layer, with LayerNorm after each residual sum."""

    def __init__(self, config: HypernetConfig) -> None:
        super().__init__()
        width, inner = config.hn_hidden_size, config.hn_intermediate_size
        self.heads = config.hn_num_attention_heads
        attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention: Any = nn.ModuleDict({"self": attention, "output": _residual(width, width)})
        self.intermediate: Any = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output: Any = _residual(inner, width)

    def forward(self, x: Tensor, keys: Tensor | None, queries: int) -> Tensor:
        """Compute the first positions of the next layer.

        Args:
            x: All positions of this layer, [n, T, H].
            keys: Positions that may be attended to, bool [n, T]; None for all.
            queries: How many positions to compute.

        Returns:
            [n, queries, H].
        """
        n, _, width = x.shape
        own = self.attention["self"]

        def split(y: Tensor) -> Tensor:
            return y.view(n, -1, self.heads, width // self.heads).transpose(1, 2)

        top = x[:, :queries]
        mixed = F.scaled_dot_product_attention(
            split(own["query"](top)),
            split(own["key"](x)),
            split(own["value"](x)),
            attn_mask=None if keys is None else keys[:, None, None, :],
        )
        mixed = mixed.transpose(1, 2).reshape(n, queries, width)
        top = self.attention["output"]["LayerNorm"](top + self.attention["output"]["dense"](mixed))
        inner = F.gelu(self.intermediate["dense"](top))
        y: Tensor = self.output["LayerNorm"](top + self.output["dense"](inner))
        return y


def _residual(width: int, to: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, to), "LayerNorm": nn.LayerNorm(to, eps=1e-5)})


class Network(nn.Module):
    """The hypernetwork.

    Args:
        config: Its shape.
        positions: Rows of its position embeddings. A published network may have more than it reads.
    """

    def __init__(self, config: HypernetConfig, positions: int | None = None) -> None:
        super().__init__()
        self.config = config
        width, inner = config.hn_hidden_size, config.hn_intermediate_size

        def head(size: int) -> nn.Sequential:
            return nn.Sequential(ProjectorBlock(width, inner), nn.Linear(width, size))

        self.input_projection = nn.Sequential(nn.Linear(config.n_in, width), ProjectorBlock(width, inner))
        embeddings = nn.ModuleDict(
            {
                "position_embeddings": nn.Embedding(positions or config.hn_surface_maxlen, width),
                "token_type_embeddings": nn.Embedding(1, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-5),
            }
        )
        layers = nn.ModuleList(Layer(config) for _ in range(config.hn_n_layers))
        self.model: Any = nn.ModuleDict({"embeddings": embeddings, "encoder": nn.ModuleDict({"layer": layers})})
        self.fallback_embeddings = nn.Embedding(max(config.hn_n_extra_tokens, 1), config.n_in)
        self.output_projection = head(config.n_in if config.hn_single_head else config.n_embd)
        if config.separate_out_embeddings and not config.hn_single_head:
            self.output_projection_out = head(config.n_embd)
        if config.hn_rescale_embeddings:
            self.in_scaler, self.scaler = Rescaler(config.n_in), Rescaler(config.n_embd)
            if config.separate_out_embeddings:
                self.out_scaler = Rescaler(config.n_embd)
        if config.hn_predict_bias:
            self.bias_projection = nn.Linear(width, 1)
        if config.hn_embed_lang_id:
            self.lang_embeddings = nn.Embedding(config.n_langs, width)

    def forward(self, forms: Tensor, source: Source, lang_index: int | None = None) -> Embeddings:
        """Predict embeddings.

        Forms of one length are computed together and without their padding. This changes the cost and not the result.

        Args:
            forms: Surface forms, padded at the end, int64 [n, L].
            source: Source embeddings, [V, n_in], or what reads the rows of some ids, [m, n_in] of int64 [m].
            lang_index: Position among the language embeddings, None for networks without languages.
        """
        config = self.config
        pieces, place = forms.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        projected = self.input_projection(self._look_up(pieces, source))
        hidden = projected.new_empty((0, config.hn_hidden_size))
        # A form that is all padding has no position to attend to: the network reads its first pad.
        lengths = (forms != config.pad_token_id).long() * torch.arange(1, forms.shape[1] + 1, device=forms.device)
        lengths = lengths.amax(dim=1).clamp(min=1)
        order, parts = [], []
        for length in range(1, int(lengths.max()) + 1) if len(lengths) else ():
            members = (lengths == length).nonzero()[:, 0]
            if not len(members):
                continue
            order.append(members)
            parts.append(self._encode(projected[place[members, :length]], forms[members, :length], lang_index))
        if parts:
            hidden = torch.cat(parts)[torch.cat(order).argsort()]
        return self._heads(hidden)

    def _look_up(self, ids: Tensor, source: Source) -> Tensor:
        """Return what the network reads for ids, [m, n_in]: scaled source rows, and its own embeddings from V on."""
        known = self.config.original_vocab_size
        own = ids.clamp(max=known - 1)
        rows = (source(own) if callable(source) else source[own]).to(self.fallback_embeddings.weight.dtype)
        if self.config.hn_rescale_embeddings:
            rows = self.in_scaler(rows)
        return torch.where((ids >= known)[:, None], self.fallback_embeddings((ids - known).clamp(min=0)), rows)

    def _encode(self, x: Tensor, forms: Tensor, lang_index: int | None) -> Tensor:
        """Return the last layer's position 0, [n, H], of forms of one length with the projected ids x, [n, T, H]."""
        embeddings, layers = self.model["embeddings"], self.model["encoder"]["layer"]
        x = x + embeddings["token_type_embeddings"].weight[0] + embeddings["position_embeddings"].weight[: x.shape[1]]
        keys = forms != self.config.pad_token_id
        if self.config.hn_embed_lang_id:
            assert lang_index is not None, "the network needs a language"
            language = self.lang_embeddings.weight[lang_index].to(x.dtype).expand(len(x), 1, -1)
            x = torch.cat([x, language], dim=1)
            keys = torch.cat([keys, keys.new_ones((len(keys), 1))], dim=1)
        x = embeddings["LayerNorm"](x)
        mask = None if bool(keys.all()) or not bool(keys.any(dim=1).all()) else keys
        for n, layer in enumerate(layers):
            x = layer(x, mask, 1 if n == len(layers) - 1 else x.shape[1])
        return x[:, 0]

    def _heads(self, hidden: Tensor) -> Embeddings:
        config = self.config
        first: Tensor = self.output_projection(hidden)
        second: Tensor | None = None
        if config.separate_out_embeddings:
            if config.hn_single_head:
                first, second = first[:, : config.n_embd], first[:, config.n_embd :]
            else:
                second = self.output_projection_out(hidden)
        if config.hn_rescale_embeddings:
            first = self.scaler(first)
            second = self.out_scaler(second) if second is not None else None
        bias = self.bias_projection(hidden)[:, 0] if config.hn_predict_bias else None
        return first, second, bias
