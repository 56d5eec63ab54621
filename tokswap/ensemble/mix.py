"""The mixed model: members that share a vocabulary predict each token together. `generate` takes it like any model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Cache, DynamicCache, GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from tokswap.checkpoint.nested_configs import token_ids
from tokswap.checkpoint.positions import longest_input_of
from tokswap.ensemble.agree import check_agreement
from tokswap.ensemble.evidence import HORIZON, STRENGTH, Track, texts_of
from tokswap.ensemble.members import Ensemble, read_ensemble, read_weights
from tokswap.ensemble.mix_options import MIXES
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.models import cache_name, load_model
from tokswap.options.kinds import typed

_CACHE = cache_name(GenerationMixin.prepare_inputs_for_generation)
"""What `generate` calls the cache."""


class MixedCache(Cache):  # type: ignore[misc]
    """A cache per member. Their layers together are one cache, so that `generate` can reorder beams and crop drafts.

    Attributes:
        caches: The cache of each member.
        tracks: How well each member has predicted the tokens in it, for an adaptive mix.
    """

    def __init__(self, caches: Sequence[Any]) -> None:
        super().__init__(layers=[layer for cache in caches for layer in cache.layers])
        self.caches = tuple(caches)
        self.tracks = tuple(Track() for _ in caches)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: so many if the number is negative, all but so many in older releases."""
        lost = -tokens_to_remove if tokens_to_remove <= 0 else max(self.get_seq_length() - tokens_to_remove, 0)
        super().crop(tokens_to_remove)
        for track in self.tracks:
            track.crop(lost)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Put other beams in place of each."""
        super().reorder_cache(beam_idx)
        for track in self.tracks:
            track.select(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        super().batch_select_indices(indices)
        for track in self.tracks:
            track.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        super().batch_repeat_interleave(repeats)
        for track in self.tracks:
            track.repeat(repeats)

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        for track in self.tracks:
            track.reset()


class MixedConfig(PretrainedConfig):  # type: ignore[misc]
    """What `generate` needs to know about all members at once."""

    model_type = "tokswap_mix"


class MixedModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Models of one vocabulary whose predictions are mixed. Each member keeps a cache of its own.

    Args:
        members: Causal language models.
        weights: Weight of each member; they are made to add up to 1.
        mix: "probabilities" for the weighted mean of the members' distributions; "logits" for that of their logits,
            which is the geometric mean of the distributions, normalised; "adaptive" for the mean of the distributions
            with weights that follow the text: each weight is multiplied by what the member gave the tokens so far,
            with forgetting (as in dynamic model averaging, Raftery et al. 2010), to a small power.

    Attributes:
        members: The members.
        weights: Their weights, which add up to 1.
        mix: How they are mixed.

    Raises:
        UsageError: bad-mix, bad-weights.
        InputError: members-disagree, if their vocabulary matrices have different sizes.
    """

    config_class = MixedConfig
    main_input_name = "input_ids"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # the members see to that

    def __init__(self, members: Sequence[Any], weights: Sequence[float], *, mix: str = "probabilities") -> None:
        check_mix(mix)
        super().__init__(_config(members))
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
        """Let every member read the ids, and mix what they predict.

        Args:
            input_ids: Token ids (int64 [batch, n]).
            attention_mask: As for any model.
            position_ids: As for any model.
            past_key_values: A cache from `new_cache`, under its old name.
            use_cache: Whether to make a cache.
            logits_to_keep: Predict only at this many places at the end; 0 for all.
            cache: A cache from `new_cache`, under its new name.

        Returns:
            Log-probabilities as `logits` (float32 [batch, n, V]), and the cache.

        Raises:
            UsageError: bad-cache.
        """
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = self.new_cache()
        if cache is not None and not isinstance(cache, MixedCache):
            raise UsageError("bad-cache", "a mixed model needs a MixedCache", "leave it out, or use model.new_cache()")
        shared = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": cache is not None,
        }
        mixed = self._mixed(shared, cache, logits_to_keep)
        return CausalLMOutputWithPast(logits=mixed[:, -logits_to_keep:], **{_CACHE: cache})

    def _mixed(self, shared: Mapping[str, Any], cache: MixedCache | None, kept: int) -> torch.Tensor:
        """Return the log-probabilities of the mix, at the last places at least, one member after the other."""
        adaptive = self.mix == "adaptive"
        kept = kept + HORIZON if adaptive and kept else kept
        tracks = [Track() for _ in self.members] if cache is None else cache.tracks
        texts = texts_of(shared["input_ids"], shared["attention_mask"])
        mixed = shares = None
        for n, member in enumerate(self.members):
            given = {**shared, "logits_to_keep": kept}
            inputs = {name: value for name, value in given.items() if name in self._takes[n] and value is not None}
            if cache is not None:
                inputs[cache_name(member.forward)] = cache.caches[n]
            logits = member(**inputs).logits[:, -kept:].float()
            if self.mix == "logits":
                mixed = logits * self.weights[n] if mixed is None else mixed.add_(logits, alpha=self.weights[n])
                continue
            term, share = torch.log_softmax(logits, -1), logits.new_tensor(math.log(self.weights[n]))
            if adaptive:
                share = share + STRENGTH * tracks[n].read(shared["input_ids"], term, texts)
            mixed, shares = _sum(mixed, term.add_(share[..., None])), _sum(shares, share)
            del logits, term
        assert mixed is not None
        return torch.log_softmax(mixed, -1) if shares is None else mixed.sub_(shares[..., None])

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any) -> None:
        """Replace the method of `generate` that makes a cache for one model."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise UsageError(
                "bad-cache",
                f"a mixed model has no {generation_config.cache_implementation} cache",
                "leave out cache_implementation: every member gets the cache of its kind",
            )
        if model_kwargs.get(_CACHE) is None and generation_config.use_cache is not False:
            model_kwargs[_CACHE] = self.new_cache()


def _sum(logs: torch.Tensor | None, more: torch.Tensor) -> torch.Tensor:
    """Add numbers that are given by their logarithms."""
    return more if logs is None else torch.logaddexp(logs, more)


def check_mix(mix: str) -> None:
    """Refuse an unknown way to mix.

    Raises:
        UsageError: bad-mix.
    """
    if mix not in MIXES:
        raise UsageError("bad-mix", f"--mix must be one of {', '.join(MIXES)}, not {mix!r}")


@typed
def load_ensemble(
    folder: str | Path,
    *,
    weights: str | Sequence[float] | None = None,
    mix: str = "probabilities",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> tuple[MixedModel, Any]:
    """Load the members of an ensemble as one model. All are in memory at once.

    Args:
        folder: A folder with an ensemble.json.
        weights: Weight of each member; those of ensemble.json by default.
        mix: "probabilities", "logits" or "adaptive"; see `MixedModel`.
        dtype: Type that torch computes in: float32, bfloat16 or float16.
        device: Where torch computes.
        trust_remote_code: Whether code that comes with a member may run.

    Returns:
        The model, in evaluation mode, and the tokenizer.

    Raises:
        UsageError: bad-weights, bad-mix, bad-device.
        InputError: members-disagree, if an id does not mean the same to all members; and what `read_ensemble` and
            loading a member raise.
    """
    ensemble = read_ensemble(folder)
    check_mix(mix)
    shares = ensemble.weights if weights is None else read_weights(weights, len(ensemble.members))
    check_agreement(ensemble)
    return load_members(ensemble, shares, mix=mix, dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def load_members(
    ensemble: Ensemble, weights: Sequence[float], *, mix: str, dtype: str, device: str, trust_remote_code: bool
) -> tuple[MixedModel, Any]:
    """Load members that are known to agree. Arguments and results are those of `load_ensemble`."""
    loaded = [
        load_model(ensemble.path_of(member), dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        for member in ensemble.members
    ]
    return MixedModel([model for model, _ in loaded], weights, mix=mix).eval(), loaded[0][1]


def _config(members: Sequence[Any]) -> MixedConfig:
    """Return the config of a mix: the members' vocabulary size, and the fewest positions of any."""
    texts = [member.config.get_text_config() for member in members]
    sizes = {text.vocab_size for text in texts}
    if len(sizes) > 1:
        shown = ", ".join(f"{size:,}" for size in sorted(sizes))
        hint = "prepare them together: `tokswap ensemble prepare`"
        raise InputError("members-disagree", f"the vocabulary matrices of the members have {shown} rows", hint)
    known = [size for member in members if (size := longest_input_of(member)) is not None]
    return MixedConfig(vocab_size=texts[0].vocab_size, **({"max_position_embeddings": min(known)} if known else {}))


def _generation_config(members: Sequence[Any]) -> Any:
    """Stop where any member would stop. Sampling settings are each model's own and are left out."""
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
