"""tokswap generate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _complete, _options, _output
from tokswap.cli._flags import option_flags, read_options
from tokswap.generation.options import GenerateOptions

if TYPE_CHECKING:
    from tokswap.ensemble.generate import Continuation


@click.command(
    epilog="""
\b
Examples:
  # a prompt that ends inside a word
  tokswap generate ./my-model 'def add(a, b): ret'
\b
  # several prompts, sampled
  tokswap generate ./my-model 'The ferry' 'The old bri' --temperature 0.8 --seed 1
\b
  # the gap between two texts, with a model that was trained to fill gaps in
  tokswap generate ./my-model 'def add(a, b):' --suffix 'return total' --tokens 40
"""
)
@click.argument("model", metavar="MODEL", shell_complete=_complete.models)
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@option_flags(GenerateOptions, help={"trust_remote_code": _options.RUN_CODE})
@_options.json_flag
@_options.volume
def generate(model: str, prompts: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool, **values: Any) -> None:
    """Continue prompts with one model. The text is printed as it is written.

    A PROMPT may end inside a token, such as half a word. Its last tokens are left open, and each token that spells
    the end of the prompt and goes on counts by its probability. With --suffix the model fills in the gap between a
    PROMPT and the suffix.
    """
    _options.set_volume(quiet, verbose)
    options = read_options(GenerateOptions, values)
    from tokswap.generation.generate import generate_with, open_model

    loaded = open_model(model, prompts, options)
    found = []
    for prompt in prompts:
        if len(prompts) > 1 and not quiet and not as_json:
            click.echo(f"{prompt!r} goes on:", err=True)
        how = {} if as_json else {"write": _output.piece}
        found.append(generate_with(loaded, prompt, options, **how))
        if not as_json:
            click.echo()
            if not quiet:
                _tell(found[-1], options)
    if as_json:
        texts = [
            {
                "prompt": prompt,
                "text": one.text,
                "tokens": one.tokens,
                "seconds": one.seconds,
                "exact_prompt": one.exact,
            }
            for prompt, one in zip(prompts, found, strict=True)
        ]
        _output.document({"model": model, "options": options.recorded(), "texts": texts})


def _tell(found: Continuation, options: GenerateOptions) -> None:
    """Say how fast it was, and where a prompt was taken as it is tokenized although nobody asked for that."""
    if not found.exact and options.exact_prompt is None:
        click.echo("note: with this tokenizer the prompt was taken as it is tokenized", err=True)
    click.echo(_output.speed(found.tokens, "tokens", found.seconds), err=True)
