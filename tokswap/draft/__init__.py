"""Draft models for speculative decoding, and what inference engines ask of them."""
