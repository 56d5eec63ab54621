"""Initialisers: methods that compute the embeddings of tokens that the source model lacks."""
