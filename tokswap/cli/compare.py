"""tokswap compare."""

from __future__ import annotations

from pathlib import Path

import click

from tokswap.cli import _complete, _options, _output, _page

_SCRIPTS_SHOWN = 10


@click.command(
    epilog="""
\b
Examples:
  tokswap compare ./my-model ./their-model
  tokswap compare smollm qwen --text notes.txt
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
    help="Count tokens on this text; may be repeated. [default: sentences in several languages]",
)
@_page.flag
@_options.json_flag
def compare(first: str, second: str, texts: tuple[Path, ...], page: str | None, as_json: bool) -> None:
    """Compare two tokenizers: what they share, how they cut numbers and spaces, tokens per byte."""
    _options.set_volume(quiet=False, verbose=False)
    page_path = _page.check(page)
    from tokswap.report.record import versions
    from tokswap.storage.resolve import resolve_tokenizer
    from tokswap.storage.texts import read_texts
    from tokswap.tokenizer.compare import compare_tokenizers as run
    from tokswap.tokenizer.tokenizer import read_tokenizer

    facts = run(
        read_tokenizer(resolve_tokenizer(first)),
        read_tokenizer(resolve_tokenizer(second)),
        read_texts(texts) or None,
    )
    _page.write(page_path, "compare", {**facts, "names": [first, second], "versions": versions()})
    if as_json:
        _output.document(facts)
        return
    share = [f"{100 * value:.1f} %" for value in facts["shared_share"]]
    spaces = [
        f"{s['longest_spaces']} spaces, {s['longest_newlines']} newlines, "
        + ("indent joined to newline" if s["newline_with_indent"] else "indent apart")
        for s in facts["whitespace"]
    ]
    rows = [
        ("", "A", "B"),
        ("family", *facts["families"]),
        ("ids", *(f"{count:,}" for count in facts["sizes"])),
        ("shared", f"{facts['shared']:,} ({share[0]})", f"{facts['shared']:,} ({share[1]})"),
        ("numbers", *facts["digits"]),
        ("white space", *spaces),
        ("begins with bos", *("yes" if flag else "no" for flag in facts["begins_with_bos"])),
    ]
    lines = [f"A: {first}", f"B: {second}", "", *_output.columns(rows), "", "tokens by script"]
    scripts = list(facts["scripts"].items())
    table = [("", "A", "B", "shared")]
    table += [(name, *(f"{count:,}" for count in counts)) for name, counts in scripts[:_SCRIPTS_SHOWN]]
    lines += _output.columns(table, right=(1, 2, 3))
    if len(scripts) > _SCRIPTS_SHOWN:
        lines.append(f"  ... and {len(scripts) - _SCRIPTS_SHOWN} more scripts (--json lists them)")
    lines += ["", "tokens per byte"]
    counted = [
        (name, f"{a:.3f}", f"{b:.3f}", f"{100 * (b / a - 1):+.0f} %")
        for name, (a, b) in facts["tokens_per_byte"].items()
    ]
    lines += _output.columns([("", "A", "B", "change"), *counted], right=(1, 2, 3))
    if facts["specials"]:
        lines += ["", "control tokens of B, and what A has for them"]
        shown = list(facts["specials"].items())[:12]
        lines += _output.columns([(token, source or "nothing") for token, source in shown])
        if len(facts["specials"]) > 12:
            lines.append(f"  ... and {len(facts['specials']) - 12} more")
    click.echo("\n".join(lines))
