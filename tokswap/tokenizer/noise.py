"""Text with errors like those of optical character recognition, the same in every run. Pure."""

from __future__ import annotations

import random

RATE = 0.03
"""Share of the characters that are changed."""
_PAIRS = "ao bh ce ec ft gq hb il l1 nu o0 qg s5 tf un vy yv z2 B8 DO EF G6 Il O0 S5 Z2 0O 1l 5S 6G 8B ., ,. :; -~ '`"
_LOOK_ALIKE = {pair[0]: pair[1] for pair in _PAIRS.split()} | {"m": "rn", "w": "vv"}
"""Character -> what it is read as."""


def noisy(text: str, rate: float = RATE) -> str:
    """Return a text with errors: look-alikes, lost characters, and spaces lost or put into words.

    Args:
        text: The text.
        rate: Share of the characters that are changed.
    """
    draw = random.Random(0)
    result = []
    for character in text:
        if draw.random() >= rate:
            result.append(character)
        elif character in _LOOK_ALIKE and draw.random() < 0.7:
            result.append(_LOOK_ALIKE[character])
        elif not character.isspace() and draw.random() < 0.5:
            result.append(character + " ")
    return "".join(result)
