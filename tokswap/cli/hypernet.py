"""tokswap hypernet: import, info, train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tokswap.cli import _options, _output
from tokswap.cli._flags import option_flags, read_options
from tokswap.cli._groups import Group
from tokswap.errors import count_of
from tokswap.hypernet.settings import TrainSettings


@click.group(
    cls=Group,
    epilog="""
\b
Examples:
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet
  tokswap transplant --model ./my-model --tokenizer ./tokenizer.json --init zett --set path=./hypernet
""",
)
def hypernet() -> None:
    """Import, describe and train hypernetworks (ZeTT).

    A hypernetwork (arXiv 2405.07883) predicts the embeddings of any tokenizer's tokens. It is trained for one model,
    and works for fine-tunes of that model too. `--init zett --set path=DIR` uses it in a transplant.
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
@click.option("--out", required=True, metavar="DIR", help="Output folder.")
@click.option(
    "--languages",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Codes of its languages, one per line, for checkpoints that name none.",
)
@click.option("--force", is_flag=True, help="Replace an existing folder.")
@_options.json_flag
@_options.volume
def import_(
    name: str, out: str, languages: Path | None, force: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Convert a published hypernetwork (PyTorch or Flax) to the layout of tokswap.

    No code that comes with it is run, and JAX is not needed.
    """
    _options.set_volume(quiet, verbose)
    from tokswap.hypernet import import_hypernet
    from tokswap.storage.texts import read_text

    codes = read_text(languages).split() if languages is not None else None
    import_hypernet(name, out, languages=codes, force=force)
    _show_result(out, "...", as_json=as_json, quiet=quiet)


@hypernet.command(
    epilog="""
\b
Examples:
  tokswap hypernet info ./hypernet
"""
)
@click.argument("folder", metavar="DIR")
@_options.json_flag
@_options.volume
def info(folder: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Describe a hypernetwork: its base model, sizes, languages and predictions."""
    _options.set_volume(quiet, verbose)
    if as_json:
        _output.document(_describe(folder))
    else:
        click.echo("\n".join(_facts(folder)))


def _is_main_process() -> bool:
    """Return whether this process writes to stdout. A launcher numbers the processes of a run in RANK."""
    return os.environ.get("RANK", "0") == "0"


@hypernet.command(
    epilog="""
\b
Examples:
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet
  # continue after a kill, with the same settings
  tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet --resume
  # for tokenizers of one language each
  tokswap hypernet train --model ./my-model --text german.txt --text english.txt --by-text --out ./hypernet
\b
Several processes share each batch and come to the same result:
  accelerate launch -m tokswap hypernet train --model ./my-model --text corpus.txt --out ./hypernet
"""
)
@_options.model_option(
    "--model", "Model to train for: folder, hub id, alias or .gguf file.", required=True, metavar="SOURCE"
)
@_options.text_option(
    "Text of the kind that the model was trained on (.txt, .jsonl, .parquet, .gz), a folder or a pattern; repeat for "
    "more.",
    field=False,
)
@click.option("--out", required=True, metavar="DIR", help="Output folder; checkpoints and metrics are in DIR/training.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in DIR.")
@option_flags(TrainSettings)
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
    """Train a hypernetwork for a causal language model or an encoder (masked language model).

    In the first stage the hypernetwork learns to reproduce the model's own embeddings. In the main stage the frozen
    model reads text under random tokenizers, with embeddings that the hypernetwork predicts for their tokens, and the
    model's loss trains the hypernetwork. The defaults are those of the paper and need a GPU; docs/hypernetworks.md has
    settings for small machines.
    """
    _options.set_volume(quiet, verbose)
    main_process = _is_main_process()
    if not main_process:  # its errors go to stderr alone
        click.get_current_context().meta["tokswap.json"] = False
    settings = read_options(TrainSettings, values)
    from tokswap.hypernet.train import train as run

    run(model, texts, out, settings, resume=resume, progress=not quiet)
    if main_process:
        _show_result(out, "--model", model, "--tokenizer", "...", as_json=as_json, quiet=quiet)


def _show_result(out: str, *inputs: str, as_json: bool, quiet: bool) -> None:
    """Print what a hypernetwork is, and the command that uses it."""
    if as_json:
        _output.document({"out": out, **_describe(out)})
    elif quiet:
        click.echo(out)
    else:
        following = _output.next_command("transplant", *inputs, "--init", "zett", "--set", f"path={out}")
        click.echo("\n".join([*_facts(out), "", following]))


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
    named = " ".join(languages) if isinstance(languages, list) else f"{languages} without names" * bool(languages)
    reads = f"{facts['source_rows']:,} source embeddings of width {facts['width']:,}"
    layers = f"{count_of(facts['layers'], 'layer')} of width {facts['hidden']:,}"
    network = f"{layers}, {facts['parameters'] / 1e6:,.1f} M parameters"
    rows = [
        ("base model", facts["base_model"]),
        ("reads", f"{reads}, up to {facts['pieces']} per token"),
        ("predicts", ", ".join(facts["predicts"])),
        ("languages", named),
        ("network", network),
    ]
    return _output.facts(f"hypernetwork {folder}", rows)
