"""A tokenizer: its files, its vocabulary, and how it tokenizes text and bytes.

A folder is what AutoTokenizer makes of it. tokswap reads the family of a tokenizer from what it does (model type,
normalizer, pre-tokenizer, decoder), never from a class name.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tokswap.errors import InputError
from tokswap.options.kinds import typed
from tokswap.storage.json_files import ADAPTER_CONFIG, ADAPTER_HINT, json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.storage.resolve import input_path
from tokswap.tokenizer.auto import auto_tokenizer, backend_of
from tokswap.tokenizer.backend import Backend, LazyBackend, library_errors
from tokswap.tokenizer.byte_tokenizer import ByteTokenizer
from tokswap.tokenizer.chat_templates import PROCESSOR, read_templates
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, family_of, read_vocabulary
from tokswap.tokenizer.merges import bpe_pairs, longest_prefix_pairs
from tokswap.tokenizer.opened import open_file, open_folder
from tokswap.tokenizer.output import config_of_result, spec_bytes, spec_with_bos
from tokswap.tokenizer.post_processor import leading_ids, trailing_ids
from tokswap.tokenizer.schema import check_tokenizer, check_tokenizer_config
from tokswap.tokenizer.vocabulary import Vocabulary

CONVERTIBLE = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "bpe.codes",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
)
"""Files from which transformers can make a tokenizer.json."""
SPELLINGS = "normalizer.json"
"""Spellings that Whisper's class makes alike."""
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
    SPELLINGS,
    *CONVERTIBLE,
    "additional_chat_templates",
)
"""Files that belong to a tokenizer besides tokenizer.json."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as its files describe it.

    Attributes:
        path: The folder or tokenizer.json that it is from.
        spec: The parsed tokenizer.json.
        config: The parsed tokenizer_config.json, {} without one.
        files: Name -> path of its other files (see `COMPANIONS`), and of the settings of a processor.
        edited: Whether `spec` may differ from the file at `path`.
        notes: What the user should know about how it was read.
        unread: Name -> content of files that its class alone reads, where it is in memory.
    """

    path: Path
    spec: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    edited: bool = True
    notes: tuple[str, ...] = ()
    unread: Mapping[str, bytes] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached values, and do not rely on the file: another machine may have another one."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "edited": True}

    @cached_property
    def family(self) -> str:
        """The family: `BYTE_LEVEL`, `SENTENCEPIECE`, `UNIGRAM` or `WORDPIECE`."""
        return family_of(self.spec, self.path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every id, with its token bytes and its kind."""
        return read_vocabulary(self.spec, self.config, self.family, self.path)

    @property
    def file(self) -> Path:
        """The path of tokenizer.json, which may not exist."""
        return self.path if self.path.is_file() else self.path / "tokenizer.json"

    @property
    def chat_templates(self) -> dict[str, str]:
        """Name -> chat template, {} without one; see `read_templates`."""
        return read_templates(self.config, self.files)

    @property
    def leading(self) -> tuple[int, ...]:
        """The ids that every encoded text begins with."""
        return tuple(leading_ids(self.spec))

    @property
    def adds_bos(self) -> bool:
        """Whether an encoded text begins with the bos token."""
        bos = self.vocabulary.roles.get("bos")
        return bos is not None and bos in self.leading

    @property
    def adds_eos(self) -> bool:
        """Whether an encoded text ends with the eos token."""
        eos = self.vocabulary.roles.get("eos")
        return eos is not None and eos in trailing_ids(self.spec)

    @property
    def backend(self) -> Backend:
        """The tokenizer of the `tokenizers` library, with truncation and padding disabled."""
        return self._lazy_backend.loaded

    def check(self) -> None:
        """Check that the tokenizers library accepts this file and keeps the ids of its tokens.

        Raises:
            InputError: bad-tokenizer.
        """
        self._lazy_backend.check()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the special tokens of the template."""
        with library_errors(self.path):
            return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many texts, as `encode` does, on all cores."""
        with library_errors(self.path):
            return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def tokenize_bytes(self, token_bytes: Sequence[bytes]) -> list[list[int]]:
        """Tokenize byte strings as they would be tokenized inside a text.

        No prefix space is added and nothing is stripped. The result has no special tokens. Bytes that are not UTF-8 are
        tokenized as bytes.

        Args:
            token_bytes: The byte strings, for instance the tokens of another vocabulary.

        Returns:
            The ids of each byte string. Bytes that the vocabulary cannot spell are left out, so a list may be empty.
        """
        with library_errors(self.path):
            return self._byte_tokenizer.tokenize(token_bytes)

    def release(self) -> None:
        """Let go of what `tokenize_bytes` has built, which can be as large as the tokenizer. Use builds it again."""
        vars(self).pop("_byte_tokenizer", None)

    def merge_pairs(self) -> np.ndarray:
        """Find the two tokens that each text piece is joined from.

        BPE: the earliest merge that gives the token. Other families have no merges: the longest token that the token
        begins with, where the rest is a token too.

        Returns:
            The two ids of each token, or -1 (int32 [V, 2]).
        """
        if self.family in (BYTE_LEVEL, SENTENCEPIECE):
            return bpe_pairs(self.spec["model"], len(self.vocabulary))
        return longest_prefix_pairs(self.vocabulary)

    def literal(self) -> Backend:
        """Return a `tokenizers` object whose tokens spell exactly the text.

        It has no special tokens, puts no space before a text, and does not change characters (no NFC, no lower case).
        """
        return self._byte_tokenizer.literal()

    def output_spec(self, *, bos: int | None = None) -> Mapping[str, Any]:
        """Return the tokenizer.json of a result. bos: the id that encoded texts must begin with, None for no change."""
        return self.spec if bos is None else spec_with_bos(self.spec, bos, self.vocabulary.text[bos])

    def output_config(self, *, bos: int | None = None) -> dict[str, Any]:
        """Return the tokenizer_config.json of a result. bos: as in `output_spec`."""
        return config_of_result(self.config, None if bos is None else self.vocabulary.text[bos])

    def output_files(self, *, bos: int | None = None) -> dict[str, bytes | Path]:
        """Return the tokenizer files of a result.

        Files that only older tokenizer classes read are included, because inference engines may parse them.

        Args:
            bos: The id that encoded texts must begin with, once; None leaves the template alone.

        Returns:
            File name -> content, or the path of a file to copy.
        """
        spec = self.output_spec(bos=bos)
        same = spec is self.spec and not self.edited and self.file.is_file()
        return {
            **{name: path for name, path in self.files.items() if name != PROCESSOR},
            **self.unread,
            "tokenizer.json": self.file if same else spec_bytes(spec),
            "tokenizer_config.json": json_bytes(self.output_config(bos=bos)),
        }

    @cached_property
    def _lazy_backend(self) -> LazyBackend:
        same = not self.edited and self.file.is_file()
        splits = bool(self.config.get("split_special_tokens"))
        return LazyBackend(self.spec, self.path, self.file if same else None, splits_special=splits)

    @cached_property
    def _byte_tokenizer(self) -> ByteTokenizer:
        return ByteTokenizer(self.family, self.vocabulary, self._lazy_backend)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Turn the garbage collector off: it takes most of the time in which half a million merges are parsed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collection()
@typed
def read_tokenizer(path: str | Path, *, prefer_file: bool = False, trust_remote_code: bool = False) -> Tokenizer:
    """Read a tokenizer: what AutoTokenizer gives for a folder, or what a tokenizer.json says.

    Args:
        path: A folder, or a tokenizer.json.
        prefer_file: Whether to tokenize as the tokenizer.json of a folder says where its class tokenizes otherwise.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        UsageError: bad-model.
        InputError: missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids, outside-link, missing-extra,
            remote-code.
    """
    path = input_path(path)
    folder = path.parent if path.is_file() else path
    names = (*COMPANIONS, PROCESSOR)
    check_links(folder, names if path.is_file() else ("tokenizer.json", *names))
    files = {name: folder / name for name in names if (folder / name).exists()}
    config = _read_config(files)
    check_tokenizer_config(config, folder / "tokenizer_config.json")
    source = path if path.is_file() else path / "tokenizer.json"
    spec = read_json(source, "tokenizer") if source.is_file() else None
    if spec is not None:
        check_tokenizer(spec, source)
    if spec is None and not _has_vocabulary(folder):
        _refuse(folder, config, trust_remote_code)
    if spec is not None and path.is_file():
        opened = open_file(spec, config, path)
    else:
        try:
            opened = open_folder(folder, spec, config, prefer_file=prefer_file, trust_remote_code=trust_remote_code)
        except InputError as error:
            if spec is not None and error.code == "bad-tokenizer":  # say what is wrong with the file, if that is it
                read_vocabulary(spec, config, family_of(spec, source), source)
            raise
    tokenizer = Tokenizer(path, opened.spec, opened.config, files=files, edited=opened.edited, notes=opened.notes)
    if opened.backend is not None:  # a copy of this tokenizer with another spec must not get this backend
        vars(tokenizer)["_lazy_backend"] = LazyBackend(opened.spec, path, file=None, given=opened.backend)
    tokenizer.family, tokenizer.vocabulary  # noqa: B018  a damaged file must fail here, not in the middle of a run
    return tokenizer


def _read_config(files: Mapping[str, Path]) -> Mapping[str, Any]:
    """Read tokenizer_config.json, and special_tokens_map.json where transformers reads it too."""
    names = ("tokenizer_config.json", "special_tokens_map.json")
    config, special = (read_json(files[name], "tokenizer") if name in files else {} for name in names)
    return config if "added_tokens_decoder" in config else {**special, **config}


def _has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has a file from which transformers can make a tokenizer.json."""
    return any(any(folder.glob(name)) for name in (*CONVERTIBLE, "tekken.json", "tiktoken.model", "*.tiktoken"))


def _refuse(folder: Path, config: Mapping[str, Any], trust_remote_code: bool) -> NoReturn:
    """Say why a folder without a vocabulary cannot be used: it has no tokenizer, or one that needs no file."""
    if "tokenizer_class" in config:
        try:
            loaded = auto_tokenizer(folder, trust_remote_code=trust_remote_code)
        except InputError:
            loaded = None
        if loaded is not None:
            backend_of(loaded, folder)
    raise InputError(
        "missing-tokenizer",
        "there is no tokenizer in this folder",
        ADAPTER_HINT
        if (folder / ADAPTER_CONFIG).is_file()
        else "give a folder with a tokenizer.json, or the path of a tokenizer.json",
        folder=folder,
    )
