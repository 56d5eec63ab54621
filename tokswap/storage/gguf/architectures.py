"""The architectures that tokswap can write as GGUF: their keys, the names of their tensors, and what becomes of these.

They are those of llama.cpp's converter. What llama.cpp computes otherwise than the config says is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.errors import InputError

Keys = dict[str, Any]
_HINT = "leave out --gguf, and convert the result with llama.cpp's own converter"
_LAYER = re.compile(r"(?:model\.layers|transformer\.h|h)\.(\d+)\.(.+)\.(weight|bias)")
_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
}
_ATTENTION = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.down_proj": "ffn_down",
}
_GATED = {**_ATTENTION, "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
_LLAMA = {**_GATED, "post_attention_layernorm": "ffn_norm"}
_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_GEMMA3 = {
    **_GATED,
    **_QK_NORMS,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_PHI3 = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GPT2 = {
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_BUFFER = re.compile(r"(?:transformer\.)?h\.\d+\.attn\.(?:bias|masked_bias)|.*\.rotary_emb\.inv_freq")


def _unchanged(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    return values


def _interleaved(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Llama's RoPE turns neighbours in llama.cpp, and halves in transformers: reorder the rows of q and k."""
    part = re.search(r"\.([qk])_proj\.", name)
    if part is None:
        return values
    heads = config.num_attention_heads if part[1] == "q" else config.num_key_value_heads
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _plus_one(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Gemma adds 1 to the weights of its norms when it computes; llama.cpp has them added."""
    return values + 1 if name.endswith("norm.weight") else values


def _transposed(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    return values.T if re.search(r"\.c_(?:attn|proj|fc)\.weight$", name) else values


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: Its name in llama.cpp.
        tensors: Module in a layer -> name in the file.
        activation: The activation that llama.cpp computes.
        keys: Returns its keys, without the name of the architecture in front.
        convert: Makes the values of the file of those of the checkpoint.
        biases: Whether llama.cpp knows biases of its linear layers.
    """

    name: str
    tensors: Mapping[str, str]
    activation: str
    keys: Callable[[Any], Keys]
    convert: Callable[[str, np.ndarray, Any], np.ndarray] = _unchanged
    biases: bool = True

    def tensor(self, name: str) -> str | None:
        """Return the name of a tensor in the file; None for a buffer, which is not written.

        Raises:
            InputError: gguf-architecture, for a tensor that is not known.
        """
        layer = _LAYER.fullmatch(name)
        if layer is not None and layer[2] in self.tensors and (layer[3] == "weight" or self.biases):
            return f"blk.{layer[1]}.{self.tensors[layer[2]]}.{layer[3]}"
        module, _, kind = name.removeprefix("transformer.").rpartition(".")
        if module in _TOP and (kind == "weight" or _TOP[module] == "output_norm"):
            return f"{_TOP[module]}.{kind}"
        if _BUFFER.fullmatch(name):
            return None
        raise refused(f"the tensor {name} has no place in a GGUF file of {self.name}")


def _decoder_keys(config: Any) -> Keys:
    """Return the keys that all but GPT-2 have."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": head_dim,
    }


def _rope_keys(config: Any) -> Keys:
    """Return the keys of RoPE. Llama 3's scaling is a tensor of its own, see `more_tensors`."""
    rope = rope_of(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    keys: Keys = {"rope.freq_base": float(rope["rope_theta"])}
    if kind in ("default", "llama3"):
        return keys
    if kind not in ("linear", "yarn"):
        raise refused(f"tokswap does not write the RoPE scaling {kind!r}")
    keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    return {**keys, **_yarn_keys(config, rope)} if kind == "yarn" else keys


def _yarn_keys(config: Any, rope: Mapping[str, Any]) -> Keys:
    """Return the keys of YaRN. llama.cpp reads no others of these architectures from a file."""
    factor = float(rope["factor"])
    usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    scale = rope.get("attention_factor")
    if (scale is not None and not math.isclose(scale, usual, rel_tol=1e-3)) or rope.get("mscale"):
        raise refused("llama.cpp scales the attention of YaRN by its factor alone, and the config says otherwise")
    for name, own in (("beta_fast", 32), ("beta_slow", 1), ("truncate", True)):
        if rope.get(name) not in (None, own):
            raise refused(f"llama.cpp computes YaRN with {name} {own}, and the config says {rope[name]}")
    length = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    return {"rope.scaling.original_context_length": int(length)}


def rope_of(config: Any, kind: str = "full_attention") -> Mapping[str, Any]:
    """Return the RoPE parameters of a config: those of one kind of layer where these differ."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope = rope.get(kind, rope)
    own = "rope_theta" if kind == "full_attention" else "rope_local_base_freq"
    return {"rope_theta": getattr(config, own, None) or 10000.0, **rope}


def _llama_keys(config: Any) -> Keys:
    return {**_decoder_keys(config), **_rope_keys(config)}


def _phi3_keys(config: Any) -> Keys:
    """Return the keys of Phi-3, which may turn a part of each head; transformers 5 has that in RoPE's parameters."""
    keys = _llama_keys(config)
    share = rope_of(config).get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    return {**keys, "rope.dimension_count": int(keys["rope.dimension_count"] * share)}


_LAYERS_27B = 62
"""Layers of Gemma 3 27B, by which llama.cpp knows it. It scales attention by width / heads, not by the head size."""


def _gemma3_keys(config: Any) -> Keys:
    known_27b = config.num_hidden_layers == _LAYERS_27B
    scalar = config.hidden_size // config.num_attention_heads if known_27b else config.head_dim
    if config.query_pre_attn_scalar != scalar:
        raise refused(f"llama.cpp scales by the head size {scalar}, the config by {config.query_pre_attn_scalar}")
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if getattr(config, name, None):
            raise refused(f"tokswap does not write {name} of Gemma 3")
    local = rope_of(config, "sliding_attention")
    if local.get("rope_type", "default") != "default":
        raise refused("llama.cpp does not scale RoPE in layers with a sliding window")
    full = [number for number, kind in enumerate(config.layer_types) if kind == "full_attention"]
    pattern = full[0] + 1 if full else config.num_hidden_layers + 1
    if full != list(range(pattern - 1, config.num_hidden_layers, pattern)):
        raise refused(f"full attention in the layers {full}, which is no regular pattern")
    if pattern == 1:  # llama.cpp ends where a window is named and no layer has it
        return _llama_keys(config)
    return {
        **_llama_keys(config),
        "rope.freq_base_swa": float(local["rope_theta"]),
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": pattern,
    }


def _gpt2_keys(config: Any) -> Keys:
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        raise refused("llama.cpp scales the attention of GPT-2 by the head size, and the config says otherwise")
    return {
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


_QWEN3 = {**_LLAMA, **_QK_NORMS}
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _LLAMA, "silu", keys=_llama_keys, convert=_interleaved),
    "mistral": Architecture("llama", _LLAMA, "silu", keys=_llama_keys, convert=_interleaved),
    "qwen2": Architecture("qwen2", _LLAMA, "silu", keys=_llama_keys),
    "qwen3": Architecture("qwen3", _QWEN3, "silu", keys=_llama_keys, biases=False),
    "gemma3_text": Architecture(
        "gemma3", _GEMMA3, "gelu_pytorch_tanh", keys=_gemma3_keys, convert=_plus_one, biases=False
    ),
    "phi3": Architecture("phi3", _PHI3, "silu", keys=_phi3_keys, biases=False),
    "gpt2": Architecture("gpt2", _GPT2, "gelu_new", keys=_gpt2_keys, convert=_transposed),
}
"""`model_type` of a config -> how it is written."""


def find_architecture(config: Mapping[str, Any]) -> tuple[Architecture, Any]:
    """Return the architecture of a config.json, and the config with the defaults of transformers filled in.

    Raises:
        InputError: gguf-architecture.
    """
    from transformers import AutoConfig

    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise refused(f"tokswap writes {', '.join(ARCHITECTURES)}, and this is {kind}")
    architecture = ARCHITECTURES[kind]
    heads = config.get("architectures") or ["CausalLM"]
    if not heads[0].endswith(("CausalLM", "LMHeadModel")):
        raise refused(f"{heads[0]} is not a model that generates text")
    given = {key: value for key, value in config.items() if key not in ("model_type", "transformers_version")}
    filled = AutoConfig.for_model(kind, **given)
    for name in ("hidden_act", "hidden_activation", "activation_function"):
        found = getattr(filled, name, None)
        if found not in (None, architecture.activation) and not (kind == "gemma3_text" and name == "hidden_act"):
            raise refused(f"llama.cpp computes {architecture.activation} for {kind}, and the config says {found}")
    return architecture, filled


def window_note(config: Any) -> tuple[str, ...]:
    """Return a note about a sliding window that llama.cpp does not have for this architecture."""
    window = getattr(config, "sliding_window", None)
    if not window or config.model_type == "gemma3_text" or not getattr(config, "use_sliding_window", True):
        return ()
    return (f"llama.cpp has no sliding window here: it computes otherwise from {window:,} tokens on",)


def more_tensors(config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield tensors that the file has and the checkpoint has not: Llama 3's RoPE scaling, as one factor a frequency."""
    rope = rope_of(config)
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequency = float(rope["rope_theta"]) ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high, factor = (float(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    smooth = (rope["original_max_position_embeddings"] * frequency / (2 * np.pi) - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    yield "rope_freqs.weight", (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def refused(message: str) -> InputError:
    """Return the error for a model that cannot be written."""
    return InputError("gguf-architecture", f"this model cannot be written as GGUF: {message}", _HINT)
