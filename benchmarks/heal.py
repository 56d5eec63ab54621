"""Healing of the demo pair, beside plain cross-entropy, a control, and a bare training step.

    python benchmarks/heal.py [--rows heal ...] [--kilobytes 120] [--texts DIR] [--folder DIR] [--name heal]

The student is Gemma-3-270m with SmolLM2's tokenizer (`tokswap transplant --init auto`), the teacher Gemma-3-270m. Texts
to train on, and held-out texts that no setting was chosen by, are those of `quality_texts`. Each row is a process of
its own; rows that have results already are not run again. `cpu_seconds` is the processor time of the whole healing.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from _heal_speed import speed
from _machine import missing_rows, row_parser
from quality_texts import fetch_texts, healing_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model

ROWS: dict[str, dict[str, Any]] = {
    "before": {},
    "heal": {},
    "heal, one epoch": {"epochs": 1},
    "heal, and as much text again that the teacher writes": {"self_text": 1.0},
    "no text: the teacher writes it": {"self_text": 1.0, "texts": False},
    "no text: the teacher writes it in English and German": {
        "self_text": 1.0,
        "texts": False,
        "self_text_languages": ("en", "de"),
    },
    "cross-entropy alone, the same steps": {"kl": 0.0, "cross_entropy": 1.0},
    "cross-entropy alone, three epochs": {"kl": 0.0, "cross_entropy": 1.0, "epochs": 3},
    "control: the source model, cross-entropy on the same text": {"kl": 0.0, "cross_entropy": 1.0, "source": True},
    "speed": {},
    "speed of a draft with 262k tokens": {},
}
SPEEDS = ("speed", "speed of a draft with 262k tokens")
LANGUAGES = ("en", "code", "de")


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-heal")
    parser.add_argument("--kilobytes", type=int, default=120)
    parser.add_argument("--name", default="heal")
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(one_row(given.one, given.kilobytes, given.texts, given.folder)))
        return
    fetch_texts(given.texts, ["held", "dev"])

    def key(name: str) -> str:
        return name if name in ("before", *SPEEDS) else f"{name}, {given.kilobytes} kB"

    rows = missing_rows(given.name, given.rows, key=key)
    print("\n".join(table(rows)))


def models(folder: Path) -> tuple[Path, Path]:
    """Return the source model, and the student, made on first use."""
    source, target = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    student = folder / "student"
    if not student.exists():
        tokswap.transplant_tokenizer(source, target, init="auto", out=student)
    return source, student


def draft(folder: Path, target: Path) -> Path:
    """Return SmolLM2 with the 262k tokens of Gemma, made on first use."""
    made = folder / "draft"
    if not made.exists():
        tokswap.make_draft(resolve_model(str(fetch("smollm2"))), target, init="subword", out=made)
    return made


def one_row(name: str, kilobytes: int, texts: Path, folder: Path) -> dict[str, Any]:
    """Make one row, in this process."""
    source, student = models(folder)
    if name in SPEEDS:
        return speeds((source, student if name == "speed" else draft(folder, source)), healing_texts(texts, kilobytes))
    found: dict[str, Any] = {}
    if name != "before":
        settings = dict(ROWS[name])
        is_source, has_text = settings.pop("source", False), settings.pop("texts", True)
        if "self_text" in settings:
            settings["self_text"] = int(settings["self_text"] * kilobytes * 1000)
        paths = healing_texts(texts, kilobytes) if has_text else []
        out, begin, cpu = folder / f"out-{time.time_ns()}", time.perf_counter(), time.process_time()
        try:
            report = tokswap.heal_model(source if is_source else student, paths, teacher=source, out=out, **settings)
            found = {
                "steps": report.healing["steps"],
                "text": dict(report.healing["text"]),
                "own_held_out": [report.healing[f"excess_{when}"]["all"] for when in ("before", "after")],
                "estimated_memory_gb": round(report.plan.estimate.memory_bytes / 1e9, 2),
            }
        except tokswap.InputError as error:
            if error.code != "not-better":
                raise
            found, out = {"not_better": error.message}, source if is_source else student
        found["seconds"] = round(time.perf_counter() - begin, 1)
        found["cpu_seconds"] = round(time.process_time() - cpu, 1)
        found["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        student = out
    found["excess"] = excess(student, source, texts / "held")
    return {**found, "development": excess(student, source, texts / "dev")}


def excess(folder: Path, source: Path, texts: Path) -> dict[str, float]:
    """Return the excess on each text, and their mean."""
    held = {name: (texts / f"{name}.txt").read_text("utf-8") for name in LANGUAGES}
    bits = []
    for one in (source, folder):
        model, tokenizer = load_model(one, dtype="bfloat16")
        bits.append({name: bits_per_byte(model, tokenizer, text).bits_per_byte for name, text in held.items()})
        del model
    found = {name: bits[1][name] - bits[0][name] for name in LANGUAGES}
    return {name: round(value, 4) for name, value in {**found, "mean": sum(found.values()) / len(found)}.items()}


def speeds(sides: tuple[Path, Path], paths: list[Path]) -> dict[str, float]:
    """Compare a step of healing with a bare one: the same body, adapter and batch, cross-entropy, AdamW."""
    found = speed(sides, paths, "cpu", batch_tokens=512, steps=14)
    return {
        **{f"{name}_tokens_per_cpu_second": value for name, value in found.items()},
        "share": round(found["healing"] / found["bare"], 3),
    }


def table(rows: dict[str, Any]) -> list[str]:
    """Return the rows with an excess as Markdown."""
    lines = ["| | English | code | German | **mean** | steps | CPU s | peak GB |", "| --- |" + " --- |" * 7]
    for name, row in rows.items():
        if "excess" in row:
            figures = [f"{row['excess'][one]:+.3f}" for one in LANGUAGES]
            more = [row.get(key, "-") for key in ("steps", "cpu_seconds", "peak_memory_gb")]
            lines.append(
                f"| {name} | {' | '.join(figures)} | **{row['excess']['mean']:+.3f}** | {more[0]} | {more[1]} | {more[2]} |"
            )
    return lines


if __name__ == "__main__":
    main()
