"""Training that mends a model after its tokenization changed."""
