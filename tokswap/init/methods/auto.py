"""The default: hides shared tokens, lets every candidate guess them, and uses the best one, script by script."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokswap.checkpoint.embeddings import NewRows
from tokswap.init.base import DonorUse, Initializer, Pieces, Problem, Rows, Sizes
from tokswap.init.blend import read_method
from tokswap.init.made_rows import BLOCK_ELEMENTS, Interleaved, MadeRows, parts
from tokswap.init.registry import CANDIDATES
from tokswap.options.declare import option
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.vocabulary import script_of

_FEWEST = 24
"""Hidden tokens of a script below which the script has no method of its own."""
_FALLBACK = "subword"


@dataclass(frozen=True)
class Auto(Initializer):
    """A self-test on the shared tokens chooses the method. It needs no text.

    At most `hidden` shared tokens are hidden, of those that the source tokenizer merges from two others. Each candidate
    computes their rows as if they were missing. The error of a row is its squared distance to the true row, over the
    true row's squared distance to the mean row. The candidate with the least mean error over all hidden tokens
    computes the new rows. A script (white space, digits, symbols, Latin, Cyrillic, partial UTF-8, ...) gets another
    candidate where that one is better for the script by more than two standard errors.

    The self-test sees rows and no text, so it cannot tell how often a new token is predicted. So a row that scores
    tokens takes the share `first` of the row of the token's first piece: a text would have gone on with that one.
    """

    hidden: int = option(1024, "most shared tokens to hide", least=_FEWEST)
    first: float = option(0.2, "share of the first piece's row in a row that scores tokens", least=0.0, most=1.0)

    summary: ClassVar[str] = "what reconstructs hidden shared tokens best, by script (the default)"
    reference: ClassVar[str] = "this project"

    def donor_use(self) -> DonorUse:
        """Read the donor where there is one."""
        return "optional"

    def __call__(self, problem: Problem) -> Rows:
        """Choose by the self-test, then compute the rows; the evidence shows the errors."""
        names = CANDIDATES[problem.donor is not None]
        test = _hide(problem, self.hidden)
        if test is None:
            found = read_method(_FALLBACK)(problem)
            note = f"auto: too few shared tokens to hide for a self-test; `{_FALLBACK}` is used"
            evidence: dict[str, Any] = {"chosen": {"all": _FALLBACK}}
            rows = self._scoring(problem, found.made)
            return Rows(rows, found.diagnostics, evidence, notes=(note, *found.notes))
        errors, seconds = _try(test, problem.alignment.source_of[test.missing], names)
        kinds = _scripts(test)
        chosen = _choose(errors, kinds)
        evidence = _evidence(names, errors, kinds, seconds)
        evidence["chosen"] = {kind: names[n] for kind, n in chosen.items()}
        winner = np.array([chosen.get(kind, chosen["all"]) for kind in _scripts(problem).tolist()], np.int64)
        diagnostics: Mapping[str, np.ndarray] = {}
        notes: tuple[str, ...] = ()
        winners, place = np.unique(winner, return_inverse=True)
        makers: list[NewRows] = []
        for n in winners.tolist():
            own = winner == n
            found = read_method(names[n])(_some(problem, np.flatnonzero(own)))
            makers.append(found.made)
            notes += found.notes
            if own.all():  # a candidate that computes some rows has no diagnostics of the others
                diagnostics = found.diagnostics
        rows = Interleaved(makers, place, problem.source.width)
        return Rows(self._scoring(problem, rows), diagnostics, evidence, notes=notes)

    def _scoring(self, problem: Problem, rows: NewRows) -> NewRows:
        """Mix in the first piece's rows, where rows score tokens."""
        if not problem.matrix.scores or not self.first:
            return rows
        first = read_method("subword(weights=first)")(problem).made

        def make(part: slice) -> np.ndarray:
            return np.asarray((1 - self.first) * rows[part] + self.first * first[part], np.float32)

        return MadeRows(len(rows), problem.source.width, make)

    def held(self, sizes: Sizes) -> int:
        """Count the largest candidate."""
        return max(read_method(name).held(sizes) for name in CANDIDATES[sizes.donor_width > 0])

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count the self-test, and the most likely winner."""
        tested = sum(read_method(name).flops(self.hidden, anchors, width) for name in CANDIDATES[True])
        return tested + read_method("kriging").flops(missing, anchors, width)


def _scripts(problem: Problem) -> np.ndarray:
    """Return the script of each missing token, str [M]."""
    return np.array([script_of(problem.target.token_bytes[token]) for token in problem.missing.tolist()])


def _try(test: Problem, sources: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[float]]:
    """Return the error of each hidden token under each candidate, float64 [candidates, hidden], and their seconds."""
    errors, seconds = np.empty((len(names), len(sources))), []
    tiny, size = np.finfo(np.float32).tiny, max(1, BLOCK_ELEMENTS // test.source.width)
    for n, name in enumerate(names):
        begin = time.perf_counter()
        made = read_method(name)(dataclasses.replace(test, context=dataclasses.replace(test.context, cache={}))).made
        for part in parts(0, len(sources), size):
            true = test.source.rows(sources[part]).astype(np.float64)
            spread = np.maximum(np.square(true - test.source_mean).sum(axis=1), tiny)
            true -= made[part]
            errors[n, part] = np.minimum(np.square(true).sum(axis=1) / spread, 4.0)  # one wild row must not decide
        seconds.append(time.perf_counter() - begin)
    return errors, seconds


def _hide(problem: Problem, most: int) -> Problem | None:
    """Return the problem of computing the rows of shared tokens that have a merge pair; None where too few are left.

    Of each script every n-th token in the order of ids is hidden, because BPE ids follow frequency. Small scripts lose
    up to a quarter of their tokens, so that they can be judged at all.
    """
    anchors = problem.anchors
    if len(anchors) < 4 * _FEWEST:
        return None
    pairs = problem.merge_pairs(anchors)
    paired = np.flatnonzero(pairs[:, 0] >= 0)
    scripts = np.array([script_of(problem.target.token_bytes[token]) for token in anchors[paired].tolist()])
    share = min(1.0, most / max(len(paired), 1))
    hidden = []
    for script in sorted(set(scripts.tolist())):
        own = paired[scripts == script]
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
        pieces=Pieces.from_lists(pairs[picked].tolist()),
        context=dataclasses.replace(problem.context, progress=False, cache={}),
    )


def _some(problem: Problem, which: np.ndarray) -> Problem:
    """Return the problem of computing some of the missing rows, with a cache of its own in that of the run."""
    if len(which) == len(problem.missing):
        return problem
    cache = problem.context.cache.setdefault(("auto", which.tobytes()), {})
    return dataclasses.replace(
        problem,
        missing=problem.missing[which],
        pieces=problem.pieces[which],
        context=dataclasses.replace(problem.context, cache=cache),
    )


def _choose(errors: np.ndarray, kinds: np.ndarray) -> dict[str, int]:
    """Return script -> candidate, and "all" -> the candidate of the other scripts."""
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


def _evidence(names: Sequence[str], errors: np.ndarray, kinds: np.ndarray, seconds: Sequence[float]) -> dict[str, Any]:
    """Return what the Report shows: the error of each candidate over all hidden tokens and by script."""
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
    }
