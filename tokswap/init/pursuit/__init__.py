"""Sparse codes of many targets over a large dictionary: orthogonal matching pursuit, and a faster pursuit in rounds."""
