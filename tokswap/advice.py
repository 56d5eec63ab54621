"""What a user should know about a pair of tokenizers, or about the rows that a method made, before trusting the result.

Each function returns sentences for the notes of the Plan, of the Report or of `tokswap eval`: none where all is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from tokswap.inspect import digit_scheme
from tokswap.tokenizer import Tokenizer
from tokswap.vocab import Vocabulary, script_of

_NO_SCRIPTS = {"digits", "symbols", "white space", "partial UTF-8", "Modifier", "Combining", "Ideographic", "Other"}
_SHOWN = 5


def plan_notes(source: Tokenizer, target: Tokenizer) -> list[str]:
    """Say what no method can repair: numbers cut otherwise, and scripts that the source never learnt to read."""
    notes = []
    schemes = [digit_scheme(source), digit_scheme(target)]
    if schemes[0] != schemes[1]:
        before, after = ("no fixed groups" if scheme == "free" else scheme for scheme in schemes)
        notes.append(
            f"numbers are cut in another way: {before} before, {after} after; arithmetic will suffer whatever the "
            "method, until the model is trained further"
        )
    unread = unread_scripts(source.vocabulary, target.vocabulary)
    if unread:
        some = [f"{name} ({own:,} tokens against {theirs:,})" for name, (theirs, own) in unread.items()]
        notes.append(
            f"the model hardly knows {_listed(some)}: it spells these scripts in bytes or single letters, and the new "
            "rows for them are little better than guesses"
        )
    return notes


def unread_scripts(source: Vocabulary, target: Vocabulary) -> dict[str, tuple[int, int]]:
    """Find the scripts that the target has many tokens of and the source next to none.

    Returns script -> (tokens of the target, tokens of the source), the largest first. Next to none is less than
    0.3 % of the source's vocabulary and less than a tenth of what the target has.
    """
    # A token in ASCII is of a script that every vocabulary has; most are.
    theirs, own = (
        Counter(script_of(surface) for surface in vocabulary.id_of if not surface.isascii())
        for vocabulary in (target, source)
    )
    least = max(20, len(target) // 2000)
    return {
        name: (count, own[name])
        for name, count in theirs.most_common()
        if name not in _NO_SCRIPTS | {"Latin"} and count >= least and own[name] < min(0.003 * len(source), 0.1 * count)
    }


def row_notes(
    target: Vocabulary,
    missing: np.ndarray,
    diagnostics: Mapping[str, Mapping[str, np.ndarray]],
    lengths: Mapping[str, np.ndarray],
) -> list[str]:
    """Name the made rows that stand far outside the others: large coefficients, or a great length.

    A donor can be prepared so that a token looks harmless there and breaks the model that takes it over
    (arXiv 2601.00065); it shows in the coefficients. missing: int64[M]. diagnostics: table role -> name -> float[M], as
    methods leave them. lengths: table role -> float[M].
    """
    notes = []
    for role, named in diagnostics.items():
        for what, values in (("coefficients", named.get("coefficient_norm")), ("rows", lengths.get(role))):
            far = outliers(values) if values is not None and len(values) == len(missing) else np.zeros(0, np.int64)
            if not len(far):
                continue
            assert values is not None
            typical = float(np.median(values))
            some = [f"{target.readable(int(missing[n]))} ({values[n] / typical:.0f} times the median)" for n in far]
            hint = "; do not trust the donor without looking at them" if what == "coefficients" else ""
            notes.append(f"{len(far):,} {role} {what} are far larger than the others: {_listed(some)}{hint}")
    return notes


def outliers(values: np.ndarray) -> np.ndarray:
    """Return the places of values far above the others, largest first.

    Far is more than 8 robust standard deviations of the logarithms above their median, and more than 4 times it.
    Fewer than 20 values have no spread to speak of.
    """
    if len(values) < 20:
        return np.zeros(0, np.int64)
    logs = np.log(np.maximum(values.astype(np.float64), 1e-12))
    middle = np.median(logs)
    spread = 1.4826 * float(np.median(np.abs(logs - middle)))
    far = np.flatnonzero(logs > middle + max(8 * spread, np.log(4)))
    return far[np.argsort(-logs[far], kind="stable")]


def length_note(name: str, before: float, after: float) -> str | None:
    """Warn where a text takes many more tokens than with the source's tokenizer. before, after: tokens, or tokens a byte."""
    if after < 1.25 * before:
        return None
    return (
        f"{name} takes {100 * (after / before - 1):.0f} % more tokens than with the source's tokenizer: the model will be "
        "slower on it and hold less of it in its context"
    )


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
