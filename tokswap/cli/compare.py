"""tokswap compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tokswap.cli import _compare_text, _complete, _options, _output, _page
from tokswap.errors import count_of

_SCRIPTS_SHOWN = 10
_SPECIAL_TOKENS_SHOWN = 12


@click.command(
    epilog="""
\b
Examples:
  tokswap compare ./my-model ./their-model
  # on your text also: Renyi efficiency, whole words, errors of OCR
  tokswap compare smollm qwen --text notes.txt
\b
  # the same text in several languages, and the terms of your field
  tokswap compare smollm qwen --parallel en.txt --parallel de.txt --terms terms.txt
\b
  # tokens that no text gives, and tokens that the models have hardly seen (reads their embeddings)
  tokswap compare ./my-model ./their-model --every-token --undertrained
"""
)
@click.argument("first", shell_complete=_complete.models, metavar="A")
@click.argument("second", shell_complete=_complete.models, metavar="B")
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measure on this text (.txt, .jsonl, .parquet, .gz), folder or pattern; repeat for more. [default: count "
    "tokens of sentences in several languages]",
)
@click.option(
    "--parallel",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The same text in several languages, a file each: tokens relative to the first.",
)
@_options.field_option
@click.option(
    "--terms", type=click.Path(path_type=Path), metavar="FILE", help="Count the tokens of these terms, one a line."
)
@click.option("--every-token", is_flag=True, help="Tokenize every token, to count those that no text gives.")
@click.option("--undertrained", is_flag=True, help="Find tokens that the models have hardly been trained on.")
@_page.flag
@_options.json_flag
@_options.volume
def compare(first: str, second: str, texts: tuple[Path, ...], page: str | None, as_json: bool, **values: Any) -> None:
    """Compare two tokenizers: shared tokens, tokens per byte."""
    _options.set_volume(values["quiet"], values["verbose"])
    page_path = _page.check(page)
    from tokswap.report.record import versions
    from tokswap.storage.texts import read_list, read_texts
    from tokswap.tokenizer.compare import compare_tokenizers as run

    if len(values["parallel"]) == 1:
        raise click.UsageError("--parallel compares languages: name a file for each, the reference first")
    terms = read_list(values["terms"], values["field"]) if values["terms"] is not None else []
    facts = run(
        first,
        second,
        read_texts(texts, values["field"]) or None,
        parallel=read_texts(values["parallel"], values["field"]),
        terms=[term.strip() for term in terms if term.strip()],
        every_token=values["every_token"],
    )
    if values["undertrained"]:
        from tokswap.checkpoint.undertrained import undertrained_tokens

        facts["undertrained"] = [undertrained_tokens(first), undertrained_tokens(second)]
    document = {**facts, "names": [first, second], "versions": versions()}
    _page.write(page_path, "compare", document, quiet=values["quiet"])
    if as_json:
        _output.document(facts)
        return
    lines = [f"A: {first}", f"B: {second}", "", *_overview(facts), "", *_scripts(facts), "", *_lengths(facts)]
    lines += _compare_text.measured_lines(facts)
    click.echo("\n".join([*lines, *_special_tokens(facts)]))


def _overview(facts: Mapping[str, Any]) -> list[str]:
    spaces = [
        f"{count_of(s['longest_spaces'], 'space')}, {count_of(s['longest_newlines'], 'newline')}, "
        + ("indent joined to newline" if s["newline_with_indent"] else "indent separate")
        for s in facts["whitespace"]
    ]
    rows = [
        ("", "A", "B"),
        ("family", *facts["families"]),
        ("ids", *(f"{count:,}" for count in facts["sizes"])),
        ("shared", *(f"{facts['shared']:,} ({100 * share:.1f} %)" for share in facts["shared_share"])),
        ("numbers", *facts["digits"]),
        ("white space", *spaces),
        ("begins with bos", *("yes" if flag else "no" for flag in facts["begins_with_bos"])),
    ]
    return _output.columns(rows)


def _scripts(facts: Mapping[str, Any]) -> list[str]:
    scripts = list(facts["scripts"].items())
    rows = [("", "A", "B", "shared")]
    rows += [(name, *(f"{count:,}" for count in counts)) for name, counts in scripts[:_SCRIPTS_SHOWN]]
    lines = ["tokens by script", *_output.columns(rows, right=(1, 2, 3))]
    if len(scripts) > _SCRIPTS_SHOWN:
        more = count_of(len(scripts) - _SCRIPTS_SHOWN, "more script")
        lines.append(f"  ... and {more} (--json lists them)")
    return lines


def _lengths(facts: Mapping[str, Any]) -> list[str]:
    rows = [
        (name, f"{a:.3f}", f"{b:.3f}", f"{100 * (b / a - 1):+.0f} %")
        for name, (a, b) in facts["tokens_per_byte"].items()
    ]
    return ["tokens per byte", *_output.columns([("", "A", "B", "change"), *rows], right=(1, 2, 3))]


def _special_tokens(facts: Mapping[str, Any]) -> list[str]:
    tokens = list(facts["specials"].items())
    if not tokens:
        return []
    lines = ["", "special tokens of B, and their counterparts in A"]
    lines += _output.columns([(token, source or "none") for token, source in tokens[:_SPECIAL_TOKENS_SHOWN]])
    if len(tokens) > _SPECIAL_TOKENS_SHOWN:
        lines.append(f"  ... and {len(tokens) - _SPECIAL_TOKENS_SHOWN} more")
    return lines
