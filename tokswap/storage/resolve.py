"""What a person may name as a model or tokenizer: a folder, a hub id, an alias, a .gguf file, a tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tokswap.errors import InputError, OutputError, UsageError, did_you_mean
from tokswap.storage.atomic import held, replace_file

ALIASES: Mapping[str, str] = {
    "bert": "google-bert/bert-base-uncased",
    "gemma": "google/gemma-3-270m",
    "gpt2": "openai-community/gpt2",
    "gpt-oss": "openai/gpt-oss-20b",
    "llama": "meta-llama/Llama-3.2-1B",
    "llama-8b": "meta-llama/Llama-3.1-8B",
    "mistral": "mistralai/Mistral-7B-v0.3",
    "olmo": "allenai/OLMo-2-0425-1B",
    "phi": "microsoft/phi-4",
    "qwen": "Qwen/Qwen3-0.6B",
    "qwen-8b": "Qwen/Qwen3-8B",
    "smollm": "HuggingFaceTB/SmolLM2-135M",
    "smollm3": "HuggingFaceTB/SmolLM3-3B",
    "t5": "google-t5/t5-small",
    "tinyllama": "TinyLlama/TinyLlama_v1.1",
    "xlm-r": "FacebookAI/xlm-roberta-base",
}
"""Short names that work out of the box; `tokswap alias` adds a user's own."""

_TOKENIZER_FILES = [
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "config.json",
    "generation_config.json",
    "additional_chat_templates/*",
]
_HYPERNET_FILES = ["*.json", "*.safetensors", "langs.txt"]
_MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*"]


def config_folder() -> Path:
    """Return the folder of the user's own settings ($TOKSWAP_HOME, else the XDG config folder)."""
    if "TOKSWAP_HOME" in os.environ:
        return Path(os.environ["TOKSWAP_HOME"])
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "tokswap"


def cache_folder() -> Path:
    """Return the folder of converted files ($TOKSWAP_CACHE, else the XDG cache folder)."""
    if "TOKSWAP_CACHE" in os.environ:
        return Path(os.environ["TOKSWAP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokswap"


def user_aliases() -> dict[str, str]:
    """Return the aliases that the user has set. Raises InputError where their file is damaged."""
    path = config_folder() / "aliases.json"
    try:
        aliases = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("bad-aliases", f"cannot read your aliases: {error}", file=path) from error
    if not isinstance(aliases, dict) or not all(isinstance(value, str) for value in aliases.values()):
        raise InputError("bad-aliases", "your aliases should be a JSON object of names", file=path)
    return aliases


def set_alias(name: str, target: str | None) -> None:
    """Add, change or (with None) remove one of the user's aliases."""
    folder = config_folder()
    _changed(user_aliases(), name, target)  # what is wrong with the request is said before anything is made
    try:
        with held(folder):  # so that two changes at once are both kept
            aliases = _changed(user_aliases(), name, target)
            replace_file(folder / "aliases.json", (json.dumps(aliases, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        hint = "name another folder for your settings in TOKSWAP_HOME"
        raise OutputError("cannot-write", f"your aliases could not be saved: {error}", hint, folder=folder) from error


def _changed(aliases: dict[str, str], name: str, target: str | None) -> dict[str, str]:
    if target is None:
        if name not in aliases:
            hint = "built-in aliases stay; override one by setting it" if name in ALIASES else ""
            raise UsageError("unknown-alias", f"you have no alias `{name}`.{did_you_mean(name, aliases)}", hint)
        del aliases[name]
    elif not name or "/" in name or os.sep in name:
        raise UsageError("bad-alias", f"`{name}` cannot be an alias: use a plain word without slashes")
    else:
        aliases[name] = target
    return aliases


def resolve_model(name: str) -> Path:
    """Return the local folder of a model; downloads a hub id, converts a GGUF file."""
    return _resolve(name, _MODEL_FILES, "model")


def resolve_tokenizer(name: str) -> Path:
    """Return the local folder, or tokenizer.json, of a tokenizer; weights are not downloaded."""
    return _resolve(name, _TOKENIZER_FILES, "tokenizer")


def resolve_encoder(name: str) -> Path:
    """Return the local folder of a text encoder; downloads a hub id."""
    return _resolve(name, _MODEL_FILES, "encoder")


def resolve_hypernet(name: str) -> Path:
    """Return the local folder of a hypernetwork; downloads a hub id, and its Flax file only where it has no other."""
    folder = _resolve(name, _HYPERNET_FILES, "model")
    if not any(folder.glob("*.safetensors")):
        folder = _resolve(name, [*_HYPERNET_FILES, "flax_model.msgpack"], "model")
    return folder


def short_name(name: str) -> str:
    """Return a name fit for a folder: the last part of a path or hub id, or the alias as typed."""
    path = Path(name)
    if path.name == "tokenizer.json":
        path = path.absolute().parent
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return name.removesuffix(".gguf").removesuffix(".json")


def _resolve(name: str, patterns: list[str], what: str) -> Path:
    aliases = {**ALIASES, **user_aliases()}
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, leaves ~somebody-unknown as it is
    if name and path.is_dir():
        return path
    if path.is_file():
        if path.suffix == ".gguf" and what != "encoder":
            from tokswap.storage.gguf import dequantised

            return dequantised(path, cache_folder() / "gguf")
        if path.suffix == ".json" and what == "tokenizer":
            return path
        raise UsageError(
            f"bad-{what}",
            f"this file is no {what}",
            "give a folder, a hub id, an alias"
            + (", a .gguf file" * (what != "encoder"))
            + (", a tokenizer.json" * (what == "tokenizer")),
            file=path,
        )
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.suffix in (".gguf", ".json")
    hub_id, seen = name, set()
    while hub_id in aliases and hub_id not in seen:  # an alias may lead to an alias, but not round in a circle
        seen.add(hub_id)
        hub_id = aliases[hub_id]
    local = os.path.expanduser(hub_id)
    if hub_id != name and (os.path.exists(local) or local.startswith((".", "/", "~"))):
        return _resolve(local, patterns, what)
    if looks_local or "/" not in hub_id:
        raise InputError(
            f"unknown-{what}",
            f"there is no {what} `{name}`: no such folder or file, and no alias." + did_you_mean(name, aliases),
            "`tokswap alias` lists the names that are known; a hub id has the form OWNER/NAME",
        )
    return _download(name, hub_id, patterns, what)


def _download(name: str, hub_id: str, patterns: list[str], what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFound

    alias = {} if name == hub_id else {"alias_for": hub_id}
    try:
        # A complete copy in the hub's cache is used as it is; only what it lacks is asked for.
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError as error:
        hint = "accept its terms on its page, then log in with `hf auth login`"
        raise InputError("gated-model", f"the {what} `{name}` asks for a login", hint, **alias) from error
    except (NotFound, HFValidationError) as error:
        hint = "check the spelling; private repositories need `hf auth login`"
        raise InputError(f"unknown-{what}", f"the hub has no `{hub_id}`", hint, **alias) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            "offline",
            f"cannot reach the hub, and the {what} `{name}` is not in its cache",
            "download it where there is a network (`hf download " + hub_id + "`), or give a local folder",
            **alias,
        ) from error
