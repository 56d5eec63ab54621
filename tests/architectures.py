"""Tiny random models of any architecture that transformers lists, tried with transplant and trim.

`benchmarks/compatibility.py` tries all of them, tests/test_architectures.py the most used ones.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import makers
import numpy as np
import tools

import tokswap
from tokswap.errors import TokswapError
from tokswap.trim.outputs import aligned
from tokswap.trim.plan import trim_vocabulary

TASKS = {
    "causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
    "masked": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM"),
    "sequence to sequence": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"),
}
"""Task -> the mapping in transformers that lists its architectures, and the class that loads them."""

TOKENS, ROWS, OTHER_TOKENS = 600, 607, 577
TEXT = "The old bridge was closed: 3 ferries, def f(x): return x"
_IDS = {"bos": 1, "eos": 2, "pad": 2, "decoder_start": 2, "cls": 1, "sep": 2, "unk": 0, "mask": 3}
"""The roles of the byte-level tokenizers of `makers`. Their ids 3 to 6 are reserved tokens."""

_SIZES: tuple[tuple[str, int], ...] = (
    (
        r"(num_key_value|kv|n_kv)_heads|num_kv_heads|n_head_kv|multi_query_group_num|.*num_key_value_heads"
        r"|num_swa_.*heads",
        2,
    ),
    (r".*(num_heads|n_heads?|_heads|head_num)|n_attention_heads", 4),
    (r"(.*_)?(head_dim|d_head|d_kv|attention_head_size|attn_head_dim|attention_key_size|head_size)", 8),
    (r"qk_rope_head_dim|qk_nope_head_dim|v_head_dim|(q|kv|o)_lora_rank|.*_lora_rank|rotary_dim|rope_head_dim", 8),
    (r"(.*_)?(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|n_(en|de)coder_layers|num_blocks)", 2),
    (r"num_(en|de)coder_layers|n_blocks|depth|.*_depth", 2),
    (r"(.*_)?(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|d_inner|feed_forward_size|dim_ff|mlp_dim)", 64),
    (r".*expert.*(intermediate|hidden)_size|(moe|shared|text|image)_.*intermediate_size|.*_ffn_dim", 64),
    (r"hidden_size|d_model|n_embd|dim|emb_dim|embed_dim|embedding_size|d_embed|decoder_hidden_size", 32),
    (
        r"hidden_dim|word_embed_proj_dim|block_width|lru_width|attention_hidden_size|state_dim|width|true_hidden_size",
        32,
    ),
    (
        r"(.*_)?hidden_size|(.*_)?hidden_dim|output_dim|cross_attention_(dim|hidden_size)|projection_dim|hidden_sizes",
        32,
    ),
    (r"n_routed_experts|num_(local_|routed_)?experts|moe_num_experts|n_experts|.*num_experts|num_local_experts", 4),
    (r".*(experts_per_tok(en)?|topk_experts|moe_top_?k|num_selected_experts)|moe_k|top_k_experts|moe_topk", 2),
    (
        r"n_group|num_expert_group|topk_group|n_shared_experts|num_shared_experts|num_nextn_predict_layers"
        r"|n_expert_groups",
        1,
    ),
    (
        r"max_position_embeddings|n_positions|.*max_(source|target)_positions|max_seq_len(gth)?|n_ctx"
        r"|.*_max_position_embeddings",
        128,
    ),
    (r"(sliding_|attention_|local_|block_|)window(_size)?|sliding_window|chunk_size|attention_chunk_size", 16),
    (r"(mamba_)?(d_)?(ssm_)?(state_size|d_state|state_dim)|time_step_rank|ssm_state_size|mamba_dt_rank|kda_.*dim", 8),
    (r"image_size", 32),
    (r"patch_size", 16),
)
"""What a number of a config becomes, by the first pattern that matches its name. No number becomes larger."""
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer")
_VOCABULARIES = (
    "vocab_size",
    "decoder_vocab_size",
    "vocab_size_per_layer_input",
    "src_vocab_size",
    "tgt_vocab_size",
    "n_words",
    "text_vocab_size",
    "n_tokens",
)


@dataclass(frozen=True)
class Outcome:
    """The outcome for one architecture.

    Attributes:
        task: A key of `TASKS`.
        model_type: Its name in configs.
        architecture: Its class in transformers.
        transplant: "works", "works with a pad of the same id", "refuses: CODE: ...", "fails: ..." or "not made: ...".
        trim: The same for trims.
    """

    task: str
    model_type: str
    architecture: str
    transplant: str
    trim: str


def listed(task: str) -> dict[str, str]:
    """Return model type -> class name for a task."""
    from transformers.models.auto import modeling_auto

    names = getattr(modeling_auto, TASKS[task][0])
    return {kind: name if isinstance(name, str) else name[0] for kind, name in sorted(names.items())}


# Making a model.


def shrunk(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest config of its kind: narrow, and with one layer of each type that it has, two at least.

    Args:
        config: The usual config of the architecture.
        fixed: Values for this config, and by name for those inside it, that no rule can know.
    """
    depth = next((config[key] for key in _DEPTHS if config.get(key)), 0)
    types = config.get("layer_types") or config.get("layers_block_type") or []
    kept = [n for n, kind in enumerate(types) if kind not in types[:n]]
    kept = kept if len(kept) > 1 else [0, 1]
    slots = cycle(range(3, 7))
    new: dict[str, Any] = {}
    for key, value in config.items():
        if key == "per_layer_config":
            layers = {int(n): shrunk(child, {}) for n, child in (value or {}).items()}
            new[key] = {at: layers[n] for at, n in enumerate(kept) if n in layers} or None
        elif isinstance(value, dict) and (value.get("model_type") or key.endswith("_config")):
            new[key] = shrunk(value, fixed.get(key) or FIXED.get(value.get("model_type", ""), {}))
        elif key in fixed:
            new[key] = fixed[key]
        elif isinstance(value, (list, tuple)) and depth and len(value) == depth:
            new[key] = [value[n] for n in kept]
        elif match := re.fullmatch(r"(.*)_token_(id|index)", key):
            new[key] = _IDS.get(match[1], None if value is None else next(slots))
        elif type(value) is int:
            new[key] = ROWS if key in _VOCABULARIES else min(value, len(kept) if key in _DEPTHS else _small(key, value))
        else:
            new[key] = value
    if new.get("kv_lora_rank"):
        new["num_key_value_heads"] = new["num_attention_heads"]  # latent attention has no groups
    return {**fixed, **new}


def _small(key: str, value: int) -> int:
    return next((size for pattern, size in _SIZES if re.fullmatch(pattern, key)), value)


_DOTS = {"head_dim": 16, "v_head_dim": 8}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
FIXED: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_nb_functions": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8}},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "greedy"},
    "deepseek_v3": {"qk_head_dim": 16},
    "dots3_note": {"text_config": _DOTS},
    "dots3_note_text": _DOTS,
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "head_dim": 8,
        "routed_scaling_factor": 1.0,
        "num_key_value_heads": 4,
    },
    "emu3": {
        "vocabulary_map": {
            "<|extra_200|>": 4,
            "<image>": 5,
            "<|visual token 000000|>": 6,
            "<|visual token 000001|>": 3,
        },
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "codebook_size": 32},
    },
    "esm": {"vocab_size": ROWS, "pad_token_id": 2, "mask_token_id": 3},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": [64, 64],
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling_text": {"unpadded_vocab_size": TOKENS},
    "inkling2_text": {"unpadded_vocab_size": TOKENS},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"qk_head_dim": 16, "zero_expert_num": 2, "num_key_value_heads": 4},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": 32},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "ministral": {"head_dim": 8},
    "mpnet": {"pad_token_id": 1},
    "mobilebert": {"hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 32, "num_feedforward_networks": 1},
    "neomme": {"head_dim": 16, "embedding_rank": 16},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"n_groups": 1, "mamba_num_heads": 4, "mamba_head_dim": 16},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 8,
        "ple_embed_dim": 8,
        "ngram_vocab_size_base": 50,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "num_key_value_heads": 4},
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 16],
        "attn_layers": ["local", "lsh"],
        "hash_seed": 0,
    },
    "xlstm": {"embedding_dim": 32, "num_heads": 4},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "mamba_headdim": 16,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "adapter_rank": 8,
        "num_query_groups": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "kv_channels": 8,
        "num_key_value_heads": 4,
        "hybrid_layer_ids": [1],
    },
}
"""Model type -> values of its config that no rule can know."""


def make_tiny(task: str, model_type: str, folder: Path, tokenizer: Path) -> Path:
    """Save a tiny random model of an architecture with a tokenizer. Raises whatever transformers does."""
    import shutil

    import torch
    import transformers

    cls = getattr(transformers, listed(task)[model_type])
    kind = transformers.CONFIG_MAPPING[model_type]
    fixed = FIXED.get(model_type, {})
    whole = kind().to_dict()
    for key in ("transformers_version", "model_type", "architectures"):
        whole.pop(key, None)
    config = kind(**shrunk(whole, fixed))
    if hasattr(config, "is_decoder") and not config.is_encoder_decoder:
        config.is_decoder = task == "causal"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            model = cls(config)
        except AttributeError:  # a config of several parts, and a class for its text alone
            whole_name = listed(task)[model_type].replace("ForCausalLM", "ForConditionalGeneration")
            model = getattr(transformers, whole_name)(config)
        _liven(model)
    if sum(parameter.numel() for parameter in model.parameters()) > 30_000_000:
        raise ValueError(f"{sum(p.numel() for p in model.parameters()):,} parameters are not tiny")
    shutil.copytree(tokenizer, folder)
    model.eval().save_pretrained(folder)
    return folder


def _with_pad(tokenizer: Path, folder: Path, pad: int) -> Path:
    """Copy a tokenizer, with another token as its pad."""
    makers.copy_model(tokenizer, folder)
    name = next(name for name, n in makers.role_ids(folder).items() if n == pad)
    makers.edit_json(
        folder / "tokenizer_config.json", pad_token=makers.read_json(folder / "tokenizer_config.json")[f"{name}_token"]
    )
    return folder


def _liven(model: Any) -> None:
    """Give tensors of equal values, such as zero biases, values that are worth comparing."""
    import torch

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                if "norm" in name or name.endswith(("bias", "final_logits_bias")):
                    tensor.add_(torch.randn_like(tensor) * 0.02)
            elif name.endswith("tid2eid"):
                tensor.copy_(torch.randint_like(tensor, 4))


# Trying it.


def two_tokenizers(folder: Path) -> tuple[Path, Path]:
    """Make a tokenizer for the models, and another one."""
    other = [makers.shipped_text("russian"), makers.shipped_text("code")]
    return (
        makers.make_tokenizer("byte-level", folder / "own", vocab_size=TOKENS),
        makers.make_tokenizer("byte-level", folder / "other", vocab_size=OTHER_TOKENS, seed_text=other),
    )


def try_one(task: str, model_type: str, work: Path, tokenizers: tuple[Path, Path]) -> Outcome:
    """Make a model of an architecture, and try two transplants and a trim.

    1. A transplant onto its own tokens under other ids: hidden states stay equal bit for bit, logits only move.
    2. A transplant onto another tokenizer: every check of `tokswap verify` that holds for the source holds for the
       result.
    3. A trim to German: hidden states stay equal bit for bit, the logits of kept tokens too, and `verify` holds.

    Each result must load with the same class, and with no other missing, unexpected or mismatched tensors than the
    source.
    """
    name = listed(task)[model_type]
    try:
        pad = FIXED.get(model_type, {}).get("pad_token_id", _IDS["pad"])
        own, other = (_with_pad(path, work / path.name, pad) for path in tokenizers)
        source = make_tiny(task, model_type, work / "source", own)
        base = Loaded(task, source)
        base.run(IDS)
    except Exception as error:
        reason = f"not made: {type(error).__name__}: {_line(error)}"
        return Outcome(task, model_type, name, transplant=reason, trim=reason)
    first = _result(lambda: _transplant(base, source, work, own, other))
    second = _result(lambda: _trim(base, source, work))
    return Outcome(task, model_type, name, transplant=first, trim=second)


IDS = (40, 51, 62, 73, 84, 95, 106, 117, 1, 300, 301, 302)


class Loaded:
    """A model as a user loads it, and what transformers said about its tensors."""

    def __init__(self, task: str, folder: Path) -> None:
        import transformers

        self.task = task
        config = transformers.AutoConfig.from_pretrained(folder)
        cls = getattr(transformers, TASKS[task][1])
        if type(config) not in cls._model_mapping:  # listed for the task, and yet unknown to the Auto class
            cls = getattr(transformers, config.architectures[0])
        options = {"dtype": "auto", "output_loading_info": True, "local_files_only": True}
        self.model, self.info = cls.from_pretrained(folder, **options)
        own = getattr(transformers, config.architectures[0])
        if self.info["missing_keys"] and type(self.model) is not own:  # Emu3's Auto class finds no tensor
            self.model, self.info = own.from_pretrained(folder, **options)
        aligned(self.model.eval())

    @property
    def problems(self) -> dict[str, set[str]]:
        """The tensors that are missing, unexpected or of another shape."""
        keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
        return {key: set(map(str, self.info.get(key) or ())) for key in keys}

    def run(self, ids: Any) -> tuple[Any, list[Any]]:
        """Return the logits [n, V] for some ids, and all hidden states, at least those that lm_head reads."""
        import torch

        batch = torch.tensor([list(map(int, ids))])
        names = inspect.signature(self.model.forward).parameters
        inputs = {"input_ids": batch}
        if self.model.config.is_encoder_decoder and "decoder_input_ids" in names:
            inputs["decoder_input_ids"] = batch
        hidden: list[Any] = []
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: hidden.append(args[0])) if head is not None else None
        if "use_cache" in names:
            inputs["use_cache"] = False
        with torch.inference_mode():
            output = self.model(**inputs, output_hidden_states=True)
        if hook is not None:
            hook.remove()
        for name in output:
            if name.endswith("hidden_states"):
                hidden += _flat(output[name])
        assert hidden, "no hidden state to compare"
        scores = output["logits"] if "logits" in output else output[0]
        assert torch.isfinite(scores).all(), "non-finite logits"
        return scores[0].float(), hidden


def _flat(states: Any) -> list[Any]:
    """Return the tensors of nested tuples in order."""
    if isinstance(states, (tuple, list)):
        return [state for part in states for state in _flat(part)]
    return [] if states is None else [states]


def _transplant(base: Loaded, source: Path, work: Path, own: Path, other: Path) -> str:
    """Give the model its own tokens under other ids, which must change nothing, and then another tokenizer."""
    import torch

    result = "works"
    try:
        new_of = _renumber(source, work, own, keep=())
    except TokswapError as error:
        if error.code != "pad-defines-positions":
            raise
        new_of = _renumber(source, work, own, keep=(makers.role_ids(source)["pad"],))
        result = "works with a pad of the same id"
    renumbered = _reloaded(base, work / "renumbered")
    before, old = base.run(IDS)
    after, new = renumbered.run(new_of[list(IDS)])
    for n, (a, b) in enumerate(zip(old, new, strict=True)):
        assert torch.equal(a, b), f"hidden state {n} of {len(old)} has changed"
    wrong = float((after[:, new_of] - before[:, : len(new_of)]).abs().max())
    assert wrong < 1e-4, f"logits of renumbered tokens differ by {wrong:.2g}"
    tokswap.transplant_tokenizer(str(source), str(other), init="subword", out=work / "moved")
    _reloaded(base, work / "moved").run(IDS)
    _verified(source, work / "moved")
    return result


def _renumber(source: Path, work: Path, tokenizer: Path, keep: tuple[int, ...]) -> np.ndarray:
    target = makers.copy_model(tokenizer, work / f"target{len(keep)}")
    new_of = tools.renumbered(target, keep=keep)
    report = tokswap.transplant_tokenizer(
        str(source), str(target), init="subword", vocab_size=ROWS, out=work / "renumbered"
    )
    assert "missing" not in report.plan.coverage
    return new_of


def _trim(base: Loaded, source: Path, work: Path) -> str:
    import torch

    report = trim_vocabulary(str(source), corpora=[str(makers.TEXTS / "german.txt")], out=work / "trimmed")
    assert not report.checks["failed"], report.checks["failed"]
    result = _reloaded(base, work / "trimmed")
    kept = report.alignment.source_of
    ids = [n for n in range(len(kept)) if 0 <= kept[n] < TOKENS][8:40:2]
    before, old = base.run(kept[ids])
    after, new = result.run(ids)
    for n, (a, b) in enumerate(zip(old, new, strict=True)):
        assert torch.equal(a, b), f"hidden state {n} of {len(old)} has changed"
    wrong = float((after[:, : len(kept)] - before[:, kept]).abs().max())
    assert wrong < 1e-4, f"logits of kept tokens differ by {wrong:.2g}"
    _verified(source, work / "trimmed")
    return "works"


def _reloaded(base: Loaded, folder: Path) -> Loaded:
    result = Loaded(base.task, folder)
    assert result.problems == base.problems, f"it loads with other problems than the source: {result.problems}"
    return result


def _verified(source: Path, out: Path) -> None:
    """Assert that every check of `verify` holds that holds for the source."""
    wrong = {check.name for check in tokswap.verify_checkpoint(source) if not check.ok}
    failed = [
        f"{c.name}: {c.detail}"
        for c in tokswap.verify_checkpoint(out, against=source)
        if not c.ok and c.name not in wrong
    ]
    assert not failed, "; ".join(failed)


def _result(job: Callable[[], str]) -> str:
    try:
        return job()
    except TokswapError as error:
        return f"refuses: {error.code}: {error.message}"
    except Exception as error:
        return f"fails: {type(error).__name__}: {_line(error)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
