"""What a trained tokenizer takes over: the pipeline, special tokens, roles and chat template of another tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError, UsageError
from tokswap.storage.resolve import resolve_tokenizer
from tokswap.tokenizer.auto import PLAIN, usable_tokenizer
from tokswap.tokenizer.backend import parts_backend
from tokswap.tokenizer.classes import plain_settings
from tokswap.tokenizer.describe import digit_scheme
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM
from tokswap.tokenizer.post_processor import template_ids
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import BYTE_ALPHABET, Kind
from tokswap.train.patterns import byte_level, sequence, superword_pre_tokenizer, word_pre_tokenizer
from tokswap.trim.rebuild import added_ids, renumbered_tokenizer

_END = "<|endoftext|>"
"""The special token of a tokenizer that takes nothing over."""


@dataclass(frozen=True)
class Base:
    """A tokenizer whose vocabulary is trained anew.

    Attributes:
        tokenizer: The tokenizer, with the pre-tokenizer and the settings that the result has.
        crosses_words: Whether tokens may cross spaces.
        digits: How it splits a number; see `digit_scheme`.
        words: Its own pre-tokenizer, which splits text into words.
        reserved: How many reserved slots are left out.
    """

    tokenizer: Tokenizer
    crosses_words: bool
    digits: str
    words: Any
    reserved: int = 0

    @property
    def family(self) -> str:
        """The family of the tokenizer."""
        return self.tokenizer.family

    @cached_property
    def inside(self) -> tuple[int, ...]:
        """Ids that stay, and are tokens of the model."""
        return tuple(token for token in self._fixed if self._is_inside(token))

    @cached_property
    def outside(self) -> tuple[int, ...]:
        """Ids of added tokens that stay and are no tokens of the model: they follow it."""
        return tuple(token for token in self._fixed if not self._is_inside(token))

    @property
    def added(self) -> tuple[str, ...]:
        """The texts that are cut out of a text before the model sees it, so that no token is trained on them."""
        vocabulary = self.tokenizer.vocabulary
        entries = self.tokenizer.spec.get("added_tokens") or []
        return tuple(str(entry["content"]) for entry in entries if vocabulary.kind[entry["id"]] != Kind.UNUSED)

    @property
    def has_byte_pieces(self) -> bool:
        """Whether the vocabulary spells unknown characters as `<0x41>`."""
        return self.family != BYTE_LEVEL and bool(self.tokenizer.spec["model"].get("byte_fallback"))

    @property
    def unspelled(self) -> tuple[str, ...]:
        """The ASCII characters that byte fallback does not cover: a tokenizer may have a piece instead, as for tabs."""
        if not self.has_byte_pieces:
            return ()
        pieces = self.tokenizer.vocabulary.byte_piece_of
        return tuple(chr(byte) for byte in range(128) if bytes([byte]) not in pieces)

    def room(self, size: int) -> int:
        """Return how many tokens of a vocabulary can be trained.

        Args:
            size: Its number of ids.

        Raises:
            UsageError: bad-size.
        """
        room = size - len(self._fixed)
        if room < 1:
            raise UsageError(
                "bad-size",
                f"{size:,} ids leave no room to train: {len(self._fixed):,} are special tokens, added tokens and bytes",
                f"--size must be at least {len(self._fixed) + 1:,}",
            )
        return room

    def with_model(self, model: Mapping[str, Any], ids: Mapping[str, int]) -> Tokenizer:
        """Return the tokenizer with a trained model.

        Args:
            model: The `model` of its tokenizer.json.
            ids: Token of the model -> its id.
        """
        text = self.tokenizer.vocabulary.text
        new_of = {token: ids[text[token]] for token in self.inside}
        new_of |= {token: len(ids) + n for n, token in enumerate(self.outside)}
        return renumbered_tokenizer(self.tokenizer, model, new_of)

    @cached_property
    def _fixed(self) -> tuple[int, ...]:
        """The ids that stay: bytes, special and added tokens, what the post-processor adds; no reserved slot."""
        tokenizer = self.tokenizer
        vocabulary, model = tokenizer.vocabulary, tokenizer.spec["model"]
        fixed = added_ids(tokenizer) | {*vocabulary.roles.values(), *template_ids(tokenizer.spec)}
        if tokenizer.family == BYTE_LEVEL:
            fixed |= {model["vocab"][symbol] for symbol in BYTE_ALPHABET if symbol in model["vocab"]}
        if self.has_byte_pieces:
            fixed |= set(np.flatnonzero(vocabulary.kind == Kind.BYTE).tolist())
        framed = template_ids(tokenizer.spec)
        return tuple(token for token in sorted(fixed) if vocabulary.kind[token] != Kind.UNUSED or token in framed)

    def _is_inside(self, token: int) -> bool:
        vocab = self.tokenizer.spec["model"]["vocab"]
        if isinstance(vocab, dict):
            return self.tokenizer.vocabulary.text[token] in vocab
        return token < len(vocab)


def base_like(like: str | Path, *, trust_remote_code: bool = False) -> Base:
    """Take over from a tokenizer, or from a model's.

    Args:
        like: A folder, hub id, alias, .gguf file or tokenizer.json.
        trust_remote_code: Whether transformers may run Python code that comes with it.

    Raises:
        UsageError, InputError: where there is no such tokenizer or it cannot be used.
    """
    path = resolve_tokenizer(str(like))
    tokenizer = read_tokenizer(path, trust_remote_code=trust_remote_code)
    config = {**tokenizer.config, "tokenizer_class": PLAIN}
    if path.is_dir():  # the class of the model may have defaults of its own, and builds parts of its own
        loaded = usable_tokenizer(path, trust_remote_code=trust_remote_code)
        config = plain_settings(config, loaded, tokenizer.spec)
    kinds, added = tokenizer.vocabulary.kind, added_ids(tokenizer)
    return Base(
        tokenizer=replace(tokenizer, config=config, edited=True),
        crosses_words=False,
        digits=_digits(tokenizer),
        words=tokenizer.spec.get("pre_tokenizer"),
        reserved=sum(1 for token in added if kinds[token] == Kind.UNUSED),
    )


def _digits(tokenizer: Tokenizer) -> str:
    """Return how a tokenizer splits a number, as `digit_scheme` says, whatever tokens it has for the parts."""
    split = parts_backend(tokenizer.spec, tokenizer.path).pre_tokenizer
    if tokenizer.family != BYTE_LEVEL or split is None:
        return digit_scheme(tokenizer)
    pieces = [piece.strip("Ġ ") for piece, _ in split.pre_tokenize_str("x 1234567")]
    lengths = [len(piece) for piece in pieces if piece.isdigit()]
    schemes = {(1,) * 7: "single digits", (3, 3, 1): "threes from the left", (1, 3, 3): "threes from the right"}
    return schemes.get(tuple(lengths), "free")


def new_base(family: str) -> Base:
    """Return a base that takes nothing over.

    Args:
        family: "bpe" or "unigram".
    """
    bytes_first = [[f"<0x{byte:02X}>", 0.0] for byte in range(256)]
    if family == "unigram":
        named = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
        vocab = [*([token, 0.0] for token in named.values()), *bytes_first]
        spec = _spec(
            {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": True},
            named,
            # A Metaspace that adds the first space leaves it out where a text begins with one: that would get lost.
            normalizer={"type": "Prepend", "prepend": "▁"},
            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
            decoder={
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
        )
    else:
        named = {"bos": _END, "eos": _END}
        model = {"type": "BPE", "vocab": {text: n for n, text in enumerate([_END, *BYTE_ALPHABET])}, "merges": []}
        spec = _spec(model, named, pre_tokenizer=word_pre_tokenizer(), decoder=byte_level())
    config = {"tokenizer_class": PLAIN, "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": token for role, token in named.items()}
    tokenizer = Tokenizer(Path("new tokenizer"), spec, config)
    return Base(tokenizer, crosses_words=False, digits="threes from the left", words=spec["pre_tokenizer"])


def crossing(base: Base, *, binary: bool = False) -> Base:
    """Return a base whose tokens may cross spaces.

    Args:
        base: The base.
        binary: Whether nothing else splits a text either: no number, and no normalizer changes it.

    Raises:
        InputError: not-bpe, where its family has no merges, or its tokens are not bytes and the text is.
    """
    spec = base.tokenizer.spec
    if base.family not in ((BYTE_LEVEL,) if binary else (BYTE_LEVEL, SENTENCEPIECE)):
        needed = "--binary needs byte-level BPE" if binary else "tokens that cross spaces need BPE"
        hint = "leave out --like, or name a model with byte-level BPE"
        raise InputError("not-bpe", f"{needed}, and this tokenizer is {base.family}", hint, file=base.tokenizer.path)
    last: list[Any] = []
    if base.family == BYTE_LEVEL:
        last = [byte_level(prefix_space=not binary and _adds_space(spec.get("pre_tokenizer")))]
    marks = [{**part, "split": False} for part in _parts(spec.get("pre_tokenizer")) if part["type"] == "Metaspace"]
    split = sequence(last) if binary else superword_pre_tokenizer(base.digits, last)
    split = sequence([*marks, *split["pretokenizers"]])
    model = {**spec["model"], "ignore_merges": False} if "ignore_merges" in spec["model"] else spec["model"]
    spec = {**spec, "model": model, "pre_tokenizer": split, "normalizer": None if binary else spec.get("normalizer")}
    config = {key: value for key, value in base.tokenizer.config.items() if key != "add_prefix_space"}
    tokenizer = replace(base.tokenizer, spec=spec, config=config, edited=True)
    return replace(base, tokenizer=tokenizer, crosses_words=True)


def spells_marks(base: Base) -> bool:
    """Return whether the model of a base sees `▁` for a space."""
    return base.family in (SENTENCEPIECE, UNIGRAM)


def _spec(
    model: Mapping[str, Any],
    roles: Mapping[str, str],
    *,
    normalizer: Mapping[str, Any] | None = None,
    pre_tokenizer: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a tokenizer.json whose special tokens are the first ids of its model."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": n, "content": token, **flags} for n, token in enumerate(dict.fromkeys(roles.values()))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": dict(model),
    }


def _parts(node: Any) -> list[Mapping[str, Any]]:
    """Return the parts of a pre-tokenizer in a row."""
    if node is None:
        return []
    if node["type"] != "Sequence":
        return [node]
    return [part for child in node["pretokenizers"] for part in _parts(child)]


def _adds_space(node: Any) -> bool:
    """Return whether a byte-level pre-tokenizer puts a space before a text."""
    return any(part.get("add_prefix_space") for part in _parts(node))
