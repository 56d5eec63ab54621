"""Read a `.tiktoken` file. It has the tokens and their ranks; where text is split is in the code that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokswap.errors import InputError

_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_R50K = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _SUFFIX + "?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _SUFFIX + "?",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_QWEN = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "gpt2": _R50K,
    "multilingual": _R50K,
    "o200k_base": "|".join(_O200K),
    "p50k_base": _R50K,
    "qwen": _SUFFIX + _QWEN,
    "r50k_base": _R50K,
}
"""Name of a file -> where text is split. Others are split as in cl100k_base, which is also what transformers takes."""
_SPECIAL = {
    "gpt2": ["<|endoftext|>"],
    "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205))],
    "r50k_base": ["<|endoftext|>"],
}
"""Name of a file -> the special tokens after its last token."""


def find_tiktoken(folder: Path) -> Path | None:
    """Return the `.tiktoken` file of a folder, None without one."""
    return next(iter(sorted(folder.glob("*.tiktoken"))), None)


def read_tiktoken(file: Path) -> tuple[Any, str]:
    """Return the transformers tokenizer of a `.tiktoken` file, and a note about what the file does not say.

    Raises:
        InputError: missing-extra, bad-tokenizer.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    name = file.stem
    pattern = {"pattern": _PATTERNS[name]} if name in _PATTERNS else {}
    special = _SPECIAL.get(name, [])
    try:
        made = TikTokenConverter(str(file), extra_special_tokens=special, **pattern).converted()
    except ValueError as error:
        if "install" in str(error):
            hint = "pip install 'tokswap[tokenizers]'"
            raise InputError("missing-extra", "reading a .tiktoken file needs tiktoken", hint, file=file) from error
        raise InputError("bad-tokenizer", f"tiktoken cannot read this file: {error}", file=file) from error
    eos = {"eos_token": special[0]} if special else {}
    note = (
        f"{file.name} does not say where text is split: tokswap splits it as in {name if pattern else 'cl100k_base'}, "
        f"with {len(special):,} special tokens"
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **eos), note
