"""tokswap ensemble generate and eval: the commands that mix."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokswap.cli import _options, _output
from tokswap.errors import UsageError

if TYPE_CHECKING:
    from tokswap.ensemble.bytewise import ByteMixture


def _members(command: Any) -> Any:
    """What is mixed: a prepared folder, or with --byte-level any models."""
    for option in (
        click.argument("names", nargs=-1, required=True, metavar="DIR|MODEL..."),
        click.option(
            "--byte-level", is_flag=True, help="Mix models as they are, byte by byte; MODEL... instead of DIR."
        ),
    ):
        command = option(command)
    return command


def _folder(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        raise UsageError(
            "too-many-folders",
            f"this mixes one prepared folder, not {len(names)}",
            "`tokswap ensemble prepare` makes one of several models; --byte-level mixes them as they are",
        )
    return names[0]


def _mixing(command: Any) -> Any:
    """The options of the commands that mix."""
    for option in (
        click.option(
            "--mix",
            type=click.Choice(["probabilities", "logits"]),
            default="probabilities",
            show_default=True,
            help="The mean of the members' distributions, or of their logits.",
        ),
        click.option("--weights", metavar="W,W", help="One weight a member, in their order. [default: as prepared]"),
        _options.computing_flags("members"),
    )[::-1]:
        command = option(command)
    return command


@click.command(
    epilog="""
\b
Examples:
  tokswap ensemble generate ./ab --prompt 'Once upon a time'
\b
  # the first member counts more, and tokens are drawn
  tokswap ensemble generate ./ab --prompt 'Once upon a time' --weights 0.7,0.3 --temperature 0.8 --seed 1
\b
  # models that keep their own tokenizers, mixed byte by byte: exact, and slow
  tokswap ensemble generate ./a ./b --byte-level --prompt 'Once upon a time' --tokens 40
"""
)
@_members
@click.option("--prompt", required=True, help="The beginning of the text.")
@_mixing
@click.option(
    "--tokens", type=click.IntRange(1), default=64, show_default=True, help="How far at most; bytes with --byte-level."
)
@click.option("--sample", is_flag=True, help="Draw tokens at random instead of taking the likeliest.")
@click.option("--temperature", type=float, metavar="T", help="Draw at this temperature. [default: 1 with --sample]")
@click.option("--seed", type=int, default=0, show_default=True, help="For what is drawn.")
@_options.trust_flag
@_options.json_flag
@_options.volume
def generate(
    names: tuple[str, ...],
    byte_level: bool,
    prompt: str,
    mix: str,
    weights: str | None,
    dtype: str,
    device: str,
    tokens: int,
    sample: bool,
    temperature: float | None,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Go on from a prompt, each token predicted by all members together. The text is printed as it comes.

    With --byte-level the members are any models, each with its own tokenizer, and the text grows byte by byte.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.ensemble.bytewise.load import load_bytes
    from tokswap.ensemble.generate import continue_bytes, continue_text
    from tokswap.ensemble.mix import load_ensemble

    how: dict[str, Any] = {
        "weights": weights,
        "mix": mix,
        "dtype": dtype,
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    if sample and temperature is None:
        temperature = 1.0

    def write(text: str) -> None:
        if not as_json:
            click.echo(text, nl=False)
            sys.stdout.flush()

    if byte_level:
        _, mixture = load_bytes(names, **how)
        found, shares = (
            continue_bytes(mixture, prompt, most=tokens, temperature=temperature, seed=seed, write=write),
            mixture.weights,
        )
    else:
        model, tokenizer = load_ensemble(_folder(names), **how)
        found, shares = (
            continue_text(model, tokenizer, prompt, tokens=tokens, temperature=temperature, seed=seed, write=write),
            model.weights,
        )
    unit = "bytes" if byte_level else "tokens"
    if as_json:
        _output.document(
            {
                "prompt": prompt,
                "text": found.text,
                unit: found.tokens,
                "seconds": found.seconds,
                "mix": mix,
                "weights": list(shares),
            }
        )
        return
    click.echo()
    if not quiet:
        speed = f"{found.tokens} {unit} in {found.seconds:.1f} s, {found.tokens / found.seconds:.1f} a second"
        click.echo(f"({speed})", err=True)


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
@_options.text_option("A plain text in UTF-8; may be repeated.")
@_mixing
@click.option("--sources", is_flag=True, help="Judge the models that the members were made from too.")
@_options.judging_flags("all")
@_options.trust_flag
@_options.json_flag
@_options.volume
def evaluate(
    names: tuple[str, ...],
    byte_level: bool,
    texts: tuple[Path, ...],
    mix: str,
    weights: str | None,
    dtype: str,
    device: str,
    sources: bool,
    window: int,
    overlap: int,
    prompts: tuple[str, ...],
    tokens: int,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Judge each member and the mix by the bits per byte that they need for texts, on the same bytes.

    With --byte-level the members are any models, each with its own tokenizer; every byte of a text counts then, whole
    texts are read, and there are no samples.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.cli.eval import samples, summary
    from tokswap.ensemble.score import evaluate_ensemble
    from tokswap.storage.texts import read_texts
    from tokswap.tokenizer.probes import PROMPTS

    if byte_level:
        from tokswap.ensemble.bytewise.load import load_bytes

        read = read_texts(texts)
        shown, mixture = load_bytes(
            names, weights=weights, mix=mix, dtype=dtype, device=device, trust_remote_code=trust_remote_code
        )
        _judge_bytes(shown, mixture, read, as_json, quiet)
        return
    result = evaluate_ensemble(
        _folder(names),
        read_texts(texts),
        weights=weights,
        mix=mix,
        sources=sources,
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
        return
    shares = result.settings["weights"]
    assert isinstance(shares, dict)
    said = " + ".join(f"{weight:.3g} {name}" for name, weight in shares.items())
    click.echo(
        "\n".join([f"the mix: mean of {mix}, {said}", "", *summary(result), *([] if quiet else samples(result))])
    )


def _judge_bytes(
    names: tuple[str, ...], mixture: ByteMixture, texts: Mapping[str, str], as_json: bool, quiet: bool
) -> None:
    """Print the bits per byte of each member and of the mix on every text."""
    from tqdm import tqdm

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
    said = " + ".join(f"{weight:.3g} {name}" for name, weight in zip(names, mixture.weights, strict=True))
    lines = [f"the mix: mean of next-byte probabilities, {said}"]
    for name, scores in found.items():
        rows = [(who, f"{bits:.3f}") for who, bits in scores.items()]
        lines += ["", f"{name}, bits/byte", *_output.columns(rows, right=(1,))]
    click.echo("\n".join(lines))
