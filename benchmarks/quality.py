"""How good every method is, and mergekit's beside them: excess bits per byte on held-out texts, two pairs, one run.

    python benchmarks/quality.py [--mergekit PYTHON] [--encoder DIR] [--texts DIR] [--work DIR] [--only NAME ...]

Pair 1 puts SmolLM2's tokenizer on Gemma-3-270m. Pair 2 puts Gemma's on SmolLM2, trimmed to the tokens that occur in a
selection text, with a donor of the same rows, so that peers take minutes. The excess of a result is its bits per byte
less those of the source with its own tokenizer on the same text. The mean is over English, code and German; Russian
stands beside it, because neither the source model of pair 2 nor the tokenizer of pair 1 knows much of it. The ratio
is the mean over both pairs, mergekit's omp being 1.

`control` calibrates the source on its own tokenizer, where no row is missing: what a calibration gains there is the
text's domain, not the transplant, and stands below 0.

`--mergekit` names the python of an environment with mergekit==0.1.5; its tokensurgeon is run as a whole process.
`--work` keeps the trimmed donor, mergekit's results and every score: a second run does what is not there yet, and its
table and JSON hold all that was ever scored there on these texts. A method that failed is tried again where `--only`
names it. Texts: `quality_texts.py`; `--bytes` cuts all of them, for a try.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _machine import RESULTS, keep
from quality_texts import LANGUAGES, fetch_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.errors import TokswapError
from tokswap.evaluation.losses import bits_per_byte, load_model
from tokswap.init.base import Checked
from tokswap.init.registry import METHODS, make_initializer
from tokswap.storage.resolve import cache_folder, resolve_model
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.transplant.plan import Transplant, plan_transplant
from tokswap.trim.rebuild import trim_tokenizer

IN_MEAN = ("en", "code", "de")
PEERS = ("omp", "subword", "common_interpolation")
YARDSTICK = "mergekit-omp"
K = 64
CONTROLS: Mapping[str, dict[str, Any]] = {
    "control": {"init": "mean", "calibrate": True},
    "control-untied": {"init": "mean", "calibrate": True, "tie": False},
}
AUTO: Mapping[str, dict[str, Any]] = {
    "auto": {"init": "auto"},
    "omp-exact": {"init": "omp", "settings": {"exact": True}},
    "kriging-untied-blend": {
        "init": "kriging",
        "tie": False,
        "output_init": "0.6*kriging + 0.4*subword(weights=first)",
    },
    "auto-calibrated": {"init": "auto", "calibrate": True},
    "auto-calibrated-untied": {"init": "auto", "calibrate": True, "tie": False},
}


@dataclass(frozen=True)
class Pair:
    """key: names what is kept of it in the work folder. tokenizer: the donor's folder too."""

    number: str
    key: str
    model: Path
    tokenizer: Path


@dataclass(frozen=True)
class Bench:
    """A run. texts: language -> what is judged. calibration: the files to calibrate with. scores: the folder of them."""

    work: Path
    scores: Path
    texts: Mapping[str, str]
    calibration: tuple[Path, ...]
    dtype: str

    def judge(self, folder: Path) -> dict[str, float]:
        """Return the bits per byte of a model folder on every text."""
        model = load_model(folder, dtype=self.dtype)
        return {language: bits_per_byte(*model, text).bits_per_byte for language, text in self.texts.items()}

    def ours(self, pair: Pair, options: Mapping[str, Any], tokenizer: Path) -> dict[str, Any]:
        """Transplant into the work folder, judge what was written, and delete it; returns bits and cost."""
        given = {**options, "calibrate": self.calibration if options.get("calibrate") else ()}
        with tempfile.TemporaryDirectory(dir=self.work, prefix="made-") as scratch:
            wall, cpu = time.perf_counter(), time.process_time()
            job = plan_transplant(str(pair.model), str(tokenizer), out=Path(scratch) / "model", **given)
            report = job.run()
            cost = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
            found = {"bits": self.judge(Path(scratch) / "model"), **cost, "notes": list(report.notes)}
        return {**found, "evidence": report.evidence} if report.evidence else found

    def source(self, pair: Pair) -> dict[str, Any]:
        """Judge the source with its own tokenizer, and say how large the pair is."""
        alignment = _plan(pair, self.work / "never-written").alignment
        return {"bits": self.judge(pair.model), "rows": len(alignment.source_of), "missing": len(alignment.missing)}

    def peer_folder(self, pair: Pair, method: str) -> Path:
        """Where what mergekit made is kept."""
        return self.work / "peers" / f"{pair.key}-{method}"

    def peer(self, pair: Pair, method: str, python: str | None) -> dict[str, Any]:
        """Let mergekit make a model, or take the one that it made before, and judge its rows."""
        made = self.peer_folder(pair, method)
        if not made.is_dir():
            assert python is not None
            part = made.with_name(f"{made.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(exist_ok=True)
            cost = _run_mergekit(python, method, pair, part)
            if "failed" in cost:
                shutil.rmtree(part, ignore_errors=True)
                return cost
            (part / "cost.json").write_text(json.dumps(cost))
            part.rename(made)
        # Judge the rows and not the template: where the source wants a bos first, the text must begin with one.
        for name, content in _plan(pair, self.work / "never-written").edit.files.items():
            if name.startswith("tokenizer"):
                (made / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        cost_file = made / "cost.json"
        return {"bits": self.judge(made), **(json.loads(cost_file.read_text()) if cost_file.is_file() else {})}

    def score(self, pair: Pair, name: str, again: bool, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept of a method, or do the work and keep it; a failure too is a result."""
        path = self.scores / pair.number / f"{name}.json"
        if path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text())
            if not (again and "failed" in kept):
                return kept
        print(f"pair {pair.number}: {name} ...", file=sys.stderr, flush=True)
        try:
            found = work()
        except TokswapError as error:
            found = {"failed": str(error).splitlines()[0]}
        if not np.isfinite(list(found.get("bits", {}).values())).all():
            found = {"failed": "its bits per byte are not finite"}
        found = {"date": datetime.date.today().isoformat(), **found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(found, indent=2) + "\n")
        path.with_suffix(".part").rename(path)
        print(f"  {found.get('failed') or found['bits']}", file=sys.stderr, flush=True)
        return found


def _plan(pair: Pair, out: Path) -> Transplant:
    return plan_transplant(str(pair.model), str(pair.tokenizer), init="mean", out=out)


def _run_mergekit(python: str, method: str, pair: Pair, out: Path) -> dict[str, Any]:
    """Run tokensurgeon; returns its cost, or how it failed."""
    surgeon = "from mergekit.scripts.tokensurgeon import main; main()"
    arguments = [str(pair.model), str(pair.tokenizer), str(out), "-k", str(K), "--approximation-method", method]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(
        [python, "-c", surgeon, *arguments], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
        return {"failed": lines[-1] if lines else f"status {process.returncode}"}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - begin, 1), "cpu_s": round(cpu, 1)}


def our_methods(encoder: str | None) -> dict[str, dict[str, Any]]:
    """Return name -> options of `plan_transplant`, of every method that needs no file but the encoder."""
    found: dict[str, dict[str, Any]] = {}
    for name in METHODS:
        if name == "tokenadapt":
            for choice in ("donor", "source"):
                found[f"{name}-{choice}"] = {"init": name, "settings": {"encoder": choice}}
            found[f"{name}-encoder"] = {"init": name, "settings": {"encoder": encoder}}
            continue
        try:
            method = make_initializer(name)
            if isinstance(method, Checked):
                method.check()
        except TokswapError:
            continue
        if name != "auto":
            found[name] = {"init": name}
    return {**found, **AUTO}


def trimmed_donor(gemma: Path, select: Path, work: Path) -> Path:
    """Return the folder of Gemma with the tokens of the selection texts alone; made on first use.

    It is written by a transplant onto the trimmed tokenizer, which copies every row: asserted before it runs.
    """
    folder = work / f"gemma-trimmed-{_digest(select)}"
    if folder.is_dir():
        return folder
    print("trimming the donor of pair 2 ...", file=sys.stderr, flush=True)
    tokenizer = read_tokenizer(gemma)
    seen: set[int] = set()
    for language in LANGUAGES:
        text = (select / f"{language}.txt").read_text("utf-8")
        for start in range(0, len(text), 5000):  # and not by lines: runs of line ends are tokens too
            seen.update(tokenizer.encode(text[start : start + 5000]))
    trimmed = trim_tokenizer(tokenizer, seen)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for name, content in trimmed.tokenizer.output_files().items():
            (Path(scratch) / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        job = plan_transplant(str(gemma), scratch, init="mean", vocab_size="tight", out=folder)
        if not np.array_equal(job.alignment.source_of, trimmed.kept):
            raise RuntimeError("the trimmed tokenizer does not align with its own model")
        job.run()
    return folder


def _digest(*folders: Path, more: str = "") -> str:
    """A short name for the texts of some folders."""
    total = hashlib.sha256(more.encode())
    for folder in folders:
        for language in LANGUAGES:
            total.update(hashlib.sha256((folder / f"{language}.txt").read_bytes()).digest())
    return total.hexdigest()[:10]


def _shortened(texts: Path, names: tuple[str, ...], size: int, work: Path) -> Path:
    """Copies of some sets with the first bytes of each text."""
    folder = work / f"first-{size}"
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for language in LANGUAGES:
            cut = (texts / name / f"{language}.txt").read_bytes()[:size].decode("utf-8", "ignore")
            (folder / name / f"{language}.txt").write_text(cut, "utf-8")
    return folder


def _check_texts(folder: Path, names: tuple[str, ...]) -> None:
    missing = [
        f"{name}/{one}.txt" for name in names for one in LANGUAGES if not (folder / name / f"{one}.txt").is_file()
    ]
    if missing:
        raise SystemExit(f"quality.py: --texts {folder} lacks {', '.join(missing)}")


def collect(bench: Bench) -> dict[str, Any]:
    """Return all scores that are kept on these texts, as excess: by pair, and as means over both."""
    kept: dict[str, dict[str, Any]] = {}
    for first in sorted(bench.scores.glob("*/source.json")):
        source = json.loads(first.read_text())
        base, methods = source["bits"], {}
        for path in sorted(first.parent.glob("*.json")):
            entry = json.loads(path.read_text())
            if "bits" in entry:
                bits = entry.pop("bits")
                excess = {language: round(bits[language] - base[language], 4) for language in base}
                mean = sum(bits[one] - base[one] for one in IN_MEAN) / len(IN_MEAN)
                entry = {"excess": excess, "mean": round(mean, 4), **entry}
            if path != first:
                methods[path.stem] = entry
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


def show(result: Mapping[str, Any]) -> None:
    """Print the table, best first."""
    pairs, both, ratio = result["pairs"], result["mean_excess_over_both_pairs"], result["ratio_to_mergekit_omp"]
    names = {name for pair in pairs.values() for name in pair["methods"]}

    def place(name: str) -> tuple[bool, float]:
        means = [pair["methods"].get(name, {}).get("mean", float("inf")) for pair in pairs.values()]
        return name in CONTROLS, sum(means)

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


def main() -> None:
    ours, peers = our_methods(None), {f"mergekit-{method}": method for method in PEERS}
    parser = argparse.ArgumentParser()
    parser.add_argument("--mergekit", help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--encoder", help="a sentence-transformers folder for tokenadapt")
    parser.add_argument("--texts", type=Path, help="DIR/{select,cal,held}/{en,code,de,ru}.txt; select may be missing")
    parser.add_argument("--work", type=Path, default=cache_folder() / "quality", help="keeps intermediate results")
    parser.add_argument("--pairs", nargs="+", choices=["1", "2"], default=["1", "2"])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*peers, *ours, *CONTROLS], default=[])
    parser.add_argument("--development", action="store_true", help="judge on DIR/dev, for choosing settings")
    parser.add_argument("--bytes", type=int, help="the first bytes of each text, for a try")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="of the judged models")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    names = ("cal", "dev" if options.development else "held")
    texts = options.texts or fetch_texts(options.work / "texts", names)
    _check_texts(texts, names)
    select = texts / "select"
    if not select.is_dir():
        select = fetch_texts(options.work / "texts", ["select"]) / "select"
    if options.bytes:
        texts = _shortened(texts, names, options.bytes, options.work)
    key = _digest(texts / names[1], texts / names[0], select, more=options.dtype)
    bench = Bench(
        options.work,
        options.work / "scores" / key,
        {language: (texts / names[1] / f"{language}.txt").read_text("utf-8") for language in LANGUAGES},
        tuple(texts / "cal" / f"{language}.txt" for language in IN_MEAN),
        options.dtype,
    )

    gemma, smollm2 = (resolve_model(str(fetch(name))) for name in ("gemma", "smollm2"))
    pairs = [Pair("1", "1", gemma, smollm2)] if "1" in options.pairs else []
    if "2" in options.pairs:
        pairs.append(Pair("2", f"2-{_digest(select)}", smollm2, trimmed_donor(gemma, select, options.work)))
    methods = our_methods(options.encoder)
    chosen = options.only or [*peers, *methods, *CONTROLS]
    for pair in pairs:
        base = bench.score(pair, "source", True, lambda pair=pair: bench.source(pair))
        if "failed" in base:
            raise SystemExit(f"quality.py: the source of pair {pair.number} cannot be judged: {base['failed']}")
        for name in chosen:
            if name in peers and not (options.mergekit or bench.peer_folder(pair, peers[name]).is_dir()):
                print(f"pair {pair.number}: {name} left out: give --mergekit", file=sys.stderr)
                continue
            if name == "tokenadapt-encoder" and not options.encoder:
                print(f"pair {pair.number}: {name} left out: give --encoder", file=sys.stderr)
                continue

            def work(pair: Pair = pair, name: str = name) -> dict[str, Any]:
                if name in peers:
                    return bench.peer(pair, peers[name], options.mergekit)
                if name in CONTROLS:
                    return bench.ours(pair, CONTROLS[name], pair.model)
                return bench.ours(pair, methods[name], pair.tokenizer)

            bench.score(pair, name, bool(options.only), work)
    result = collect(bench)
    show(result)
    said = {
        "text_set": names[1],
        "dtype": options.dtype,
        "mean_over": IN_MEAN,
        "bytes": {language: len(text.encode("utf-8")) for language, text in bench.texts.items()},
        "calibration_bytes": sum(path.stat().st_size for path in bench.calibration),
        "texts_and_settings": key,
    }
    official = not (options.development or options.bytes)
    name = f"quality-{datetime.date.today().isoformat()}"
    print("kept in", keep(name, {**said, **result}, RESULTS if official else options.work))


if __name__ == "__main__":
    main()
