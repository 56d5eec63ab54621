"""What inference engines compare of a draft and its target, read from the files of both. No weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokswap.checkpoint.class_defaults import with_class_size
from tokswap.checkpoint.nested_configs import text_config, token_ids
from tokswap.checkpoint.rowless import with_rows
from tokswap.storage.gguf.metadata import read_metadata
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import gguf_file, resolve_tokenizer
from tokswap.tokenizer.auto import usable_tokenizer
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary

_CHAT = (
    {"role": "user", "content": "What is 7 times 6?"},
    {"role": "assistant", "content": "7 times 6 is 42."},
    {"role": "user", "content": "Und auf Deutsch?"},
)
"""A conversation that every chat template can render."""


@dataclass(frozen=True)
class Probes:
    """What transformers makes of the probe texts with one of the two tokenizers.

    Attributes:
        texts: Name of a probe text -> its ids, special tokens included.
        chat: Ids of a rendered conversation, None without a chat template.
        trouble: Why transformers cannot use the tokenizer, "" where it can.
    """

    texts: Mapping[str, Sequence[int]]
    chat: Sequence[int] | None
    trouble: str = ""


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        tokenizer: Its tokenizer.
        config: config.json, parsed.
        generation: generation_config.json, parsed; {} without one.
        vocab_size: That of config.json, padding rows included.
        probes: What transformers makes of the probe texts.
        gguf: The keys of the file, where it is a .gguf file.
    """

    tokenizer: Tokenizer
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    vocab_size: int
    probes: Probes
    gguf: Mapping[str, Any] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary."""
        return self.tokenizer.vocabulary

    @property
    def adds(self) -> frozenset[str]:
        """The roles that encoded texts begin or end with."""
        return frozenset(role for role in ("bos", "eos") if getattr(self.tokenizer, f"adds_{role}"))

    def role(self, role: str) -> list[int]:
        """Return the ids of a role such as "bos": those of the config, or else that of the tokenizer."""
        return config_ids(self.config, role) or [i for name, i in self.vocabulary.roles.items() if name == role]

    def stops(self) -> set[int]:
        """Return the ids that end a generated text."""
        return set(token_ids(self.generation, "eos_token_id") or self.role("eos"))


def read_side(name: str | Path, *, trust_remote_code: bool = False) -> Side:
    """Read one of the two models.

    Args:
        name: A model without or with weights: a folder, hub id, alias or .gguf file, or a tokenizer.json in a folder.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: unknown-tokenizer, missing-config, bad-config, missing-tokenizer, bad-tokenizer,
            unsupported-tokenizer, duplicate-ids.
    """
    file = gguf_file(str(name))
    folder = resolve_tokenizer(str(name))
    folder = folder.parent if folder.is_file() else folder
    config = with_class_size(read_json(folder / "config.json", "config"))
    path = folder / "generation_config.json"
    generation = read_json(path, "config") if path.is_file() else {}
    vocab_size = text_config(config, folder)[1]["vocab_size"]
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code)
    return Side(
        tokenizer=with_rows(tokenizer, vocab_size, config, generation).tokenizer,
        config=config,
        generation=generation,
        vocab_size=vocab_size,
        probes=_probe(folder, trust_remote_code),
        gguf=read_metadata(file) if file is not None else None,
    )


def config_ids(config: Mapping[str, Any], role: str) -> list[int]:
    """Return the ids that config.json names for a role, at its top level or where it describes the text model."""
    key = f"{role}_token_id"
    return token_ids(config, key) or token_ids(text_config(config)[1], key)


def _probe(folder: Path, trust_remote_code: bool) -> Probes:
    texts: dict[str, list[int]] = {}
    chat = None
    try:
        loaded = usable_tokenizer(folder, trust_remote_code=trust_remote_code)
        texts = {name: loaded(text)["input_ids"] for name, text in TEXTS.items()}
        if loaded.chat_template:
            rendered = loaded.apply_chat_template(list(_CHAT), tokenize=False, add_generation_prompt=True)
            chat = loaded(rendered, add_special_tokens=False)["input_ids"]
    except Exception as error:  # a tokenizer class or a template may fail in any way, and that is the finding
        return Probes(texts, chat, f"{type(error).__name__}: {error}")
    return Probes(texts, chat)
