"""Compare two tokenizers: shared tokens, numbers and spaces, and figures on texts, terms and their own tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokswap.options.kinds import typed
from tokswap.storage.texts import check_texts
from tokswap.tokenizer.alignment import align
from tokswap.tokenizer.describe import digit_scheme, whitespace_scheme
from tokswap.tokenizer.loaded import TokenizerLike, open_tokenizer
from tokswap.tokenizer.measures import parity, term_figures, text_figures, token_figures
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of


@typed
def compare_tokenizers(
    first: TokenizerLike | Tokenizer,
    second: TokenizerLike | Tokenizer,
    texts: dict[str, str] | None = None,
    *,
    parallel: Mapping[str, str] | None = None,
    terms: Sequence[str] = (),
    every_token: bool = False,
) -> dict[str, Any]:
    """Compare two tokenizers.

    Args:
        first: The tokenizer of the source model: a folder, hub id, alias, .gguf file or tokenizer.json, a loaded
            tokenizer, or a loaded model with its tokenizer.
        second: The target tokenizer.
        texts: Name -> text, to measure on. By default tokens are counted on sentences in several languages.
        parallel: Language -> the same text in it, to compare languages; the first is the reference.
        terms: Terms whose tokens are counted.
        every_token: Whether to tokenize every token of both vocabularies, to find those that cannot come out.

    Returns:
        Plain data. Lists have one entry per tokenizer, unless noted:
        "families", "sizes": names, and numbers of ids.
        "shared": the number of tokens with the same canonical bytes. "shared_share": their share in each vocabulary.
        "scripts": script -> tokens of the first, of the second, and shared.
        "digits", "whitespace", "begins_with_bos": see `describe_tokenizer`.
        "tokens_per_byte": text -> tokens per byte.
        "specials": special token of the second -> the token of the first that takes its place, or None.
        With `texts`, "on_texts": text -> see `text_figures`. With `parallel`, "parity": see `parity`. With `terms`,
        "terms": see `term_figures`. With `every_token`, "tokens": see `token_figures`.
    """
    for given in (texts or {}, parallel or {}):
        check_texts(given)
    first, second = open_tokenizer(first), open_tokenizer(second)
    a, b = first.vocabulary, second.vocabulary
    shared = a.produced.keys() & b.produced.keys()
    alignment = align(b, a, bos_first=first.adds_bos)
    specials = np.flatnonzero(b.kind == Kind.SPECIAL).tolist()
    sources = alignment.source_of[specials].tolist()
    return {
        "families": [first.family, second.family],
        "sizes": [len(a), len(b)],
        "shared": len(shared),
        "shared_share": [len(shared) / max(len(own.produced), 1) for own in (a, b)],
        "scripts": _scripts(a, b, shared),
        "digits": [digit_scheme(first), digit_scheme(second)],
        "whitespace": [whitespace_scheme(first), whitespace_scheme(second)],
        "begins_with_bos": [first.adds_bos, second.adds_bos],
        "tokens_per_byte": {
            name: [len(tokenizer.encode(text)) / len(text.encode()) for tokenizer in (first, second)]
            for name, text in (texts or TEXTS).items()
            if text
        },
        "specials": {b.text[token]: a.text[s] if s >= 0 else None for token, s in zip(specials, sources, strict=True)},
        **_measured((first, second), texts or {}, parallel or {}, terms=terms, every_token=every_token),
    }


def _measured(
    pair: Sequence[Tokenizer],
    texts: Mapping[str, str],
    parallel: Mapping[str, str],
    *,
    terms: Sequence[str],
    every_token: bool,
) -> dict[str, Any]:
    """Return what was asked for beside the comparison; see `compare_tokenizers`."""
    found: dict[str, Any] = {}
    if texts:
        found["on_texts"] = {name: [text_figures(one, text) for one in pair] for name, text in texts.items() if text}
    if parallel:
        found["parity"] = [parity(one, parallel) for one in pair]
    if terms:
        found["terms"] = [term_figures(one, terms) for one in pair]
    if every_token:
        found["tokens"] = [token_figures(one) for one in pair]
    return found


def _scripts(a: Vocabulary, b: Vocabulary, shared: set[bytes]) -> dict[str, list[int]]:
    """Return script -> [tokens of a, tokens of b, shared tokens]. The largest script is first."""
    columns = [Counter(map(script_of, token_bytes)) for token_bytes in (a.produced, b.produced, shared)]
    names = sorted(columns[0] | columns[1], key=lambda name: (-max(columns[0][name], columns[1][name]), name))
    return {name: [column[name] for column in columns] for name in names}
