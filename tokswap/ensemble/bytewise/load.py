"""Members that keep their own tokenizers: what they predict is mixed byte by byte, so that none has to be transplanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokswap.ensemble.bytewise import ByteMixture, load_byte_mix
from tokswap.ensemble.members import FILE, read_ensemble, read_weights
from tokswap.errors import UsageError


def load_bytes(
    names: Sequence[str],
    *,
    weights: str | None = None,
    mix: str = "probabilities",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> tuple[tuple[str, ...], ByteMixture]:
    """Load models as members of bytes; returns their names and the mixture.

    names: folders, hub ids, aliases or .gguf files; or one folder with an ensemble.json, whose members and weights are taken.
    Raises UsageError bad-weights, bad-mix; InputError not-bytewise and what loading a model raises.
    """
    if mix != "probabilities":
        raise UsageError("bad-mix", f"bytes have probabilities and no {mix}", "leave out --mix")
    shown, places, shares = tuple(names), list(names), None
    if len(names) == 1 and (Path(names[0]) / FILE).is_file():
        ensemble = read_ensemble(names[0])
        shown, shares = tuple(member.name for member in ensemble.members), ensemble.weights
        places = [str(ensemble.path_of(member)) for member in ensemble.members]
    if weights is not None:
        shares = read_weights(weights, len(places))
    mixture = load_byte_mix(places, shares, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    return shown, mixture
