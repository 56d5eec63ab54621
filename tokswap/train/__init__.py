"""Tokenizers trained on a corpus: words, superwords, supertokens, bytes."""
