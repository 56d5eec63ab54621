"""The page of an evaluation: bits per byte of models on texts, the excess over the source, and where it sits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokswap.report.page.charts import Bar, Chart, bars
from tokswap.report.page.parts import Page, Section, Table, key_values, percent
from tokswap.report.wording import PARTS, quoted

_TEXTS_DRAWN = 8
_SOURCE_COLOUR, _COLOURS = 4, (0, 1, 2, 3)


def page(document: Mapping[str, Any]) -> Page:
    """Return the page of an evaluation (`Evaluation.as_dict`)."""
    models, against = document["models"], document["against"]
    names = _names([model["model"] for model in models])
    results = [(name, model) for name, model in zip(names, models, strict=True) if not model["is_source"]]
    facts = [(f"{model['all']['bits_per_byte']:.3f}", f"bits per byte, {name}") for name, model in results[:2]]
    facts += [
        (f"{model['all']['excess']:+.3f}", f"excess over the source, {name}")
        for name, model in results[:2]
        if model["all"]["excess"] is not None
    ]
    whole = models[0]["all"]
    texts = list(models[0]["texts"])
    facts.append((f"{whole['bytes']:,}", f"bytes in {len(texts)} text{'s' * (len(texts) != 1)}"))
    lead = "How many bits models need for a byte of these texts; fewer are better."
    if against is not None:
        lead += (
            f" Excess is what a model needs more than the source, {against}, with its own tokenizer, on the same bytes."
        )
    sections = [_loss(document, names, texts), *(_where(name, model) for name, model in results)]
    sections += [_lengths(document, names, texts), _samples(document, names), _how(document)]
    notes = [f"{name}: {note}" for name, model in zip(names, models, strict=True) for note in model["notes"]]
    title = " and ".join(name for name, _ in results[:3]) or names[0]
    return Page(f"{title} on {', '.join(texts[:3])}{' ...' * (len(texts) > 3)}", lead, facts, sections, notes)


def _names(models: Sequence[str]) -> list[str]:
    short = [Path(name).name for name in models]
    return short if len(set(short)) == len(short) else list(models)


def _figures(model: Mapping[str, Any], text: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model["all"] if text is None else model["texts"][text]
    return found


def _drawn(texts: Sequence[str]) -> list[tuple[str, str | None]]:
    """The texts that are drawn, and all of them together."""
    one = [(name, name) for name in texts[:_TEXTS_DRAWN]]
    return [*one, ("all texts", None)] if len(texts) > 1 else list(one)


def _colours(models: Sequence[Mapping[str, Any]]) -> list[int]:
    results = iter(_COLOURS * len(models))
    return [_SOURCE_COLOUR if model["is_source"] else next(results) for model in models]


def _loss(document: Mapping[str, Any], names: Sequence[str], texts: Sequence[str]) -> Section:
    models = document["models"]
    series = [name + (" (source)" if model["is_source"] else "") for name, model in zip(names, models, strict=True)]
    groups = [
        (
            label,
            [
                Bar(f["bits_per_byte"], f"{f['bits_per_byte']:.3f}", f["interval"])
                for f in (_figures(model, text) for model in models)
            ],
        )
        for label, text in _drawn(texts)
    ]
    blocks: list[Chart | Table] = [bars("Bits per byte", groups, series, colours=_colours(models))]
    results = [(name, model) for name, model in zip(names, models, strict=True) if not model["is_source"]]
    if document["against"] is not None and results:
        groups = [
            (
                label,
                [
                    Bar(f["excess"], f"{f['excess']:+.3f}", f["excess_interval"])
                    for f in (_figures(model, text) for _, model in results)
                ],
            )
            for label, text in _drawn(texts)
        ]
        blocks.append(
            bars("Excess", groups, [name for name, _ in results], note="What the change of vocabulary costs.")
        )
    units = document["units"]
    count = sum(units["count"].values())
    rows = [
        (
            name if n == 0 else "",
            model_name,
            f"{f['bits_per_byte']:.3f}",
            _interval(f["interval"], "{:.3f}"),
            "" if f["excess"] is None else f"{f['excess']:+.3f}",
            _interval(f["excess_interval"], "{:+.3f}"),
        )
        for name, text in [*((name, name) for name in texts), *([("all texts", None)] if len(texts) > 1 else [])]
        for n, (model_name, f) in enumerate(zip(series, (_figures(model, text) for model in models), strict=True))
    ]
    known = models[0]["all"]["interval"] is not None
    note = (
        f"Intervals hold 95 % of what other texts of this kind would give, from {count:,} {units['kind']}."
        if known
        else f"No intervals: {count} {units['kind']} are too few."
    )
    head = ("text", "model", "bits/byte", "95 %", "excess", "95 %")
    blocks.append(Table("Figures", head, rows, right=(2, 3, 4, 5), note=note, wide=True))
    return Section("Bits per byte", blocks)


def _interval(bounds: Sequence[float] | None, form: str) -> str:
    return "" if bounds is None else f"{form.format(bounds[0])} to {form.format(bounds[1])}"


def _where(name: str, model: Mapping[str, Any]) -> Section:
    figures = model["all"]
    beside = figures["excess"] is not None
    blocks: list[Chart | Table] = []
    parts = [part for part in figures["parts"] if part["tokens"]]
    if parts:
        measure = "excess" if beside else "bits_per_byte"
        form = "{:+.3f}" if beside else "{:.3f}"
        groups = [(PARTS[part["kind"]], [Bar(part[measure], form.format(part[measure]))]) for part in parts]
        title = "Excess by kind of token" if beside else "Bits per byte by kind of token"
        blocks.append(bars(f"{title}, {name}", groups, note="Bits per byte of the whole text; the parts add up."))
    blocks.append(_pieces(figures, beside))
    if parts:
        head = ["", "bytes", "tokens", "bits/token", "bits/byte", *(["source", "excess"] if beside else [])]
        rows = [
            (
                PARTS[part["kind"]],
                percent(part["share_of_bytes"]),
                f"{part['tokens']:,}",
                f"{part['bits_per_token']:.2f}",
                f"{part['bits_per_byte']:.3f}",
                *((f"{part['source_bits_per_byte']:.3f}", f"{part['excess']:+.3f}") if beside else ()),
            )
            for part in parts
        ]
        blocks.append(Table("The parts of the loss", head, rows, right=tuple(range(1, len(head))), wide=True))
    intro = "" if parts else "Which rows were made is not known: there is no tokswap.json beside the model."
    return Section(f"Where the {'excess' if beside else 'loss'} of {name} sits", blocks, intro)


def _pieces(figures: Mapping[str, Any], beside: bool) -> Table:
    pieces = [
        piece for piece in figures["costliest_excess" if beside else "costliest"] if not beside or piece["excess"] > 0
    ]
    rows = [
        (
            quoted(piece["text"]).replace("\\\\x", "\\x"),
            f"{piece['count']:,}",
            f"{piece['bits_each']:.2f}",
            f"{piece['excess']:+.3f}" if beside else f"{piece['bits_per_byte']:.3f}",
            PARTS.get(piece["kind"] or "", "").removesuffix(" tokens"),
        )
        for piece in pieces
    ]
    title = "Costs most more than before" if beside else "Costliest tokens"
    head = ("text", "times", "bits each", "excess" if beside else "bits/byte", "")
    return Table(title, head, rows, right=(1, 2, 3), code=(0,))


def _lengths(document: Mapping[str, Any], names: Sequence[str], texts: Sequence[str]) -> Section:
    models = document["models"]
    groups = [
        (label, [Bar(f["tokens_per_byte"], f"{f['tokens_per_byte']:.3f}") for f in (_figures(m, text) for m in models)])
        for label, text in _drawn(texts)
    ]
    rows = [
        (label, *(f"{_figures(model, text)['tokens_per_byte']:.3f}" for model in models))
        for label, text in _drawn(texts)
    ]
    return Section(
        "Tokens per byte",
        [
            bars(
                "Tokens per byte",
                groups,
                names,
                colours=_colours(models),
                note="Fewer tokens are read and written faster.",
            ),
            Table("Tokens per byte", ("", *names), rows, right=tuple(range(1, len(names) + 1))),
        ],
    )


def _samples(document: Mapping[str, Any], names: Sequence[str]) -> Section:
    models = document["models"]
    blocks = [
        Table(
            repr(prompt),
            ("", "goes on"),
            [(name, repr(model["samples"][prompt])) for name, model in zip(names, models, strict=True)],
            code=(1,),
        )
        for prompt in models[0]["samples"]
    ]
    return Section("Samples", blocks, "Each model goes on from a prompt greedily.")


def _how(document: Mapping[str, Any]) -> Section:
    models = {f"model {n + 1}": model["model"] for n, model in enumerate(document["models"])}
    return Section("How it was measured", [key_values("Settings", {**models, **document["settings"]})])
