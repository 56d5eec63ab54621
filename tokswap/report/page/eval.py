"""The page of an evaluation: bits per byte of models on texts, the excess over the source model, and its breakdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.errors import count_of
from tokswap.report.page.charts import Bar, bars
from tokswap.report.page.parts import Block, Page, Section, Table, key_values, percent
from tokswap.report.wording import PARTS, quoted

_TEXTS_DRAWN = 8
_SOURCE_COLOUR, _COLOURS = 4, (0, 1, 2, 3)
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class _Judged:
    """One model of an evaluation: its name on the page, and its figures."""

    name: str
    model: Mapping[str, Any]

    @property
    def is_source(self) -> bool:
        return bool(self.model["is_source"])

    def figures(self, text: str | None) -> Figures:
        """The figures of one text, or of all for None."""
        found: Figures = self.model["all"] if text is None else self.model["texts"][text]
        return found


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of an evaluation (`Evaluation.as_dict`)."""
    models = [_Judged(name, model) for name, model in zip(_names(document["models"]), document["models"], strict=True)]
    results = [one for one in models if not one.is_source]
    texts = list(models[0].model["texts"])
    lead = "Bits per byte of each model on these texts; lower is better."
    if document["against"] is not None:
        lead += f" The excess is the difference to the source model, {document['against']}, with its own tokenizer."
    title = " and ".join(one.name for one in results[:3]) or models[0].name
    return Page(
        title=f"{title} on {', '.join(texts[:3])}{' ...' * (len(texts) > 3)}",
        lead=lead,
        facts=_facts(models[0], results, len(texts)),
        sections=[
            _loss(document, models, texts),
            *map(_breakdown, results),
            _lengths(models, texts),
            *_probes(models),
            _samples(models),
            _settings(document),
        ],
        notes=[f"{one.name}: {note}" for one in models for note in one.model["notes"]],
    )


def _names(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names, where they tell the models apart."""
    names = [model["model"] for model in models]
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else names


def _facts(first: _Judged, results: Sequence[_Judged], texts: int) -> list[tuple[str, str]]:
    facts = [(f"{one.figures(None)['bits_per_byte']:.3f}", f"bits per byte, {one.name}") for one in results[:2]]
    facts += [
        (f"{one.figures(None)['excess']:+.3f}", f"excess of {one.name}, in bits per byte")
        for one in results[:2]
        if one.figures(None)["excess"] is not None
    ]
    return [*facts, (f"{first.figures(None)['bytes']:,}", f"bytes in {texts} text{'s' * (texts != 1)}")]


def _drawn(texts: Sequence[str]) -> list[tuple[str, str | None]]:
    """The texts that are drawn, and all of them together."""
    first = list(texts[:_TEXTS_DRAWN])
    return [*((name, name) for name in first), *([("all texts", None)] if len(texts) > 1 else [])]


def _colours(models: Sequence[_Judged]) -> list[int]:
    results = iter(_COLOURS * len(models))
    return [_SOURCE_COLOUR if one.is_source else next(results) for one in models]


def _loss(document: Mapping[str, Any], models: Sequence[_Judged], texts: Sequence[str]) -> Section:
    results = [one for one in models if not one.is_source]
    series = [one.name + (" (source)" if one.is_source else "") for one in models]
    groups = [
        (label, [_loss_bar(one.figures(text), "bits_per_byte", "interval") for one in models])
        for label, text in _drawn(texts)
    ]
    blocks: list[Block] = [bars("Bits per byte", groups, series, colours=_colours(models))]
    if document["against"] is not None and results:
        groups = [
            (label, [_loss_bar(one.figures(text), "excess", "excess_interval") for one in results])
            for label, text in _drawn(texts)
        ]
        note = "Bits per byte above those of the source model."
        blocks.append(bars("Excess", groups, [one.name for one in results], note=note))
    units = document["units"]
    count = sum(units["count"].values())
    note = (
        f"Intervals cover 95 % of other texts of this kind; they come from {count:,} {units['kind']}."
        if models[0].figures(None)["interval"] is not None
        else f"No intervals: {count} {units['kind']} are too few."
    )
    head = ("text", "model", "bits/byte", "95 %", "excess", "95 %", "ppl/word")
    rows = _loss_rows(models, series, texts)
    blocks.append(Table("Figures", head, rows, right=(2, 3, 4, 5, 6), note=note, wide=True))
    return Section("Bits per byte", blocks)


def _loss_bar(figures: Figures, measure: str, interval: str) -> Bar:
    form = "{:+.3f}" if measure == "excess" else "{:.3f}"
    return Bar(figures[measure], form.format(figures[measure]), figures[interval])


def _loss_rows(models: Sequence[_Judged], series: Sequence[str], texts: Sequence[str]) -> list[tuple[str, ...]]:
    every: list[tuple[str, str | None]] = [(name, name) for name in texts]
    every += [("all texts", None)] if len(texts) > 1 else []
    return [
        (
            label if n == 0 else "",
            series[n],
            f"{figures['bits_per_byte']:.3f}",
            _interval(figures["interval"], "{:.3f}"),
            "" if figures["excess"] is None else f"{figures['excess']:+.3f}",
            _interval(figures["excess_interval"], "{:+.3f}"),
            "" if figures["word_perplexity_ratio"] is None else f"x{figures['word_perplexity_ratio']:.4g}",
        )
        for label, text in every
        for n, figures in enumerate(one.figures(text) for one in models)
    ]


def _interval(bounds: Sequence[float] | None, form: str) -> str:
    return "" if bounds is None else f"{form.format(bounds[0])} to {form.format(bounds[1])}"


def _breakdown(judged: _Judged) -> Section:
    figures = judged.figures(None)
    against = figures["excess"] is not None
    parts = [part for part in figures["parts"] if part["tokens"]]
    blocks: list[Block] = []
    if parts:
        measure, form = ("excess", "{:+.3f}") if against else ("bits_per_byte", "{:.3f}")
        groups = [(PARTS[part["kind"]], [Bar(part[measure], form.format(part[measure]))]) for part in parts]
        title = "Excess by kind of token" if against else "Bits per byte by kind of token"
        note = "Bits per byte of the whole text; the parts add up to the total."
        blocks.append(bars(f"{title}, {judged.name}", groups, note=note))
    blocks.append(_pieces(figures, against))
    if parts:
        blocks.append(_parts(parts, against))
    intro = "" if parts else "It is not known which rows were initialised: the model has no tokswap.json."
    return Section(f"Where the {'excess' if against else 'loss'} of {judged.name} sits", blocks, intro)


def _parts(parts: Sequence[Mapping[str, Any]], against: bool) -> Table:
    head = ["", "bytes", "tokens", "bits/token", "bits/byte", *(["source", "excess"] if against else [])]
    rows = [
        (
            PARTS[part["kind"]],
            percent(part["share_of_bytes"]),
            f"{part['tokens']:,}",
            f"{part['bits_per_token']:.2f}",
            f"{part['bits_per_byte']:.3f}",
            *((f"{part['source_bits_per_byte']:.3f}", f"{part['excess']:+.3f}") if against else ()),
        )
        for part in parts
    ]
    return Table("The parts of the loss", head, rows, right=tuple(range(1, len(head))), wide=True)


def _pieces(figures: Figures, against: bool) -> Table:
    pieces = figures["costliest_excess" if against else "costliest"]
    rows = [
        (
            quoted(piece["text"]).replace("\\\\x", "\\x"),
            f"{piece['count']:,}",
            f"{piece['bits_each']:.2f}",
            f"{piece['excess']:+.3f}" if against else f"{piece['bits_per_byte']:.3f}",
            PARTS.get(piece["kind"] or "", "").removesuffix(" tokens"),
        )
        for piece in pieces
        if not against or piece["excess"] > 0
    ]
    title = "Largest excess by text" if against else "Largest loss by text"
    head = ("text", "times", "bits each", "excess" if against else "bits/byte", "")
    return Table(title, head, rows, right=(1, 2, 3), code=(0,))


def _lengths(models: Sequence[_Judged], texts: Sequence[str]) -> Section:
    names = [one.name for one in models]
    values = [(label, [one.figures(text)["tokens_per_byte"] for one in models]) for label, text in _drawn(texts)]
    groups = [(label, [Bar(value, f"{value:.3f}") for value in row]) for label, row in values]
    rows = [(label, *(f"{value:.3f}" for value in row)) for label, row in values]
    note = "Fewer tokens are faster to read and to write."
    blocks: list[Block] = [
        bars("Tokens per byte", groups, names, colours=_colours(models), note=note),
        Table("Tokens per byte", ("", *names), rows, right=tuple(range(1, len(names) + 1))),
    ]
    return Section("Tokens per byte", blocks)


def _probes(models: Sequence[_Judged]) -> list[Section]:
    """The section of each probe and task."""
    series = [one.name + (" (source)" if one.is_source else "") for one in models]
    sections = []
    for name, first in models[0].model["probes"].items():
        every = [one.model["probes"][name] for one in models]
        parts = [None, *(first["parts"] if len(first["parts"]) > 1 else [])]
        found = [("all" if part is None else part, [_of_part(score, part) for score in every]) for part in parts]
        groups = [
            (label, [Bar(100 * own["score"], f"{100 * own['score']:.1f}", _percents(own["interval"])) for own in row])
            for label, row in found
        ]
        rows = [
            (
                label if n == 0 else "",
                series[n],
                f"{100 * own['score']:.1f}",
                _interval(_percents(own["interval"]), "{:.1f}"),
                "" if own["difference"] is None else f"{100 * own['difference']:+.1f}",
                _interval(_percents(own["difference_interval"]), "{:+.1f}"),
                f"{100 * own['chance']:.0f}",
            )
            for label, row in found
            for n, own in enumerate(row)
        ]
        head = ("part", "model", "score", "95 %", "difference", "95 %", "chance")
        note = next((score["note"] for score in every if score["note"]), "")
        blocks: list[Block] = [
            bars(f"Score of 100, {name}", groups, series, colours=_colours(models)),
            Table("Figures", head, rows, right=(2, 3, 4, 5, 6), note=note, wide=True),
        ]
        sections.append(
            Section(f"Probe: {name}", blocks, f"{first['measure']} on {count_of(first['questions'], 'question')}.")
        )
    return sections


def _of_part(score: Mapping[str, Any], part: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = score if part is None else score["parts"][part]
    return found


def _percents(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (100 * bounds[0], 100 * bounds[1])


def _samples(models: Sequence[_Judged]) -> Section:
    blocks = [
        Table(
            repr(prompt),
            ("", "continuation"),
            [(one.name, repr(one.model["samples"][prompt])) for one in models],
            code=(1,),
        )
        for prompt in models[0].model["samples"]
    ]
    return Section("Samples", blocks, "Each model continues the prompt by greedy decoding.")


def _settings(document: Mapping[str, Any]) -> Section:
    models = {f"model {n + 1}": model["model"] for n, model in enumerate(document["models"])}
    return Section("How it was measured", [key_values("Settings", {**models, **document["settings"]})])
