"""The table of quality.py, from the scores that it keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality_texts import LANGUAGES

IN_MEAN = ("en", "code", "de")
"""The languages of the mean."""
YARDSTICK = "mergekit-omp"
"""The score that ratios are relative to."""


def collect(scores: Path) -> dict[str, Any]:
    """Read all scores in a folder. Return the excess by pair, and the means over both pairs."""
    kept: dict[str, dict[str, Any]] = {}
    for first in sorted(scores.glob("*/source.json")):
        source = json.loads(first.read_text())
        base, methods = source["bits"], {}
        for path in sorted(first.parent.glob("*.json")):
            if path != first:
                methods[path.stem] = excess_of(json.loads(path.read_text()), base, IN_MEAN)
        kept[first.parent.name] = {
            "source_bits_per_byte": base,
            "rows": source["rows"],
            "missing": source["missing"],
            "methods": methods,
        }
    both = (
        {
            name: round(sum(pair["methods"][name]["mean"] for pair in kept.values()) / 2, 4)
            for name in kept["1"]["methods"]
            if all("mean" in pair["methods"].get(name, {}) for pair in kept.values())
        }
        if len(kept) == 2
        else {}
    )
    yardstick = both.get(YARDSTICK)
    ratio = {name: round(value / yardstick, 3) for name, value in both.items()} if yardstick else {}
    return {"pairs": kept, "mean_excess_over_both_pairs": both, "ratio_to_mergekit_omp": ratio}


def excess_of(score: Mapping[str, Any], base: Mapping[str, float], in_mean: Sequence[str]) -> dict[str, Any]:
    """Return a score with the excess of each language and the mean of some in place of its bits per byte.

    Args:
        score: What is kept of a method; one that failed has no bits per byte.
        base: Bits per byte of the source model by language.
        in_mean: The languages of the mean.
    """
    if "bits" not in score:
        return dict(score)
    excess = {language: score["bits"][language] - base[language] for language in base}
    rest = {key: value for key, value in score.items() if key != "bits"}
    mean = sum(excess[one] for one in in_mean) / len(in_mean)
    rounded = {language: round(value, 4) for language, value in excess.items()}
    return {"excess": rounded, "mean": round(mean, 4), **rest}


def show(result: Mapping[str, Any]) -> None:
    """Print a table, the best method first."""
    pairs, both, ratio = result["pairs"], result["mean_excess_over_both_pairs"], result["ratio_to_mergekit_omp"]
    names = {name for pair in pairs.values() for name in pair["methods"]}

    def place(name: str) -> float:
        return sum(pair["methods"].get(name, {}).get("mean", float("inf")) for pair in pairs.values())

    columns = [*IN_MEAN, "mean", *(language for language in LANGUAGES if language not in IN_MEAN), "CPU s"]
    width = max(map(len, names), default=0)
    blocks = "   ".join(f"{'pair ' + number:<{8 * len(columns) - 1}}" for number in pairs)
    print(f"{'':{width}}  {blocks}")
    print(f"{'':{width}}  {'   '.join(' '.join(f'{column:>7}' for column in columns) for _ in pairs)}    both  ratio")
    for name in sorted(names, key=place):
        cells = []
        for pair in pairs.values():
            entry = pair["methods"].get(name, {})
            values = {**entry.get("excess", {}), "mean": entry.get("mean")}
            row = [f"{values[one]:+7.3f}" if values.get(one) is not None else f"{'-':>7}" for one in columns[:-1]]
            cpu = f"{entry['cpu_s']:7.0f}" if "cpu_s" in entry else f"{'failed' if 'failed' in entry else '-':>7}"
            cells.append(" ".join([*row, cpu]))
        ends = f"{both[name]:+7.3f}" if name in both else f"{'-':>7}"
        print(f"{name:{width}}  {'   '.join(cells)} {ends} {f'{ratio[name]:6.2f}' if name in ratio else '     -'}")
    for number, pair in pairs.items():
        for name, entry in pair["methods"].items():
            if "failed" in entry:
                print(f"pair {number}, {name} failed: {entry['failed']}")
