"""Runs every command line that the README, the docs and the help texts show, on tiny models with the names they use.

    python -m soak shown

All lines run in one folder that holds what they read. Older outputs of the same name are removed first. Names of a
model hub are aliases of the tiny models. Lines that need another machine or a network are left out, see `LEFT_OUT`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import makers
from hypernets import make_hypernet
from test_docs import WRITTEN, commands, epilog_commands, fences

from soak.readers import cli
from tokswap.storage.resolve import short_name

LEFT_OUT = {
    "tokswap hypernet import benjamin/": "reads a model hub",
    "tokswap transplant --model ./my-model.gguf": "runs on the demo models, in tests/test_demo.py",
    "tokswap completion": "prints a shell script, which has its own tests",
    "tokswap eval ./mine-with-theirs --text ./english.txt --against ./my-model --harness": "needs tasks; has its own tests",
    "tokswap tokenizer train --corpus '/usr/lib/*.so'": "reads files of the machine",
}
_ALIASES = {
    "llama": "my-model",
    "llama-8b": "big-model",
    "mistral": "their-model",
    "gemma": "my-model",
    "smollm": "small-model",
    "qwen": "their-model",
    "tinyllama": "my-model",
}
_SHORT = [
    "--identity-steps",
    "3",
    "--steps",
    "5",
    "--save-every",
    "2",
    "--batch",
    "4",
    "--length",
    "32",
    "--identity-batch",
    "32",
    "--vocabulary",
    "512",
    "--negatives",
    "16",
    "--hidden",
    "16",
    "--layers",
    "1",
]
"""Added to a training, which would take an hour otherwise."""
_SMALL = {
    "8000,16000,32000": "400,500,600",
    "32000": "600",
    "32768": "600",
    "8192": "600",
    "2000": "20",
    "1000": "10",
    "100kB": "8kB",
}
"""Sizes that the small texts are enough for."""
_FIRST = (
    "tokswap transplant --model ./my-model --tokenizer ./their-model --init subword --out ./mine-with-theirs",
    "tokswap transplant --model ./gemma-3-270m --tokenizer ./smollm2-135m --init subword --out ./gemma-with-smollm2",
    "tokswap transplant --model ./my-model --tokenizer ./their-model --init omp --out ./with-omp",
    "tokswap transplant --model ./my-model --tokenizer ./their-model --init subword --out ./with-subword",
    "tokswap trim --model ./my-model --lang de --out ./my-model-de",
    "tokswap trim --model ./my-model --corpus ./texts --out ./my-model-small",
    "tokswap draft --model ./small-model --target ./big-model --out ./draft",
    "tokswap ensemble prepare --model ./a --model ./b --tokenizer ./b --out ./ab",
    "tokswap ensemble prepare --model ./gemma-3-270m --model ./smollm2-135m --tokenizer ./smollm2-135m --out ./pair",
)
"""Commands that make what other lines read, as the docs make it."""
_BEFORE = {"tokswap verify ./mine-with-theirs --against ./my-model --tokenizer ./their-model": _FIRST[0]}
"""Line -> what makes its input again, after lines that gave it another tokenizer."""


def shown() -> list[str]:
    """Return the command lines in the order of the pages, each once."""
    pages = [line for page in WRITTEN for block in fences(page, "(?:sh)?") for line in commands(block)]
    lines = [shlex.join(shlex.split(line, comments=True)) for line in [*pages, *epilog_commands()]]
    return list(dict.fromkeys(lines))


def stage(folder: Path) -> None:
    """Make everything that the lines read."""
    options: dict[str, Any] = {"chat_template": makers.CHAT_TEMPLATE}
    mine = makers.make_model(
        "llama-tied", folder / "my-model", family="sentencepiece", vocab_size=640, adds_bos=True, **options
    )
    theirs = makers.make_model("gpt-neox", folder / "their-model", family="byte-level", vocab_size=700, **options)
    for n, name in enumerate(("<end_of_turn>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "blood", "pressure")):
        _rename(mine, f"<unused{n}>", name)
    for name in ("A", "gemma-3-270m", "a", "c", "small-model", "my-draft", "my-fine-tune"):
        shutil.copytree(mine, folder / name)
    for name in ("B", "smollm2-135m", "b", "big-model", "big-tokenizer"):
        shutil.copytree(theirs, folder / name)
    shutil.copy(theirs / "tokenizer.json", folder / "tokenizer.json")
    makers.make_draft_head(folder / "eagle3", rows=700)
    make_hypernet(mine, folder / "hypernet")
    make_hypernet(mine, folder / "downloaded", hn_embed_lang_id=True, n_langs=2)
    _adapter(folder / "my-adapter", rows=makers.tokenizer_size(mine))
    (folder / "26l.txt").write_text("de\nen\n")
    (folder / "models").mkdir()
    shutil.copytree(mine, folder / "models" / "my-model")
    english = ("english", "notes", "answers", "corpus", "other", "more", "my-text", "other-text", "texts", "en")
    texts = {"english": english, "german": ("german", "de")}
    for text, names in texts.items():
        for name in names:
            (folder / f"{name}.txt").write_text(makers.shipped_text(text)[:6000] * 3, "utf-8")
    (folder / "short.txt").write_text("The ferry leaves.", "utf-8")
    for name in ("code.py", "code.txt"):
        (folder / name).write_text(makers.shipped_text("code")[:6000] * 2, "utf-8")
    for name in ("texts", "german-texts", "en"):
        (folder / name).mkdir()
        shutil.copy(folder / "german.txt", folder / name)
    for path in (folder / "en" / "a.jsonl", folder / "corpus.jsonl"):
        path.write_text(json.dumps({"text": makers.shipped_text("english")}))
    (folder / "terms.txt").write_text("Blutdruck\nferryboat\nharbourmaster\n", "utf-8")
    talk = [{"role": "user", "content": "Where is the ferry?"}, {"role": "assistant", "content": "In the harbour."}]
    (folder / "chats.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 20)


def _adapter(folder: Path, rows: int) -> None:
    """Write a LoRA adapter on the input embeddings of a model."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    name = "base_model.model.model.embed_tokens"
    tensors = {f"{name}.lora_embedding_A": torch.ones(2, rows), f"{name}.lora_embedding_B": torch.ones(4, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    makers.write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2})


def _rename(model: Path, before: str, after: str) -> None:
    """Give a reserved token of a model another name."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = model / name
        path.write_text(path.read_text("utf-8").replace(f'"{before}"', f'"{after}"'), "utf-8")


def _output(words: list[str]) -> Path | None:
    """Return the output of a line, which must not be there when the line runs."""
    if "--resume" in words:  # it continues what the same line without it has begun
        run(shlex.join(word for word in words if word != "--resume"))
        return None
    if "--out" in words:
        return Path(words[words.index("--out") + 1])
    named = {
        flag: short_name(words[words.index(flag) + 1])
        for flag in ("--model", "--tokenizer", "--target")
        if flag in words
    }
    if words[1] == "transplant":
        return Path(f"{named['--model']}-{named['--tokenizer']}")
    if words[1] == "draft":
        return Path(f"{named['--model']}-for-{named['--target']}")
    made = {"trim": "trimmed", "extend": "extended"}
    return Path(f"{named['--model']}-{made[words[1]]}") if words[1] in made else None


def run(line: str) -> tuple[str, float]:
    """Run one line in the current folder. Return how it ended, and its seconds."""
    words = [_SMALL.get(word, word) for word in shlex.split(line)]
    if words[1:3] == ["hypernet", "train"]:
        words += _SHORT
    if words[1] == "draft-head" and not {"--size", "--check"} & set(words):
        words += ["--size", "600"]
    out = _output(words)
    aside = Path(f"{out}.aside") if out is not None and out.is_dir() else None
    if out is not None and aside is not None:
        out.rename(aside)
    begin = time.perf_counter()
    ended = cli(*words[1:])
    seconds = time.perf_counter() - begin
    if out is not None and aside is not None:
        if "--dry-run" in words:  # it writes nothing, and what was there may be what the next line reads
            aside.rename(out)
        else:
            shutil.rmtree(aside)
    return ended, seconds


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Run all lines in a folder. Return a record of each."""
    stage(folder)
    os.environ["TOKSWAP_HOME"], os.environ["TOKSWAP_CACHE"] = str(folder / "home"), str(folder / "cache")
    (folder / "home").mkdir()
    makers.write_json(folder / "home" / "aliases.json", {name: str(folder / path) for name, path in _ALIASES.items()})
    before, records = Path.cwd(), []
    os.chdir(folder)
    try:
        for line in [*_FIRST, *shown()]:
            why = next((why for start, why in LEFT_OUT.items() if line.startswith(start)), "")
            if line in _BEFORE:
                run(_BEFORE[line])
            ended, seconds = (f"left out: {why}", 0.0) if why else run(line)
            records.append({"line": line, "ended": ended, "seconds": round(seconds, 2)})
            print(f"{ended:8} {seconds:6.2f} s  {line}", flush=True)
    finally:
        os.chdir(before)
    return records
