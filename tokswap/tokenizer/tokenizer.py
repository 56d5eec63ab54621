"""A tokenizer: its files, its vocabulary, and how it tokenizes text and bytes.

tokswap reads the family of a tokenizer from what `tokenizer.json` does (model type, normalizer, pre-tokenizer,
decoder), never from a class name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.tokenizer.backend import Backend, LazyBackend, library_errors
from tokswap.tokenizer.byte_tokenizer import ByteTokenizer
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, family_of, read_vocabulary
from tokswap.tokenizer.merges import bpe_pairs, longest_prefix_pairs
from tokswap.tokenizer.output import config_of_result, spec_bytes, spec_with_bos
from tokswap.tokenizer.post_processor import leading_ids, trailing_ids
from tokswap.tokenizer.schema import check_tokenizer, check_tokenizer_config
from tokswap.tokenizer.vocabulary import Vocabulary

CONVERTIBLE = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""Files from which transformers can make a tokenizer.json."""
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
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
        files: Name -> path of its other files (see `COMPANIONS`).
        edited: Whether `spec` may differ from the file at `path`.
    """

    path: Path
    spec: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    edited: bool = True

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
    def chat_template(self) -> str | None:
        """The chat template, from its own file or from tokenizer_config.json."""
        if "chat_template.jinja" in self.files:
            return _read_template(self.files["chat_template.jinja"])
        template = self.config.get("chat_template")
        return template if isinstance(template, str) else None

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
            **self.files,
            "tokenizer.json": self.file if same else spec_bytes(spec),
            "tokenizer_config.json": json_bytes(self.output_config(bos=bos)),
        }

    @cached_property
    def _lazy_backend(self) -> LazyBackend:
        same = not self.edited and self.file.is_file()
        return LazyBackend(self.spec, self.path, self.file if same else None)

    @cached_property
    def _byte_tokenizer(self) -> ByteTokenizer:
        return ByteTokenizer(self.family, self.vocabulary, self._lazy_backend)


def read_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """Read a tokenizer.

    Args:
        path: A folder, or a tokenizer.json. If a folder has no tokenizer.json, transformers makes one in memory.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        InputError: missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids, outside-link.
    """
    folder = path.parent if path.is_file() else path
    check_links(folder, COMPANIONS if path.is_file() else ("tokenizer.json", *COMPANIONS))
    files = {name: folder / name for name in COMPANIONS if (folder / name).exists()}
    config = read_json(folder / "tokenizer_config.json", "tokenizer") if "tokenizer_config.json" in files else {}
    if "special_tokens_map.json" in files:
        config = {**read_json(files["special_tokens_map.json"], "tokenizer"), **config}
    check_tokenizer_config(config, folder / "tokenizer_config.json")
    source = path if path.is_file() else path / "tokenizer.json"
    if source.is_file():
        spec = read_json(source, "tokenizer")
    elif not any(name in files for name in CONVERTIBLE):
        raise InputError(
            "missing-tokenizer",
            "there is no tokenizer in this folder",
            "give a folder with a tokenizer.json, or the path of a tokenizer.json",
            folder=folder,
        )
    else:
        spec = json.loads(auto_tokenizer(folder, trust_remote_code=trust_remote_code).backend_tokenizer.to_str())
    check_tokenizer(spec, source)
    tokenizer = Tokenizer(path, spec, config=config, files=files, edited=not source.is_file())
    tokenizer.family, tokenizer.vocabulary  # noqa: B018  a damaged file must fail here, not in the middle of a run
    return tokenizer


def auto_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a folder with transformers, as a user of the checkpoint would.

    Args:
        folder: The folder.
        trust_remote_code: Whether transformers may run Python code of the folder.

    Raises:
        InputError: bad-tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises whatever the tokenizer's own code raises
        raise InputError(
            "bad-tokenizer",
            f"transformers cannot load this tokenizer: {error}",
            "tokenizers without a tokenizer.json may need `pip install sentencepiece`",
            folder=folder,
        ) from error


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-tokenizer", f"cannot read this chat template: {error}", file=path) from error
