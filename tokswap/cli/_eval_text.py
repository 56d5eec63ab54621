"""How evaluations look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokswap.cli._output import columns
from tokswap.errors import count_of
from tokswap.report.wording import PARTS, quoted

if TYPE_CHECKING:
    from tokswap.evaluation.breakdown import Part, Piece
    from tokswap.evaluation.probes.scores import ProbeScore
    from tokswap.evaluation.results import Evaluation, Judged
    from tokswap.evaluation.scores import ModelScore

_TEXTS_SHOWN = 10


def evaluation_lines(result: Evaluation, *, details: bool) -> list[str]:
    """Return the lines that describe an evaluation.

    Args:
        result: The evaluation.
        details: Whether to show where losses come from, and the samples.
    """
    lines = summary_lines(result) + probe_lines(result, details=details)
    for judged in result.models:
        if details and not judged.is_source:
            lines += _breakdown(judged)
    notes = [f"  note: {judged.model}: {note}" for judged in result.models for note in judged.notes]
    if notes:
        lines += ["", *notes]
    return lines + (sample_lines(result) if details else [])


def summary_lines(result: Evaluation) -> list[str]:
    """Return a block per text with a line per model; the figures of all texts come last."""
    shown = list(result.texts) if 1 < len(result.texts) <= _TEXTS_SHOWN else []
    has_source = result.against is not None
    more = ["excess", "", "ppl/word"] if has_source else []
    head = ["", "bits/byte", "", *more, "tokens/byte"]
    rows = [head]
    for name in [*shown, None]:
        scores = [judged.score.only(name) if name else judged.score for judged in result.models]
        label = name or (result.texts[0] if len(result.texts) == 1 else "all texts")
        rows.append([f"{label}, {count_of(scores[0].bytes, 'byte')}", *[""] * (len(head) - 1)])
        rows += [_figures(judged, score, has_source) for judged, score in zip(result.models, scores, strict=True)]
    lines = columns(rows, right=tuple(range(1, len(head))), indent="")
    if not shown and len(result.texts) > 1:
        lines.append(f"(--json has the figures of each of the {count_of(len(result.texts), 'text')})")
    return [*lines, _units(result)]


def probe_lines(result: Evaluation, *, details: bool) -> list[str]:
    """Return a block per probe with a line per model.

    Args:
        result: The evaluation.
        details: Whether each part of a probe has its lines too.
    """
    lines: list[str] = []
    has_source = result.against is not None
    head = ["", "score", "", *(["difference", ""] if has_source else []), "chance"]
    for name, first in result.models[0].probes.items():
        rows = [head]
        for part in [None, *(first.parts if details and len(first.parts) > 1 else [])]:
            rows += [_probe(judged, judged.probes[name], part, has_source) for judged in result.models]
        lines += ["", f"{name}: {first.asked.measure} on {count_of(first.questions, 'question')}"]
        lines += columns(rows, right=tuple(range(1, len(head))))
        notes = dict.fromkeys(judged.probes[name].note for judged in result.models)
        lines += [f"  note: {note}" for note in notes if note]
    return lines


def _probe(judged: Judged, whole: ProbeScore, part: str | None, has_source: bool) -> list[str]:
    score = whole if part is None else whole.only(part)
    label = judged.model + (" (source)" if judged.is_source else "")
    row = [label if part is None else f"{part}, {label}", f"{100 * score.score:.1f} %"]
    row.append(_interval(score.interval, "{:.1f}", scale=100))
    if has_source:
        row.append("" if score.difference is None else f"{100 * score.difference:+.1f}")
        row.append(_interval(score.difference_interval, "{:+.1f}", scale=100))
    return [*row, f"{100 * score.chance:.0f} %"]


def _units(result: Evaluation) -> str:
    """Say what the intervals are drawn from."""
    count = sum(len(edges) - 1 for edges in result.units.edges.values())
    if result.models[0].score.interval is None:
        return f"(no intervals: too few {result.units.kind}, {count})"
    return f"(95 % intervals, from {count:,} {result.units.kind})"


def _figures(judged: Judged, score: ModelScore, has_source: bool) -> list[str]:
    name = f"  {judged.model}" + (" (source)" if judged.is_source else "")
    row = [name, f"{score.bits_per_byte:.3f}", _interval(score.interval, "{:.3f}")]
    if has_source:
        excess = "" if score.excess is None else f"{score.excess:+.3f}"
        ratio = score.word_perplexity_ratio
        row += [excess, _interval(score.excess_interval, "{:+.3f}"), "" if ratio is None else f"x{ratio:.4g}"]
    return [*row, f"{score.tokens / score.bytes:.3f}"]


def _interval(bounds: tuple[float, float] | None, form: str, *, scale: float = 1) -> str:
    return "" if bounds is None else f"[{form.format(scale * bounds[0])}, {form.format(scale * bounds[1])}]"


def _breakdown(judged: Judged) -> list[str]:
    """Say where the loss, or the excess, of one model comes from."""
    score, parts = judged.score, judged.score.parts
    beside = score.source is not None
    lines = ["", f"{judged.model}: where the loss comes from" + (" (bits per byte of the whole text)" if parts else "")]
    if parts:
        head = ["", "bytes", "tokens", "bits/token", "bits/byte", *(["source", "excess"] if beside else [])]
        rows = [head, *(_part(part, score.bytes) for part in parts if part.tokens)]
        lines += columns(rows, right=tuple(range(1, len(head))))
    else:
        lines.append("  (initialised rows are not known: there is no tokswap.json; give --against)")
    if beside:
        head = ["largest excess", "times", "bits each", "source", "excess", ""]
        pieces = [piece for piece in score.costliest_excess if piece.bits > (piece.source_bits or 0)]
    else:
        head = ["largest loss", "times", "bits each", "bits/byte", ""]
        pieces = score.costliest
    rows = [head, *(_piece(piece, score) for piece in pieces)]
    return [*lines, "", *columns(rows, right=tuple(range(1, len(head) - 1)))]


def _part(part: Part, total: int) -> list[str]:
    row = [
        PARTS[part.kind],
        f"{100 * part.bytes / total:.1f} %",
        f"{part.tokens:,}",
        f"{part.bits / part.tokens:.2f}",
        f"{part.bits / total:.3f}",
    ]
    if part.source_bits is not None:
        row += [f"{part.source_bits / total:.3f}", f"{(part.bits - part.source_bits) / total:+.3f}"]
    return row


def _piece(piece: Piece, score: ModelScore) -> list[str]:
    kind = PARTS[piece.kind].removesuffix(" tokens") if score.known and piece.kind not in ("shared", "alike") else ""
    row = [quoted(piece.token_bytes), f"{piece.count:,}", f"{piece.bits / piece.count:.2f}"]
    if piece.source_bits is None:
        return [*row, f"{piece.bits / score.bytes:.3f}", kind]
    excess = (piece.bits - piece.source_bits) / score.bytes
    return [*row, f"{piece.source_bits / piece.count:.2f}", f"{excess:+.3f}", kind]


def sample_lines(result: Evaluation) -> list[str]:
    """Return a block per prompt with the continuation of each model."""
    lines: list[str] = []
    prompts: Sequence[str] = list(result.models[0].samples)
    for prompt in prompts:
        rows = [(judged.model, repr(judged.samples[prompt])) for judged in result.models]
        lines += ["", f"{prompt!r} goes on:", *columns(rows)]
    return lines
