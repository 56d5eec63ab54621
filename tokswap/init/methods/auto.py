"""The default: hides shared tokens, lets every method guess them, and uses what guesses best, script by script."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokswap.init.base import Initializer, Pieces, Problem, option
from tokswap.init.blend import read_method
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.vocabulary import script_of

WITH_DONOR = ("kriging", "omp", "linear", "subword")
WITHOUT_DONOR = ("subword", "subword(weights=exponential)", "subword(weights=length)")
_FEWEST = 24
"""Hidden tokens of a script below which the script has no say of its own."""


@dataclass(frozen=True)
class Auto:
    """Chooses by a held-out self-test on the shared tokens, without any text.

    Shared tokens that the source's tokenizer joins from two others are hidden, at most `hidden` of them. Each
    candidate makes their rows as if they were missing. The error of a row is its squared distance to the true row, as a share of
    the true row's squared distance to the mean row. The candidate with the least mean error over all hidden tokens makes the missing
    rows; a script (white space, digits, symbols, Latin, Cyrillic, partial UTF-8, ...) gets another one where that is better
    for the script by more than two standard errors.

    The self-test sees rows, not text: it cannot tell how often a made token is predicted. So a row that scores tokens
    takes `first` of the row of the token's first piece, which a text would otherwise have gone on with.
    """

    hidden: int = option(1024, "shared tokens to hide, at most", least=_FEWEST)
    first: float = option(0.2, "share of the first piece's row in a row that scores tokens", least=0.0, most=1.0)

    summary: ClassVar[str] = "what reconstructs hidden shared tokens best, by script (the default)"
    source: ClassVar[str] = "this project"
    needs_donor: ClassVar[bool] = False
    wants_donor: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> np.ndarray:
        """Return float32[M, D]."""
        names = WITH_DONOR if problem.donor is not None else WITHOUT_DONOR
        test = _hide(problem, self.hidden)
        if test is None:
            fallback = "subword"
            problem.notes.append(f"auto: too few shared tokens to hide for a self-test; `{fallback}` is used")
            problem.evidence["chosen"] = {"all": fallback}
            return self._scoring(problem, read_method(fallback)(problem))
        kinds = np.array([script_of(problem.target.token_bytes[token]) for token in test.missing.tolist()])
        errors, seconds = self._errors(test, problem.alignment.source_of[test.missing], names)
        chosen = _choose(errors, kinds)
        problem.evidence.update(_table(names, errors, kinds, seconds, chosen))
        rows = np.empty((len(problem.missing), problem.source.width), np.float32)
        own = np.array([script_of(problem.target.token_bytes[token]) for token in problem.missing.tolist()])
        winner = np.array([chosen.get(kind, chosen["all"]) for kind in own.tolist()], np.int64)
        for n in np.unique(winner).tolist():
            part = _some(problem, np.flatnonzero(winner == n))
            rows[winner == n] = read_method(names[n])(part)
        return self._scoring(problem, rows)

    def _scoring(self, problem: Problem, rows: np.ndarray) -> np.ndarray:
        if not problem.scores or not self.first:
            return rows
        first = read_method("subword(weights=first)")(problem)
        return np.asarray((1 - self.first) * rows + self.first * first, np.float32)

    def _errors(self, test: Problem, sources: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, list[float]]:
        """Return the error of each hidden token under each candidate, float64[candidates, hidden], and their seconds."""
        true = test.source.rows(sources).astype(np.float64)
        spread = np.maximum(np.square(true - test.source_mean).sum(axis=1), np.finfo(np.float32).tiny)
        errors, seconds = np.empty((len(names), len(true))), []
        for n, name in enumerate(names):
            begin = time.perf_counter()
            method: Initializer = read_method(name)
            rows = method(dataclasses.replace(test, cache={}, details={}, notes=[], evidence={}))
            errors[n] = np.minimum(np.square(rows - true).sum(axis=1) / spread, 4.0)  # one wild row must not decide
            seconds.append(time.perf_counter() - begin)
        return errors, seconds

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """The self-test, and the most likely winner."""
        tested = sum(read_method(name).flops(self.hidden, anchors, width) for name in WITH_DONOR)
        return tested + read_method("kriging").flops(missing, anchors, width)


def _hide(problem: Problem, most: int) -> Problem | None:
    """Return the problem of making shared tokens again that are joined from two others; None where too few are left.

    Of each script every n-th in the order of ids is hidden, frequent and rare ones alike: BPE ids follow frequency. Small
    scripts lose up to a quarter of their tokens, so that they can be judged at all.
    """
    anchors = problem.anchors
    if problem.merge_pairs is None or len(anchors) < 4 * _FEWEST:
        return None
    halves = problem.merge_pairs[problem.alignment.source_of[anchors]]
    pairs = np.flatnonzero(halves[:, 0] >= 0)
    scripts = np.array([script_of(problem.target.token_bytes[token]) for token in anchors[pairs].tolist()])
    share = min(1.0, most / max(len(pairs), 1))
    hidden = []
    for script in sorted(set(scripts.tolist())):
        own = pairs[scripts == script]
        count = min(len(own) // 4, max(2 * _FEWEST, round(share * len(own))))
        hidden.append(own[np.unique(np.linspace(0, len(own) - 1, count).astype(np.int64))])
    picked = np.sort(np.concatenate([np.zeros(0, np.int64), *hidden]))
    if len(picked) < _FEWEST:
        return None
    source_of, reason = problem.alignment.source_of.copy(), problem.alignment.reason.copy()
    source_of[anchors[picked]], reason[anchors[picked]] = -1, Reason.MISSING
    return dataclasses.replace(
        problem,
        alignment=Alignment(source_of, reason),
        missing=anchors[picked],
        pieces=Pieces.from_lists(halves[picked].tolist()),
        progress=False,
        cache={},
        details={},
        notes=[],
        evidence={},
    )


def _some(problem: Problem, which: np.ndarray) -> Problem:
    """Return the problem of making some of the missing rows. The methods keep work for all of them in the cache."""
    if len(which) == len(problem.missing):
        return problem
    start, ids = problem.pieces.start, problem.pieces.ids
    lists = [ids[start[n] : start[n + 1]].tolist() for n in which.tolist()]
    key = ("auto", which.tobytes())
    return dataclasses.replace(
        problem,
        missing=problem.missing[which],
        pieces=Pieces.from_lists(lists),
        cache=problem.cache.setdefault(key, {}),
        details={},
    )


def _choose(errors: np.ndarray, kinds: np.ndarray) -> dict[str, int]:
    """Return kind -> candidate, and "all" for the kinds that do not differ from the rest, or have too few tokens."""
    best = int(errors.mean(axis=1).argmin())
    chosen = {"all": best}
    for kind in sorted(set(kinds.tolist())):
        own = errors[:, kinds == kind]
        if own.shape[1] < _FEWEST:
            continue
        rival = int(own.mean(axis=1).argmin())
        gain = own[best] - own[rival]
        if rival != best and gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen[kind] = rival
    return chosen


def _table(
    names: tuple[str, ...], errors: np.ndarray, kinds: np.ndarray, seconds: list[float], chosen: dict[str, int]
) -> dict[str, Any]:
    """What the Report shows: the error of each candidate over all hidden tokens and by kind, and what was chosen."""
    counted = [kind for kind in sorted(set(kinds.tolist())) if np.count_nonzero(kinds == kind) >= _FEWEST]
    return {
        "hidden": errors.shape[1],
        "candidates": [
            {
                "method": name,
                "error": round(float(errors[n].mean()), 4),
                "seconds": round(seconds[n], 2),
                "by_script": {kind: round(float(errors[n, kinds == kind].mean()), 4) for kind in counted},
            }
            for n, name in enumerate(names)
        ],
        "chosen": {kind: names[n] for kind, n in chosen.items()},
    }
