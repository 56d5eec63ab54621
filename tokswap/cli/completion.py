"""tokswap completion."""

from __future__ import annotations

import click


@click.command(
    epilog="""
\b
Examples:
  # bash: add this line to ~/.bashrc (zsh: its own name, in ~/.zshrc)
  eval "$(tokswap completion bash)"
\b
  # fish: save the script as ~/.config/fish/completions/tokswap.fish
  tokswap completion fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script.

    It completes commands, flags, aliases, methods and their settings.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(root, {}, "tokswap", "_TOKSWAP_COMPLETE").source())
