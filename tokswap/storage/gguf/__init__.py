"""GGUF files: the weights as transformers reads them, the tokenizer as llama.cpp does."""
