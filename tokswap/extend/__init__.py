"""New tokens for the tokenizer that a model has: which ones, how the tokenizer produces them, and their rows."""
