"""The judge of a healing: bits per byte of the held-out text, in all and for each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokswap.heal.teacher import read_passages
from tokswap.heal.text import Passage


@dataclass(frozen=True)
class Judged:
    """The loss of a model on the held-out text.

    Attributes:
        bits: File -> loss in bits.
        bytes: File -> bytes that were predicted.
    """

    bits: Mapping[str, float]
    bytes: Mapping[str, int]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the whole text."""
        return sum(self.bits.values()) / max(sum(self.bytes.values()), 1)

    def by_file(self) -> dict[str, float]:
        """Return the bits per byte of each file."""
        return {name: bits / max(self.bytes[name], 1) for name, bits in self.bits.items()}


def judge(model: Any, passages: Sequence[Passage], lead: Sequence[int], *, teacher: bool = False) -> Judged:
    """Measure a model on the held-out text.

    Args:
        model: A causal language model in evaluation mode.
        passages: The held-out passages.
        lead: Ids that come before each.
        teacher: Whether the model reads the tokens of the teacher, not of the student.
    """
    sides = [passage.teacher if teacher else passage.student for passage in passages]
    bits, size = dict.fromkeys((one.name for one in passages), 0.0), dict.fromkeys((one.name for one in passages), 0)
    for found in read_passages(model, [side.ids for side in sides], lead):
        name, side = passages[found.index].name, sides[found.index]
        bits[name] += float(found.bits.sum())
        size[name] += int(side.bounds[-1] - (0 if lead else side.bounds[1]))
    return Judged(bits, size)


def excess(student: Judged, teacher: Judged) -> dict[str, float]:
    """Return the bits per byte of a student above its teacher's, of each file and of "all"."""
    own, other = student.by_file(), teacher.by_file()
    found = {name: own[name] - other[name] for name in own}
    return {
        name: round(float(np.float64(value)), 5)
        for name, value in {"all": student.bits_per_byte - teacher.bits_per_byte, **found}.items()
    }
