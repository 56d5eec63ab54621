"""Checkpoints: safetensors headers, vocabulary matrices, configs, and the streaming writer."""
