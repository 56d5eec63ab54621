"""A tokenizer as the keys of a GGUF file, checked: llama.cpp gives the same ids for texts of many kinds.

llama.cpp itself is not needed for that. tokswap's reader of GGUF files makes a tokenizer.json that tokenizes as
llama.cpp does, so the keys are read back and both tokenizers are compared.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokswap.errors import InputError
from tokswap.storage.gguf.keys import Described, Keys, adds_space_once, build_keys, refused, role_keys, template_keys
from tokswap.storage.gguf.metadata import read_metadata
from tokswap.storage.gguf.models import split_steps
from tokswap.storage.gguf.splits import SPLITS, Split
from tokswap.storage.gguf.strips import stripping_tokens, telling_name
from tokswap.storage.gguf.tokenizer import tokenizer_files
from tokswap.tokenizer.backend import Backend, library_errors, make_backend, parts_backend
from tokswap.tokenizer.families import BYTE_LEVEL, WORDPIECE
from tokswap.tokenizer.gguf_notes import gguf_notes, missed_inside
from tokswap.tokenizer.post_processor import nodes, trailing_ids
from tokswap.tokenizer.probes import mixed_texts
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
_FORMS: tuple[Form, ...] = ("NFC", "NFD", "NFKC", "NFKD")
_FLAGS = ("lstrip", "rstrip", "single_word")
"""Flags of an added token that llama.cpp does not know."""
_MOST_SPECIAL = 12
_MOST_BYTES = 40


@dataclass(frozen=True)
class GgufTokenizer:
    """The `tokenizer.*` keys of a file, its name, which tells more, and what the user should know about them."""

    keys: Keys
    name: str
    notes: tuple[str, ...] = ()


def gguf_tokenizer(
    tokenizer: Tokenizer,
    *,
    rows: int,
    stops: Sequence[int] = (),
    bos: int | None = None,
    copied: Path | None = None,
    name: str = "",
) -> GgufTokenizer:
    """Return the keys of a tokenizer.

    Args:
        tokenizer: The tokenizer of the result.
        rows: Rows of the vocabulary matrices.
        stops: Ids that end a generated text.
        bos: Id that encoded texts are made to begin with, None for no change.
        copied: A .gguf file whose keys are taken where it has the same tokens.
        name: Name of the model, which can change where llama.cpp would read more out of it.

    Raises:
        InputError: gguf-tokenizer, where llama.cpp would tokenize otherwise.
    """
    if bos is not None:
        spec, config = tokenizer.output_spec(bos=bos), tokenizer.output_config(bos=bos)
        tokenizer = dataclasses.replace(tokenizer, spec=spec, config=config, edited=True)
    source = _described(tokenizer, rows, stops)
    keys = _copied(copied, source) if copied is not None else None
    if keys is None:
        if tokenizer.family == WORDPIECE:
            raise refused("tokswap writes no WordPiece vocabularies")
        keys = build_keys(source, pre_tokenizer_of(tokenizer) if tokenizer.family == BYTE_LEVEL else None)
    nul = _check_nul(keys["tokenizer.ggml.tokens"])
    name = telling_name(name, keys.get("tokenizer.ggml.pre"), _added(tokenizer.spec), tokenizer.vocabulary.text)
    texts, notes = _comparable(tokenizer, keys, name)
    _compare(tokenizer, {**keys, "general.name": name}, texts)
    return GgufTokenizer(keys, name, (*nul, *notes, *gguf_notes(tokenizer, keys, name, stops)))


def _described(tokenizer: Tokenizer, rows: int, stops: Sequence[int]) -> Described:
    """Return what a file says of a tokenizer. Raises InputError gguf-tokenizer for a frame that it cannot say."""
    vocabulary = tokenizer.vocabulary
    roles = dict(vocabulary.roles)
    first, last = tokenizer.leading, tuple(trailing_ids(tokenizer.spec))
    if len(first) == 1:
        roles["bos"] = first[0]  # what llama.cpp puts first is what it calls bos
    if len(last) == 1:
        roles.setdefault("eos", last[0])
    if len(first) > 1 or (last and last != (roles.get("eos"),)):
        names = [vocabulary.text[token] for token in (*first, *last)]
        raise refused(f"around each text it puts {' '.join(names)}, and llama.cpp puts one bos and one eos at most")
    return Described(
        spec=tokenizer.spec,
        texts=vocabulary.text,
        roles=roles,
        stops=stops,
        adds=frozenset(role for role, ids in (("bos", first), ("eos", last)) if ids),
        templates=tokenizer.chat_templates,
        rows=rows,
    )


def _check_nul(tokens: Sequence[str]) -> tuple[str, ...]:
    """Return a note on tokens that hold a NUL, where llama.cpp ends their text.

    Raises:
        InputError: gguf-tokenizer, where that makes one token twice, at which llama.cpp aborts.
    """
    cut = [text for text in tokens if "\0" in text]
    read = Counter(text.partition("\0")[0] for text in tokens)
    for text in cut:
        if read[text.partition("\0")[0]] > 1:
            raise refused(f"its token {text!r} has a NUL, where llama.cpp ends it, and so is there twice")
    return tuple(f"llama.cpp reads the token {text!r} up to its NUL" for text in cut)


def _comparable(tokenizer: Tokenizer, keys: Mapping[str, Any], name: str) -> tuple[list[str], tuple[str, ...]]:
    """Return texts that llama.cpp has to tokenize in the same way, and notes about those that it does not."""
    spec = tokenizer.spec
    form, notes = _normal_form(spec)
    stripping = stripping_tokens(name, keys.get("tokenizer.ggml.pre"), [entry["content"] for entry in _added(spec)])
    flagged = {entry["content"] for entry in _added(spec) if any(entry.get(flag) for flag in _FLAGS)}
    flagged -= stripping[0] | stripping[1]
    flagged |= set(missed_inside(tokenizer))
    special = [
        text
        for kind in (True, False)
        for text in [entry["content"] for entry in _added(spec) if bool(entry.get("special")) is kind][:_MOST_SPECIAL]
        if text not in flagged
    ]
    texts = [unicodedata.normalize(form, text) if form else text for text in mixed_texts(special)]
    if keys.get("tokenizer.ggml.add_space_prefix") and adds_space_once(spec):
        notes += ("texts, and parts after a special token, that begin with a space get one more space in llama.cpp",)
        begins = re.compile("(?:^|" + "|".join(map(re.escape, special)) + ")[ ▁]") if special else re.compile("^[ ▁]")
        texts = [text for text in texts if not begins.search(text)]
    return texts, notes


def pre_tokenizer_of(tokenizer: Tokenizer) -> str:
    """Return llama.cpp's name of the pre-tokenizer that splits text as a byte-level BPE tokenizer does.

    Raises:
        InputError: gguf-tokenizer, where none does.
    """
    spec = tokenizer.spec
    keeps = bool(spec["model"].get("ignore_merges"))
    texts = mixed_texts(())
    own = _pieces({**spec, "normalizer": None}, texts)
    candidates = {split: name for name, split in reversed(SPLITS.items()) if split.byte_level}
    fitting = {split: name for split, name in candidates.items() if _pieces(_steps(split), texts) == own}
    same = [name for split, name in fitting.items() if split.keeps_words == keeps]
    if same:
        return same[-1]
    if fitting and _merges_make_all(tokenizer):
        return list(fitting.values())[-1]
    raise refused("none of its pre-tokenizers splits text as this one does")


def _steps(split: Split) -> Mapping[str, Any]:
    return {"version": "1.0", "pre_tokenizer": {"type": "Sequence", "pretokenizers": split_steps(split)}}


def _merges_make_all(tokenizer: Tokenizer) -> bool:
    """Whether the merges make every token of the model, so that keeping whole words changes nothing."""
    vocabulary = tokenizer.vocabulary
    texts = [text for text, normal in zip(vocabulary.text, vocabulary.kind == Kind.NORMAL, strict=True) if normal]
    added = {entry["content"] for entry in _added(tokenizer.spec)}
    spec = {**tokenizer.spec, "model": {**tokenizer.spec["model"], "ignore_merges": False}, "added_tokens": []}
    model = make_backend(spec, tokenizer.path).model
    with library_errors(tokenizer.path):
        return all(len(model.tokenize(text)) == 1 for text in texts if text not in added)


def _pieces(spec: Mapping[str, Any], texts: Sequence[str]) -> list[list[str]]:
    kept = {key: spec.get(key) for key in ("version", "normalizer", "pre_tokenizer")}
    backend = parts_backend({**kept, "post_processor": None, "decoder": None}, Path("tokenizer.json"))
    with library_errors(Path("tokenizer.json")):
        split = backend.pre_tokenizer.pre_tokenize_str if backend.pre_tokenizer else lambda text: [(text, None)]
        return [[piece for piece, _ in split(text)] for text in texts]


def _copied(file: Path, source: Described) -> Keys | None:
    """Return the keys of a file where it has the same tokens; roles and templates are those of the tokenizer."""
    found = {key: value for key, value in read_metadata(file).items() if key.startswith("tokenizer.")}
    tokens = found["tokenizer.ggml.tokens"]
    both = zip(source.texts, tokens, strict=False)  # ids past the tokenizer's last one have no text to compare
    if len(tokens) != source.size or any(ours and ours != theirs for ours, theirs in both):
        return None
    own = {f"tokenizer.{key}": value for key, value in role_keys(source).items()}
    return {**found, **own, **template_keys(source.templates)}


def _normal_form(spec: Mapping[str, Any]) -> tuple[Form | None, tuple[str, ...]]:
    """Return the Unicode form that the normalizer makes, which llama.cpp does not, and a note about it."""
    types = [part.get("type") for part in nodes(spec.get("normalizer"))]
    forms = [form for form in _FORMS if form in types]
    if not forms:
        return None, ()
    return forms[-1], (f"llama.cpp does not normalise text: texts that are not in the form {forms[-1]} get other ids",)


def _added(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return spec.get("added_tokens") or []


def _compare(tokenizer: Tokenizer, keys: Mapping[str, Any], texts: Sequence[str]) -> None:
    """Raise InputError gguf-tokenizer where the keys say another tokenization than the tokenizer has."""
    try:
        spec = json.loads(tokenizer_files(keys)["tokenizer.json"])
        theirs = make_backend(spec, tokenizer.path)
    except (InputError, ValueError, KeyError, IndexError) as error:
        raise refused(str(getattr(error, "message", error))) from error
    with library_errors(tokenizer.path):
        wrong = [text for text in texts if _ids(tokenizer.backend, text) != _ids(theirs, text)]
    if wrong:
        raise refused(
            f"{len(wrong):,} of {len(texts):,} texts would get other ids, "
            f"among them {min(wrong, key=len)[:_MOST_BYTES]!r}"
        )


def _ids(backend: Backend, text: str) -> list[int]:
    return list(backend.encode(text).ids)
