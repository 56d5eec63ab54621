"""tokswap changes the vocabulary of a language model."""
