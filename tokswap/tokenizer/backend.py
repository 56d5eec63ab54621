"""Objects of the tokenizers library: of a whole tokenizer.json, or of one that cuts bytes as they stand inside a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokswap.errors import InputError, TokswapError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_NO_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


@contextmanager
def library(path: Path) -> Iterator[None]:
    """Turn what the tokenizers library raises into InputError bad-tokenizer: a bare Exception for a fault in a file, and
    what it calls a panic, which is no Exception at all, where a file asks for the impossible.
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
    """Make the object of a tokenizer.json. Raises InputError bad-tokenizer."""
    from tokenizers import Tokenizer as Backend

    with library(path):
        backend = Backend.from_str(json.dumps(spec))
    _check_added(backend, spec, path)
    return backend


def read_backend(file: Path, spec: Mapping[str, Any]) -> Backend:
    """Make the object of a tokenizer.json from the file that `spec` was read from. Raises InputError bad-tokenizer."""
    from tokenizers import Tokenizer as Backend

    with library(file):
        backend = Backend.from_file(str(file))
    _check_added(backend, spec, file)
    return backend


def _check_added(backend: Backend, spec: Mapping[str, Any], path: Path) -> None:
    """Raise InputError bad-tokenizer where the library gives an added token another id than the file."""
    for entry in spec.get("added_tokens") or []:
        given = backend.token_to_id(entry["content"])
        if given != entry["id"]:  # the library numbers added tokens itself and ignores a gap that the file leaves
            raise InputError(
                "bad-tokenizer",
                f"the added token {entry['content']!r} has the id {entry['id']} in the file, and the tokenizers "
                f"library gives it {given}",
                "save the tokenizer again with save_pretrained, so that its ids are those that it produces",
                file=path,
            )


def stripped(
    spec: Mapping[str, Any], controls: set[int], more: tuple[str, ...], path: Path, model: Callable[[], Any]
) -> Backend:
    """Make an object without control tokens, and without what treats the start of a text in a special way.

    controls: ids that stand for no text. more: types of normalizers to leave out too. model: gives the model of an object of
    this spec, which is shared and not made twice.
    """
    plain, added = _plain(spec, controls, more)
    if isinstance(spec["model"]["vocab"], list):  # Unigram would take a control token for the likeliest piece of all
        vocab = [
            [unheard(n) if n in controls else text, *rest] for n, (text, *rest) in enumerate(spec["model"]["vocab"])
        ]
        plain["model"] = {**spec["model"], "vocab": vocab}
        plain["added_tokens"] = [
            {**entry, "content": unheard(entry["id"])} if entry["special"] else entry for entry in added
        ]
        backend = make_backend(plain, path)
    else:
        backend = make_backend({**plain, "model": _NO_MODEL}, path)
        backend.model = model()
        _add(backend, added, path)
    backend.encode_special_tokens = True
    return backend


def reaching(
    spec: Mapping[str, Any], controls: set[int], texts: Sequence[str], spelt: Sequence[str], path: Path
) -> Backend | None:
    """Make what `stripped` makes of a BPE tokenizer, of no more tokens than these texts can come to; None where it cannot.

    spelt: strings in the spelling of the model that are cut too. A merge joins neighbours, so that all that a text can be
    cut into are parts of it.
    """
    plain, added = _plain(spec, controls)
    backend = make_backend({**plain, "model": _NO_MODEL}, path)
    normal = [backend.normalizer.normalize_str(text) if backend.normalizer else text for text in texts]
    split = backend.pre_tokenizer
    whole = normal if split is None else ["".join(part for part, _ in split.pre_tokenize_str(text)) for text in normal]
    added = [entry for entry in added if any(entry["content"] in text for text in (*texts, *normal))]
    model, vocab = spec["model"], spec["model"]["vocab"]
    parts = {text[a:b] for text in (*whole, *spelt) for a in range(len(text)) for b in range(a + 1, len(text) + 1)}
    parts |= {f"<0x{byte:02X}>" for byte in range(256)} | {model.get("unk_token")}
    parts |= {entry["content"] for entry in added}
    few = {part: vocab[part] for part in parts if part in vocab}
    if any(few.get(entry["content"]) != entry["id"] for entry in added):
        return None  # the library numbers a token outside the model after the model's last
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    merges = [[left, right] for left, right in pairs if left in few and right in few and left + right in few]
    backend = make_backend({**plain, "model": {**model, "vocab": few, "merges": merges}}, path)
    _add(backend, added, path)
    backend.encode_special_tokens = True
    return backend


def _plain(
    spec: Mapping[str, Any], controls: set[int], more: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the spec of `stripped` without added tokens, and these, special where they stand for no text.

    Ids stay as they are: the library hands them out again, so that nothing may be left out.
    """
    added = [{**entry, "special": entry["id"] in controls} for entry in spec.get("added_tokens") or []]
    plain = {
        **spec,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "normalizer": _without(spec.get("normalizer"), ("Prepend", "Strip", *more)),
        "pre_tokenizer": _without(spec.get("pre_tokenizer"), ("WhitespaceSplit",)),
    }
    return plain, added


def _add(backend: Backend, added: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Give a `tokenizers` object its added tokens, in their order, which decides the ids of those outside the model."""
    from tokenizers import AddedToken

    flags = ("content", "single_word", "lstrip", "rstrip", "normalized")
    for special, entries in groupby(added, itemgetter("special")):
        tokens = [AddedToken(**{flag: entry[flag] for flag in flags if flag in entry}) for entry in entries]
        with library(path):
            (backend.add_special_tokens if special else backend.add_tokens)(tokens)
    _check_added(backend, {"added_tokens": added}, path)


def _without(node: Any, unwanted: tuple[str, ...]) -> Any:
    """Return a copy of a pipeline node without some types, and with no space put in front of a text."""
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


def unheard(token: int) -> str:
    """Return a spelling that no text contains, made of code points that are reserved for no use at all."""
    return f"\ufdd0\ufdd1{token}\ufdd2"
