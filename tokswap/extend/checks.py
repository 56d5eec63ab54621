"""Checks that an extension changes no text without a new token, on what AutoTokenizer loads. Figures are plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokswap.errors import OutputError
from tokswap.extend.splice import Extended
from tokswap.tokenizer.auto import added_ids, usable_tokenizer
from tokswap.tokenizer.backend import library_errors
from tokswap.tokenizer.families import WORDPIECE
from tokswap.tokenizer.probes import mixed_texts

Encode = Callable[[str], list[int]]
"""Text -> ids."""
_MOST_TOKENS = 500
_BEFORE = ("", "a", ".", "(", "\n", "0")
"""What stands before a new token when it is tried."""


def text_figures(before: Encode, after: Encode, found: Extended, texts: Sequence[str]) -> dict[str, Any]:
    """Tokenize texts with both tokenizers.

    Args:
        before: The source tokenizer.
        after: The tokenizer with the new tokens.
        found: What was added.
        texts: Texts of any kind.

    Returns:
        Plain data: "texts"; "without", those without a new token; "equal", those of them that are tokenized as before.
    """
    rows = [(before(text), after(text)) for text in texts]
    new = range(found.first, found.first + len(found))
    old = [(left, right) for left, right in rows if not any(token in new for token in right)]
    return {"texts": len(rows), "without": len(old), "equal": sum(left == right for left, right in old)}


def alive_figures(after: Encode, found: Extended) -> dict[str, int]:
    """Count the new tokens that come out of their own text, inside a longer one. Many tokens are tried in part."""
    ids = [found.first + n for n, asked in enumerate(found.asked) if asked]
    texts = {token: _text(found, token) for token in ids[:: max(1, len(ids) // _MOST_TOKENS)]}
    tried = {token: text for token, text in texts.items() if text is not None}
    alive = [any(token in after(before + text) for before in _BEFORE) for token, text in tried.items()]
    return {"tokens": len(tried), "produced": sum(alive)}


def _text(found: Extended, token: int) -> str | None:
    """The text of a new token; None for a part of a character, and for a continuation, which needs a word."""
    whole = found.tokenizer.vocabulary.token_bytes[token]
    try:
        text = whole.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if found.tokenizer.family == WORDPIECE and not text.startswith(" ") else text


def folder_check(source: Path, found: Extended, sample: Sequence[str], trust: bool) -> Callable[[Path], dict[str, Any]]:
    """Return a check of the written folder before it takes its place.

    Args:
        source: Folder of the source model.
        found: What was added.
        sample: Texts of the corpus.
        trust: Whether Python code of the model may run.
    """

    def check(folder: Path) -> dict[str, Any]:
        old, new = (usable_tokenizer(path, trust_remote_code=trust) for path in (source, folder))
        before, after = (
            lambda text, one=one: list(one(text, add_special_tokens=False)["input_ids"]) for one in (old, new)
        )
        # A token without a row in the source model is left out of the result. A text that names it is letters there.
        known = found.tokenizer.vocabulary.id_of_text
        lost = [token for token in added_ids(old) if token not in known]
        special = [token for token in old.all_special_tokens if token in known]
        texts = [text for text in (*mixed_texts(special[:5]), *sample) if not any(token in text for token in lost)]
        with library_errors(source):
            checks = {"old_texts": text_figures(before, after, found, texts), "new_tokens": alive_figures(after, found)}
        problems = failures(checks)
        if problems:
            hint = "please report this, with the tokenizer and the command; nothing was left of the result"
            raise OutputError("check-failed", f"the result is not exact: {'; '.join(problems)}", hint)
        return checks

    return check


def failures(checks: dict[str, Any]) -> list[str]:
    """Say which figures are wrong."""
    old, new = checks["old_texts"], checks["new_tokens"]
    problems = []
    if old["equal"] != old["without"]:
        wrong = old["without"] - old["equal"]
        problems.append(
            f"AutoTokenizer tokenizes {wrong:,} of {old['without']:,} texts without a new token differently"
        )
    if new["produced"] != new["tokens"]:
        lost = new["tokens"] - new["produced"]
        problems.append(f"AutoTokenizer never gives {lost:,} of {new['tokens']:,} new tokens")
    return problems
