"""One tokenizer through inspect, a transplant onto it, a transplant away from it, a trim and an extension."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from field import checks, texts
from field.tiny import make_tiny

Run = Callable[[list[str]], tuple[int, str]]
"""Runs a command line of tokswap; returns the exit status and everything that was printed."""
FAULTS = ("not-exact", "checks-failed")
"""Codes by which tokswap says that its own result is wrong."""


@dataclass(frozen=True)
class Outcome:
    """How one step ended."""

    step: str
    kind: str
    seconds: float
    details: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Ground:
    """Where a journey takes place, and the small model at its other end."""

    folder: Path
    base: Path
    run: Run


def in_a_process(arguments: list[str]) -> tuple[int, str]:
    """Run a command line as a user does."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tokswap", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def travel(tokenizer_folder: Path, ground: Ground) -> Iterator[Outcome]:
    """Send a folder with a tokenizer through all steps. What AutoTokenizer makes of the folder is what counts."""
    try:
        tokenizer = checks.load_tokenizer(tokenizer_folder)
    except Exception as error:
        yield _without_truth(tokenizer_folder, ground, error)
        return
    yield step("inspect", ground, ["inspect", str(tokenizer_folder), "--json"], lambda out: _inspected(out, tokenizer))
    base, target = ground.base, tokenizer_folder
    yield transplant("onto it", ground, (base, target), lambda out: transplanted(out, base, target, bos=False))
    model = make_tiny(tokenizer_folder, ground.folder / "tiny", tokenizer)
    bos = checks.begins_with_bos(tokenizer)
    yield transplant("away from it", ground, (model, base), lambda out: transplanted(out, model, base, bos=bos))
    yield _trim(ground, model, checks.added_tokens(tokenizer))
    yield _extend(ground, model)


def _without_truth(folder: Path, ground: Ground, error: Exception) -> Outcome:
    """Inspect a tokenizer that transformers cannot load here: it must be refused."""
    said = f"transformers: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"
    outcome = step("inspect", ground, ["inspect", str(folder), "--json"], lambda out: ["described, and " + said])
    return dataclasses.replace(outcome, details=[*outcome.details, said])


def step(name: str, ground: Ground, arguments: list[str], check: Callable[[str], list[str]]) -> Outcome:
    """Run a command line and judge what has come of it."""
    begin = time.perf_counter()
    out = ground.folder / "out" / name.replace(" ", "-")
    if arguments[0] != "inspect":
        arguments = [*arguments, "--out", str(out)]
    status, printed = ground.run(arguments)
    if status:
        kind, details = _refused(status, printed, out)
    else:
        try:
            details = check(printed)
        except Exception as error:
            details = [f"the result cannot be used: {type(error).__name__}: {str(error)[:300]}"]
        kind = "wrong" if details else "works"
    return Outcome(step=name, kind=kind, seconds=round(time.perf_counter() - begin, 1), details=details)


def _refused(status: int, printed: str, out: Path) -> tuple[str, list[str]]:
    """Judge a run that failed: a refusal has one line with a code, and leaves nothing behind."""
    found = re.findall(r"^error: .*\[([a-z-]+)\]$|\"code\": \"([a-z-]+)\"", printed, re.MULTILINE)
    if "Traceback" in printed or not found:
        return "wrong", [f"exit status {status} and no error with a code: ...{printed[-300:]}"]
    left = sorted(path.name for path in out.parent.glob(f"*{out.name}*"))
    code = "".join(found[0])
    said = next((line for line in printed.splitlines() if line.startswith("error: ")), code)[:250]
    kind = "wrong" if left or code in FAULTS else "refused"
    return kind, [said, *(f"left behind: {name}" for name in left)]


def _inspected(printed: str, tokenizer: Any) -> list[str]:
    """Compare what inspect says with the tokenizer."""
    found = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])["tokenizer"]
    size = 1 + max(tokenizer.get_vocab().values())
    wrong = [] if found["ids"] == size else [f"{found['ids']} ids, not {size}"]
    for role in ("bos", "eos", "pad", "unk", "cls", "sep", "mask"):
        said, own = found["roles"].get(role), getattr(tokenizer, f"{role}_token")
        said = said["token"] if isinstance(said, dict) else said
        if said != own:
            wrong.append(f"{role} is said to be {said!r}, and is {own!r}")
    return wrong


def transplant(name: str, ground: Ground, sides: tuple[Path, Path], judge: Callable[[Path], list[str]]) -> Outcome:
    """Put a tokenizer on a model: sides are (model, tokenizer). The method needs no donor, so that both ways are one."""
    model, target = map(str, sides)
    arguments = ["transplant", "--model", model, "--tokenizer", target, "--init", "subword", "--donor", "none"]
    out = ground.folder / "out" / name.replace(" ", "-")
    return step(name, ground, arguments, lambda printed: judge(out))


def transplanted(out: Path, source: Path | None, target: Path, *, bos: bool) -> list[str]:
    """Judge a transplant.

    Args:
        out: The result.
        source: The model; None where transformers cannot load it as it is: then rows of shared tokens are not compared.
        target: The tokenizer.
        bos: Whether the model is used to bos before a text, and the tokenizer writes none.
    """
    new, theirs, model = checks.load_tokenizer(out), checks.load_tokenizer(target), checks.load_model(out)
    some = [*texts.ODD, *texts.shipped(), *texts.with_tokens(checks.added_tokens(theirs))]
    followed = checks.what_a_result_follows(target, some)
    found = [
        *checks.same_tokens(new, theirs),
        *checks.same_roles(new, theirs),
        *checks.same_ids(new, followed, some, bos=bos),
        *checks.same_chats(new, followed),
        *checks.fits(model, new),
        *checks.runs(model, new, some[::23]),
        *checks.byte_rows(model, new),
    ]
    if source is not None:
        found += checks.copied_rows((model, new), (checks.load_model(source), checks.load_tokenizer(source)))
    return found


def _trim(ground: Ground, model: Path, added: list[str]) -> Outcome:
    """Keep the tokens of a corpus of texts; one added token is in them, and so what stands beside added tokens is."""
    seen = [text for text in (*texts.ODD, *texts.shipped()[:60], *texts.with_tokens(added[:1])) if text.strip()]
    corpus = texts.write_corpus(ground.folder / "corpus.jsonl", seen)
    out = ground.folder / "out" / "trim"
    arguments = ["trim", "--model", str(model), "--corpus", str(corpus)]
    return step("trim", ground, arguments, lambda printed: trimmed(out, model, seen))


def trimmed(out: Path, source: Path, seen: list[str]) -> list[str]:
    """Judge a trim that has kept the tokens of some texts."""
    new, old = checks.load_tokenizer(out), checks.load_tokenizer(source)
    model, before = checks.load_model(out), checks.load_model(source)
    marked = checks.spelled_with(new, old, texts.with_tokens(checks.added_tokens(old))[::3])
    return [
        *checks.kept_added(new, old),
        *checks.same_roles(new, old),
        *checks.same_pieces(new, old, seen),
        *checks.same_pieces(new, old, marked),
        *checks.same_chats(new, old, markers=checks.added_tokens(old)),
        *checks.fits(model, new),
        *checks.runs(model, new, seen[::9]),
        *checks.kept_rows((model, new), (before, old)),
        *checks.kept_outputs((model, new), (before, old), seen[-4:]),
    ]


def _extend(ground: Ground, model: Path) -> Outcome:
    """Add words that no vocabulary has."""
    listed = ground.folder / "words.txt"
    listed.write_text("\n".join(texts.NEW_WORDS), encoding="utf-8")
    out = ground.folder / "out" / "extend"
    arguments = ["extend", "--model", str(model), "--tokens", str(listed), "--init", "subword"]
    return step("extend", ground, arguments, lambda printed: extended(out, model))


def extended(out: Path, source: Path) -> list[str]:
    """Judge an extension by the words: old ids and the ids of texts without new tokens stay; a word is a new token."""
    new, old = checks.load_tokenizer(out), checks.load_tokenizer(source)
    model, before = checks.load_model(out), checks.load_model(source)
    some = [*texts.ODD, *texts.shipped(), *texts.with_tokens(checks.added_tokens(old))]
    return [
        *checks.old_tokens((model, new), (before, old)),
        *checks.same_roles(new, old),
        *checks.same_ids(new, old, checks.without_new(new, old, some)),
        *checks.same_chats(new, old),
        *checks.new_words(new, old, texts.NEW_WORDS),
        *checks.fits(model, new),
        *checks.runs(model, new, [*some[::23], *texts.NEW_WORDS]),
    ]
