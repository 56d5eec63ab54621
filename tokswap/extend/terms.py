"""Terms that a user lists: the tokens that they ask for, and why some cannot be tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokswap.errors import InputError
from tokswap.extend.splice import spelled
from tokswap.tokenizer.backend import normal_and_parts
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import byte_level_bytes, script_of

_WITHOUT_SPACES = {"CJK", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"}
_MOST_CHARACTERS = 200


class Respelt(str):
    """The reason for a term that the tokenizer's normalizer changes."""


@dataclass(frozen=True)
class Screened:
    """Tokens that may be added, and why others may not.

    Attributes:
        tokens: Token bytes, each once, in their order.
        skipped: Term or token text -> why it was left out; a `Respelt` where the user can spell it otherwise.
    """

    tokens: tuple[bytes, ...]
    skipped: Mapping[str, str]


def read_terms(path: str | Path, field: str = "text") -> list[str]:
    """Read a list of terms.

    Args:
        path: Files with one term a line or record. A space before a term is part of it.
        field: Name of the text field in JSON lines and parquet files.

    Raises:
        InputError: bad-text, empty-text, missing-field, missing-extra.
    """
    from tokswap.storage.texts import read_list

    lines = (line.rstrip() for line in read_list(path, field))
    return [" " * line.startswith((" ", "▁")) + line.lstrip(" ▁") for line in lines if line.strip(" ▁")]


def forms_of(term: str, forms: str) -> list[bytes]:
    """Return the token bytes of a term.

    Args:
        term: The term. One with a space before it stands as it is.
        forms: "auto", "word", "bare" or "both"; see `ExtendOptions`.
    """
    bare, word = term.encode(), f" {term}".encode()
    if term.startswith(" "):
        return [bare]
    if forms == "auto":
        joined = script_of(bare) in _WITHOUT_SPACES or not term[0].isalnum()
        return [bare] if joined else [word]
    return {"word": [word], "bare": [bare], "both": [word, bare]}[forms]


def screen(tokenizer: Tokenizer, terms: Sequence[str], forms: str) -> Screened:
    """Find the terms that can be tokens.

    Args:
        tokenizer: The tokenizer.
        terms: The terms, see `read_terms`.
        forms: Which forms of them are wanted.
    """
    wanted: dict[bytes, str] = {}
    skipped: dict[str, str] = {}
    for term in terms:
        for token in forms_of(term, forms):
            if token in wanted:
                skipped[term] = "it is listed twice"
            wanted.setdefault(token, term)
    tokens = list(wanted)
    texts = [token.decode() for token in tokens]
    seen = normal_and_parts(tokenizer.spec, texts, tokenizer.path)
    added = [str(entry["content"]) for entry in tokenizer.spec.get("added_tokens") or [] if entry["content"]]
    kept = []
    for token, text, (normal, parts) in zip(tokens, texts, seen, strict=True):
        why = _why_not(tokenizer, token, parts, normal) or next(
            (f"the tokenizer finds its added token {name!r} in it first" for name in added if name in text), ""
        )
        if why:
            skipped[text] = why
        else:
            kept.append(token)
    return Screened(tuple(kept), skipped)


def _why_not(tokenizer: Tokenizer, token: bytes, parts: Sequence[str], normal: str) -> str:
    """Say why a text cannot be a token, "" if it can.

    Args:
        tokenizer: The tokenizer.
        token: The bytes of the text.
        parts: What the model gets of it.
        normal: What the normalizer makes of it.
    """
    text, name = token.decode(), spelled(tokenizer, token)
    known = tokenizer.vocabulary.produced.get(token)
    special = tokenizer.vocabulary.id_of_text.get(text.strip())
    if known is not None:
        return f"it is a token already, with the id {known:,}"
    if special is not None and special not in tokenizer.vocabulary.produced.values():
        return "a special token has this name"
    if len(text) > _MOST_CHARACTERS:
        return f"it is longer than {_MOST_CHARACTERS} characters"
    if tokenizer.family == WORDPIECE:
        name = name.removeprefix(tokenizer.spec["model"].get("continuing_subword_prefix") or "")
    shown = list(_readable(tokenizer.family, parts))
    if normal not in (text, name, text.replace(" ", "▁")):
        return Respelt(f"the tokenizer's normalizer changes it to {''.join(shown)!r}")
    if len(parts) > 1:
        return f"the tokenizer splits it first: {' | '.join(shown)}"
    if "".join(parts) != (name.replace(" ", "") if tokenizer.family == WORDPIECE else name):
        return Respelt(f"the tokenizer's pre-tokenizer changes it to {''.join(shown)!r}")
    if name in tokenizer.vocabulary.id_of_text:
        return "a token has this text already, and is never produced"
    return ""


def _readable(family: str, parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if family == BYTE_LEVEL:
            yield byte_level_bytes(part).decode("utf-8", "replace")
        else:
            yield part.replace("▁", " ") if family in (SENTENCEPIECE, UNIGRAM) else part


def check_any(tokens: Sequence[bytes], skipped: Mapping[str, str]) -> None:
    """Raise InputError no-new-token where nothing is left to add."""
    if tokens:
        return
    some = "; ".join(f"{term!r}: {why}" for term, why in list(skipped.items())[:3])
    hint = "give terms that the tokenizer splits into several tokens"
    if all(isinstance(why, Respelt) for why in skipped.values()):
        hint = "give terms as the tokenizer spells them, an uncased one in lower case"
    raise InputError("no-new-token", f"none of the {len(skipped):,} terms can be a new token ({some})", hint)
