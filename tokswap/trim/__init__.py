"""Trim a vocabulary: keep the tokens of a language or a domain, exactly."""

from tokswap.trim.rebuild import Trimmed, trim_tokenizer

__all__ = ["Trimmed", "trim_tokenizer"]
