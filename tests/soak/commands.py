"""Every command that writes, one row each. `faults` runs each of them into every kind of trouble."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import makers

TRAINING = (
    "--steps",
    "4",
    "--identity-steps",
    "4",
    "--batch",
    "2",
    "--length",
    "16",
    "--identity-batch",
    "16",
    "--vocabulary",
    "512",
    "--negatives",
    "20",
    "--queue",
    "2",
    "--hidden",
    "16",
    "--layers",
    "1",
    "--save-every",
    "2",
)


@dataclass(frozen=True)
class Command:
    """A command and what it writes.

    Attributes:
        name: Its name in tables.
        arguments: What a user types after `tokswap` in the folder `work`. The inputs lie in `../src`.
        out: Path of its output, in `root`.
        before: The command that has made what `arguments` replaces.
        leftovers: Patterns, in `root`, of files that only a killed run leaves behind.
        again: What a user types after a kill, where it differs from `arguments`.
        also: What a second run at the same time types, where it differs from `arguments`.
        stages: Whether the output grows while the command runs, so a kill may leave a part of it.
        keeps: Whether a second run accepts the same output that is there already.
    """

    name: str
    arguments: tuple[str, ...]
    out: str = "work/out"
    before: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ("work/.out.tokswap-*",)
    again: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    stages: bool = False
    keeps: bool = False

    @property
    def replaces(self) -> bool:
        """Whether two runs at the same time may both succeed."""
        return bool(self.before) or self.out != "work/out"


_TRANSPLANT = ("transplant", "--model", "../src/model", "--tokenizer", "../src/other", "--out", "out", "-q", "--init")
_TRIM = ("trim", "--model", "../src/model", "--out", "out", "-q")
_ADAPTER = ("trim", "--model", "../src/adapters/adapter", "--like", "../src/adapters/trimmed", "--out", "out")
_EXTEND = ("extend", "--model", "../src/model", "--out", "out", "-q")
_IMPORT = ("hypernet", "import", "../src/hypernet", "--out", "out", "-q")
_DRAFT = ("draft", "--model", "../src/model", "--target", "../src/other", "--out", "out", "-q", "--init", "subword")
_HEAD = ("draft-head", "--model", "../src/model", "--target", "../src/model", "--size", "300", "--out", "out", "-q")
_HEAL = ("heal", "../src/model", "--teacher", "../src/model", "--text", "../src/long.txt", "--out", "out", "-q")
_STEPS = ("--epochs", "1", "--batch-tokens", "128", "--rate", "0.02", "--embedding-rate", "0.1", "--kl", "0")
_TRAIN = ("hypernet", "train", "--model", "../src/model", "--text", "../src/text.txt", "--out", "out", "-q", *TRAINING)

COMMANDS: tuple[Command, ...] = (
    Command("transplant", (*_TRANSPLANT, "subword")),
    Command("transplant --force", (*_TRANSPLANT, "subword", "--force"), before=(*_TRANSPLANT, "mean")),
    Command("transplant --link", (*_TRANSPLANT, "mean", "--link")),
    Command(
        "transplant, text encoder",
        (*_TRANSPLANT, "tokenadapt", "--set", "encoder=../src/encoder"),
        leftovers=("work/.out.tokswap-*", "cache/encoder/.encoding-*"),
    ),
    Command("draft", _DRAFT),
    Command("draft --distill", (*_DRAFT, "--distill", "../src/long.txt")),
    Command("draft-head", (*_HEAD, "--corpus", "../src/text.txt")),
    Command("extend", (*_EXTEND, "--corpus", "../src/long.txt", "--add", "40")),
    Command(
        "tokenizer train", ("tokenizer", "train", "--corpus", "../src/long.txt", "--size", "500", "--out", "out", "-q")
    ),
    Command("heal", (*_HEAL, *_STEPS)),
    Command(
        "ensemble prepare",
        (
            "ensemble",
            "prepare",
            "--model",
            "../src/model",
            "--model",
            "../src/other",
            "--tokenizer",
            "../src/other",
            "--init",
            "subword",
            "--out",
            "out",
            "-q",
        ),
        leftovers=("work/out/.*.tokswap-*", "work/out/.*.new"),
        stages=True,
        keeps=True,
    ),
    Command(
        "report",
        ("report", "../src/adapters/trimmed", "--out", "page.html"),
        out="work/page.html",
        leftovers=("work/.page.html*",),
    ),
    Command("trim", (*_TRIM, "--corpus", "../src/text.txt")),
    Command(
        "trim --force", (*_TRIM, "--corpus", "../src/text.txt", "--force"), before=(*_TRIM, "--keep-script", "Latin")
    ),
    Command("trim --like, adapter", _ADAPTER),
    Command("trim --like, adapter, --force", (*_ADAPTER, "--force"), before=_ADAPTER),
    Command("hypernet import", _IMPORT),
    Command("hypernet import --force", (*_IMPORT, "--force"), before=_IMPORT),
    Command(
        "hypernet train",
        _TRAIN,
        leftovers=("work/out/training/*.partial", "work/out/.*.new*"),
        again=(*_TRAIN, "--resume"),
        stages=True,
    ),
    Command(
        "reading a .gguf file",
        ("inspect", "../src/model.gguf"),
        out="cache/gguf",
        leftovers=("cache/gguf/.*.tokswap-*",),
    ),
    Command(
        "alias",
        ("alias", "mine", "somebody/model"),
        out="home/aliases.json",
        before=("alias", "yours", "somebody/else"),
        leftovers=("home/.aliases.json.new",),
        also=("alias", "theirs", "nobody/model"),
    ),
)


def make_sources(root: Path, megabytes: int = 4) -> None:
    """Write every input under root/src. The model has some megabytes of weights, so that writing takes a while."""
    from hypernets import make_hypernet

    from soak.good_files import make_adapter, make_gguf

    src = root / "src"
    makers.make_model("llama", src / "model", vocab_size=400, adds_bos=True)
    makers.make_model("qwen2", src / "other", vocab_size=420)
    makers.make_model("qwen2", src / "base", vocab_size=300)
    (src / "text.txt").write_text(makers.shipped_text("english")[:6000], encoding="utf-8")
    (src / "long.txt").write_text(makers.shipped_text("english") * 4, encoding="utf-8")
    _grow(src / "model", megabytes)
    make_hypernet(src / "base", src / "hypernet", hn_hidden_size=96, hn_intermediate_size=192)
    makers.make_encoder(src / "encoder")
    makers.make_model("qwen2", src / "adapters" / "model", vocab_size=300)
    make_adapter(src / "adapters", rank=200)
    make_gguf(src)


def _grow(folder: Path, megabytes: int) -> None:
    """Split a model into shards, and give it buffers that transformers ignores and tokswap must copy."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    draw = torch.Generator().manual_seed(0)
    for n in range(megabytes):
        tensors[f"model.layers.{n % 2}.self_attn.rotary_emb.buffer_{n}"] = torch.randn(512, 512, generator=draw)
    names = sorted(tensors)
    files = [names[n::3] for n in range(3)]
    index: dict[str, str] = {}
    for n, part in enumerate(files, 1):
        file = f"model-{n:05}-of-{len(files):05}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    makers.write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def state(path: Path) -> dict[str, str] | None:
    """Return file -> hash of what lies at a path, None where there is nothing.

    Hidden files and the checkpoints of a training are left out, and so is what differs in every run.
    """
    if path.is_file():
        return {"": hashlib.sha256(path.read_bytes()).hexdigest()}
    if not path.is_dir():
        return None
    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if (
            file.is_file()
            and not any(part.startswith(".") for part in Path(name).parts)
            and not name.startswith("training")
        ):
            found[name] = _hash(file)
    return found or None


def _hash(file: Path) -> str:
    data = file.read_bytes()
    if file.name in ("tokswap.json", "tokenizer_training.json"):
        data = json.dumps(json.loads(data, object_hook=_without_times), sort_keys=True).encode()
    if file.name == "ensemble.json":  # digests of reports depend on the times in them
        ensemble = json.loads(data)
        for member in ensemble["members"]:
            member["files"].pop("tokswap.json", None)
        data = json.dumps(ensemble, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _without_times(part: dict[str, object]) -> dict[str, object]:
    """Leave out what differs in every run; estimates depend on what the cache holds."""
    return {key: value for key, value in part.items() if key not in ("seconds", "memory_bytes")}


def leftovers(command: Command, root: Path) -> list[Path]:
    """Return what a killed run has left behind. A later run must remove it."""
    return [path for pattern in command.leftovers for path in root.glob(pattern)]


Check = Callable[[Command, Path], None]
