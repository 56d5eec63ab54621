"""Tokenizer files: reading them, cutting bytes with them, and the files that a result carries.

The family of a tokenizer is read from what `tokenizer.json` does (model type, normalizer, pre-tokenizer, decoder),
never from a class name. Besides `backend`, this is the only module that imports `tokenizers` or a transformers tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.json_files import json_bytes, read_json
from tokswap.storage.links import check_links
from tokswap.tokenizer.backend import library, make_backend, reaching, read_backend, stripped
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE, family_of, read_vocabulary
from tokswap.tokenizer.post_processor import leading_ids, trailing_ids, with_leading
from tokswap.tokenizer.schema import check_tokenizer, check_tokenizer_config
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, byte_level_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

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
_FEW_BYTES = 500


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as its files describe it.

    path: the folder or tokenizer.json that it came from. spec: the parsed tokenizer.json.
    config: the parsed tokenizer_config.json, {} without one. files: companion name -> path.
    edited: whether `spec` may be something else than what a file at `path` says.
    """

    path: Path
    spec: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, Path]
    edited: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was made from these, and do not rely on a file, which may be another one on another machine."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "edited": True}

    @cached_property
    def family(self) -> str:
        """The family: `BYTE_LEVEL`, `SENTENCEPIECE`, `UNIGRAM` or `WORDPIECE`."""
        return family_of(self.spec, self.path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every id with its canonical bytes and kind."""
        return read_vocabulary(self.spec, self.config, self.family, self.path)

    @property
    def chat_template(self) -> str | None:
        """The chat template, from its own file or from tokenizer_config.json."""
        if "chat_template.jinja" in self.files:
            return _template_text(self.files["chat_template.jinja"])
        template = self.config.get("chat_template")
        return template if isinstance(template, str) else None

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
    def leading(self) -> tuple[int, ...]:
        """The ids that come before every encoded text."""
        return tuple(leading_ids(self.spec))

    @cached_property
    def backend(self) -> Backend:
        """The `tokenizers` object of this tokenizer.json; it neither cuts long texts short nor fills short ones up."""
        backend = self._made()
        backend.no_truncation()
        backend.no_padding()
        return backend

    def _made(self) -> Backend:
        """Make the `tokenizers` object. The file is faster read by the library than written out for it."""
        if self.edited or not self.file.is_file():
            return make_backend(self.spec, self.path)
        return read_backend(self.file, self.spec)

    @property
    def file(self) -> Path:
        """Where tokenizer.json is, or would be."""
        return self.path if self.path.is_file() else self.path / "tokenizer.json"

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the special tokens that a template adds."""
        with library(self.path):
            return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many texts, as `encode` does, on all cores."""
        with library(self.path):
            return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def tokenize_bytes(self, surfaces: Sequence[bytes]) -> list[list[int]]:
        """Cut each byte string into ids of this vocabulary, as it would be cut inside a text.

        No prefix space is added and nothing is stripped; special tokens are never produced. Bytes that are not
        UTF-8 on their own are cut as bytes. Bytes that the vocabulary cannot spell are left out, so a list can be
        shorter than its surface, or empty.
        """
        with library(self.path):
            if self.family == WORDPIECE:
                return [self._wordpiece(surface) for surface in surfaces]
            return self._segment(surfaces)

    def _segment(self, surfaces: Sequence[bytes]) -> list[list[int]]:
        unknown = self.vocabulary.roles.get("unk", -1)
        texts: list[str] = []
        parts: list[list[int | bytes]] = []  # of each surface: the number of a text, or bytes that are none
        for surface in surfaces:
            runs = list(_utf8_runs(surface))
            if self.family == BYTE_LEVEL and len(runs) > 1:
                runs = [(False, surface)]  # a byte-level model may merge across the edge of a character
            parts.append([])
            for is_text, run in runs:
                parts[-1].append(len(texts) if is_text else run)
                if is_text:
                    texts.append(run.decode("utf-8"))
        bare = self._bare_for(texts, surfaces)
        encoded = [encoding.ids for encoding in bare.encode_batch_fast(texts, add_special_tokens=False)]
        cut = [
            [
                token
                for part in row
                for token in (encoded[part] if isinstance(part, int) else self._raw_bytes(part, bare))
            ]
            for row in parts
        ]
        return [[token for token in ids if token != unknown] for ids in cut]

    def merge_pairs(self) -> np.ndarray:
        """Return int32[V, 2], the two tokens that each text piece is joined from; -1 for a piece that is no pair.

        BPE: the earliest merge that makes it. Other families have no merges: the longest token that it begins with,
        where the rest is a token too.
        """
        pairs = np.full((len(self.vocabulary), 2), -1, np.int32)
        if self.family in (BYTE_LEVEL, SENTENCEPIECE):
            vocab = self.spec["model"]["vocab"]
            for merge in reversed(self.spec["model"]["merges"]):
                left, right = merge.split(" ") if isinstance(merge, str) else merge
                if left in vocab and right in vocab and left + right in vocab:
                    pairs[vocab[left + right]] = vocab[left], vocab[right]
            return pairs
        ids = self.vocabulary.id_of
        for token in np.flatnonzero(self.vocabulary.kind == Kind.NORMAL).tolist():
            surface = self.vocabulary.token_bytes[token]
            for cut in range(len(surface) - 1, 0, -1):
                if surface[:cut] in ids and surface[cut:] in ids:
                    pairs[token] = ids[surface[:cut]], ids[surface[cut:]]
                    break
        return pairs

    def _raw_bytes(self, part: bytes, bare: Backend) -> list[int]:
        """Cut bytes that are no UTF-8 text."""
        if self.family == BYTE_LEVEL:
            return [piece.id for piece in bare.model.tokenize(byte_level_token(part))]
        pieces = self.vocabulary.byte_piece_of
        return [pieces[part[n : n + 1]] for n in range(len(part)) if part[n : n + 1] in pieces]

    def _wordpiece(self, surface: bytes) -> list[int]:
        """Greedy longest match, with the first word a continuation unless the surface starts with a space."""
        text = surface.decode("utf-8", "ignore")
        if self.backend.normalizer is not None:
            text = self.backend.normalizer.normalize_str(text)
        split = self.backend.pre_tokenizer
        words = text.split() if split is None else [word for word, _ in split.pre_tokenize_str(text)]
        ids: list[int] = []
        for n, word in enumerate(words):
            rest = ("" if n == 0 and not surface.startswith(b" ") else " ") + word
            while rest.strip():
                for end in range(len(rest), 0, -1):
                    token = self.vocabulary.id_of.get(rest[:end].encode())
                    if token is not None and rest[:end] != " ":
                        ids.append(token)
                        break
                else:  # not even the first character is known: leave it out
                    end = 2 if rest.startswith(" ") else 1
                rest = rest[end:]
        return ids

    def check(self) -> None:
        """Raise InputError where the tokenizers library refuses this file or gives its tokens other ids."""
        if "backend" not in vars(self):
            self._made()  # and let go of it again: it takes as much memory as a table

    @cached_property
    def _bare(self) -> Backend:
        """This tokenizer without control tokens, and without what treats the start of a text in a special way."""
        return self._stripped()

    def literal(self) -> Backend:
        """Return a `tokenizers` object that cuts a text as it stands.

        It adds and knows no control tokens, puts no space before a text, and leaves characters as they are (no NFC, no
        lower case), so that its tokens spell exactly the text.
        """
        return self._stripped(("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Lowercase", "StripAccents"))

    def _stripped(self, more: tuple[str, ...] = ()) -> Backend:
        """What `_bare` is, made anew. more: types of normalizers to leave out too."""
        return stripped(self.spec, self._controls, more, self.path, lambda: self.backend.model)

    @property
    def _controls(self) -> set[int]:
        """Ids that stand for no text."""
        return set(np.flatnonzero(np.isin(self.vocabulary.kind, (Kind.SPECIAL, Kind.UNUSED))).tolist())

    def _bare_for(self, texts: Sequence[str], surfaces: Sequence[bytes]) -> Backend:
        """Return `_bare`, or an object that cuts a few texts as it does and need not wait for a large model."""
        if "_bare" in vars(self) or self.family == UNIGRAM or sum(map(len, surfaces)) > _FEW_BYTES:
            return self._bare
        spelt = [byte_level_token(surface) for surface in surfaces] if self.family == BYTE_LEVEL else []
        return reaching(self.spec, self._controls, texts, spelt, self.path) or self._bare

    def output_files(self, *, bos: int | None = None) -> dict[str, bytes | Path]:
        """Return the tokenizer files of a result: name -> content, or the path of a file to copy.

        bos: the id that must come first in every encoded text, once; None leaves the template alone. Files that only
        older tokenizer classes read are copied too, so that engines which parse them keep working.
        """
        files: dict[str, bytes | Path] = dict(self.files)
        spec = dict(self.spec)
        if bos is not None and bos not in leading_ids(spec):
            spec["post_processor"] = with_leading(spec.get("post_processor"), bos, self.vocabulary.text[bos])
            files["tokenizer.json"] = spec_bytes(spec)
        else:
            files["tokenizer.json"] = self.file if self.file.is_file() and not self.edited else spec_bytes(spec)
        config = dict(self.config)
        if not config.get("tokenizer_class") or config["tokenizer_class"] == "TokenizersBackend":
            # Without a class transformers picks one by the model type, which belongs to another tokenizer now.
            # Release 5 calls this class TokenizersBackend and accepts the old name; release 4 knows only the old one.
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if bos is not None:
            if config["tokenizer_class"] != "PreTrainedTokenizerFast":
                # Family classes of release 5 rebuild the template from these flags.
                config["add_bos_token"] = True
            config["bos_token"] = self.vocabulary.text[bos]
        files["tokenizer_config.json"] = json_bytes(config)
        return files


def read_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """Read a tokenizer from a folder or from a tokenizer.json.

    A folder without tokenizer.json is converted by transformers, in memory.
    Raises InputError: missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids, outside-link.
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
    tokenizer = Tokenizer(path, spec, config, files, edited=not source.is_file())
    tokenizer.family, tokenizer.vocabulary  # noqa: B018  a damaged file must fail here, not in the middle of a run
    return tokenizer


def spec_bytes(spec: Mapping[str, Any]) -> bytes:
    """Return a tokenizer.json with a line for each of its parts: with one for each token the writing takes seconds."""
    return b"{\n" + b",\n".join(json_bytes({key: spec[key]}, indent=None)[1:-1] for key in spec) + b"\n}"


def auto_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load a folder's tokenizer with transformers, as a user of the checkpoint would."""
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


def _template_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-tokenizer", f"this chat template cannot be read: {error}", file=path) from error


def _utf8_runs(surface: bytes) -> Iterator[tuple[bool, bytes]]:
    """Split bytes into the longest runs that are UTF-8 text, and the single bytes between them."""
    start = 0
    while start < len(surface):
        try:
            surface[start:].decode("utf-8")
            yield True, surface[start:]
            return
        except UnicodeDecodeError as error:
            if error.start:
                yield True, surface[start : start + error.start]
            yield False, surface[start + error.start : start + error.start + 1]
            start += error.start + 1
