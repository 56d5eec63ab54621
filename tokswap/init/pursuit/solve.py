"""Sparse codes of targets, in batches: by rounds, or as textbook OMP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from tokswap.init.pursuit.code import SparseCode
from tokswap.init.pursuit.rounds import CpuRounds, TorchRounds
from tokswap.init.pursuit.textbook import CpuTextbook, TorchTextbook
from tokswap.options.groups import WORK_BYTES

FEW_ATOMS = 4096
LEAST_BATCH, MOST_BATCH = 16, 4096


class _Pursuit(Protocol):
    def bytes_per_target(self, k: int) -> int: ...

    def code(self, targets: np.ndarray, k: int, tolerance: float, ridge: float) -> SparseCode: ...


def orthogonal_matching_pursuit(
    dictionary: np.ndarray,
    targets: np.ndarray,
    k: int,
    *,
    exact: bool = False,
    tolerance: float = 1e-3,
    ridge: float = 0.0,
    memory: int = WORK_BYTES,
    device: str = "cpu",
    done: Callable[[int], object] = lambda tokens: None,
) -> SparseCode:
    """Code each target as a combination of at most k atoms.

    A target stops at the tolerance, or where no atom outside the span of its support helps.

    Args:
        dictionary: Atoms of norm 1, float32 [N, D].
        targets: float32 [M, D].
        k: Most atoms per target; at most min(N, D).
        exact: Whether to find the support of textbook OMP. It takes far longer, and leaves a little more. Dictionaries
            of up to FEW_ATOMS atoms are always searched so.
        tolerance: Relative residual that is small enough.
        ridge: Added to the Gram matrix of the final least squares, in units of an atom's squared norm.
        memory: Bytes that a batch of targets may take. The dictionary, held in float32 and bfloat16, comes on top.
        device: "cpu" takes the numba kernels, anything else torch.
        done: Called with the number of targets that are done since the last call.
    """
    count, width = dictionary.shape
    k = min(k, count, width)
    pursuit = _pursuit(np.ascontiguousarray(dictionary, np.float32), exact or count <= FEW_ATOMS, device)
    batch = int(np.clip(memory // pursuit.bytes_per_target(k), LEAST_BATCH, MOST_BATCH))
    codes = []
    for start in range(0, max(len(targets), 1), batch):
        own = targets[start : start + batch]
        norms = np.linalg.norm(own, axis=1).astype(np.float32)
        unit = np.ascontiguousarray(own / np.maximum(norms, 1e-30)[:, None], np.float32)
        code = pursuit.code(unit, k, tolerance, ridge)
        residual = np.where(norms > 0, code.residual, np.float32(1))
        codes.append(replace(code, weights=code.weights * norms[:, None], residual=residual))
        done(len(own))
    return SparseCode.joined(codes)


def _pursuit(dictionary: np.ndarray, exact: bool, device: str) -> _Pursuit:
    if torch.device(device).type != "cpu":
        return TorchTextbook(dictionary, device) if exact else TorchRounds(dictionary, device)
    import numba

    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    torch.set_num_threads(threads)  # numba's first start sets the number of OpenMP, which torch shares
    return CpuTextbook(dictionary) if exact else CpuRounds(dictionary)
