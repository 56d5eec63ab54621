"""Hypernetworks on disk: published checkpoints (PyTorch and Flax) and those of tokswap, which have the same layout.

A folder holds config.json, model.safetensors with the published tensor names, and the tokenizer of the surface forms.
tokswap runs nothing that comes with a checkpoint: no remote code, no pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tokswap.checkpoint.shards import load_tensors
from tokswap.errors import InputError, UsageError, count_of
from tokswap.hypernet.config import HypernetConfig, read_config
from tokswap.hypernet.flax import flax_tensors
from tokswap.hypernet.predict import Hypernet
from tokswap.hypernet.surface import Surface
from tokswap.options.kinds import typed
from tokswap.storage.atomic import check_output, replace_file, workspace
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.storage.resolve import input_path, output_path, resolve_hypernet
from tokswap.storage.texts import read_text
from tokswap.tokenizer.output import spec_bytes
from tokswap.tokenizer.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from tokswap.hypernet.model import Network

FLAX = "flax_model.msgpack"
_POSITIONS = "model.embeddings.position_embeddings.weight"
_UNUSED = (
    "model.embeddings.word_embeddings.",
    "model.embeddings.position_ids",
    "model.pooler.",
    "model.encoder.layer.inter_token_blocks",
)
"""How the names of tensors begin that published files hold and no computation reads."""


@typed
def load_hypernet(folder: str | Path, *, device: str = "cpu") -> Hypernet:
    """Load a hypernetwork, published or written by tokswap.

    Args:
        folder: Where it is.
        device: Where torch computes.

    Raises:
        UsageError: bad-model.
        InputError: missing-config, bad-config, bad-hypernet, unsupported-hypernet, missing-hypernet, pickled-weights,
            missing-tokenizer, not-byte-level; bad-text, empty-text for langs.txt.
    """
    folder = input_path(folder)
    surface = open_surface(folder)
    network = build(surface.config, _weights(folder), folder)
    return Hypernet(config=surface.config, network=network.to(device), surface=surface, device=device)


@typed
def open_surface(folder: str | Path) -> Surface:
    """Read the config and tokenizer of a hypernetwork, without its weights.

    That is enough to make surface forms and to check a base model.

    Raises:
        UsageError, InputError: as `load_hypernet`.
    """
    folder = input_path(folder)
    config = _config(folder)
    return Surface(read_tokenizer(folder), config)


@typed
def import_hypernet(
    name: str | Path, out: str | Path, *, languages: Sequence[str] | None = None, force: bool = False
) -> HypernetConfig:
    """Write a published hypernetwork in the layout of tokswap.

    Args:
        name: A folder or hub id.
        out: Where to write it.
        languages: Codes of its languages in the order of training, for checkpoints that name none.
        force: Whether to replace a folder.

    Returns:
        Its config.

    Raises:
        UsageError: bad-languages.
        InputError: as `load_hypernet`.
        OutputError: output-exists, output-is-source, cannot-write, disk-full.
    """
    folder, out = resolve_hypernet(str(name)), output_path(out)
    config = _config(folder)
    if languages is not None:
        known = config.n_langs if config.hn_embed_lang_id else 0
        if not known or len(languages) != known:
            raise UsageError(
                "bad-languages",
                f"the hypernetwork has {count_of(known, 'language')}, and {len(languages)} were given",
                "give one code per line, in the order of training",
            )
        twice = next((code for n, code in enumerate(languages) if code in languages[:n]), None)
        if twice is not None:
            message = f"the language `{twice}` is listed twice, so one of the two could not be named"
            raise UsageError("bad-languages", message, "give one code per line, in the order of training")
        config = replace(config, languages=tuple(languages))
    if not config.base_model:
        config = replace(config, base_model=str(name))
    surface = Surface(read_tokenizer(folder), config)
    network = build(config, _weights(folder), folder)
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    check_output(out, sources=[folder], needed=size, force=force)
    with workspace(out, force) as work:
        save(network, surface, work)
    return config


def save(network: Network, surface: Surface, folder: Path) -> None:
    """Write the files of a hypernetwork into a folder.

    config.json comes last, and each file appears whole or not at all.
    """
    from safetensors.torch import save as packed

    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    replace_file(folder / "model.safetensors", packed(state, metadata={"format": "pt"}))
    replace_file(folder / "tokenizer.json", spec_bytes(surface.tokenizer.spec))
    replace_file(folder / "config.json", json_bytes(network.config.as_dict()))


def build(config: HypernetConfig, state: Mapping[str, Tensor], folder: Path) -> Network:
    """Return a network that is ready to predict.

    Args:
        config: Its shape.
        state: Its weights by their published names.
        folder: Where they come from, for error messages.

    Raises:
        InputError: bad-hypernet.
    """
    import torch

    from tokswap.hypernet.model import Network

    given = {name: tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}
    with torch.device("meta"):
        network = Network(config, len(given[_POSITIONS]) if _POSITIONS in given else None)
    problem = _problem(config, given, network.state_dict())
    if problem:
        hint = "its weights and its config.json do not belong together, or a file is damaged"
        raise InputError("bad-hypernet", f"this hypernetwork cannot be used: {problem}", hint, folder=folder)
    network.load_state_dict({name: tensor.float() for name, tensor in given.items()}, assign=True)
    return network.eval()


def _problem(config: HypernetConfig, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what is wrong with some weights, "" where nothing is."""
    if missing := sorted(set(wanted) - set(given)):
        return f"it lacks {count_of(len(missing), 'tensor')}, the first is {missing[0]}"
    if unknown := sorted(set(given) - set(wanted)):
        return f"it has {count_of(len(unknown), 'tensor')} too many, the first is {unknown[0]}"
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            return f"{name} is {list(given[name].shape)} and should be {list(tensor.shape)}"
    if len(given[_POSITIONS]) < config.hn_surface_maxlen:
        return f"it has {len(given[_POSITIONS])} positions for surface forms of {config.hn_surface_maxlen}"
    for name, tensor in given.items():
        if not bool(tensor.isfinite().all()):
            return f"{name} holds non-finite numbers"
    return ""


def _config(folder: Path) -> HypernetConfig:
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    check_links(folder, ("config.json", "langs.txt", FLAX, *weights))
    config = read_config(read_json(folder / "config.json", "config"), folder / "config.json")
    listed = folder / "langs.txt"
    if config.hn_embed_lang_id and not config.languages and listed.is_file():
        codes = tuple(read_text(listed).split())
        config = replace(config, languages=codes if len(codes) == config.n_langs else ())
    return config


def _weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor under its published PyTorch name."""
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        return {name: tensor for path in shards for name, tensor in load_tensors(path)[0].items()}
    if (folder / FLAX).is_file():
        return dict(flax_tensors(folder / FLAX))
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise InputError(
            "pickled-weights",
            "these weights are pickled, and unpickling runs whatever code they hold",
            "convert them to safetensors if you trust them",
            folder=folder,
        )
    raise InputError(
        "missing-hypernet",
        "this folder has no weights of a hypernetwork",
        f"a hypernetwork is a folder with config.json, tokenizer.json and model.safetensors or {FLAX}",
        folder=folder,
    )
