"""tokswap inspect."""

from __future__ import annotations

import click

from tokswap.cli import _complete, _options, _output
from tokswap.report.wording import size


@click.command(
    epilog="""
\b
Examples:
  tokswap inspect ./my-model
  tokswap inspect ./tokenizer.json --json
"""
)
@click.argument("name", shell_complete=_complete.models, metavar="MODEL|TOKENIZER")
@_options.json_flag
def inspect(name: str, as_json: bool) -> None:
    """Say what a checkpoint or a tokenizer is: family, rows, tables, ties, special tokens, chat template."""
    _options.set_volume(quiet=False, verbose=False)
    from tokswap.checkpoint.inspect import inspect_checkpoint as describe
    from tokswap.storage.resolve import resolve_tokenizer

    facts = describe(resolve_tokenizer(name))
    if as_json:
        _output.document(facts)
        return
    lines: list[str] = []
    if "model" in facts:
        model = facts["model"]
        lines += _output.facts(
            "model",
            [
                ("architecture", model["architecture"]),
                ("parameters", f"{model['parameters'] / 1e6:,.1f} M"),
                ("weights", f"{size(model['bytes'])} in {model['shards']} file(s)"),
                ("input and output", "one table (tied)" if model["tied"] else "separate tables"),
            ],
        )
        lines += ["", "tables"]
        for table in facts["tables"]:
            padding = f", {table['padding']:,} of them padding" if table["padding"] else ""
            shape = f"{table['rows']:,} rows{padding}, {table['width']:,} wide, {table['dtype']}"
            lines.append(f"  {table['role']}: {shape}  {', '.join(table['names'])}")
        lines.append("")
    tokenizer = facts["tokenizer"]
    spaces = tokenizer["whitespace"]
    specials = tokenizer["specials"]
    more = f" ... and {len(specials) - 12} more" if len(specials) > 12 else ""
    lines += _output.facts(
        "tokenizer",
        [
            ("family", tokenizer["family"]),
            ("ids", f"{tokenizer['ids']:,}"),
            ("kinds", ", ".join(f"{count:,} {kind}" for kind, count in tokenizer["kinds"].items() if count)),
            (
                "roles",
                ", ".join(f"{role} {entry['token']} ({entry['id']})" for role, entry in tokenizer["roles"].items()),
            ),
            ("control tokens", " ".join(specials[:12]) + more),
            ("begins with bos", "yes" if tokenizer["begins_with_bos"] else "no"),
            ("chat template", "yes" if tokenizer["chat_template"] else "no"),
            ("numbers", tokenizer["digits"]),
            (
                "white space",
                f"runs of {spaces['longest_spaces']} spaces, {spaces['longest_newlines']} newlines, "
                f"{spaces['longest_tabs']} tabs; newline and indent "
                + ("share tokens" if spaces["newline_with_indent"] else "are apart"),
            ),
        ],
    )
    click.echo("\n".join(lines))
