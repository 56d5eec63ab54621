"""What llama.cpp does otherwise with a tokenizer, and no key of a GGUF file can say: notes for the user."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tokswap.storage.gguf.pieces import ends_by_text, read_pieces
from tokswap.storage.gguf.strips import stripping_tokens
from tokswap.tokenizer.backend import library_errors
from tokswap.tokenizer.families import BYTE_LEVEL
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import byte_level_token

_STRIPS = "llama.cpp takes no white space into special tokens, as this tokenizer does for some"
_WHOLE_WORDS = "llama.cpp finds tokens inside words that this tokenizer finds as whole words only"
_EOS = {"gpt2": 11, "llama": 2, "t5": 1}
"""Id that ends a text in llama.cpp where the file names none, by kind of tokenizer."""
_MOST_NAMED = 5


def gguf_notes(tokenizer: Tokenizer, keys: Mapping[str, Any], name: str, stops: Sequence[int]) -> tuple[str, ...]:
    """Return what the user of a GGUF file should know about its tokenizer.

    Args:
        tokenizer: The tokenizer.
        keys: The `tokenizer.*` keys of the file.
        name: `general.name` of the file.
        stops: Ids that end a generated text.
    """
    added = tokenizer.spec.get("added_tokens") or []
    notes = [
        *_flag_notes(added, name, keys.get("tokenizer.ggml.pre")),
        *_missed_notes(tokenizer),
        *_known_by_text(tokenizer, keys),
        *_overlap([entry["content"] for entry in added]),
        *_missing_bytes(tokenizer),
        *_stop_notes(tokenizer, keys, stops),
    ]
    return tuple(notes)


def special_of(keys: Mapping[str, Any]) -> dict[str, int]:
    """Return what llama.cpp matches in a text before it splits it: text -> id.

    Raises:
        ValueError: for a token that occurs twice.
    """
    return {text: number for number, text in read_pieces(keys).special.items()}


def differently_special(tokenizer: Tokenizer, keys: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tokens that llama.cpp alone takes for special ones, by their texts, and those that only we do.

    Raises:
        ValueError: for a token that occurs twice.
    """
    added = {entry["content"] for entry in tokenizer.spec.get("added_tokens") or []}
    theirs, known = special_of(keys), set(tokenizer.vocabulary.text)
    return [text for text in theirs if text not in added and text in known], sorted(added - theirs.keys())


def missed_inside(tokenizer: Tokenizer) -> list[str]:
    """Return the added tokens that a tokenizer does not find between letters; llama.cpp finds them everywhere.

    Whole-word tokens are such, and tokens that are looked for as the normalizer changes them, with a space in front.
    """
    added = tokenizer.spec.get("added_tokens") or []
    with library_errors(tokenizer.path):
        return [
            entry["content"]
            for entry in added
            if entry.get("normalized") or entry.get("single_word")
            if entry["id"] not in tokenizer.backend.encode(f"a{entry['content']}b").ids
        ]


def _missed_notes(tokenizer: Tokenizer) -> Iterator[str]:
    whole = {entry["content"] for entry in tokenizer.spec.get("added_tokens") or [] if entry.get("single_word")}
    missed = [text for text in missed_inside(tokenizer) if text not in whole]
    if missed:
        yield f"llama.cpp finds {_named(missed)} in every text, this tokenizer after a space only or as normalised"


def _flag_notes(added: Sequence[Mapping[str, Any]], name: str, pre: str | None) -> Iterator[str]:
    left, right = stripping_tokens(name, pre, [entry["content"] for entry in added])
    flags = [(bool(entry.get("lstrip")), bool(entry.get("rstrip")), entry["content"]) for entry in added]
    if any((before, after) != (text in left, text in right) for before, after, text in flags):
        yield _STRIPS
    if any(entry.get("single_word") for entry in added):
        yield _WHOLE_WORDS


def _known_by_text(tokenizer: Tokenizer, keys: Mapping[str, Any]) -> Iterator[str]:
    theirs, ours = differently_special(tokenizer, keys)
    if theirs:
        yield f"llama.cpp takes {_named(theirs)} for special tokens: texts with them get other ids"
    if ours:
        yield f"llama.cpp does not take {_named(ours)} for special tokens: texts with them get other ids"


def _overlap(added: Collection[str]) -> Iterator[str]:
    """Note that llama.cpp looks for the longest token first, the tokenizers library for the leftmost one."""
    known = set(added)
    begins: dict[str, list[str]] = {}
    for text in added:
        for length in range(1, len(text)):
            begins.setdefault(text[:length], []).append(text)
    for first in added:
        for at in range(1, len(first)):
            for second in begins.get(first[at:], ()):
                joined = first + second[len(first) - at :]
                longer = any(joined[:end] in known for end in range(len(first) + 1, len(joined) + 1))
                if second != first and len(second.encode()) >= len(first.encode()) and not longer:
                    yield (
                        f"llama.cpp finds the longest added tokens first: where {first!r} and {second!r} overlap, in "
                        f"{joined!r}, a text gets other ids"
                    )
                    return


def _missing_bytes(tokenizer: Tokenizer) -> Iterator[str]:
    """Note that llama.cpp leaves out what byte-level BPE has no token for, which this tokenizer makes unk."""
    model = tokenizer.spec["model"]
    if tokenizer.family != BYTE_LEVEL or not model.get("unk_token"):
        return
    if any(byte_level_token(bytes([byte])) not in model["vocab"] for byte in range(256)):
        yield f"llama.cpp leaves out bytes without a token, which this tokenizer makes {model['unk_token']}"


def _stop_notes(tokenizer: Tokenizer, keys: Mapping[str, Any], stops: Sequence[int]) -> Iterator[str]:
    named = {keys.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")}
    text, theirs = tokenizer.vocabulary.text, special_of(keys)
    others = [text[stop] for stop in stops if stop not in named and stop < len(text)]
    lost = [end for end in others if not ends_by_text(end)]
    if lost:
        yield f"a GGUF file names three ends of a text at most: {_named(lost)} ends none in llama.cpp"
    if "tokenizer.ggml.eos_token_id" not in keys:
        end = _EOS[str(keys["tokenizer.ggml.model"])]
        ends = text[end] if end < len(text) else ""
        if ends and ends not in theirs:
            yield f"the model has no end of a text, and llama.cpp takes {ends!r} (id {end}) for one"


def _named(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_NAMED:,} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(f"`{text}`" for text in texts[:_MOST_NAMED]) + more
