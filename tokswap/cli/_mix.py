"""tokswap ensemble generate and eval: the commands that mix predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _eval_text, _options, _output
from tokswap.cli._flags import option_flags, read_options
from tokswap.ensemble.mix_options import EvaluateEnsembleOptions, MixedModelOptions
from tokswap.errors import UsageError
from tokswap.options.groups import WritingOptions

if TYPE_CHECKING:
    from tokswap.ensemble.bytewise import ByteMixture
    from tokswap.ensemble.generate import Continuation

_members = _options.together(
    click.argument("names", nargs=-1, required=True, metavar="DIR|MODEL..."),
    click.option(
        "--byte-level",
        "bytewise",
        is_flag=True,
        help="Mix models as they are, byte by byte; MODEL... instead of DIR.",
    ),
)
"""What is mixed: a prepared folder, or with --byte-level any models."""
_BY_TOKENS = {"prompts", "tokens", "seed", "sources"}
"""Options of an evaluation by tokens alone."""


def _folder(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        raise UsageError(
            "too-many-folders",
            f"this command mixes one prepared folder, not {len(names)}",
            "`tokswap ensemble prepare` makes one of several models; --byte-level mixes them as they are",
        )
    return names[0]


def _loading(options: MixedModelOptions) -> dict[str, Any]:
    """Return the keywords of `load_ensemble` and `load_bytes`."""
    names = ("mix", "weights", "dtype", "device", "trust_remote_code")
    return {name: getattr(options, name) for name in names}


@click.command(
    epilog="""
\b
Examples:
  tokswap ensemble generate ./ab --prompt 'Once upon a time'
\b
  # the first member counts more, and tokens are sampled
  tokswap ensemble generate ./ab --prompt 'Once upon a time' --weights 0.7,0.3 --temperature 0.8 --seed 1
\b
  # models that keep their own tokenizers, mixed byte by byte: exact, and slow
  tokswap ensemble generate ./a ./b --byte-level --prompt 'Once upon a time' --tokens 40
"""
)
@_members
@click.option("--prompt", required=True, help="Beginning of the text.")
@option_flags(MixedModelOptions, help={"trust_remote_code": _options.RUN_CODE})
@option_flags(WritingOptions, help={"tokens": "Tokens to write at most; bytes with --byte-level."})
@_options.json_flag
@_options.volume
def generate(
    names: tuple[str, ...],
    bytewise: bool,
    prompt: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Continue a prompt; all members together predict each token.

    The text is printed as it is written. The prompt may end inside a token, such as half a word.
    `tokswap generate` continues a prompt with one model.

    With --byte-level the members are any models, each with its own tokenizer, and the text grows byte by byte.
    """
    _options.set_volume(quiet, verbose)
    options, writing = read_options(MixedModelOptions, values), read_options(WritingOptions, values)
    how = {"temperature": writing.drawn_at, "seed": writing.seed, **({} if as_json else {"write": _output.piece})}
    found, shares = (_written_bytes if bytewise else _written_tokens)(names, prompt, writing.tokens, options, how)
    unit = "bytes" if bytewise else "tokens"
    if as_json:
        figures = {unit: found.tokens, "seconds": found.seconds, "mix": options.mix, "weights": list(shares)}
        _output.document({"prompt": prompt, "text": found.text, **figures})
        return
    click.echo()
    if not quiet:
        click.echo(_output.speed(found.tokens, unit, found.seconds), err=True)


def _written_tokens(
    names: tuple[str, ...], prompt: str, tokens: int, options: MixedModelOptions, how: Mapping[str, Any]
) -> tuple[Continuation, tuple[float, ...]]:
    """Return what a prepared ensemble writes, and the weights of its members."""
    from tokswap.ensemble.generate import continue_text
    from tokswap.ensemble.mix import load_ensemble

    model, tokenizer = load_ensemble(_folder(names), **_loading(options))
    return continue_text(model, tokenizer, prompt, tokens=tokens, **how), model.weights


def _written_bytes(
    names: tuple[str, ...], prompt: str, most: int, options: MixedModelOptions, how: Mapping[str, Any]
) -> tuple[Continuation, tuple[float, ...]]:
    """Return what a byte mixture writes, and the weights of its members."""
    from tokswap.ensemble.bytewise.load import load_bytes
    from tokswap.ensemble.generate import continue_bytes

    _, mixture = load_bytes(names, **_loading(options))
    return continue_bytes(mixture, prompt, most=most, **how), mixture.weights


@click.command(
    name="eval",
    epilog="""
\b
Examples:
  # each member and the mix, and the models that they were made from, with their own tokenizers
  tokswap ensemble eval ./ab --text notes.txt --sources
\b
  # models that keep their own tokenizers, byte by byte (slow: take a short text)
  tokswap ensemble eval ./a ./b --byte-level --text short.txt
""",
)
@_members
@_options.text_option("Text (.txt, .jsonl, .parquet, .gz), a folder or a pattern; repeat for more.")
@option_flags(EvaluateEnsembleOptions, help={"trust_remote_code": _options.RUN_CODE})
@_options.json_flag
@_options.volume
def evaluate(
    names: tuple[str, ...],
    bytewise: bool,
    texts: tuple[Path, ...],
    field: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Measure the bits per byte of each member and of the mix.

    With --byte-level the members are any models, each with its own tokenizer. Then every byte of a text counts, whole
    texts are read, and there are no samples.
    """
    _options.set_volume(quiet, verbose)
    options = read_options(EvaluateEnsembleOptions, values, progress=not quiet)
    from tokswap.storage.texts import read_texts

    read = read_texts(texts, field)
    if bytewise:
        from tokswap.ensemble.bytewise.load import load_bytes

        _options.refuse_idle(_BY_TOKENS, "with --byte-level, which has no samples and no intervals")
        how = _loading(options) | {"window": options.window, "overlap": options.overlap}
        shown, mixture = load_bytes(names, **how)
        _evaluate_bytes(shown, mixture, read, as_json, quiet)
        return
    from tokswap.ensemble.score import evaluate_ensemble_with

    result = evaluate_ensemble_with(_folder(names), read, options)
    if as_json:
        _output.document(result.as_dict())
        return
    shares = result.settings["weights"]
    assert isinstance(shares, dict)
    lines = [f"the mix: mean of {options.mix}, {_weighted(shares)}", "", *_eval_text.summary_lines(result)]
    click.echo("\n".join(lines if quiet else [*lines, *_eval_text.sample_lines(result)]))


def _evaluate_bytes(
    names: tuple[str, ...], mixture: ByteMixture, texts: Mapping[str, str], as_json: bool, quiet: bool
) -> None:
    """Print the bits per byte of each member and of the mix on every text."""
    from tqdm.auto import tqdm

    found: dict[str, dict[str, float]] = {}
    total = sum(len(text.encode("utf-8")) for text in texts.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=True if quiet else None) as bar:
        for name, text in texts.items():
            score = mixture.score(text, done=bar.update)
            members = zip(names, score.member_bits_per_byte, strict=True)
            found[name] = {**dict(members), "the mix": score.bits_per_byte}
    if as_json:
        _output.document({"weights": list(mixture.weights), "bits_per_byte": found})
        return
    shares = dict(zip(names, mixture.weights, strict=True))
    lines = [f"the mix: mean of next-byte probabilities, {_weighted(shares)}"]
    for name, scores in found.items():
        rows = [(who, f"{bits:.3f}") for who, bits in scores.items()]
        lines += ["", f"{name}, bits/byte", *_output.columns(rows, right=(1,))]
    click.echo("\n".join(lines))


def _weighted(shares: Mapping[str, float]) -> str:
    return " + ".join(f"{weight:.3g} {name}" for name, weight in shares.items())
