"""Losses in bits per byte, comparison with a source model, and verification of a written checkpoint."""
