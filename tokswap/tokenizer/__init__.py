"""What tokenizers are: token bytes, families, alignment of two vocabularies, and how text is tokenized."""
