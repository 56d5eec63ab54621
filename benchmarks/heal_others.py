"""Healing of other changes than that of the demo pair, each beside plain cross-entropy in the same steps.

    python benchmarks/heal_others.py [--rows NAME ...] [--texts DIR] [--folder DIR]

Students are made on first use. Texts are those of `quality_texts`: 40 kB (or 120) to train on, a third of it English,
code and German each, and held-out texts that no setting was chosen by. Each row is a process of its own; rows that have
results already are not run again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _machine import missing_rows, row_parser
from heal import LANGUAGES, excess
from quality import trimmed_donor
from quality_texts import LANGUAGES as SELECTED
from quality_texts import fetch_texts, healing_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.storage.resolve import resolve_model

CROSS_ENTROPY = {"kl": 0.0, "cross_entropy": 1.0}


@dataclass(frozen=True)
class Case:
    """A changed model to heal.

    Attributes:
        source: Name of the source model, which is the teacher.
        make: Writes the student from the source to a folder, with the texts.
        english: Whether to heal on 40 kB of English alone.
        kilobytes: Size of the training text otherwise.
    """

    source: str
    make: Callable[[Path, Path, Path], Any]
    english: bool = False
    kilobytes: int = 40


def main() -> None:
    parser = row_parser(__doc__, CASES, "bench-heal")
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(one_row(CASES[given.one], given.one, given.texts, given.folder)))
        return
    rows = missing_rows("heal-others", given.rows)
    print("\n".join(table(rows)))


def one_row(case: Case, name: str, texts: Path, folder: Path) -> dict[str, Any]:
    """Score a student before healing, healed, and trained with plain cross-entropy, in this process."""
    fetch_texts(texts, ["select", "held", "dev"])
    source, student = resolve_model(str(fetch(case.source))), folder / case.make.__name__
    if not student.is_dir():
        case.make(source, student, texts)
    paths = healing_texts(texts, 120)[:1] if case.english else healing_texts(texts, case.kilobytes)
    sets = {"excess": texts / "held", "development": texts / "dev"}
    row: dict[str, Any] = {"before": {where: excess(student, source, path) for where, path in sets.items()}}
    for key, settings in (("healed", {}), ("cross-entropy alone", CROSS_ENTROPY)):
        out, cpu = folder / "out", time.process_time()
        try:
            report = tokswap.heal_model(student, paths, teacher=source, out=out, force=True, **settings)
        except tokswap.InputError as error:
            if error.code != "not-better":
                raise
            row[key] = {"not_better": error.message}
            continue
        row[key] = {"cpu_seconds": round(time.process_time() - cpu, 1), "steps": report.healing["steps"]}
        row[key]["own_held_out"] = [report.healing[f"excess_{when}"]["all"] for when in ("before", "after")]
        row[key] |= {where: excess(out, source, path) for where, path in sets.items()}
    return row


def half(source: Path, student: Path, texts: Path) -> None:
    """Trim to half of the tokens that the selection texts need to be tokenized as before."""
    corpora = [texts / "select" / f"{language}.txt" for language in SELECTED]
    wanted: dict[str, Any] = {"corpora": corpora, "drop_tokens": ["<unused*>"]}
    exact = sum(tokswap.plan_trim(source, **wanted).plan.coverage.values())
    tokswap.trim_vocabulary(source, **wanted, target_size=exact // 2, out=student)


def on_bytes(source: Path, student: Path, texts: Path) -> None:
    """Put a tokenizer on the source that has one token for each byte, and no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = student.with_name("bytes")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    tokswap.transplant_tokenizer(source, folder, out=student)


def with_gemma(source: Path, student: Path, texts: Path) -> None:
    """Put Gemma's tokenizer on the source, trimmed to the tokens of the selection texts."""
    donor = trimmed_donor(resolve_model(str(fetch("gemma"))), texts / "select", student.parent)
    tokswap.transplant_tokenizer(source, donor, donor=donor, out=student)


def with_smollm2(source: Path, student: Path, texts: Path) -> None:
    """Put SmolLM2's tokenizer on the source."""
    tokswap.transplant_tokenizer(source, resolve_model(str(fetch("smollm2"))), out=student)


def untied(source: Path, student: Path, texts: Path) -> None:
    """Put SmolLM2's tokenizer on the source, with an lm_head of its own."""
    tokswap.transplant_tokenizer(source, resolve_model(str(fetch("smollm2"))), tie=False, out=student)


CASES = {
    "SmolLM2 with Gemma's tokenizer": Case("smollm2", with_gemma),
    "SmolLM2 with Gemma's tokenizer, 120 kB": Case("smollm2", with_gemma, kilobytes=120),
    "Gemma trimmed to half of what is exact": Case("gemma", half),
    "SmolLM2 with bytes for tokens": Case("smollm2", on_bytes),
    "Gemma with SmolLM2's tokenizer": Case("gemma", with_smollm2),
    "Gemma with SmolLM2's tokenizer, untied": Case("gemma", untied),
    "Gemma with SmolLM2's tokenizer, 40 kB of English alone": Case("gemma", with_smollm2, english=True),
}


def table(rows: dict[str, Any]) -> list[str]:
    """Return the rows as Markdown."""
    lines = ["| | English | code | German | **mean** | steps | CPU s |", "| --- |" + " --- |" * 6]
    for name, row in rows.items():
        for state, found in row.items():
            figures = [f"{found['excess'][one]:+.3f}" if "excess" in found else "-" for one in (*LANGUAGES, "mean")]
            figures[-1] = f"**{figures[-1]}**"
            more = [str(found.get(key, "-")) for key in ("steps", "cpu_seconds")]
            lines.append(f"| {name}, {state} | {' | '.join([*figures, *more])} |")
    return lines


if __name__ == "__main__":
    main()
