"""What a hypernetwork's config.json says. The keys are those of the published checkpoints (arXiv 2405.07883)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.options.groups import MOST_IDS

_ONLY: Mapping[str, object] = {
    "hn_embed_using_source_embeddings": True,
    "hn_add_inter_token_attention": False,
    "hn_embed_target_priors": False,
    "hn_concat_last_hidden_state": False,
    "hn_language_adapter_bottleneck_dim": 0,
    "hn_model_type": "roberta",
}
"""Key -> the only value that tokswap supports. Networks with another value were never published."""
_WITHOUT_EFFECT = (
    "hn_model_name_or_path",
    "hn_inter_token_attention_bias_by_priors",
    "hn_inter_token_attention_bias_scaler",
    "hn_n_inter_token_blocks",
)
_MOST_LAYERS = 1024
_POSITIVE = (
    "n_embd",
    "original_vocab_size",
    "hn_hidden_size",
    "hn_intermediate_size",
    "hn_n_layers",
    "hn_num_attention_heads",
    "hn_surface_maxlen",
)
_NOT_NEGATIVE = ("hn_n_extra_tokens", "pad_token_id", "n_langs")


@dataclass(frozen=True, kw_only=True)
class BaseModelConfig:
    """The model that a hypernetwork is for.

    Attributes:
        n_embd: Width of the embeddings, E.
        original_vocab_size: Rows that the network reads of each embedding matrix, V.
        hn_n_extra_tokens: Ids from V on that surface forms may hold. The network has an embedding of its own for each.
        pad_token_id: Id that pads surface forms.
        separate_out_embeddings: Whether lm_head is a matrix of its own.
        base_model: Name of the model, for people to read.
    """

    n_embd: int
    original_vocab_size: int
    hn_n_extra_tokens: int = 0
    pad_token_id: int = 0
    separate_out_embeddings: bool = False
    base_model: str = ""

    @property
    def n_in(self) -> int:
        """Width of a source row: an input embedding, followed by the row of lm_head if that is a matrix of its own."""
        return 2 * self.n_embd if self.separate_out_embeddings else self.n_embd


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of the network.

    Attributes:
        hn_hidden_size: Width of the layers, H.
        hn_intermediate_size: Inner width of their feed-forward parts.
        hn_n_layers: Number of layers.
        hn_num_attention_heads: Attention heads of each layer.
        hn_surface_maxlen: Most ids of a surface form, L.
        hn_single_head: Whether one projection predicts input and output embeddings together.
        hn_rescale_embeddings: Whether source rows and predictions are scaled element by element.
        hn_predict_bias: Whether the network predicts the bias of lm_head.
    """

    hn_hidden_size: int
    hn_intermediate_size: int
    hn_n_layers: int = 3
    hn_num_attention_heads: int = 1
    hn_surface_maxlen: int = 7
    hn_single_head: bool = False
    hn_rescale_embeddings: bool = True
    hn_predict_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The languages that a hypernetwork tells apart.

    Attributes:
        hn_embed_lang_id: Whether the network reads the language of a token.
        n_langs: Number of languages.
        languages: Their codes, in the order of the network's language embeddings; () where they are unknown.
    """

    hn_embed_lang_id: bool = False
    n_langs: int = 0
    languages: tuple[str, ...] = ()

    def language_index(self, lang: str | None) -> int | None:
        """Find a language.

        Args:
            lang: Its code or number; None or "" for no language.

        Returns:
            Its position among the language embeddings, None for no language.

        Raises:
            UsageError: unknown-language.
        """
        if not lang:
            self.check_language(None)
            return None
        if lang in self.languages or lang.isdecimal():
            index = self.languages.index(lang) if lang in self.languages else int(lang)
            self.check_language(index)
            return index
        self.check_language(0)
        message = f"the hypernetwork does not know the language `{lang}`{did_you_mean(lang, self.languages)}"
        raise UsageError("unknown-language", message, f"it knows {self._known}")

    def check_language(self, index: int | None) -> None:
        """Check that a language is given exactly where the network reads one, and that it exists.

        Args:
            index: Position among the language embeddings, None for no language.

        Raises:
            UsageError: unknown-language.
        """
        message = ""
        if not self.hn_embed_lang_id:
            message = "this hypernetwork was not trained with languages: leave it out" if index is not None else ""
        elif index is None:
            message = "this hypernetwork needs the language of the tokens"
        elif not 0 <= index < self.n_langs:
            message = f"the hypernetwork has no language {index}"
        if message:
            raise UsageError("unknown-language", message, f"it knows {self._known}" if self.hn_embed_lang_id else "")

    @property
    def _known(self) -> str:
        return ", ".join(self.languages) or f"the numbers 0 to {self.n_langs - 1}"


@dataclass(frozen=True, kw_only=True)
class HypernetConfig(BaseModelConfig, NetworkConfig, LanguageConfig):
    """The whole config.json of a hypernetwork."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of config.json, with the keys that other readers look for."""
        values = {**dataclasses.asdict(self), "languages": list(self.languages)}
        return {"model_type": "zett_hypernetwork", **_ONLY, **values}


def read_config(values: Mapping[str, Any], path: Path) -> HypernetConfig:
    """Check the content of a config.json.

    Args:
        values: The parsed file, published or written by tokswap.
        path: The file, for error messages.

    Raises:
        InputError: bad-hypernet, unsupported-hypernet.
    """
    fields = {field.name: field for field in dataclasses.fields(HypernetConfig)}
    _check_keys(values, fields, path)
    found = {name: values[name] for name in fields if values.get(name) is not None}
    if "langs" in values and "languages" not in found:
        found["languages"] = values["langs"]
    if "hn_num_attention_heads" not in found and isinstance(found.get("hn_hidden_size"), int):
        found["hn_num_attention_heads"] = found["hn_hidden_size"] // 64
    for name, field in fields.items():
        if name not in found and field.default is dataclasses.MISSING:
            raise _bad(f"the key `{name}` is missing", path)
        kind = {"int": int, "bool": bool, "str": str}.get(str(field.type))
        if name in found and kind is not None and type(found[name]) is not kind:
            raise _bad(f"`{name}` is {found[name]!r}, which is not of type {kind.__name__}", path)
    languages = found.get("languages", ())
    if not isinstance(languages, (list, tuple)) or not all(isinstance(code, str) for code in languages):
        raise _bad("`languages` is not a list of language codes", path)
    config = HypernetConfig(**{**found, "languages": tuple(languages)})
    _check_values(config, path)
    return config


def _check_keys(values: Mapping[str, Any], fields: Mapping[str, object], path: Path) -> None:
    for key in values:
        if key.startswith("hn_") and key not in {*fields, *_ONLY, *_WITHOUT_EFFECT}:
            raise _bad(f"tokswap does not know the key `{key}`{did_you_mean(key, fields)}", path)
    for key, wanted in _ONLY.items():
        if values.get(key, wanted) != wanted:
            raise InputError(
                "unsupported-hypernet",
                f"`{key}` is {values[key]!r}, and tokswap supports only {wanted!r}",
                "no published hypernetwork has this value; check where this one comes from",
                file=path,
            )


def _check_values(config: HypernetConfig, path: Path) -> None:
    for least, names in ((1, _POSITIVE), (0, _NOT_NEGATIVE)):
        for name in names:
            most = _MOST_LAYERS if name == "hn_n_layers" else MOST_IDS
            if not least <= getattr(config, name) <= most:
                raise _bad(f"`{name}` is {getattr(config, name)}", path)
    heads, width = config.hn_num_attention_heads, config.hn_hidden_size
    if width % heads:
        raise _bad(f"{heads} attention heads do not divide a width of {width}", path)
    if config.hn_embed_lang_id and config.n_langs < 1:
        raise _bad(f"`hn_embed_lang_id` is set, and `n_langs` is {config.n_langs}", path)
    if config.languages and len(config.languages) != config.n_langs:
        raise _bad(f"{len(config.languages)} language codes for {config.n_langs} languages", path)


def _bad(message: str, path: Path) -> InputError:
    return InputError("bad-hypernet", f"this hypernetwork's config cannot be used: {message}", file=path)
