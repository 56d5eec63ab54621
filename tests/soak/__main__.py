"""`make soak`: every fault, every damaged input and every command that the docs show, in full, a table at the end, and the figures in benchmarks/results/soak.json.

    python -m soak [faults] [fuzz] [shown] [--kills N] [--others N] [--inputs N] [--seed N] [--only NAME]

Each part replaces its own figures in the file, so that they can be run one after the other.
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


def faults(
    kills: int,
    others: int,
    seed: int,
    root: Path,
    only: str,
    before: dict[str, Any],
    save: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Run all commands, or those with `only` in their name, into all kinds of trouble; `before` has the others' figures."""
    from soak.commands import COMMANDS
    from soak.faults import KINDS, Ground

    ground, begin = Ground(root, megabytes=4), time.perf_counter()
    times = dict.fromkeys(KINDS, others) | {"kill -9": -(-kills // len(COMMANDS)), "read-only folder": 1}
    outcomes: list[dict[str, Any]] = [
        outcome for outcome in before.get("outcomes", ()) if only and only not in outcome["command"]
    ]
    result: dict[str, Any] = {}
    for command in COMMANDS:
        if only not in command.name:
            continue
        for kind, run in KINDS.items():
            outcome = run(ground, command, times[kind], seed)
            outcomes.append(outcome.as_dict())
            counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
            print(f"{command.name}, {kind}: {counts}", *outcome.troubles, sep="\n  ! ", flush=True)
        order = [one.name for one in COMMANDS]
        outcomes.sort(key=lambda outcome: order.index(outcome["command"]))
        seconds = round(time.perf_counter() - begin) + (before.get("seconds", 0) if only else 0)
        result = {
            "date": datetime.date.today().isoformat(),
            "seed": seed,
            "seconds": seconds,
            "commands": sorted({outcome["command"] for outcome in outcomes}, key=order.index),
            "outcomes": outcomes,
        }
        save(result)
    rows = [("kind", "runs", "while writing", "refused or stopped", "troubles")]
    for kind in KINDS:
        own = [outcome for outcome in outcomes if outcome["kind"] == kind]
        total: Counter[str] = Counter()
        for outcome in own:
            total.update({key: value for key, value in outcome.items() if isinstance(value, int)})
        runs = total["kills"] + total["sent"] + total["times"] + total["pairs"]
        ended = total["refused"] + total["stopped"] + total["one refused"]
        rows.append(
            (
                kind,
                str(runs),
                str(total["while writing"] or ""),
                str(ended or ""),
                str(sum(len(o["troubles"]) for o in own)),
            )
        )
    _table(rows)
    return result


def fuzz(
    inputs: int, seed: int, root: Path, only: str, before: dict[str, Any], save: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Give all targets their share of damaged inputs, or those whose name has `only` in it; `before` has the others' figures."""
    from soak.child import preload
    from soak.fuzz import fuzz as run
    from soak.fuzz import shares

    preload()
    found = {tally["name"]: tally for tally in before.get("targets", ()) if only}
    order = [target.name for target, _ in shares(inputs)]
    result: dict[str, Any] = {}
    for target, share in shares(inputs):
        if only not in target.name:
            continue
        tally = run(target, share, seed, root / "fuzz")
        found[target.name] = tally.as_dict()
        print(
            f"{target.name}: {tally.inputs:,} inputs in {tally.seconds:.0f} s",
            *(
                f"{what}, {len(numbers)} times, first as number {numbers[0]}"
                for what, numbers in tally.findings.items()
            ),
            sep="\n  ! ",
            flush=True,
        )
        tallies = sorted(found.values(), key=lambda tally: order.index(tally["name"]))
        result = {
            "date": datetime.date.today().isoformat(),
            "seed": seed,
            "inputs": sum(tally["inputs"] for tally in tallies),
            "seconds": round(sum(tally["seconds"] for tally in tallies)),
            "targets": tallies,
        }
        save(result)
    rows = [("input", "number", "taken", "refused", "codes", "slowest s", "memory MB", "findings")]
    rows += [
        (
            t["name"],
            f"{t['inputs']:,}",
            f"{t['taken']:,}",
            f"{t['refused']:,}",
            str(len(t["codes"])),
            f"{t['slowest_seconds']}",
            f"{t['memory_growth_mb']}",
            str(len(t["findings"])),
        )
        for t in result["targets"]
    ]
    _table(rows)
    print(f"{result['inputs']:,} inputs")
    return result


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
    parser.add_argument("--only", default="", help="only what has this in its name; keep the figures of the rest")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of soak.json")
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
            found = faults(
                options.kills,
                options.others,
                options.seed,
                root,
                options.only,
                kept.get("faults", {}),
                partial(save, "faults"),
            )
            bad = any(outcome["troubles"] for outcome in found["outcomes"])
        if "fuzz" in options.parts:
            found = fuzz(options.inputs, options.seed, root, options.only, kept.get("fuzz", {}), partial(save, "fuzz"))
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
