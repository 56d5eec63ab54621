"""tokswap hypernet: import, info, train."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from tokswap.cli import _options, _output
from tokswap.hypernet.settings import TrainSettings


@click.group(
    epilog="""
\b
Examples:
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet
  tokswap transplant --model ./my-model --tokenizer ./tokenizer.json --init zett --set path=./hypernet
"""
)
def hypernet() -> None:
    """Hypernetworks: import a published one, look into one, train one for a model (ZeTT, arXiv 2405.07883).

    A hypernetwork predicts the embeddings of any tokenizer's tokens for the model that it was trained for, and for
    that model's fine-tunes. `--init zett --set path=DIR` uses it in a transplant.
    """


@hypernet.command(
    "import",
    epilog="""
\b
Examples:
  tokswap hypernet import benjamin/zett-hypernetwork-TinyLlama-1.1B-intermediate-step-1431k-3T --out ./hypernet
  tokswap hypernet import ./downloaded --languages 26l.txt --out ./hypernet
""",
)
@click.argument("name", metavar="FOLDER|HUB_ID")
@click.option("--out", required=True, metavar="DIR", help="Where to write it.")
@click.option(
    "--languages",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Codes of its languages, one a line, where the checkpoint names none.",
)
@click.option("--force", is_flag=True, help="Replace a folder that is in the way.")
@_options.json_flag
@_options.volume
def import_(
    name: str, out: str, languages: Path | None, force: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Read a published hypernetwork, PyTorch or Flax, and write it in tokswap's layout.

    None of the Python code that comes with it is run, and JAX is not needed.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.errors import InputError
    from tokswap.hypernet import import_hypernet

    codes = None
    if languages is not None:
        try:
            codes = languages.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("bad-text", f"cannot read this text: {error}", file=languages) from error
    import_hypernet(name, out, languages=codes, force=force)
    if as_json:
        _output.document({"out": out, **_describe(out)})
    elif quiet:
        click.echo(out)
    else:
        click.echo("\n".join([*_facts(out), "", f"next: tokswap transplant ... --init zett --set path={out}"]))


@hypernet.command(
    epilog="""
\b
Examples:
  tokswap hypernet info ./hypernet
"""
)
@click.argument("folder", metavar="DIR")
@_options.json_flag
def info(folder: str, as_json: bool) -> None:
    """Say what a hypernetwork is: its base model, sizes, languages, and what it predicts."""
    _options.set_volume(quiet=False, verbose=False)
    if as_json:
        _output.document(_describe(folder))
    else:
        click.echo("\n".join(_facts(folder)))


def _settings(command: Any) -> Any:
    """Give a command one option for each field of TrainSettings."""
    for field in reversed(dataclasses.fields(TrainSettings)):
        flag = "--" + field.name.replace("_", "-")
        extra: dict[str, Any] = {"is_flag": True} if isinstance(field.default, bool) else {"type": type(field.default)}
        help = field.metadata["help"]
        command = click.option(flag, field.name, default=field.default, show_default=True, help=help, **extra)(command)
    return command


@hypernet.command(
    epilog="""
\b
Examples:
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet
  # go on after a kill, with the same settings
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet --resume
\b
Several processes share each batch and come to the same result:
  accelerate launch -m tokswap.hypernet.train --model ./my-model --text corpus.txt --out ./hypernet
"""
)
@_options.model_option(
    "--model", "The model to train for: folder, hub id, alias or .gguf file.", required=True, metavar="SRC"
)
@_options.text_option("Plain text like what the model knows; may be repeated.")
@click.option(
    "--out", required=True, metavar="DIR", help="The hypernetwork; checkpoints and metrics lie in DIR/training."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in DIR.")
@_settings
@_options.json_flag
@_options.volume
def train(
    model: str,
    texts: tuple[Path, ...],
    out: str,
    resume: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Train a hypernetwork for a causal language model.

    The first stage teaches it to give the model's own rows back. In the main stage the frozen model reads text
    cut by tokenizers that are drawn at random, with the rows that the hypernetwork predicts for their tokens, and its loss
    trains the hypernetwork. The defaults are the paper's and mean a GPU; docs/guide.md has a schedule for small machines.
    """
    _options.set_volume(quiet, verbose)
    settings = TrainSettings(**values)
    from tokswap.hypernet.train import train as run

    run(model, texts, out, settings, resume=resume, progress=not quiet)
    if as_json:
        _output.document({"out": out, **_describe(out)})
    elif quiet:
        click.echo(out)
    else:
        hint = f"next: tokswap transplant --model {model} --tokenizer ... --init zett --set path={out}"
        click.echo("\n".join([*_facts(out), "", hint]))


def _describe(folder: str) -> dict[str, Any]:
    from tokswap.hypernet import load_hypernet

    loaded = load_hypernet(folder)
    config = loaded.config
    return {
        "base_model": config.base_model,
        "source_rows": config.original_vocab_size,
        "width": config.n_embd,
        "extra_tokens": config.hn_n_extra_tokens,
        "predicts": ["input", *["output"] * config.separate_out_embeddings, *["bias"] * config.hn_predict_bias],
        "languages": list(config.languages) or config.n_langs * config.hn_embed_lang_id,
        "pieces": config.hn_surface_maxlen,
        "layers": config.hn_n_layers,
        "hidden": config.hn_hidden_size,
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
    }


def _facts(folder: str) -> list[str]:
    facts = _describe(folder)
    languages = facts["languages"]
    return _output.facts(
        f"hypernetwork {folder}",
        [
            ("base model", facts["base_model"]),
            (
                "reads",
                f"{facts['source_rows']:,} source rows of {facts['width']:,} elements, up to {facts['pieces']} a token",
            ),
            ("predicts", ", ".join(facts["predicts"])),
            (
                "languages",
                " ".join(languages) if isinstance(languages, list) else f"{languages} without names" * bool(languages),
            ),
            (
                "network",
                f"{facts['layers']} layers, {facts['hidden']:,} wide, {facts['parameters'] / 1e6:,.1f} M parameters",
            ),
        ],
    )
