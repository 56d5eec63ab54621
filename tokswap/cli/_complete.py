"""What a shell may offer for an argument: names of models, methods, and settings of the chosen method.

Each function is called on a press of TAB and loads no more than that needs.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer aliases, and files and folders."""
    from tokswap.errors import TokswapError
    from tokswap.storage.resolve import ALIASES, user_aliases

    try:
        aliases = {**ALIASES, **user_aliases()}
    except TokswapError:  # a damaged file of aliases is for the command itself to report
        aliases = dict(ALIASES)
    # Shells take files where no name fits. The entry for them has to come first: bash begins anew with it.
    found = [CompletionItem(name, help=aliases[name]) for name in aliases if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *found]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer files and folders."""
    return [CompletionItem(incomplete, type="file")]


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the methods."""
    from tokswap.init.registry import METHODS

    return [CompletionItem(name) for name in METHODS if name.startswith(incomplete)]


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer key=value for the settings of the method of --init: the words that a setting may be, else its default."""
    import dataclasses

    from tokswap.errors import TokswapError
    from tokswap.init.registry import method_class

    try:
        fields = dataclasses.fields(method_class(ctx.params.get("init") or "auto"))
    except TokswapError:  # a sum of methods has its settings in parentheses
        return []
    offers = []
    for field in fields:
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        words = ("true", "false") if isinstance(field.default, bool) else field.metadata["choices"] or (default,)
        offers += [CompletionItem(f"{field.name}={word}", help=field.metadata["help"]) for word in words]
    return [offer for offer in offers if offer.value.startswith(incomplete)]
