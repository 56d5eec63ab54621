"""Models of different tokenizers on common ground: exact next-byte probabilities, and mixtures of them.

A model of tokens, read through the cover encodings of a text, is a model of bytes, and bytes are a vocabulary that all
models share. `ByteModel` reads one model, `byte_mix` mixes several. No weights or tokenizers change.

    mix = byte_mix(["./a", "./b"], [0.4, 0.6])
    for piece in mix.generate("The ferry leaves", most=200):
        print(piece, end="")
    print(mix.score("some text").bits_per_byte)

Reference:
    arXiv 2410.09303 (cover encodings).
"""

from __future__ import annotations

from tokswap.ensemble.bytewise.covers import END
from tokswap.ensemble.bytewise.load import byte_mix
from tokswap.ensemble.bytewise.mixture import ByteMixture, ByteScore
from tokswap.ensemble.bytewise.reader import ByteModel, Reader

__all__ = ["END", "ByteMixture", "ByteModel", "ByteScore", "Reader", "byte_mix"]
