"""Everything in a result that is neither weights nor report: tokenizer files, configs, and what the source carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.reader import Checkpoint
from tokswap.storage.json_files import json_bytes
from tokswap.storage.links import check_links
from tokswap.tokenizer.tokenizer import COMPANIONS, Tokenizer

_CARRIED = (
    "*processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of the source, besides weights and configs, that the result needs and that no tokenizer owns."""

_CLASS_OF_MODEL_TYPE = {
    "hyperclovax_vision_v2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3_5": "Qwen3_5Tokenizer",
    "qwen3_5_moe": "Qwen3_5Tokenizer",
    "qwen3_5_moe_text": "Qwen3_5Tokenizer",
    "qwen4_exp": "Qwen3_5Tokenizer",
    "siglip2": "Siglip2Tokenizer",
}
"""Model types whose tokenizers transformers 5 loads with this class, whatever tokenizer_config.json says."""

_OWN_CLASS = "tokenization_tokswap"
_OWN_CLASS_CODE = b'''"""Written by tokswap, because transformers would load this tokenizer with the class of another one.

It is read only with `trust_remote_code=True`; without it transformers takes the plain class by itself.
"""

from transformers import PreTrainedTokenizerFast


class PlainTokenizer(PreTrainedTokenizerFast):
    """A tokenizer that is what its tokenizer.json says."""
'''


def result_files(
    source: Checkpoint,
    target: Tokenizer,
    config: dict[str, Any],
    generation: dict[str, Any],
    bos: int | None,
    trust_remote_code: bool,
    notes: list[str],
    *,
    own: bool = False,
) -> dict[str, bytes | Path]:
    """Return name -> content, or the path to copy, of everything in a result but its weights and report.

    bos: the id that the tokenizer must put first, None to leave its template alone. notes: grows by what a user should
    know about these files. own: whether the target is the source's own tokenizer, which goes on being loaded as it was.
    """
    files = target.output_files(bos=bos)
    patterns = (*_CARRIED, "*.py") if trust_remote_code else _CARRIED
    for pattern in patterns:
        for path in sorted(source.folder.glob(pattern)):
            if path.name not in COMPANIONS:
                check_links(source.folder, [path.name])
                files.setdefault(path.name, path)
    if not trust_remote_code and config.pop("auto_map", None) is not None:
        notes.append("`auto_map` was left out of config.json: transformers has this architecture built in")
    files["config.json"] = json_bytes(config)
    if own:
        files["tokenizer_config.json"] = json_bytes(target.config)
    else:
        _settle_tokenizer_class(files, config, notes)
    if generation:
        files["generation_config.json"] = json_bytes(generation)
    return files


def _settle_tokenizer_class(files: dict[str, bytes | Path], config: Mapping[str, Any], notes: list[str]) -> None:
    """See to it that AutoTokenizer loads the target tokenizer as its files describe it."""
    content = files["tokenizer_config.json"]
    settings = json.loads(content if isinstance(content, bytes) else content.read_bytes())
    if settings.pop("auto_map", None) is not None:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # tokenizer.json says it all without the owner's code
    forced = _CLASS_OF_MODEL_TYPE.get(str(config.get("model_type")))
    if forced is not None and settings["tokenizer_class"].removesuffix("Fast") != forced:
        # transformers leaves alone what names a class of its own, and then uses the plain one where code is not trusted.
        settings["auto_map"] = {"AutoTokenizer": [None, f"{_OWN_CLASS}.PlainTokenizer"]}
        files[f"{_OWN_CLASS}.py"] = _OWN_CLASS_CODE
        notes.append(
            f"transformers would load {forced} for every {config['model_type']} model; {_OWN_CLASS}.py and an `auto_map` "
            "in tokenizer_config.json keep it to tokenizer.json"
        )
    files["tokenizer_config.json"] = json_bytes(settings)
