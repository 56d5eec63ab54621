"""`make soak`: every fault, every damaged input, and every command that the docs show.

    python -m soak [faults] [fuzz] [shown] [--kills N] [--others N] [--inputs N] [--seed N] [--only NAME]

The figures are printed and kept in benchmarks/results/soak.json. Each part replaces its own figures there, so the parts
can be run one after the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from _machine import RESULTS, keep  # noqa: E402

Save = Callable[[dict[str, Any]], object]


def faults(options: argparse.Namespace, root: Path, before: dict[str, Any], save: Save) -> dict[str, Any]:
    """Run commands into all kinds of trouble.

    Args:
        options: How often, with which seed, and which commands.
        root: Where the runs take place.
        before: Figures of an earlier run, which are kept for commands that do not run now.
        save: Called with the figures after each command.
    """
    from soak.commands import COMMANDS
    from soak.faults import KINDS
    from soak.ground import Ground

    only = options.only
    ground, begin = Ground(root, megabytes=4), time.perf_counter()
    kills = {"kill -9": -(-options.kills // len(COMMANDS)), "read-only folder": 1}
    times = dict.fromkeys(KINDS, options.others) | kills
    outcomes: list[dict[str, Any]] = [
        outcome for outcome in before.get("outcomes", ()) if only and only not in outcome["command"]
    ]
    result: dict[str, Any] = {}
    for command in COMMANDS:
        if only not in command.name:
            continue
        for kind, run in KINDS.items():
            outcome = run(ground, command, times[kind], options.seed)
            outcomes.append(outcome.as_dict())
            counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
            print(f"{command.name}, {kind}: {counts}", *outcome.troubles, sep="\n  ! ", flush=True)
        order = [one.name for one in COMMANDS]
        outcomes.sort(key=lambda outcome: order.index(outcome["command"]))
        result = {
            "date": datetime.date.today().isoformat(),
            "seed": options.seed,
            "seconds": round(time.perf_counter() - begin) + (before.get("seconds", 0) if only else 0),
            "commands": sorted({outcome["command"] for outcome in outcomes}, key=order.index),
            "outcomes": outcomes,
        }
        save(result)
    rows = [("kind", "runs", "while writing", "refused or stopped", "troubles")]
    _table([*rows, *(_fault_row(kind, outcomes) for kind in KINDS)])
    return result


def _fault_row(kind: str, outcomes: list[dict[str, Any]]) -> tuple[str, ...]:
    """Add up the outcomes of one kind of trouble."""
    own = [outcome for outcome in outcomes if outcome["kind"] == kind]
    total: Counter[str] = Counter()
    for outcome in own:
        total.update({key: value for key, value in outcome.items() if isinstance(value, int)})
    runs = total["kills"] + total["sent"] + total["times"] + total["pairs"]
    ended = total["refused"] + total["stopped"] + total["one refused"]
    troubles = sum(len(outcome["troubles"]) for outcome in own)
    return kind, str(runs), str(total["while writing"] or ""), str(ended or ""), str(troubles)


def fuzz(options: argparse.Namespace, root: Path, before: dict[str, Any], save: Save) -> dict[str, Any]:
    """Read damaged inputs of all kinds.

    Args:
        options: How many, with which seed, and which kinds.
        root: Where they are written.
        before: Figures of an earlier run, which are kept for kinds that are not read now.
        save: Called with the figures after each kind.
    """
    from soak.child import preload
    from soak.fuzz import fuzz as run
    from soak.fuzz import shares

    preload()
    found = {tally["name"]: tally for tally in before.get("targets", ()) if options.only}
    order = [target.name for target, _ in shares(options.inputs)]
    result: dict[str, Any] = {}
    for target, share in shares(options.inputs):
        if options.only not in target.name:
            continue
        tally = run(target, share, options.seed, root / "fuzz")
        found[target.name] = tally.as_dict()
        findings = [
            f"{what}, {len(numbers)} times, first as number {numbers[0]}" for what, numbers in tally.findings.items()
        ]
        took = f"{target.name}: {tally.inputs:,} inputs in {tally.seconds:.0f} s"
        print(took, *findings, sep="\n  ! ", flush=True)
        tallies = sorted(found.values(), key=lambda tally: order.index(tally["name"]))
        result = {
            "date": datetime.date.today().isoformat(),
            "seed": options.seed,
            "inputs": sum(tally["inputs"] for tally in tallies),
            "seconds": round(sum(tally["seconds"] for tally in tallies)),
            "targets": tallies,
        }
        save(result)
    rows = [("input", "number", "taken", "refused", "codes", "slowest s", "memory MB", "findings")]
    _table([*rows, *map(_fuzz_row, result["targets"])])
    print(f"{result['inputs']:,} inputs")
    return result


def _fuzz_row(target: dict[str, Any]) -> tuple[str, ...]:
    return (
        target["name"],
        f"{target['inputs']:,}",
        f"{target['taken']:,}",
        f"{target['refused']:,}",
        str(len(target["codes"])),
        f"{target['slowest_seconds']}",
        f"{target['memory_growth_mb']}",
        str(len(target["findings"])),
    )


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    print()
    for row in rows:
        print(
            "  ".join(
                cell.ljust(width) if not n else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak", description="Faults and damaged inputs in full.")
    parser.add_argument("parts", nargs="*", default=["faults", "fuzz", "shown"], help="faults, fuzz, shown")
    parser.add_argument("--kills", type=int, default=234)
    parser.add_argument(
        "--others", type=int, default=6, help="how often each other kind of trouble comes to each command"
    )
    parser.add_argument("--inputs", type=int, default=120_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", default="", help="only commands and inputs with this in their name; keep the figures of the rest"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where soak.json is")
    options = parser.parse_args()
    file = options.results / "soak.json"
    kept = json.loads(file.read_text("utf-8")) if file.is_file() else {}

    def save(part: str, result: dict[str, Any]) -> None:
        kept[part] = result
        keep("soak", {name: kept[name] for name in ("faults", "fuzz", "shown") if name in kept}, options.results)

    bad = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        if "faults" in options.parts:
            found = faults(options, root, kept.get("faults", {}), partial(save, "faults"))
            bad = any(outcome["troubles"] for outcome in found["outcomes"])
        if "fuzz" in options.parts:
            found = fuzz(options, root, kept.get("fuzz", {}), partial(save, "fuzz"))
            bad = bad or any(tally["findings"] for tally in found["targets"])
        if "shown" in options.parts:
            from soak.shown import run_all

            records = run_all(Path(folder) / "shown")
            ended = Counter(record["ended"].partition(":")[0] for record in records)
            lines = {"date": datetime.date.today().isoformat(), "lines": len(records), "ended": dict(ended)}
            save("shown", lines)
            bad = bad or set(ended) > {"ok", "left out"}
    print(f"wrote {file}")
    sys.exit(bad)


if __name__ == "__main__":
    main()
