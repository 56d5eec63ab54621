"""Tokenizers: token bytes, families, the alignment of two vocabularies, and the tokenization of text and bytes."""
