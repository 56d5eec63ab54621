"""Names of models and tokenizers: a folder, a hub id, an alias, a .gguf file or a tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tokswap.errors import InputError, OutputError, TokswapError, UsageError, did_you_mean
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
"""Built-in aliases: short name -> hub id. Users add their own with `tokswap alias`."""

_TOKENIZER_FILES = [
    "README.md",
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
    "processor_config.json",
]
_PATH_STARTS = (".", "/", "~")
_HYPERNET_FILES = ["*.json", "*.safetensors", "langs.txt"]
_MODEL_FILES = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "LICENSE*",
    "README.md",
]


def config_folder() -> Path:
    """Return the folder of the user's settings: $TOKSWAP_HOME, else a folder in the XDG config folder."""
    if "TOKSWAP_HOME" in os.environ:
        return Path(os.environ["TOKSWAP_HOME"])
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "tokswap"


def cache_folder() -> Path:
    """Return the folder of cached files: $TOKSWAP_CACHE, else a folder in the XDG cache folder."""
    if "TOKSWAP_CACHE" in os.environ:
        return Path(os.environ["TOKSWAP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "tokswap"


def _home() -> Path:
    """Return the home folder of the user; the root, as in containers, for one that the system does not know."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def user_aliases() -> dict[str, str]:
    """Return the aliases that the user has set.

    Returns:
        Alias -> what it stands for.

    Raises:
        InputError: bad-aliases.
    """
    path = config_folder() / "aliases.json"
    try:
        aliases = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        hint = "set HOME or TOKSWAP_HOME to a folder of your own" if isinstance(error, PermissionError) else ""
        raise InputError("bad-aliases", f"cannot read your aliases: {error}", hint, file=path) from error
    if not isinstance(aliases, dict) or not all(isinstance(value, str) for value in aliases.values()):
        raise InputError("bad-aliases", "your aliases must be a JSON object of strings", file=path)
    return aliases


def set_alias(name: str, target: str | None) -> None:
    """Add, change or remove one of the user's aliases.

    Args:
        name: The alias.
        target: What it stands for; None removes the alias.

    Raises:
        UsageError: unknown-alias, bad-alias.
        InputError: bad-aliases.
        OutputError: cannot-write.
    """
    folder = config_folder()
    _changed(user_aliases(), name, target)  # report a wrong request before creating the folder
    try:
        with held(folder):  # so that two simultaneous changes are both kept
            aliases = _changed(user_aliases(), name, target)
            replace_file(folder / "aliases.json", (json.dumps(aliases, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        hint = "set TOKSWAP_HOME to another folder"
        raise OutputError("cannot-write", f"cannot save your aliases: {error}", hint, folder=folder) from error


def _changed(aliases: dict[str, str], name: str, target: str | None) -> dict[str, str]:
    if target is None:
        if name not in aliases:
            hint = "built-in aliases cannot be removed; set the alias to override it" if name in ALIASES else ""
            raise UsageError("unknown-alias", f"you have no alias `{name}`{did_you_mean(name, aliases)}", hint)
        del aliases[name]
    elif not name or "/" in name or os.sep in name:
        raise UsageError("bad-alias", f"`{name}` cannot be an alias: use a plain word without slashes")
    else:
        aliases[name] = target
    return aliases


def resolve_model(name: str) -> Path:
    """Return the local folder of a model. A hub id is downloaded, and a GGUF file is converted.

    Raises:
        UsageError: bad-model.
        InputError: unknown-model, gated-model, offline, bad-aliases, missing-extra, bad-gguf, remote-code,
            unsupported-tokenizer.
        OutputError: cannot-write.
    """
    return _resolve(name, _MODEL_FILES, "model")


def resolve_tokenizer(name: str) -> Path:
    """Return the local folder or tokenizer.json of a tokenizer. Weights are not downloaded.

    Raises:
        UsageError: bad-tokenizer.
        InputError: unknown-tokenizer, gated-model, offline, bad-aliases, missing-extra, bad-gguf, remote-code,
            unsupported-tokenizer.
        OutputError: cannot-write.
    """
    return _resolve(name, _TOKENIZER_FILES, "tokenizer")


def resolve_encoder(name: str) -> Path:
    """Return the local folder of a text encoder. A hub id is downloaded.

    Raises:
        UsageError: bad-encoder.
        InputError: unknown-encoder, gated-model, offline, bad-aliases.
    """
    return _resolve(name, _MODEL_FILES, "encoder")


def resolve_hypernet(name: str) -> Path:
    """Return the local folder of a hypernetwork. A hub id is downloaded; its Flax file only if it has no safetensors.

    Raises:
        UsageError: bad-model.
        InputError: unknown-model, gated-model, offline, bad-aliases.
    """
    folder = _resolve(name, _HYPERNET_FILES, "model")
    if not any(folder.glob("*.safetensors")):
        folder = _resolve(name, [*_HYPERNET_FILES, "flax_model.msgpack"], "model")
    return folder


def input_path(name: str | Path) -> Path:
    """Return the path of a folder or file that a Python program names; `~` is the home folder.

    Raises:
        UsageError: bad-model.
    """
    if not isinstance(name, (str, Path)):
        hint = "give the path of a folder or file, as text or a Path"
        raise UsageError("bad-model", f"{name!r:.80} is no path", hint)
    return Path(os.path.expanduser(name))


def output_path(name: str | Path) -> Path:
    """Return the path of an output that the user names. A shell leaves `~` to the program in `--out=~/result`.

    Raises:
        UsageError: missing-out.
        OutputError: cannot-write.
    """
    if not isinstance(name, (str, Path)):
        raise UsageError("missing-out", f"the output must be a path, not {name!r:.80}")
    path = Path(os.path.expanduser(name))
    _check_spelling(path, partial(OutputError, "cannot-write"))
    return path


def _check_spelling(path: Path, error_of: Callable[..., TokswapError]) -> None:
    """Refuse a name that the libraries underneath cannot open.

    Python spells bytes of a name that its locale does not know as half surrogate pairs, which the others have not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        message = "this name is no UTF-8 in the locale of this process, and the libraries underneath cannot open it"
        hint = "rename it, or use a UTF-8 locale, such as LC_ALL=C.UTF-8, and no PYTHONUTF8=0"
        raise error_of(message, hint, name=path) from error


def short_name(name: str) -> str:
    """Return a name for a folder: the last part of a path or hub id, or the alias as typed."""
    path = Path(name)
    if path.name == "tokenizer.json":
        path = path.absolute().parent
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return name.removesuffix(".gguf").removesuffix(".json")


def lasting_name(folder: Path) -> str:
    """Return a name that loads a model from anywhere: its hub id if it is in the hub's cache, else its path.

    Args:
        folder: The resolved folder.
    """
    folder = folder.absolute()
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return str(folder)


def gguf_file(name: str) -> Path | None:
    """Return the .gguf file that a name stands for, directly or as an alias; None for anything else."""
    aliases = {**ALIASES, **user_aliases()}
    seen: set[str] = set()
    while name in aliases and name not in seen and not os.path.exists(name):
        seen.add(name)
        name = aliases[name]
    path = Path(os.path.expanduser(name))
    return path if path.suffix == ".gguf" and path.is_file() else None


def _resolve(name: str, patterns: list[str], what: str) -> Path:
    """Resolve a name to a path.

    Args:
        name: A folder, file, alias or hub id.
        patterns: The files to download.
        what: "model", "tokenizer" or "encoder": for the error codes, and to decide which files are allowed.
    """
    aliases = {**ALIASES, **user_aliases()}
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, leaves an unknown ~user as it is
    _check_spelling(path, partial(UsageError, f"bad-{what}"))
    if name and path.is_dir():
        return path
    if path.is_file():
        return _resolve_file(path, what)
    hub_id, seen = name, list[str]()
    while hub_id in aliases and hub_id not in seen:  # an alias may name an alias, but they may form a circle
        seen.append(hub_id)
        hub_id = aliases[hub_id]
    local = os.path.expanduser(hub_id)
    if hub_id != name and (os.path.exists(local) or local.startswith(_PATH_STARTS)):
        return _resolve(local, patterns, what)
    looks_local = name.startswith(_PATH_STARTS) or name.count("/") > 1 or path.suffix in (".gguf", ".json")
    if hub_id in seen:
        message = f"the alias `{name}` stands for itself: {' -> '.join([*seen, hub_id])}"
        raise InputError(f"unknown-{what}", message, f"`tokswap alias {name} TARGET` sets it anew")
    if looks_local or "/" not in hub_id:
        raise InputError(
            f"unknown-{what}",
            f"there is no {what} `{name}`: no such folder or file, and no alias" + did_you_mean(name, aliases),
            "`tokswap alias` lists the known names; a hub id has the form OWNER/NAME",
        )
    return _download(name, hub_id, patterns, what)


def _resolve_file(path: Path, what: str) -> Path:
    """Resolve a file. Raises UsageError bad-<what> where a file of this type is not allowed."""
    if path.suffix == ".gguf" and what != "encoder":
        from tokswap.storage.gguf.convert import dequantised

        return dequantised(path, cache_folder() / "gguf")
    if path.suffix == ".json" and what == "tokenizer":
        return path
    allowed = ["a folder", "a hub id", "an alias"]
    allowed += ["a .gguf file"] * (what != "encoder") + ["a tokenizer.json"] * (what == "tokenizer")
    article = "an" if what == "encoder" else "a"
    raise UsageError(f"bad-{what}", f"this file is not {article} {what}", f"give {', '.join(allowed)}", file=path)


def _download(name: str, hub_id: str, patterns: list[str], what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFound

    alias = {} if name == hub_id else {"alias_for": hub_id}
    try:
        # This uses the hub's cache, and downloads only what the cache lacks.
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError as error:
        hint = "accept the terms on its page, then log in with `hf auth login`"
        raise InputError("gated-model", f"the {what} `{name}` needs a login", hint, **alias) from error
    except (NotFound, HFValidationError) as error:
        hint = "check the spelling; private repositories need `hf auth login`"
        raise InputError(f"unknown-{what}", f"the hub has no `{hub_id}`", hint, **alias) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            "offline",
            f"cannot reach the hub, and the {what} `{name}` is not in its cache",
            f"download it on a machine with a network (`hf download {hub_id}`), or give a local folder",
            **alias,
        ) from error
