"""tokswap alias."""

from __future__ import annotations

import click

from tokswap.cli import _complete, _options, _output


@click.command(
    epilog="""
\b
Examples:
  tokswap alias
  tokswap alias mine ./models/my-model
  tokswap alias mine --remove
"""
)
@click.argument("name", shell_complete=_complete.models, required=False, metavar="[NAME]")
@click.argument("target", shell_complete=_complete.files, required=False, metavar="[MODEL]")
@click.option("--remove", is_flag=True, help="Remove one of your aliases.")
@_options.json_flag
def alias(name: str | None, target: str | None, remove: bool, as_json: bool) -> None:
    """List, add or remove short names for models and tokenizers."""
    from tokswap.storage.resolve import ALIASES, set_alias, user_aliases

    if target and remove:
        raise click.UsageError("give a MODEL or --remove, not both")
    if remove and not name:
        raise click.UsageError("name the alias to remove")
    if name and (target or remove):
        set_alias(name, None if remove else _absolute(str(target)))
    own = user_aliases()
    known = {**ALIASES, **own}
    if name and not remove:
        if name not in known:
            from tokswap.errors import UsageError, did_you_mean

            raise UsageError("unknown-alias", f"there is no alias `{name}`{did_you_mean(name, known)}")
        known = {name: known[name]}
    if as_json:
        _output.document(known)
    else:
        rows = [(key, known[key], "yours" if key in own else "") for key in sorted(known)]
        click.echo("\n".join(_output.columns(rows)))


def _absolute(target: str) -> str:
    """Make a path absolute, so that it means the same from every folder; a hub id stays as it is."""
    from pathlib import Path

    path = Path(target).expanduser()
    if not path.exists() and target.startswith((".", "/", "~")):
        from tokswap.errors import UsageError

        hint = "give a folder that exists, or a hub id (OWNER/NAME)"
        raise UsageError("bad-alias", f"there is no file or folder `{target}`", hint)
    return str(path.absolute()) if path.exists() else target
