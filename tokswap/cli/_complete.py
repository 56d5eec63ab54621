"""What a shell offers for an argument: names of models, methods, and settings of the chosen method.

A shell calls these functions at each press of TAB, so each imports only what it needs.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer aliases, files and folders."""
    from tokswap.errors import TokswapError
    from tokswap.storage.resolve import ALIASES, user_aliases

    try:
        aliases = {**ALIASES, **user_aliases()}
    except TokswapError:  # the command itself reports a damaged alias file
        aliases = dict(ALIASES)
    # The entry for files comes first, because bash starts a new list with it.
    found = [CompletionItem(name, help=aliases[name]) for name in aliases if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *found]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer files and folders."""
    return [CompletionItem(incomplete, type="file")]


def methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer methods."""
    from tokswap.init.registry import METHODS

    return [CompletionItem(name) for name in METHODS if name.startswith(incomplete)]


def bos(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the words that --bos takes besides tokens."""
    return [CompletionItem(word) for word in ("auto", "keep") if word.startswith(incomplete)]


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer key=value for the settings of the method of --init: each allowed word, else the default."""
    import dataclasses

    from tokswap.errors import TokswapError
    from tokswap.init.registry import method_class
    from tokswap.options.declare import declared

    try:
        fields = dataclasses.fields(method_class(ctx.params.get("init") or "auto"))
    except TokswapError:  # a sum of methods has its settings in parentheses
        return []
    offers = []
    for field in fields:
        known = declared(field)
        words = ("true", "false") if isinstance(field.default, bool) else known.choices or (field.default,)
        offers += [CompletionItem(f"{field.name}={word}", help=known.help) for word in words]
    return [offer for offer in offers if offer.value.startswith(incomplete)]
