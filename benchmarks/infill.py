"""Prompts that end inside a token, on functions of Python's standard library: exact, token healing, and as tokenized.

    python benchmarks/infill.py [--cases 60] [--model MODEL]

A case is a function of 5 to 20 lines, without a docstring, that breaks off inside a word and inside a token of the
model's tokenizer; what follows up to the end of the line is to be written. Three ways to read the prompt are compared:

- `exact`: what `tokswap generate` does. Every token counts that spells the end of the prompt and goes on.
- `healing`: the prompt's last token is taken back, and the next token must begin with its bytes.
- `naive`: the prompt as it is tokenized.

For each: how often the greedy line is the true one and how often its first word is, and bits per byte of the true line. The bits are those of exact
bytes after what each way takes as settled, so that no way depends on the tokens that end the line. Differences have
95 % intervals over the cases. 60 cases take five minutes of processor time.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from _machine import keep

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

from tokswap.ensemble.boundary import Prompt
from tokswap.ensemble.bytewise import ByteModel
from tokswap.ensemble.generate import continue_text
from tokswap.evaluation.models import load_model
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.loaded import read_loaded

WAYS = ("exact", "healing", "naive")
MOST_BYTES, LINE = 160, (3, 20)
"""Longest prompt, and the sizes of what is to be written, in bytes."""
OPEN_BYTES = 48
"""Bytes at the end of a prompt that `exact` reads byte by byte; what lies before them is settled."""


class Case(NamedTuple):
    """A prompt that ends inside a token, and the rest of its line."""

    name: str
    prompt: str
    line: str


def functions() -> Iterator[tuple[str, str]]:
    """Every function of 5 to 20 lines without a docstring in the standard library's modules, with its name."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text("utf-8", "replace")
        lines = source.splitlines(keepends=True)
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node):
                continue
            if 5 <= (node.end_lineno or 0) - node.lineno + 1 <= 20:
                yield f"{path.stem}.{node.name}", textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))


def cases(tokenizer: Any, count: int, seed: int = 0) -> list[Case]:
    """Return cases of distinct functions, one at a random place of each."""
    random = np.random.default_rng(seed)
    found = dict(functions())
    chosen: list[Case] = []
    for name in random.permutation(sorted(found)).tolist():
        source = found[name]
        if not source.isascii():
            continue
        ends = np.cumsum(
            [end - begin for begin, end in tokenizer(source, return_offsets_mapping=True)["offset_mapping"]]
        )
        boundaries = {0, *ends.tolist()}
        places = [
            at
            for at in range(source.index("\n") + 1, min(len(source), MOST_BYTES))
            if at not in boundaries
            and source[at - 1 : at + 1].isalnum()
            and LINE[0] <= source.find("\n", at) - at <= LINE[1]
        ]
        if places:
            at = int(random.choice(places))
            chosen.append(Case(name, source[:at], source[at : source.find("\n", at)]))
        if len(chosen) == count:
            break
    return chosen


class Ways:
    """The three ways to read a prompt.

    Args:
        model: The model.
        tokenizer: Its transformers tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.own = read_loaded(tokenizer)
        self.reader = ByteModel(model, self.own)
        self.begin = list(self.reader.start)
        self.spelt = self.own.vocabulary.token_bytes

    def settled(self, way: str, ids: list[int]) -> int:
        """How many tokens of the prompt are settled."""
        if way == "exact":
            sizes = np.cumsum([len(self.spelt[token]) for token in ids[::-1]])
            return len(ids) - min(len(ids), 1 + int(np.searchsorted(sizes, OPEN_BYTES)))
        return len(ids) - (way == "healing")

    def bits(self, way: str, case: Case, *, settled: int | None = None) -> float:
        """Bits of the true line after the prompt."""
        ids = self.own.encode(case.prompt)
        at = self.settled(way, ids) if settled is None else settled
        self.reader.start = [*self.begin, *ids[:at]]
        reader = self.reader.read(b"".join(self.spelt[token] for token in ids[at:]))
        line = case.line.encode()
        chances = reader.advance(line)[np.arange(len(line)), list(line)]
        return -float(np.log2(np.maximum(chances, 1e-30)).sum())

    def written(self, way: str, case: Case) -> str:
        """The greedy continuation, up to the end of the line."""
        ids = [*self.begin, *self.own.encode(case.prompt)]
        most = len(self.own.encode(case.line)) + 3
        lost = ""
        if way == "healing":
            token = self.healed(ids)
            lost = self.spelt[token][len(self.spelt[ids[-1]]) :].decode("utf-8", "replace")
            ids = [*ids[:-1], token]
        found = continue_text(self.model, self.tokenizer, Prompt(tuple(ids)), tokens=most, exact=way == "exact")
        return (lost + found.text).partition("\n")[0]

    def healed(self, ids: list[int]) -> int:
        """The likeliest token that begins with the bytes of the last one, in its place."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids[:-1]])).logits[0, -1]
        last = self.spelt[ids[-1]]
        fits = np.array([own.startswith(last) for own in self.spelt])
        return int(np.where(fits, logits[: len(fits)].float().numpy(), -np.inf).argmax())


def word(line: str) -> str:
    """The beginning of a line that completes a word."""
    return re.match(r"\w*", line)[0]


def interval(differences: np.ndarray, weights: np.ndarray, seed: int = 0) -> list[float]:
    """A ratio of sums over the cases, and its 95 % interval from 2000 draws of cases."""
    draws = np.random.default_rng(seed).integers(len(weights), size=(2000, len(weights)))
    ratios = differences[draws].sum(axis=1) / weights[draws].sum(axis=1)
    return [float(differences.sum() / weights.sum()), *np.quantile(ratios, [0.025, 0.975]).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--model", help="the demo's SmolLM2-135M-Instruct by default")
    options = parser.parse_args()
    place = options.model or str(fetch("smollm2"))
    model, tokenizer = load_model(resolve_model(place))
    ways, todo = Ways(model, tokenizer), cases(tokenizer, options.cases)
    hits, words, bits = ({way: np.zeros(len(todo)) for way in WAYS} for _ in range(3))
    seconds = dict.fromkeys(WAYS, 0.0)
    written = []
    for n, case in enumerate(todo):
        lines = {}
        for way in WAYS:
            begin = time.process_time()
            lines[way] = ways.written(way, case)
            seconds[way] += time.process_time() - begin
            hits[way][n] = lines[way] == case.line
            words[way][n] = word(lines[way]) == word(case.line)
            bits[way][n] = ways.bits(way, case)
        written.append({"name": case.name, "prompt": case.prompt[-40:], "line": case.line, **lines})
    whole = [ways.bits("exact", case, settled=0) for case in todo[:3]]
    sizes, ones = np.array([len(case.line) for case in todo]), np.ones(len(todo))
    result = {
        "model": Path(place).stem,
        "cases": len(todo),
        "bytes": int(sizes.sum()),
        "exact_match": {way: float(hits[way].mean()) for way in WAYS},
        "word_match": {way: float(words[way].mean()) for way in WAYS},
        "bits_per_byte": {way: float(bits[way].sum() / sizes.sum()) for way in WAYS},
        "exact_minus": {
            way: {
                "exact_match": interval(hits["exact"] - hits[way], ones),
                "word_match": interval(words["exact"] - words[way], ones),
                "bits_per_byte": interval(bits["exact"] - bits[way], sizes),
            }
            for way in WAYS[1:]
        },
        "processor_seconds_of_writing": seconds,
        "bits_if_nothing_is_settled": [whole, bits["exact"][:3].tolist()],
        "lines": written,
    }
    for way in WAYS:
        shares = f"lines {result['exact_match'][way]:6.1%}, words {result['word_match'][way]:6.1%}"
        print(f"{way:8} {shares}, {result['bits_per_byte'][way]:6.3f} bits/byte")
    print("exact minus others:", result["exact_minus"])
    print("kept in", keep("infill", result))


if __name__ == "__main__":
    main()
