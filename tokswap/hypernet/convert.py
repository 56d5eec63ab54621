"""Hypernetworks on disk: published checkpoints (PyTorch and Flax) and our own, which have the same layout.

A folder holds config.json, model.safetensors with the published tensor names, and the tokenizer of the surface forms.
Nothing that comes with a checkpoint is run: no remote code, no pickles. Flax files are read with msgpack, without JAX.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.checkpoint.reader import load_tensors
from tokswap.errors import InputError, UsageError
from tokswap.hypernet.config import HypernetConfig, read_config
from tokswap.hypernet.predict import Hypernet
from tokswap.hypernet.surface import Surface
from tokswap.storage.atomic import check_output, replace_file, workspace
from tokswap.storage.json_files import read_json
from tokswap.storage.links import check_links
from tokswap.storage.resolve import resolve_hypernet
from tokswap.tokenizer.tokenizer import read_tokenizer, spec_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from tokswap.hypernet.model import Network

FLAX = "flax_model.msgpack"
_DEAD = (
    "model.embeddings.word_embeddings.",
    "model.embeddings.position_ids",
    "model.pooler.",
    "model.encoder.layer.inter_token_blocks",
)
"""Tensors that published files hold and no computation reads."""


def load_hypernet(folder: str | Path, *, device: str = "cpu") -> Hypernet:
    """Load a hypernetwork from a folder, published or our own.

    Raises InputError: missing-config, bad-config, bad-hypernet, unsupported-hypernet, missing-hypernet, pickled-weights,
    missing-tokenizer, not-byte-level.
    """
    surface = open_surface(folder)
    network = build(surface.config, _weights(Path(folder)), Path(folder))
    return Hypernet(surface.config, network.to(device), surface, device)


def open_surface(folder: str | Path) -> Surface:
    """Read a hypernetwork's config and tokenizer and no weight, to cut surface forms and to check a base model."""
    folder = Path(folder)
    config = _config(folder)
    return Surface(read_tokenizer(folder), config)


def import_hypernet(
    name: str, out: str | Path, *, languages: Sequence[str] | None = None, force: bool = False
) -> HypernetConfig:
    """Write a published hypernetwork in tokswap's layout, with float32 or bfloat16 tensors as it came.

    name: a folder or hub id. languages: the codes of its language rows, in their order, where the checkpoint names none.
    Raises what `load_hypernet` raises, and OutputError.
    """
    folder, out = resolve_hypernet(name), Path(out)
    config = _config(folder)
    if languages is not None:
        if len(languages) != config.n_langs or not config.hn_embed_lang_id:
            raise UsageError(
                "bad-languages",
                f"{len(languages)} language codes were given, and the hypernetwork has "
                f"{config.n_langs if config.hn_embed_lang_id else 0} languages",
                "give one code a line, in the order of training",
            )
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
    """Write a hypernetwork's files to a folder; config.json comes last, and each appears whole or not at all."""
    from safetensors.torch import save as packed

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    replace_file(folder / "model.safetensors", packed(state, metadata={"format": "pt"}))
    replace_file(folder / "tokenizer.json", spec_bytes(surface.tokenizer.spec))
    replace_file(folder / "config.json", (json.dumps(network.config.as_dict(), indent=2) + "\n").encode())


def build(config: HypernetConfig, state: Mapping[str, Tensor], folder: Path) -> Network:
    """Return a network with some weights, ready to predict. Raises InputError bad-hypernet."""
    import torch

    from tokswap.hypernet.model import Network

    positions = state.get("model.embeddings.position_embeddings.weight")
    with torch.device("meta"):
        network = Network(config, None if positions is None else len(positions))
    wanted = network.state_dict()
    given = {name: tensor for name, tensor in state.items() if not name.startswith(_DEAD)}
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    shapes = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    problem = ""
    if missing:
        problem = f"{len(missing)} tensors are missing, the first is {missing[0]}"
    elif unknown:
        problem = f"{len(unknown)} tensors are not understood, the first is {unknown[0]}"
    elif shapes:
        name = shapes[0]
        problem = f"{name} is {list(given[name].shape)} and should be {list(wanted[name].shape)}"
    elif positions is not None and len(positions) < config.hn_surface_maxlen:
        problem = f"it has {len(positions)} positions for surface forms of {config.hn_surface_maxlen}"
    if not problem:
        bad = [name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())]
        problem = f"{bad[0]} holds numbers that are not finite" if bad else ""
    if problem:
        hint = "its weights and its config.json do not belong together, or a file is damaged"
        raise InputError("bad-hypernet", f"this hypernetwork cannot be used: {problem}", hint, folder=folder)
    network.load_state_dict({name: tensor.float() for name, tensor in given.items()}, assign=True)
    return network.eval()


def _config(folder: Path) -> HypernetConfig:
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    check_links(folder, ("config.json", "langs.txt", FLAX, *weights))
    config = read_config(read_json(folder / "config.json", "config"), folder / "config.json")
    listed = folder / "langs.txt"
    if config.hn_embed_lang_id and not config.languages and listed.is_file():
        codes = tuple(listed.read_text("utf-8").split())
        config = replace(config, languages=codes if len(codes) == config.n_langs else ())
    return config


def _weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor under its published PyTorch name."""
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        return {name: tensor for path in shards for name, tensor in load_tensors(path)[0].items()}
    if (folder / FLAX).is_file():
        return dict(_from_flax(folder / FLAX))
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise InputError(
            "pickled-weights",
            "these weights are pickled, and unpickling runs whatever code they hold",
            "convert them to safetensors where you trust them",
            folder=folder,
        )
    raise InputError(
        "missing-hypernet",
        "there are no weights of a hypernetwork here",
        f"a hypernetwork is a folder with config.json, tokenizer.json and model.safetensors or {FLAX}",
        folder=folder,
    )


def _from_flax(path: Path) -> Iterator[tuple[str, Tensor]]:
    import torch

    names = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    for keys, value in _leaves(_unpack(path), ()):
        name = ".".join([*(key.removeprefix("layers_") for key in keys[:-1]), names.get(keys[-1], keys[-1])])
        name = name.replace("model.embeddings.lang_embedding.", "lang_embeddings.")
        array = value.T if keys[-1] == "kernel" else value
        yield name, torch.from_numpy(np.ascontiguousarray(array))


def _leaves(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _leaves(child, (*keys, str(key)))
    else:
        yield keys, node


def _unpack(path: Path) -> Any:
    """Read a file of flax.serialization: msgpack, with arrays as extension 1 (shape, type name, bytes)."""
    try:
        import msgpack
    except ImportError as error:
        hint = "`pip install 'tokswap[hypernet]'`"
        raise InputError("missing-extra", "reading Flax checkpoints needs msgpack", hint, file=path) from error

    def array(code: int, data: bytes) -> np.ndarray:
        if code != 1:
            raise ValueError(f"extension {code}")
        shape, kind, content = msgpack.unpackb(data, raw=False)
        if kind == "bfloat16":  # the upper half of a float32
            values = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in ("float64", "float32", "float16"):
            values = np.frombuffer(content, np.dtype(kind).newbyteorder("<")).astype(np.float32)
        else:
            raise ValueError(f"an array of type {kind}")
        return values.reshape(shape)

    def join(node: Any) -> Any:
        if not isinstance(node, dict):
            if not isinstance(node, np.ndarray):
                raise ValueError(f"{type(node).__name__} where an array should be")
            return node
        if "__msgpack_chunked_array__" not in node:
            return {key: join(child) for key, child in node.items()}
        chunks = [node["chunks"][str(n)] for n in range(len(node["chunks"]))]
        return np.concatenate(chunks).reshape([node["shape"][str(n)] for n in range(len(node["shape"]))])

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False, strict_map_key=False)
        if not isinstance(tree, dict):
            raise ValueError("no tree of parameters")
        return join(tree)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InputError(
            "bad-hypernet", f"this Flax file cannot be read: {error}", "download it again", file=path
        ) from error
