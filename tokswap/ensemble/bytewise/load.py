"""Loading the members of a byte mixture. They keep their own tokenizers, so none has to be transplanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokswap.checkpoint.loaded import Loaded, ModelLike, as_loaded
from tokswap.ensemble.bytewise.canonical import check_family
from tokswap.ensemble.bytewise.mixture import ByteMixture
from tokswap.ensemble.bytewise.reader import ByteModel
from tokswap.ensemble.members import FILE, read_ensemble, read_weights
from tokswap.errors import UsageError
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.loaded import read_loaded
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer


def byte_mix(
    models: Sequence[ModelLike],
    weights: Sequence[float] | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    tolerance: float = 1e-3,
    window: int = 512,
    overlap: int = 128,
) -> ByteMixture:
    """Mix models that keep their own tokenizers. Tokenizers and weights are checked before a model is loaded.

    Args:
        models: Folders, hub ids, aliases, .gguf files or loaded models with their tokenizers.
        weights: Weight of each model; they are made to add up to 1. Equal by default.
        dtype: Type that torch computes in. Loaded models keep theirs. For float32 on a CPU, the weights of models given
            by name are packed, which takes less time.
        device: Where torch computes. Loaded models stay where they are.
        trust_remote_code: Whether code that comes with a model may run.
        tolerance: See `ByteModel`.
        window: See `ByteModel`.
        overlap: See `ByteModel`.

    Raises:
        UsageError: bad-weights, bad-window, bad-device.
        InputError: not-bytewise, and what loading a model raises.
    """
    if not models:
        raise UsageError("bad-weights", "a mixture needs at least one model")
    from tokswap.ensemble.bytewise.packed import pack

    shares = read_weights(weights, len(models))
    found = [_open(model, trust_remote_code) for model in models]
    members = []
    for given, tokenizer in found:
        if isinstance(given, Path):
            model, _ = load_model(given, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
            pack(model)
        else:
            model = given.model
        members.append(ByteModel(model, tokenizer, tolerance=tolerance, window=window, overlap=overlap))
    return ByteMixture(tuple(members), shares)


def _open(model: ModelLike, trust_remote_code: bool) -> tuple[Loaded | Path, Tokenizer]:
    """Return a loaded model, or the folder of one to load, and its tokenizer."""
    loaded = as_loaded(model, trust_remote_code=trust_remote_code)
    if loaded is not None:
        tokenizer = read_loaded(loaded.tokenizer)
        check_family(tokenizer)
        return loaded, tokenizer
    folder = resolve_model(str(model))
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code)
    check_family(tokenizer)
    return folder, tokenizer


def load_bytes(
    names: Sequence[str],
    *,
    weights: str | None = None,
    mix: str = "probabilities",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    window: int = 512,
    overlap: int = 128,
) -> tuple[tuple[str, ...], ByteMixture]:
    """Load the members that a command line names.

    Args:
        names: Folders, hub ids, aliases or .gguf files; or one folder with an ensemble.json, which stands for its
            members and their weights.
        weights: Weights with commas between them.
        mix: Must be "probabilities".
        dtype: See `byte_mix`.
        device: See `byte_mix`.
        trust_remote_code: See `byte_mix`.
        window: See `ByteModel`.
        overlap: See `ByteModel`.

    Returns:
        The names of the members, and the mixture.

    Raises:
        UsageError: bad-mix, and what `byte_mix` raises.
        InputError: what `read_ensemble` and `byte_mix` raise.
    """
    if mix != "probabilities":
        raise UsageError("bad-mix", f"--byte-level mixes probabilities, not {mix}", "leave out --mix")
    shown, places, shares = tuple(names), list(names), None
    if len(names) == 1 and (Path(names[0]) / FILE).is_file():
        ensemble = read_ensemble(names[0])
        shown, shares = tuple(member.name for member in ensemble.members), ensemble.weights
        places = [str(ensemble.path_of(member)) for member in ensemble.members]
    if weights is not None:
        shares = read_weights(weights, len(places))
    mixture = byte_mix(
        places,
        shares,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        window=window,
        overlap=overlap,
    )
    return shown, mixture
