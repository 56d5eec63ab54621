"""The mixed model: members that share a vocabulary predict each token together. `generate` takes it as any model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Cache, DynamicCache, GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from tokswap.checkpoint.configs import token_ids
from tokswap.ensemble.agree import check_agreement
from tokswap.ensemble.members import Ensemble, read_ensemble, read_weights
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.losses import cache_name, load_model

MIXES = ("probabilities", "logits")
_CACHE = cache_name(GenerationMixin.prepare_inputs_for_generation)
"""What `generate` calls the cache."""


class MixedCache(Cache):  # type: ignore[misc]
    """A cache for each member. Together their layers are one cache, so that beams can be reordered and drafts cropped."""

    def __init__(self, caches: Sequence[Any]) -> None:
        super().__init__(layers=[layer for cache in caches for layer in cache.layers])
        self.caches = tuple(caches)


class MixedConfig(PretrainedConfig):  # type: ignore[misc]
    """What `generate` and the tokenizer's user need to know of all members at once."""

    model_type = "tokswap_mix"


class MixedModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Models of one vocabulary whose predictions are averaged.

    members: causal language models. weights: one a member, adding up to 1. mix: "probabilities" is the weighted mean
    of the members' distributions; "logits" the weighted mean of their logits, which is the geometric mean of the distributions,
    normalised. `forward` returns log-probabilities, float32[batch, n, V], as its logits. Each member keeps its own cache.
    """

    config_class = MixedConfig
    main_input_name = "input_ids"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # the members see to that

    def __init__(self, members: Sequence[Any], weights: Sequence[float], *, mix: str = "probabilities") -> None:
        check_mix(mix)
        texts = [member.config.get_text_config() for member in members]
        positions = [getattr(text, "max_position_embeddings", None) for text in texts]
        known = [size for size in positions if isinstance(size, int)]
        sizes = {text.vocab_size for text in texts}
        if len(sizes) > 1:
            raise InputError(
                "members-disagree",
                f"the members have tables of different sizes: {', '.join(f'{size:,}' for size in sorted(sizes))} rows",
                "prepare them together: `tokswap ensemble prepare`",
            )
        super().__init__(
            MixedConfig(vocab_size=texts[0].vocab_size, **({"max_position_embeddings": min(known)} if known else {}))
        )
        self.members = torch.nn.ModuleList(members)
        self.weights = read_weights(weights, len(members))
        self.mix = mix
        self._takes = [set(inspect.signature(member.forward).parameters) for member in members]
        self.generation_config = _generation_config(members)
        for name in ("bos", "eos", "pad"):
            setattr(self.config, f"{name}_token_id", getattr(self.generation_config, f"{name}_token_id"))

    def new_cache(self) -> MixedCache:
        """Return an empty cache."""
        return MixedCache([DynamicCache(config=member.config) for member in self.members])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: MixedCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        cache: MixedCache | None = None,
        **_: object,
    ) -> CausalLMOutputWithPast:
        """Let every member read the ids, int64[batch, n], and average what they predict.

        logits_to_keep: predict only at so many places at the end, 0 for all. cache: from `new_cache`, under the new name or
        the old, past_key_values. Raises UsageError bad-cache.
        """
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = self.new_cache()
        if cache is not None and not isinstance(cache, MixedCache):
            raise UsageError(
                "bad-cache", "a mixed model needs a cache of its own kind", "leave it out, or take model.new_cache()"
            )
        shared = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "logits_to_keep": logits_to_keep,
            "use_cache": cache is not None,
        }
        mixed: torch.Tensor | None = None
        for n, member in enumerate(self.members):
            inputs = {name: value for name, value in shared.items() if name in self._takes[n] and value is not None}
            if cache is not None:
                inputs[cache_name(member.forward)] = cache.caches[n]
            logits = member(**inputs).logits[:, -logits_to_keep:].float()
            mixed = self._added(mixed, logits, self.weights[n])
            del logits
        assert mixed is not None
        if self.mix == "logits":
            mixed = torch.log_softmax(mixed, -1)
        return CausalLMOutputWithPast(logits=mixed, **{_CACHE: cache})

    def _added(self, mixed: torch.Tensor | None, logits: torch.Tensor, weight: float) -> torch.Tensor:
        """Return the sum so far with one member more, as logits or as log-probabilities."""
        if self.mix == "logits":
            return logits * weight if mixed is None else mixed.add_(logits, alpha=weight)
        term = torch.log_softmax(logits, -1).add_(math.log(weight))
        return term if mixed is None else torch.logaddexp(mixed, term)

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any) -> None:
        """Called by `generate`, which would make a cache for one model."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise UsageError(
                "bad-cache",
                f"a mixed model has no {generation_config.cache_implementation} cache",
                "leave out cache_implementation: every member gets the cache of its kind",
            )
        if model_kwargs.get(_CACHE) is None and generation_config.use_cache is not False:
            model_kwargs[_CACHE] = self.new_cache()


def check_mix(mix: str) -> None:
    """Raise UsageError bad-mix for a way of mixing that there is not."""
    if mix not in MIXES:
        raise UsageError("bad-mix", f"predictions are mixed by {' or '.join(MIXES)}, not by {mix!r}")


def load_ensemble(
    folder: str | Path,
    *,
    weights: str | Sequence[float] | None = None,
    mix: str = "probabilities",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> tuple[MixedModel, Any]:
    """Load the members of a folder with an ensemble.json; returns (model, tokenizer), in evaluation mode.

    weights: as in the file by default. All members are in memory at once. Raises UsageError bad-weights, bad-mix,
    bad-device; InputError members-disagree where an id does not mean the same to all members, what `read_ensemble` raises, and
    what loading a member raises.
    """
    ensemble = read_ensemble(folder)
    check_mix(mix)
    shares = ensemble.weights if weights is None else read_weights(weights, len(ensemble.members))
    check_agreement(ensemble)
    return load_members(ensemble, shares, mix, dtype, device, trust_remote_code)


def load_members(
    ensemble: Ensemble, weights: Sequence[float], mix: str, dtype: str, device: str, trust_remote_code: bool
) -> tuple[MixedModel, Any]:
    """Load members that are known to agree."""
    loaded = [
        load_model(ensemble.path_of(member), dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        for member in ensemble.members
    ]
    return MixedModel([model for model, _ in loaded], weights, mix=mix).eval(), loaded[0][1]


def _generation_config(members: Sequence[Any]) -> Any:
    """Stop where any member would stop; no sampling settings, which are each model's own."""
    found: dict[str, list[int]] = {"bos": [], "eos": [], "pad": []}
    for member in members:
        for config in (member.generation_config, member.config.get_text_config()):
            for role, ids in found.items():
                ids += token_ids(vars(config), f"{role}_token_id")
    eos = list(dict.fromkeys(found["eos"]))
    pad = [*found["pad"], *eos]
    return GenerationConfig(
        bos_token_id=found["bos"][0] if found["bos"] else None,
        eos_token_id=(eos if len(eos) > 1 else eos[0]) if eos else None,
        pad_token_id=pad[0] if pad else None,
    )
