"""tokswap eval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokswap.cli import _complete, _options, _output, _page
from tokswap.report.wording import PARTS, quoted

if TYPE_CHECKING:
    from tokswap.evaluation.breakdown import Part, Piece
    from tokswap.evaluation.evaluate import Evaluation, Judged
    from tokswap.evaluation.scores import Verdict

_TEXTS_SHOWN = 10


@click.command(
    name="eval",
    epilog="""
\b
Examples:
  # what the new vocabulary costs, and where
  tokswap eval ./mine-with-theirs --text notes.txt --against ./my-model
\b
  # two results side by side on several texts
  tokswap eval ./with-omp ./with-subword --text english.txt --text code.py --against ./my-model
\b
  # figures for a program, no samples
  tokswap eval ./my-model --text notes.txt --tokens 0 --json
""",
)
@click.argument("models", shell_complete=_complete.models, nargs=-1, required=True, metavar="MODEL...")
@_options.text_option("A plain text in UTF-8, best one that no model was tuned on; may be repeated.")
@_options.model_option(
    "--against", "The model that the others were made from; the excess is over its loss.", metavar="SRC"
)
@_options.computing_flags("models")
@_options.judging_flags("models")
@_options.trust_flag
@_page.flag
@_options.json_flag
@_options.volume
def evaluate(
    models: tuple[str, ...],
    texts: tuple[Path, ...],
    against: str | None,
    dtype: str,
    device: str,
    window: int,
    overlap: int,
    prompts: tuple[str, ...],
    tokens: int,
    seed: int,
    trust_remote_code: bool,
    page: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Judge models by the bits per byte that they need for texts.

    With --against, the excess over the source model with its own tokenizer is the figure that counts: what the change
    of vocabulary costs, on the same bytes, and where it sits. Intervals hold 95 % of what other texts of this kind
    would give. Models are loaded one after the other.
    """
    _options.set_volume(quiet, verbose)
    page_path = _page.check(page)
    from tokswap.evaluation.evaluate import evaluate_models as run
    from tokswap.storage.texts import read_texts
    from tokswap.tokenizer.probes import PROMPTS

    result = run(
        models,
        read_texts(texts),
        against=against,
        dtype=dtype,
        device=device,
        window=window,
        overlap=overlap,
        prompts=prompts or PROMPTS,
        tokens=tokens,
        seed=seed,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    if as_json:
        _output.document(result.as_dict())
    else:
        click.echo("\n".join(_lines(result, details=not quiet)))
    _page.write(page_path, "eval", result.as_dict(), quiet=quiet)


def _lines(result: Evaluation, *, details: bool) -> list[str]:
    lines = summary(result)
    for judged in result.models:
        if details and not judged.is_source:
            lines += _where(judged)
    notes = [f"  note: {judged.model}: {note}" for judged in result.models for note in judged.notes]
    if notes:
        lines += ["", *notes]
    if details:
        lines += samples(result)
    return lines


def summary(result: Evaluation) -> list[str]:
    """A block a text, a line a model; the figures of all texts last."""
    first = result.models[0].verdict
    shown = list(result.texts) if 1 < len(result.texts) <= _TEXTS_SHOWN else []
    has_source = result.against is not None
    head = ["", "bits/byte", "", *(["excess", ""] if has_source else []), "tokens/byte"]
    rows = [head]
    for name in [*shown, None]:
        label = name or (result.texts[0] if len(result.texts) == 1 else "all texts")
        size = (first.only(name) if name else first).bytes
        rows.append([f"{label}, {size:,} bytes", *[""] * (len(head) - 1)])
        rows += [
            _figures(judged, judged.verdict.only(name) if name else judged.verdict, has_source)
            for judged in result.models
        ]
    lines = _output.columns(rows, right=tuple(range(1, len(head))), indent="")
    if not shown and len(result.texts) > 1:
        lines.append(f"(--json has the figures of each of the {len(result.texts)} texts)")
    count = sum(len(edges) - 1 for edges in result.units.edges.values())
    if first.interval is None:
        lines.append(f"(no intervals: {count} {result.units.kind} are too few)")
    else:
        lines.append(f"(95 % intervals, from {count:,} {result.units.kind})")
    return lines


def _figures(judged: Judged, verdict: Verdict, has_source: bool) -> list[str]:
    name = f"  {judged.model}" + (" (source)" if judged.is_source else "")
    row = [name, f"{verdict.bits_per_byte:.3f}", _interval(verdict.interval, "{:.3f}")]
    if has_source:
        excess = verdict.excess
        row += ["", ""] if excess is None else [f"{excess:+.3f}", _interval(verdict.excess_interval, "{:+.3f}")]
    return [*row, f"{verdict.tokens / verdict.bytes:.3f}"]


def _interval(bounds: tuple[float, float] | None, form: str) -> str:
    return "" if bounds is None else f"[{form.format(bounds[0])}, {form.format(bounds[1])}]"


def _where(judged: Judged) -> list[str]:
    """Where the loss, or the excess, of one model sits."""
    verdict, title = judged.verdict, f"{judged.model}: where the loss sits"
    beside = verdict.source is not None
    lines = ["", title + (" (bits per byte of the whole text)" if verdict.parts else "")]
    if verdict.parts:
        head = ["", "bytes", "tokens", "bits/token", "bits/byte", *(["source", "excess"] if beside else [])]
        rows = [head, *(_part(part, verdict.bytes) for part in verdict.parts if part.tokens)]
        lines += _output.columns(rows, right=tuple(range(1, len(head))))
    else:
        lines.append("  (which rows were made is not known: there is no tokswap.json beside it; give --against)")
    if beside:
        head = ["costs most more than before", "times", "bits each", "source", "excess", ""]
        pieces = [piece for piece in verdict.costliest_excess if piece.bits > (piece.source_bits or 0)]
    else:
        head = ["costliest tokens", "times", "bits each", "bits/byte", ""]
        pieces = verdict.costliest
    rows = [head, *(_piece(piece, verdict) for piece in pieces)]
    return [*lines, "", *_output.columns(rows, right=tuple(range(1, len(head) - 1)))]


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


def _piece(piece: Piece, verdict: Verdict) -> list[str]:
    kind = PARTS[piece.kind].removesuffix(" tokens") if verdict.known and piece.kind not in ("shared", "alike") else ""
    row = [quoted(piece.token_bytes), f"{piece.count:,}", f"{piece.bits / piece.count:.2f}"]
    if piece.source_bits is None:
        return [*row, f"{piece.bits / verdict.bytes:.3f}", kind]
    excess = (piece.bits - piece.source_bits) / verdict.bytes
    return [*row, f"{piece.source_bits / piece.count:.2f}", f"{excess:+.3f}", kind]


def samples(result: Evaluation) -> list[str]:
    """What each model goes on with, a block a prompt."""
    lines: list[str] = []
    prompts: Sequence[str] = list(result.models[0].samples)
    for prompt in prompts:
        rows = [(judged.model, repr(judged.samples[prompt])) for judged in result.models]
        lines += ["", f"{prompt!r} goes on:", *_output.columns(rows)]
    return lines
