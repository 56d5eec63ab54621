"""What a hypernetwork's config.json says. The keys are those of the published checkpoints (arXiv 2405.07883)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.schema import MOST_IDS

_ONLY: Mapping[str, object] = {
    "hn_embed_using_source_embeddings": True,
    "hn_add_inter_token_attention": False,
    "hn_embed_target_priors": False,
    "hn_concat_last_hidden_state": False,
    "hn_language_adapter_bottleneck_dim": 0,
    "hn_model_type": "roberta",
}
"""Keys whose other values stand for networks that were never published; key -> the value that is understood."""
_WITHOUT_EFFECT = (
    "hn_model_name_or_path",
    "hn_inter_token_attention_bias_by_priors",
    "hn_inter_token_attention_bias_scaler",
    "hn_n_inter_token_blocks",
)
_MOST_LAYERS = 1024


@dataclass(frozen=True)
class HypernetConfig:
    """The shape of a network. E = n_embd, H = hn_hidden_size, L = hn_surface_maxlen, V = original_vocab_size.

    languages: the codes of the rows of the language table, () where they are not known or there is none.
    base_model: the name of the model that it was trained for, for people to read.
    """

    n_embd: int
    original_vocab_size: int
    hn_hidden_size: int
    hn_intermediate_size: int
    hn_n_layers: int = 3
    hn_num_attention_heads: int = 1
    hn_surface_maxlen: int = 7
    hn_n_extra_tokens: int = 0
    pad_token_id: int = 0
    separate_out_embeddings: bool = False
    hn_single_head: bool = False
    hn_rescale_embeddings: bool = True
    hn_predict_bias: bool = False
    hn_embed_lang_id: bool = False
    n_langs: int = 0
    languages: tuple[str, ...] = ()
    base_model: str = ""

    @property
    def n_in(self) -> int:
        """Elements of a source row: input and output rows beside each other where they are apart."""
        return 2 * self.n_embd if self.separate_out_embeddings else self.n_embd

    def language_index(self, lang: str | None) -> int | None:
        """Return the row of a language, by its code or number; None for none. Raises UsageError unknown-language."""
        if not lang:
            self.check_language(None)
            return None
        if lang in self.languages or lang.isdecimal():
            index = self.languages.index(lang) if lang in self.languages else int(lang)
            self.check_language(index)
            return index
        self.check_language(0)
        message = f"the hypernetwork knows no language `{lang}`.{did_you_mean(lang, self.languages)}"
        raise UsageError("unknown-language", message, f"it knows {self._known}")

    def check_language(self, index: int | None) -> None:
        """Raise UsageError unknown-language where a language is missing, superfluous or out of range."""
        message = ""
        if not self.hn_embed_lang_id:
            message = "this hypernetwork was not trained with languages: leave it out" if index is not None else ""
        elif index is None:
            message = "this hypernetwork wants to know the language of the tokens"
        elif not 0 <= index < self.n_langs:
            message = f"the hypernetwork has no language {index}"
        if message:
            raise UsageError("unknown-language", message, f"it knows {self._known}" if self.hn_embed_lang_id else "")

    @property
    def _known(self) -> str:
        return ", ".join(self.languages) or f"the numbers 0 to {self.n_langs - 1}"

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a config.json that this reads back, with the keys that other readers look for."""
        values = {**dataclasses.asdict(self), "languages": list(self.languages)}
        return {"model_type": "zett_hypernetwork", **_ONLY, **values}


def read_config(values: Mapping[str, Any], path: Path) -> HypernetConfig:
    """Check the content of a config.json, published or our own. Raises InputError bad-hypernet, unsupported-hypernet."""
    fields = {field.name: field for field in dataclasses.fields(HypernetConfig)}
    for key in values:
        if key.startswith("hn_") and key not in fields and key not in _ONLY and key not in _WITHOUT_EFFECT:
            raise _bad(f"tokswap does not know the key `{key}`.{did_you_mean(key, fields)}", path)
    for key, wanted in _ONLY.items():
        if values.get(key, wanted) != wanted:
            raise InputError(
                "unsupported-hypernet",
                f"`{key}` is {values[key]!r}, and tokswap knows the network only where it is {wanted!r}",
                "no published hypernetwork has this; was it made by an experiment?",
                file=path,
            )
    found = {name: values[name] for name in fields if values.get(name) is not None}
    if "langs" in values and "languages" not in found:
        found["languages"] = values["langs"]
    if "hn_num_attention_heads" not in found and isinstance(found.get("hn_hidden_size"), int):
        found["hn_num_attention_heads"] = found["hn_hidden_size"] // 64
    for name, field in fields.items():
        if name not in found:
            if field.default is dataclasses.MISSING:
                raise _bad(f"the key `{name}` is missing", path)
            continue
        kind = {"int": int, "bool": bool, "str": str}.get(str(field.type))
        if kind is not None and type(found[name]) is not kind:
            raise _bad(f"`{name}` is {found[name]!r}, which is no {kind.__name__}", path)
    languages = found.get("languages", ())
    if not isinstance(languages, (list, tuple)) or not all(isinstance(code, str) for code in languages):
        raise _bad("`languages` is no list of language codes", path)
    config = HypernetConfig(**{**found, "languages": tuple(languages)})
    _check(config, path)
    return config


def _check(config: HypernetConfig, path: Path) -> None:
    positive = (
        "n_embd",
        "original_vocab_size",
        "hn_hidden_size",
        "hn_intermediate_size",
        "hn_n_layers",
        "hn_num_attention_heads",
        "hn_surface_maxlen",
    )
    for name in positive:
        if not 1 <= getattr(config, name) <= (_MOST_LAYERS if name == "hn_n_layers" else MOST_IDS):
            raise _bad(f"`{name}` is {getattr(config, name)}", path)
    if config.hn_hidden_size % config.hn_num_attention_heads:
        raise _bad(
            f"{config.hn_num_attention_heads} attention heads do not divide a width of {config.hn_hidden_size}", path
        )
    if config.hn_embed_lang_id and config.n_langs < 1:
        raise _bad("`hn_embed_lang_id` is set, and `n_langs` names no language", path)
    for name in ("hn_n_extra_tokens", "pad_token_id", "n_langs"):
        if not 0 <= getattr(config, name) <= MOST_IDS:
            raise _bad(f"`{name}` is {getattr(config, name)}", path)
    if config.languages and len(config.languages) != config.n_langs:
        raise _bad(f"{len(config.languages)} language codes for {config.n_langs} languages", path)


def _bad(message: str, path: Path) -> InputError:
    return InputError("bad-hypernet", f"this hypernetwork's config cannot be used: {message}", file=path)
