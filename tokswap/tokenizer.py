"""Tokenizer files: reading them, cutting bytes with them, and the files that a result carries.

The family of a tokenizer is read from what `tokenizer.json` does (model type, normalizer, pre-tokenizer, decoder),
never from a class name. This is the only module that imports `tokenizers` or a transformers tokenizer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokswap.errors import InputError
from tokswap.vocab import (
    ROLES,
    Kind,
    Vocabulary,
    byte_level_bytes,
    byte_level_token,
    is_byte_piece,
    is_reserved,
    sentencepiece_bytes,
    wordpiece_bytes,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE = "byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece"

COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "additional_chat_templates",
)
"""Files that belong to a tokenizer besides tokenizer.json."""

_MOST_IDS = 1 << 24


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as its files describe it.

    path: the folder or tokenizer.json that it came from. spec: the parsed tokenizer.json.
    config: the parsed tokenizer_config.json, {} without one. files: companion name -> path.
    """

    path: Path
    spec: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, Path]

    @cached_property
    def family(self) -> str:
        """One of the four families above."""
        return _family(self.spec, self.path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every id with its canonical bytes and kind."""
        return _vocabulary(self)

    @cached_property
    def added(self) -> list[dict[str, Any]]:
        """The added tokens of tokenizer.json."""
        return list(self.spec.get("added_tokens") or [])

    @property
    def chat_template(self) -> str | None:
        """The chat template, from its own file or from tokenizer_config.json."""
        if "chat_template.jinja" in self.files:
            return self.files["chat_template.jinja"].read_text(encoding="utf-8")
        template = self.config.get("chat_template")
        return template if isinstance(template, str) else None

    @property
    def adds_bos(self) -> bool:
        """Whether an encoded text begins with the bos token."""
        bos = self.vocabulary.roles.get("bos")
        return bos is not None and bos in _leading_ids(self.spec)

    @cached_property
    def backend(self) -> Backend:
        """The `tokenizers` object of this tokenizer.json."""
        return _backend(self.spec, self.path)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the special tokens that a template adds."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def segment(self, surfaces: Sequence[bytes]) -> list[list[int]]:
        """Cut each byte string into ids of this vocabulary, as it would be cut inside a text.

        No prefix space is added and nothing is stripped; special tokens are never produced. Bytes that are not
        UTF-8 on their own are cut as bytes. Bytes that the vocabulary cannot spell are left out, so a list can be
        shorter than its surface, or empty.
        """
        unknown = self.vocabulary.roles.get("unk", -1)
        if self.family == WORDPIECE:
            return [self._wordpiece(surface) for surface in surfaces]
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
        encoded = [encoding.ids for encoding in self._bare.encode_batch_fast(texts, add_special_tokens=False)]
        cut = [
            [token for part in row for token in (encoded[part] if isinstance(part, int) else self._raw_bytes(part))]
            for row in parts
        ]
        return [[token for token in ids if token != unknown] for ids in cut]

    def _raw_bytes(self, part: bytes) -> list[int]:
        """Cut bytes that are no UTF-8 text."""
        if self.family == BYTE_LEVEL:
            return [piece.id for piece in self._bare.model.tokenize(byte_level_token(part))]
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

    @cached_property
    def _bare(self) -> Backend:
        """This tokenizer without control tokens, and without what treats the start of a text in a special way."""
        kinds = self.vocabulary.kind
        control = {token for token in range(len(kinds)) if kinds[token] in (Kind.SPECIAL, Kind.UNUSED)}
        spec = {**self.spec, "post_processor": None, "truncation": None, "padding": None}
        # Ids stay as they are: the library hands them out again, so that nothing may be left out.
        spec["added_tokens"] = [{**entry, "special": entry["id"] in control} for entry in self.added]
        if self.family == UNIGRAM:  # its model would take a control token for the likeliest piece of all
            vocab = [
                [_unheard(n) if n in control else text, *rest] for n, (text, *rest) in enumerate(spec["model"]["vocab"])
            ]
            spec["model"] = {**spec["model"], "vocab": vocab}
            for entry in spec["added_tokens"]:
                if entry["special"]:
                    entry["content"] = _unheard(entry["id"])
        spec["normalizer"] = _without(spec.get("normalizer"), ("Prepend", "Strip"))
        spec["pre_tokenizer"] = _without(spec.get("pre_tokenizer"), ("WhitespaceSplit",))
        backend = _backend(spec, self.path)
        backend.encode_special_tokens = True
        return backend

    def output_files(self, *, bos: int | None = None) -> dict[str, bytes | Path]:
        """Return the tokenizer files of a result: name -> content, or the path of a file to copy.

        bos: the id that must come first in every encoded text, once; None leaves the template alone. Files that only
        older tokenizer classes read are copied too, so that engines which parse them keep working.
        """
        files: dict[str, bytes | Path] = dict(self.files)
        spec = dict(self.spec)
        source = self.path if self.path.is_file() else self.path / "tokenizer.json"
        if bos is not None and bos not in _leading_ids(spec):
            spec["post_processor"] = _with_leading(spec.get("post_processor"), bos, self.vocabulary.text[bos])
            files["tokenizer.json"] = _json_bytes(spec)
        else:
            files["tokenizer.json"] = source if source.is_file() else _json_bytes(spec)
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
        files["tokenizer_config.json"] = _json_bytes(config)
        return files


def read_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """Read a tokenizer from a folder or from a tokenizer.json.

    A folder without tokenizer.json is converted by transformers, in memory.
    Raises InputError: missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids.
    """
    folder = path.parent if path.is_file() else path
    files = {name: folder / name for name in COMPANIONS if (folder / name).exists()}
    config = _read_json(folder / "tokenizer_config.json") if "tokenizer_config.json" in files else {}
    if "special_tokens_map.json" in files:
        config = {**_read_json(files["special_tokens_map.json"]), **config}
    source = path if path.is_file() else path / "tokenizer.json"
    if source.is_file():
        spec = _read_json(source)
    elif not any(name in files for name in COMPANIONS[5:11]):
        raise InputError(
            "missing-tokenizer",
            "there is no tokenizer in this folder",
            "give a folder with a tokenizer.json, or the path of a tokenizer.json",
            folder=folder,
        )
    else:
        spec = json.loads(auto_tokenizer(folder, trust_remote_code=trust_remote_code).backend_tokenizer.to_str())
    if not isinstance(spec.get("model"), dict):
        raise InputError("bad-tokenizer", "this is not a tokenizer.json: it has no `model`", file=source)
    tokenizer = Tokenizer(path, spec, config, files)
    tokenizer.family, tokenizer.vocabulary  # noqa: B018  a damaged file must fail here, not in the middle of a run
    return tokenizer


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("bad-tokenizer", f"cannot read this file as JSON: {error}", file=path) from error
    if not isinstance(value, dict):
        raise InputError("bad-tokenizer", "this file should hold a JSON object", file=path)
    return value


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")


def _backend(spec: Mapping[str, Any], path: Path) -> Backend:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_str(json.dumps(spec))
    except Exception as error:  # the library raises a bare Exception for any fault in the file
        raise InputError("bad-tokenizer", f"the tokenizers library refuses this file: {error}", file=path) from error
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
    return backend


def _nodes(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield a normalizer, pre-tokenizer, decoder or post-processor and everything inside it."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            if isinstance(child, list):
                for item in child:
                    yield from _nodes(item)


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


def _unheard(token: int) -> str:
    """Return a spelling that no text contains, made of code points that are reserved for no use at all."""
    return f"\ufdd0\ufdd1{token}\ufdd2"


def _model_type(model: Mapping[str, Any]) -> str:
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    return "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"


def _family(spec: Mapping[str, Any], path: Path) -> str:
    model = spec["model"]
    model_type = _model_type(model)
    if model_type in ("Unigram", "WordPiece"):
        return UNIGRAM if model_type == "Unigram" else WORDPIECE
    parts = [*_nodes(spec.get("normalizer")), *_nodes(spec.get("pre_tokenizer")), *_nodes(spec.get("decoder"))]
    types = {part.get("type") for part in parts}
    marks_spaces = "Metaspace" in types or any("▁" in json.dumps(part, ensure_ascii=False) for part in parts)
    if model_type == "BPE" and not model.get("end_of_word_suffix") and not model.get("continuing_subword_prefix"):
        if "ByteLevel" in types:
            return BYTE_LEVEL
        if marks_spaces or model.get("byte_fallback"):
            return SENTENCEPIECE
    raise InputError(
        "unsupported-tokenizer",
        f"tokswap does not know how this {model_type} tokenizer spells text",
        "it takes byte-level BPE, SentencePiece BPE, Unigram and WordPiece tokenizers",
        file=path,
    )


def _model_tokens(spec: Mapping[str, Any], path: Path) -> list[tuple[int, str]]:
    vocab = spec["model"].get("vocab")
    try:
        if isinstance(vocab, dict):
            return [(int(token), text) for text, token in vocab.items()]
        if isinstance(vocab, list):
            return [(token, str(entry[0])) for token, entry in enumerate(vocab)]
    except (TypeError, ValueError, IndexError, KeyError):
        pass
    raise InputError("bad-tokenizer", "the tokenizer's `model.vocab` is damaged", file=path)


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    spec, path, family = tokenizer.spec, tokenizer.path, tokenizer.family
    model = _model_tokens(spec, path)
    try:
        added = {int(entry["id"]): (str(entry["content"]), bool(entry.get("special"))) for entry in tokenizer.added}
    except (TypeError, ValueError, KeyError) as error:
        raise InputError("bad-tokenizer", "the tokenizer's `added_tokens` are damaged", file=path) from error
    _check_ids(model, tokenizer.added, path)
    size = 1 + max((token for token, _ in [*model, *added.items()]), default=-1)
    text, surface, kind = [""] * size, [b""] * size, np.full(size, Kind.UNUSED, np.uint8)
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    spell: Callable[[str], bytes] = {
        BYTE_LEVEL: byte_level_bytes,
        SENTENCEPIECE: sentencepiece_bytes,
        UNIGRAM: sentencepiece_bytes,
        WORDPIECE: lambda token: wordpiece_bytes(token, prefix),
    }[family]
    has_byte_pieces = family in (SENTENCEPIECE, UNIGRAM)
    for token, content in model:
        text[token], surface[token] = content, content.encode("utf-8", "surrogatepass")
        if not is_reserved(content):
            surface[token] = spell(content)
            kind[token] = Kind.BYTE if has_byte_pieces and is_byte_piece(content) else Kind.NORMAL
    in_model = {content for _, content in model}
    for token, (content, special) in added.items():
        raw = content.encode("utf-8", "surrogatepass")
        if special or content not in in_model:
            text[token], surface[token] = content, raw
        if special or is_reserved(content):
            kind[token] = Kind.UNUSED if is_reserved(content) else Kind.SPECIAL
            surface[token] = raw
        elif text[token] and kind[token] != Kind.BYTE:  # no text: the model has this token under another id
            kind[token] = Kind.NORMAL
    roles = _roles(tokenizer.config, spec, {content: token for token, content in enumerate(text) if content})
    for role, token in roles.items():
        if not 0 <= token < size:
            raise InputError(
                "bad-tokenizer", f"the tokenizer's {role} token has the id {token}, past its last", file=path
            )
        kind[token], surface[token] = Kind.SPECIAL, text[token].encode("utf-8", "surrogatepass")
    return Vocabulary(text, surface, kind, roles)


def _check_ids(model: list[tuple[int, str]], added: list[dict[str, Any]], path: Path) -> None:
    """Refuse ids that two different tokens claim, and ids that no table could have."""
    owner: dict[int, str] = {}
    for token, content in [*model, *((int(entry["id"]), str(entry["content"])) for entry in added)]:
        if not 0 <= token < _MOST_IDS:
            raise InputError("bad-tokenizer", f"token {content!r} has the impossible id {token}", file=path)
        if owner.setdefault(token, content) != content:
            raise InputError(
                "duplicate-ids",
                f"two tokens of this tokenizer share the id {token}: {owner[token]!r} and {content!r}",
                "a row can belong to one token only; give one of them an id of its own in tokenizer.json",
                file=path,
            )
    repeated = [content for content, count in Counter(content for _, content in model).items() if count > 1]
    if repeated:
        raise InputError("duplicate-ids", f"the token {repeated[0]!r} stands twice in the vocabulary", file=path)


def _roles(config: Mapping[str, Any], spec: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Read the roles from tokenizer_config.json, and unk from the model where the config names none."""
    roles: dict[str, int] = {}
    for role in ROLES:
        entry = config.get(f"{role}_token")
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str) and content in ids:
            roles[role] = ids[content]
    model = spec["model"]
    if "unk" not in roles and isinstance(model.get("unk_token"), str) and model["unk_token"] in ids:
        roles["unk"] = ids[model["unk_token"]]
    if "unk" not in roles and isinstance(model.get("unk_id"), int):
        roles["unk"] = model["unk_id"]
    return roles


def _leading_ids(spec: Mapping[str, Any]) -> set[int]:
    """The ids that the post-processor puts in front of a single text."""
    leading: set[int] = set()
    for node in _nodes(spec.get("post_processor")):
        if node.get("type") == "TemplateProcessing":
            for part in node.get("single") or []:
                if "SpecialToken" not in part:
                    break
                leading.update(node["special_tokens"][part["SpecialToken"]["id"]]["ids"])
        elif node.get("type") in ("RobertaProcessing", "BertProcessing"):
            leading.add(node["cls"][1])
    return leading


def _with_leading(post_processor: Any, token: int, text: str) -> dict[str, Any]:
    """Return a post-processor that also puts one special token in front of every text.

    Only the pipelines that add no special token themselves are changed in this way, so that a template of the
    target's own (one that ends with eos, say) is extended and not replaced.
    """
    entry = {"SpecialToken": {"id": text, "type_id": 0}}
    known = {text: {"id": text, "ids": [token], "tokens": [text]}}
    for node in _nodes(post_processor):
        if node.get("type") == "TemplateProcessing":
            node = dict(node)
            node["single"] = [entry, *node["single"]]
            node["pair"] = [entry, *node["pair"]]
            node["special_tokens"] = {**node.get("special_tokens", {}), **known}
            return _replaced(post_processor, node)
    template = {
        "type": "TemplateProcessing",
        "single": [entry, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [entry, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": known,
    }
    if post_processor is None:
        return template
    inner = post_processor["processors"] if post_processor.get("type") == "Sequence" else [post_processor]
    return {"type": "Sequence", "processors": [*inner, template]}


def _replaced(post_processor: Any, template: dict[str, Any]) -> dict[str, Any]:
    """Put a changed template where the old one stood, at the top or in a sequence."""
    if post_processor.get("type") == "TemplateProcessing":
        return template
    inner = [template if node.get("type") == "TemplateProcessing" else node for node in post_processor["processors"]]
    return {**post_processor, "processors": inner}


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
