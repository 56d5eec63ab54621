"""Probes before and after a transplant, and what `--digits` does to arithmetic.

    python benchmarks/probes.py --tokenizer FOLDER [--folder bench-probes] [--questions 20]

Two sources: SmolLM2-135M-Instruct with the tokenizer of FOLDER (that of Llama 3.2, which groups digits by three), without
and with `--digits single`; and Gemma-3-270m with SmolLM2's tokenizer. Each is asked the questions of `tokswap eval --probe`
beside its source, SmolLM2 those of `chat` too. An exact answer is more than these models write, so the digits of the right
sum are scored as well: bits per digit after four solved examples, where log2(10) = 3.32 is a guess. Each source is a
process of its own; a source that has results is not asked again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _machine import missing_rows

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.bootstrap import interval
from tokswap.evaluation.losses import ending_bits
from tokswap.evaluation.models import load_model
from tokswap.evaluation.probes.ask import PROBES
from tokswap.storage.resolve import resolve_model

PROBED = {"smollm2": ("spelling", "arithmetic", "facts", "chat"), "gemma": ("spelling", "arithmetic", "facts")}
"""Source -> the probes; Gemma-3-270m has no chat template."""
SUMS = 10
"""Sums of each number of digits whose digits are scored."""
TEXT = "A text for the command, which needs one. The probes do not read it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("bench-probes"))
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_source(given.one, given)))
        return
    rows = missing_rows("probes", PROBED, questions=given.questions)
    for row in rows.values():
        print("\n".join(table(row)))


def results(name: str, given: argparse.Namespace) -> dict[str, Path]:
    """Make the results of a source that are not there. Return their folders."""
    if name == "gemma":
        wanted: dict[str, dict[str, Any]] = {"gemma-smollm2": {"tokenizer": str(fetch("smollm2"))}}
    else:
        own = str(given.tokenizer)
        wanted = {"smollm2-llama": {"tokenizer": own}, "smollm2-llama-digits": {"tokenizer": own, "digits": "single"}}
    for result, settings in wanted.items():
        if not (given.folder / result).is_dir():
            options = dict(settings)
            tokswap.transplant_tokenizer(
                str(fetch(name)), options.pop("tokenizer"), out=given.folder / result, **options
            )
    return {result: given.folder / result for result in wanted}


def one_source(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Ask one source and its results, in this process."""
    folders = results(name, given)
    source = resolve_model(str(fetch(name)))
    begin = time.process_time()
    done = tokswap.evaluate_models(
        [str(folder) for folder in folders.values()],
        {"text": TEXT},
        against=str(source),
        tokens=0,
        probes=PROBED[name],
        questions=given.questions,
    )
    seconds = time.process_time() - begin
    names = [f"{name} (source)", *folders]
    probes = {
        own: {probe: score.as_dict() for probe, score in judged.probes.items()}
        for own, judged in zip(names, done.models, strict=True)
    }
    return {"processor_seconds": round(seconds), "probes": probes, "digits": digits([source, *folders.values()], names)}


def digits(folders: list[Path], names: list[str]) -> dict[str, Any]:
    """Return the bits per digit of the right sums, by the number of digits, and their difference to the source's."""
    sums = [question for question in PROBES["arithmetic"](SUMS, 0) if question.part.startswith("add")]
    parts = np.array([question.part for question in sums])
    sizes = np.array([len(question.answer) for question in sums], np.float64)
    found: dict[str, Any] = {}
    source = None
    for name, folder in zip(names, folders, strict=True):
        model, tokenizer = load_model(folder)
        bits = ending_bits(model, tokenizer, [(question.prompt, f" {question.answer}") for question in sums])
        source = bits if source is None else source
        groups = [(parts == part, part) for part in dict.fromkeys(parts.tolist())]
        found[name] = {
            "all": float(bits.sum() / sizes.sum()),
            **{part: float(bits[own].sum() / sizes[own].sum()) for own, part in groups},
            "interval": interval([(bits[own], sizes[own]) for own, _ in groups], 0),
            "difference_interval": interval([((bits - source)[own], sizes[own]) for own, _ in groups], 0),
        }
    return found


def table(row: Mapping[str, Any]) -> list[str]:
    """Return the results of a source as a Markdown table."""
    probes = list(next(iter(row["probes"].values())))
    lines = [f"| | {' | '.join(probes)} | bits per digit |", f"| --- |{' --- |' * (len(probes) + 1)}"]
    for name, own in row["probes"].items():
        cells = []
        for probe in probes:
            low, high = own[probe]["interval"]
            cells.append(f"{100 * own[probe]['score']:.0f} % ({100 * low:.0f} to {100 * high:.0f})")
        low, high = row["digits"][name]["interval"]
        cells.append(f"{row['digits'][name]['all']:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
