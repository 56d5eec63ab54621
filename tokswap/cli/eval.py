"""tokswap eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokswap.cli import _complete, _eval_text, _options, _output, _page
from tokswap.cli._flags import option_flags, read_options
from tokswap.evaluation.options import EvaluateOptions


@click.command(
    name="eval",
    epilog="""
\b
Examples:
  # the excess of a new vocabulary, and where it comes from
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
@_options.text_option(
    "Text (.txt, .jsonl, .parquet, .gz), a folder or a pattern, best one that no model was trained on; repeat for more."
)
@option_flags(EvaluateOptions, help={"trust_remote_code": _options.RUN_CODE})
@_page.flag
@_options.json_flag
@_options.volume
def evaluate(
    models: tuple[str, ...],
    texts: tuple[Path, ...],
    field: str,
    page: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Measure how many bits per byte models need for texts.

    With --against, the figure that counts is the excess: the bits per byte above those of the source model with its
    own tokenizer, on the same bytes. Intervals are 95 % confidence intervals for other texts of this kind. Models are
    loaded one after the other.
    """
    _options.set_volume(quiet, verbose)
    page_path = _page.check(page)
    options = read_options(EvaluateOptions, values, progress=not quiet)
    from tokswap.evaluation.evaluate import evaluate_with
    from tokswap.storage.texts import read_texts

    result = evaluate_with(models, read_texts(texts, field), options)
    if as_json:
        _output.document(result.as_dict())
    else:
        click.echo("\n".join(_eval_text.evaluation_lines(result, details=not quiet)))
    _page.write(page_path, "eval", result.as_dict(), quiet=quiet)
