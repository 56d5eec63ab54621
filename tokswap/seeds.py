"""Random numbers of a run that leave those of the program around it alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_seed(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch for a block. After it, each goes on as if the block had not run.

    Args:
        seed: The seed of the block, of 32 bits.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
