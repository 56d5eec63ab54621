"""tokswap inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from tokswap.cli import _complete, _options, _output
from tokswap.errors import count_of
from tokswap.report.wording import size

_SPECIAL_TOKENS_SHOWN = 12


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
@_options.volume
def inspect(name: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Describe a checkpoint or a tokenizer.

    Shows family, vocabulary matrices, special tokens and chat template.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.checkpoint.inspect import inspect_checkpoint as run

    facts = run(name)
    if as_json:
        _output.document(facts)
        return
    lines = [*_model(facts["model"], facts["tables"]), ""] if "model" in facts else []
    click.echo("\n".join([*lines, *_tokenizer(facts["tokenizer"])]))


def _model(model: Mapping[str, Any], matrices: list[Mapping[str, Any]]) -> list[str]:
    lines = _output.facts(
        "model",
        [
            ("architecture", model["architecture"]),
            ("parameters", f"{model['parameters'] / 1e6:,.1f} M"),
            ("weights", f"{size(model['bytes'])} in {count_of(model['shards'], 'file')}"),
            ("input and output", "one matrix (tied)" if model["tied"] else "separate matrices"),
        ],
    )
    lines += ["", "vocabulary matrices"]
    for matrix in matrices:
        spare = matrix["padding"]
        more = f", {spare:,} of them padding" if spare > 0 else f", {-spare:,} fewer than ids" if spare < 0 else ""
        shape = f"{count_of(matrix['rows'], 'row')}{more}, width {matrix['width']:,}, {matrix['dtype']}"
        lines.append(f"  {matrix['role']}: {shape}  {', '.join(matrix['names'])}")
    return lines


def _tokenizer(tokenizer: Mapping[str, Any]) -> list[str]:
    spaces, specials = tokenizer["whitespace"], tokenizer["specials"]
    hidden = len(specials) - _SPECIAL_TOKENS_SHOWN
    more = f" ... and {hidden} more" if hidden > 0 else ""
    roles = [f"{role} {entry['token']} ({entry['id']})" for role, entry in tokenizer["roles"].items()]
    runs = [count_of(spaces[f"longest_{blank}s"], blank) for blank in ("space", "newline", "tab")]
    indent = "share tokens" if spaces["newline_with_indent"] else "are separate"
    return _output.facts(
        "tokenizer",
        [
            ("family", tokenizer["family"]),
            ("ids", f"{tokenizer['ids']:,}"),
            ("kinds", ", ".join(f"{count:,} {kind}" for kind, count in tokenizer["kinds"].items() if count)),
            ("roles", ", ".join(roles)),
            ("special tokens", " ".join(specials[:_SPECIAL_TOKENS_SHOWN]) + more),
            ("begins with bos", "yes" if tokenizer["begins_with_bos"] else "no"),
            ("chat template", _templates(tokenizer["chat_templates"])),
            ("numbers", tokenizer["digits"]),
            (
                "white space",
                f"runs of {', '.join(runs)}; newline and indent {indent}",
            ),
        ],
    )


def _templates(names: Sequence[str]) -> str:
    """Say whether there is a chat template; one that nobody names needs no name."""
    if list(names) == ["default"]:
        return "yes"
    return f"yes: {', '.join(names)}" if names else "no"
