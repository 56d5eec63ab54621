"""Small hypernetworks for the tests, and a second implementation of their arithmetic, in float64 NumPy."""

from __future__ import annotations

import json
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.reader import open_checkpoint
from tokswap.hypernet import HypernetConfig
from tokswap.hypernet.surface import Surface
from tokswap.tokenizer.byte_alphabet import byte_alphabet_spec
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

ORACLES = Path(__file__).parent / "zett"
"""What the original code computes with two networks of random weights, for some forms of every length."""


def oracle(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
    """Return the published config, the weights by their published names, and the arrays of a case."""
    data = np.load(ORACLES / f"{name}.npz")
    weights = {key[2:]: data[key] for key in data if key.startswith("w:")}
    return json.loads(str(data["config"])), weights, data


def random_weights(config: HypernetConfig, seed: int = 0) -> dict[str, Any]:
    """Return a random tensor for every name of a network, none of them near an initialisation."""
    import torch

    from tokswap.hypernet.model import Network

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: torch.randn(t.shape) * 0.3 + 0.05 for name, t in Network(config).state_dict().items()}


def write_hypernet(folder: Path, config: HypernetConfig, spec: dict[str, Any], seed: int = 0) -> Path:
    """Write a random hypernetwork with a tokenizer in the byte alphabet."""
    from tokswap.hypernet.convert import build, save

    folder.mkdir(parents=True, exist_ok=True)
    surface = Surface(Tokenizer(path=folder, spec=spec, config={}, files={}), config)
    save(build(config, random_weights(config, seed), folder), surface, folder)
    return folder


def make_hypernet(base: Path, folder: Path, **changes: Any) -> Path:
    """Write a random hypernetwork that fits a model."""
    checkpoint, tokenizer = open_checkpoint(base), read_tokenizer(base)
    matrix = checkpoint.matrices[0]
    spec = byte_alphabet_spec(tokenizer, matrix.rows)
    extra = len(Tokenizer(path=folder, spec=spec, config={}, files={}).vocabulary) - matrix.rows
    values: dict[str, Any] = {
        "n_embd": matrix.width,
        "original_vocab_size": matrix.rows,
        "hn_hidden_size": 16,
        "hn_intermediate_size": 24,
        "hn_n_layers": 2,
        "hn_num_attention_heads": 2,
        "hn_n_extra_tokens": extra,
        "separate_out_embeddings": not checkpoint.tied,
        **changes,
    }
    return write_hypernet(folder, HypernetConfig(**values), spec)


def reference(
    config: HypernetConfig, weights: dict[str, Any], forms: np.ndarray, source: np.ndarray, lang: int | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Compute the forward pass as the paper's code does: one form at a time, with its padding, in float64."""
    network = _Reference(config, {name: np.asarray(value, np.float64) for name, value in weights.items()})
    tops = [network.encode(form, source, lang) for form in forms]
    first, second, bias = zip(*(network.heads(top) for top in tops), strict=True)
    return (
        np.stack(first),
        None if second[0] is None else np.stack(second),
        None if bias[0] is None else np.array(bias),
    )


class _Reference:
    def __init__(self, config: HypernetConfig, weights: dict[str, np.ndarray]) -> None:
        self.config, self.w = config, weights

    def encode(self, form: np.ndarray, source: np.ndarray, lang: int | None) -> np.ndarray:
        """Return the last layer's first position."""
        config, w = self.config, self.w
        x = np.stack([self.read(piece, source) for piece in form.tolist()])
        x = self.projector(self.linear(x, "input_projection.0"), "input_projection.1")
        x = x + w["model.embeddings.token_type_embeddings.weight"][0]
        x = x + w["model.embeddings.position_embeddings.weight"][: len(x)]
        keys = form != config.pad_token_id
        if config.hn_embed_lang_id:
            x = np.concatenate([x, w["lang_embeddings.weight"][lang][None]])
            keys = np.append(keys, True)
        x = self.norm(x, "model.embeddings.LayerNorm", 1e-5)
        for n in range(config.hn_n_layers):
            x = self.layer(x, keys, f"model.encoder.layer.{n}")
        return x[0]

    def read(self, piece: int, source: np.ndarray) -> np.ndarray:
        """Return what the network reads for an id."""
        config, w = self.config, self.w
        if piece >= config.original_vocab_size:
            return w["fallback_embeddings.weight"][piece - config.original_vocab_size]
        if config.hn_rescale_embeddings:
            return w["in_scaler.w"][0] * source[piece] + w["in_scaler.b"][0]
        return np.asarray(source[piece], np.float64)

    def heads(self, top: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return an input embedding, a row of lm_head and a bias."""
        config, w = self.config, self.w
        out = self.linear(self.projector(top, "output_projection.0"), "output_projection.1")
        more = None
        if config.separate_out_embeddings and config.hn_single_head:
            out, more = out[: config.n_embd], out[config.n_embd :]
        elif config.separate_out_embeddings:
            more = self.linear(self.projector(top, "output_projection_out.0"), "output_projection_out.1")
        if config.hn_rescale_embeddings:
            out = w["scaler.w"][0] * out + w["scaler.b"][0]
            more = None if more is None else w["out_scaler.w"][0] * more + w["out_scaler.b"][0]
        return out, more, self.linear(top, "bias_projection")[0] if config.hn_predict_bias else None

    def layer(self, x: np.ndarray, keys: np.ndarray, name: str) -> np.ndarray:
        heads = self.config.hn_num_attention_heads
        q, k, v = (
            self.linear(x, f"{name}.attention.self.{part}").reshape(len(x), heads, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / sqrt(q.shape[-1])
        scores = np.where(keys[None, None, :], scores, -np.inf)
        share = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", share / share.sum(axis=-1, keepdims=True), v).reshape(len(x), -1)
        residual = x + self.linear(mixed, f"{name}.attention.output.dense")
        x = self.norm(residual, f"{name}.attention.output.LayerNorm", 1e-5)
        inner = self.linear(_gelu(self.linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
        return self.norm(x + inner, f"{name}.output.LayerNorm", 1e-5)

    def projector(self, x: np.ndarray, name: str) -> np.ndarray:
        inner = _tanh_gelu(self.linear(_tanh_gelu(self.linear(x, f"{name}.dense1")), f"{name}.dense2"))
        return self.norm(x + inner, f"{name}.ln", 1e-6)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str, eps: float) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]


def _tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(erf)(x / sqrt(2)))
