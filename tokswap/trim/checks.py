"""Check the tokenization of a trim: kept tokens must come out as before. Figures are plain data for the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.tokenizer.auto import added_ids, usable_tokenizer
from tokswap.tokenizer.families import WORDPIECE
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.trim.chat import render_chats
from tokswap.trim.rebuild import Trimmed
from tokswap.trim.windows import Window, in_place

_PIECE = 80
"""Characters of a piece of text that is compared. In a longer piece, one rare token would hide all others."""
_RELOADED = 400
"""Pieces that are compared with the tokenizers that AutoTokenizer loads."""


@dataclass(frozen=True)
class ModelPair:
    """A model before and after a trim, on disk.

    Attributes:
        before: Folder of the source model.
        after: Folder of the result.
        architecture: Name of the model class in transformers.
        device: Where torch computes.
        trust_remote_code: Whether Python code of the model may run.
    """

    before: Path
    after: Path
    architecture: str = "AutoModel"
    device: str = "cpu"
    trust_remote_code: bool = False


def token_figures(before: Tokenizer, trimmed: Trimmed, texts: Sequence[Window]) -> dict[str, Any]:
    """Tokenize texts with both tokenizers, whole and in pieces.

    Args:
        before: The tokenizer of the source model.
        trimmed: The trimmed tokenizer.
        texts: Parts of texts to compare on.

    Returns:
        Plain data with these keys.
        tokens_kept: Share of the tokens that are kept.
        tokens_per_byte: Tokens per byte of text, [before, after].
        unknown: Share of unknown tokens, [before, after].
        byte_fallback: Share of byte-fallback tokens, [before, after].
        pieces: Number of pieces.
        kept: Number of pieces whose tokens are all kept. A piece with an unknown token does not count for WordPiece: a
            word that was unknown as a whole can be known after a trim.
        exact: Number of those with the same tokenization as before.
    """
    pieces = [*(window.whole for window in texts), *_pieces([window.text for window in texts])]
    old, new = before.encode_batch(pieces), trimmed.tokenizer.encode_batch(pieces)
    encoded = ((before, old), (trimmed.tokenizer, new))
    sides = [(in_place(tokenizer, rows[: len(texts)], texts), tokenizer) for tokenizer, rows in encoded]
    gone = np.ones(len(before.vocabulary), bool)
    gone[trimmed.kept] = False
    whole = [np.array(row, np.int64) for row in sides[0][0]]
    tokens = max(sum(map(len, whole)), 1)
    lost = sum(int(gone[row].sum()) for row in whole)
    if before.family == WORDPIECE and "unk" in before.vocabulary.roles:
        gone[before.vocabulary.roles["unk"]] = True
    kept = [not gone[np.array(row, np.int64)].any() for row in old]
    exact = [k and a == trimmed.kept[b].tolist() for a, b, k in zip(old, new, kept, strict=True)]
    size = max(sum(len(window.text.encode("utf-8", "surrogatepass")) for window in texts), 1)
    return {
        "tokens_kept": round(1 - lost / tokens, 6),
        "tokens_per_byte": [round(sum(map(len, rows)) / size, 5) for rows, _ in sides],
        "unknown": [_share(rows, _unknown(tokenizer)) for rows, tokenizer in sides],
        "byte_fallback": [_share(rows, _byte_pieces(tokenizer)) for rows, tokenizer in sides],
        "pieces": len(pieces),
        "kept": sum(kept),
        "exact": sum(exact),
    }


def reload_figures(models: ModelPair, trimmed: Trimmed, texts: Sequence[str]) -> dict[str, Any]:
    """Tokenize texts as a user of each folder does: with AutoTokenizer and its special tokens.

    Args:
        models: The two folders.
        trimmed: The trimmed tokenizer.
        texts: Texts to compare on.

    Returns:
        Plain data with these keys.
        pieces: Number of pieces whose tokens are all kept.
        exact: Number of those with the same tokenization as before.
        outside: Number of ids that have no row.
        added: Number of kept added tokens.
        added_equal: Number of those that the new tokenizer has under the id of their row.
        chats: Number of conversations that the chat template renders and whose tokens are all kept.
        chats_equal: Number of those with the same tokenization as before.
    """
    old, new = (
        usable_tokenizer(path, trust_remote_code=models.trust_remote_code) for path in (models.before, models.after)
    )
    kept = set(trimmed.kept.tolist())
    outside = 0

    def agree(pieces: Sequence[str]) -> list[bool]:
        nonlocal outside
        found = []
        for piece in pieces:
            before, after = old(piece)["input_ids"], new(piece)["input_ids"]
            outside += sum(token >= len(trimmed.kept) for token in after)
            if kept.issuperset(before) and old.unk_token_id not in before:
                found.append(before == [trimmed.kept[token] if token < len(trimmed.kept) else -1 for token in after])
        return found

    pieces, rendered = _pieces(texts), render_chats(trimmed.tokenizer)
    exact = agree(pieces[:: max(1, len(pieces) // _RELOADED)])
    chats = agree([*rendered.plain, *rendered.others])
    added = {text: token for text, token in added_ids(old).items() if token in kept}
    place = dict(zip(trimmed.kept.tolist(), range(len(trimmed.kept)), strict=True))
    return {
        "pieces": len(exact),
        "exact": sum(exact),
        "outside": outside,
        "added": len(added),
        "added_equal": sum(new.convert_tokens_to_ids(text) == place[token] for text, token in added.items()),
        "chats": len(chats),
        "chats_equal": sum(chats),
    }


def unreachable(tokenizer: Tokenizer) -> int:
    """Count the normal tokens that no text produces: the tokenizer takes other tokens for the token's own text."""
    vocabulary = tokenizer.vocabulary
    ids = np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()
    found = tokenizer.tokenize_bytes([vocabulary.token_bytes[token] for token in ids])
    tokenizer.release()
    return sum(row != [token] for token, row in zip(ids, found, strict=True))


def failures(checks: Mapping[str, Any]) -> list[str]:
    """Say which figures of a trim are wrong.

    Args:
        checks: `token_figures` as corpus and held_out, `reload_figures` as reloaded, and `outputs.model_figures` as
            model; each can be missing.

    Returns:
        One sentence for each failure.
    """
    found = []
    for name in ("corpus", "held_out"):
        figures = checks.get(name)
        if figures and figures["exact"] != figures["kept"]:
            wrong = figures["kept"] - figures["exact"]
            found.append(f"{wrong:,} of {figures['kept']:,} pieces of text are tokenized differently than before")
    loaded = checks.get("reloaded")
    if loaded and loaded["exact"] != loaded["pieces"]:
        wrong = loaded["pieces"] - loaded["exact"]
        found.append(
            f"AutoTokenizer tokenizes {wrong:,} of {loaded['pieces']:,} pieces of text differently than before"
        )
    if loaded and loaded["chats_equal"] != loaded["chats"]:
        found.append("the conversations of the chat template are tokenized differently than before")
    if loaded and loaded["added_equal"] != loaded["added"]:
        found.append(f"AutoTokenizer gives {loaded['added'] - loaded['added_equal']:,} added tokens another id")
    if loaded and loaded["outside"]:
        found.append(f"AutoTokenizer gives {loaded['outside']:,} ids that have no row")
    model = checks.get("model")
    if model and not model["hidden_states_equal"]:
        found.append("the hidden states of the result differ from those of the source model")
    return found


def _pieces(texts: Sequence[str]) -> list[str]:
    """Split texts into pieces of a line or less, without newlines at the edges: those can merge with what is next."""
    found = (piece.strip("\n") for text in texts for piece in _split(text))
    return [piece for piece in found if piece]


def _split(text: str) -> Iterator[str]:
    """Split a text after newlines, else before spaces, else anywhere."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            newline = text.rfind("\n", start, end) + 1
            end = newline or max(text.rfind(" ", start + 1, end), 0) or end
        yield text[start:end]
        start = end


def _share(rows: Sequence[Sequence[int]], ids: set[int]) -> float:
    total = sum(map(len, rows))
    return round(sum(token in ids for row in rows for token in row) / max(total, 1), 6)


def _unknown(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.vocabulary.roles["unk"]} if "unk" in tokenizer.vocabulary.roles else set()


def _byte_pieces(tokenizer: Tokenizer) -> set[int]:
    return set(np.flatnonzero(tokenizer.vocabulary.kind == Kind.BYTE).tolist())
