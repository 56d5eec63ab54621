"""Objects of the tokenizers library: for a whole tokenizer.json, or for bytes as they stand inside a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from tokswap.errors import InputError, TokswapError
from tokswap.tokenizer.merges import merges_of

Backend: TypeAlias = Any
"""A `tokenizers.Tokenizer`. The library is imported only when one is built."""
_NO_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Turn errors of the tokenizers library into InputError bad-tokenizer.

    The library raises a bare Exception for a fault in a file. For a file that asks for the impossible it panics, and a
    panic is a BaseException.
    """
    try:
        yield
    except TokswapError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            message = f"the tokenizers library cannot use this file: {error}"
            raise InputError("bad-tokenizer", message, file=path) from error
        raise


def make_backend(spec: Mapping[str, Any], path: Path) -> Backend:
    """Build the library's tokenizer from a parsed tokenizer.json.

    Args:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    from tokenizers import Tokenizer

    with library_errors(path):
        backend = Tokenizer.from_str(json.dumps(spec))
    check_added_ids(backend, spec.get("added_tokens") or [], path)
    return backend


def parts_backend(spec: Mapping[str, Any], path: Path) -> Backend:
    """Build the library's tokenizer of a tokenizer.json without its model and its added tokens.

    Args:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    return make_backend({**spec, "model": _NO_MODEL, "added_tokens": [], "truncation": None, "padding": None}, path)


def check_added_ids(backend: Backend, added: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Check that a backend gives the added tokens their ids.

    Args:
        backend: The backend.
        added: The `added_tokens` of its tokenizer.json.
        path: Where it is from, for error messages.

    Raises:
        InputError: bad-tokenizer.
    """
    for entry in added:
        given = backend.token_to_id(entry["content"])
        if given != entry["id"]:  # the library numbers added tokens itself, and ignores gaps between ids in the file
            raise InputError(
                "bad-tokenizer",
                f"the added token {entry['content']!r} has the id {entry['id']} in the file, but the tokenizers "
                f"library gives it the id {given}",
                "save the tokenizer again with save_pretrained, so that the file has the ids of the library",
                file=path,
            )


@dataclass(frozen=True)
class LazyBackend:
    """The library's tokenizer of a whole tokenizer.json, built on first use.

    Attributes:
        spec: The parsed tokenizer.json.
        path: Where it is from, for error messages.
        file: A tokenizer.json with the same content, or None. The library reads a file faster than a parsed one.
        given: The tokenizer, where transformers has built it already.
        splits_special: Whether special tokens in a text are split as other text is.
    """

    spec: Mapping[str, Any]
    path: Path
    file: Path | None
    given: Backend | None = None
    splits_special: bool = False

    @cached_property
    def loaded(self) -> Backend:
        """The tokenizer, with truncation and padding disabled. Raises InputError bad-tokenizer."""
        backend = self._build()
        backend.no_truncation()
        backend.no_padding()
        if self.given is None:
            backend.encode_special_tokens = self.splits_special
        return backend

    def check(self) -> None:
        """Build the tokenizer, and do not keep it: it takes as much memory as an embedding matrix.

        Raises:
            InputError: bad-tokenizer.
        """
        if "loaded" not in vars(self) and self.given is None:
            self._build()

    def _build(self) -> Backend:
        if self.given is not None:
            return self.given
        if self.file is None:
            return make_backend(self.spec, self.path)
        from tokenizers import Tokenizer

        with library_errors(self.file):
            backend = Tokenizer.from_file(str(self.file))
        check_added_ids(backend, self.spec.get("added_tokens") or [], self.file)
        return backend


def model_texts(spec: Mapping[str, Any], texts: Sequence[str], path: Path) -> list[list[str]]:
    """Return what the model of a tokenizer gets of each text, as it stands inside a longer text.

    Args:
        spec: The parsed tokenizer.json.
        texts: The texts.
        path: Where the tokenizer is from, for error messages.

    Returns:
        The parts of each text, normalised and split, as the model spells them.

    Raises:
        InputError: bad-tokenizer.
    """
    return [parts for _, parts in normal_and_parts(spec, texts, path)]


def normal_and_parts(spec: Mapping[str, Any], texts: Sequence[str], path: Path) -> list[tuple[str, list[str]]]:
    """Return what the normalizer makes of each text inside a longer text, and the parts of it as `model_texts` does.

    Arguments and errors are those of `model_texts`.
    """
    backend = parts_backend(_text_spec(spec, set())[0], path)
    normalizer, split = backend.normalizer, backend.pre_tokenizer
    with library_errors(path):
        normal = [normalizer.normalize_str(text) if normalizer else text for text in texts]
        return [(text, [part for part, _ in split.pre_tokenize_str(text)] if split else [text]) for text in normal]


def trained_merges(words: Mapping[str, int], size: int, path: Path) -> list[str]:
    """Train a BPE model with the library's trainer.

    Args:
        words: Word -> how often it occurs. Each of its characters is a symbol, and none is white space.
        size: Number of merges.
        path: Where the symbols are from, for error messages.

    Returns:
        The symbols that the merges make, in their order; fewer than `size` where no more pairs occur twice.

    Raises:
        InputError: bad-tokenizer.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    symbols = len(set().union(*words))
    with library_errors(path):
        trainer = trainers.BpeTrainer(vocab_size=symbols + size, min_frequency=2, show_progress=False)
        backend.train_from_iterator((f"{word} " * count for word, count in words.items()), trainer)
    return [left + right for left, right in merges_of(json.loads(backend.to_str())["model"])]


def text_backend(whole: LazyBackend, special: set[int], without_normalizers: tuple[str, ...] = ()) -> Backend:
    """Build a backend that tokenizes bytes as they stand inside a text.

    It never produces a special token, and does not treat the start of a text in a special way.

    Args:
        whole: The backend of the whole tokenizer. The new backend shares its model where it can.
        special: Ids that do not stand for text.
        without_normalizers: Types of normalizers to leave out as well.

    Raises:
        InputError: bad-tokenizer.
    """
    spec, path = whole.spec, whole.path
    plain, added = _text_spec(spec, special, without_normalizers)
    if isinstance(spec["model"]["vocab"], list):
        # Unigram finds the text of a special token likelier than any pieces, so it needs a model of its own.
        entries = enumerate(spec["model"]["vocab"])
        vocab = [[impossible_text(n) if n in special else text, *rest] for n, (text, *rest) in entries]
        plain["model"] = {**spec["model"], "vocab": vocab}
        plain["added_tokens"] = [
            {**entry, "content": impossible_text(entry["id"])} if entry["special"] else entry for entry in added
        ]
        backend = make_backend(plain, path)
    else:
        backend = make_backend({**plain, "model": _NO_MODEL}, path)
        backend.model = whole.loaded.model
        _add_tokens(backend, added, path)
    backend.encode_special_tokens = True
    return backend


def impossible_text(token: int) -> str:
    """Return a spelling for a token that no text contains. It uses code points that Unicode reserves for no use."""
    return f"\ufdd0\ufdd1{token}\ufdd2"


def _text_spec(
    spec: Mapping[str, Any], special: set[int], without_normalizers: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the spec of a text backend without its added tokens, and the added tokens.

    An added token is `special` exactly if it does not stand for text. No token is left out, because the library would
    then give the others new ids.
    """
    added = [{**entry, "special": entry["id"] in special} for entry in spec.get("added_tokens") or []]
    plain = {
        **spec,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "normalizer": _without(spec.get("normalizer"), ("Prepend", "Strip", *without_normalizers)),
        "pre_tokenizer": _without(spec.get("pre_tokenizer"), ("WhitespaceSplit",)),
    }
    return plain, added


def _without(node: Any, unwanted: tuple[str, ...]) -> Any:
    """Return a copy of a pipeline node without nodes of some types, and without a space in front of every text."""
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if node.get("type") in unwanted:
        return None
    if "add_prefix_space" in node:
        node["add_prefix_space"] = False
    if "prepend_scheme" in node:
        node["prepend_scheme"] = "never"
    for key in ("normalizers", "pretokenizers"):
        if key in node:
            node[key] = [kept for kept in (_without(child, unwanted) for child in node[key]) if kept is not None]
    return node


def _add_tokens(backend: Backend, added: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Add tokens to a backend, in their order: it decides the ids of those outside the model."""
    from tokenizers import AddedToken

    flags = ("content", "single_word", "lstrip", "rstrip", "normalized")
    for special, entries in groupby(added, itemgetter("special")):
        tokens = [AddedToken(**{flag: entry[flag] for flag in flags if flag in entry}) for entry in entries]
        with library_errors(path):
            (backend.add_special_tokens if special else backend.add_tokens)(tokens)
    check_added_ids(backend, added, path)
