"""Models of different tokenizers on common ground: exact next-byte probabilities, and mixtures of them.

A model of tokens, read through the cover encodings of a text, is a model of bytes (arXiv 2410.09303); bytes are a
vocabulary that all models share. `ByteModel` reads one model, `byte_mix` mixes several. No weights or tokenizers change.

    mix = load_byte_mix(["./a", "./b"], [0.4, 0.6])
    for piece in mix.generate("The ferry leaves", most=200):
        print(piece, end="")
    print(mix.score("some text").bits_per_byte)
"""

from __future__ import annotations

from tokswap.ensemble.bytewise.mixture import ByteMixture, ByteScore, byte_mix, load_byte_mix
from tokswap.ensemble.bytewise.reader import END, ByteModel, Reader

__all__ = ["END", "ByteMixture", "ByteModel", "ByteScore", "Reader", "byte_mix", "load_byte_mix"]
