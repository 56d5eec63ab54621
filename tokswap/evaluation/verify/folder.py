"""A folder as its user loads it: the tokenizer by AutoTokenizer, the model by the class that its config names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any

from tokswap.evaluation.verify.model_class import model_classes
from tokswap.evaluation.verify.weights import Weights
from tokswap.storage.json_files import read_json
from tokswap.storage.trust import check_code
from tokswap.tokenizer.backend import library_errors

Encode = Callable[[str, bool], list[int]]
"""Text, and whether special tokens are put around it -> ids."""
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Folder:
    """A model folder, or the folder or tokenizer.json of a tokenizer.

    Attributes:
        path: Where it is.
        trust_remote_code: Whether Python code of the folder may run.
        given: A transformers tokenizer in memory that takes the place of the folder's; None to load it.
    """

    path: Path
    trust_remote_code: bool = False
    given: Any = None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json, parsed; {} without one."""
        return _optional(self.path / "config.json")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes that may load the model, the one that config.json names where it names one."""
        return model_classes(self.config)

    @cached_property
    def generation(self) -> Mapping[str, Any]:
        """generation_config.json, parsed; {} without one."""
        return _optional(self.path / "generation_config.json")

    @cached_property
    def modules(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of the modules of sentence-transformers beside the model, by their folders."""
        if not self.path.is_dir():
            return {}
        return {path.parent.name: _optional(path) for path in sorted(self.path.glob("[0-9]_*/config.json"))}

    @cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, without BPE dropout. Raises InputError bad-tokenizer."""
        if self.given is not None:
            return self.given
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        with library_errors(self.path):
            if self.path.is_file():
                loaded = PreTrainedTokenizerFast(tokenizer_file=str(self.path))
            else:
                loaded = AutoTokenizer.from_pretrained(
                    str(self.path), local_files_only=True, trust_remote_code=self.trust_remote_code
                )
                if not _finds_special(loaded):
                    loaded = _finding_special(loaded, self.path)
        model = getattr(getattr(loaded, "backend_tokenizer", None), "model", None)
        if model is not None and getattr(model, "dropout", None):
            model.dropout = None  # else the same text is tokenized differently every time
        return loaded

    @cached_property
    def vocabulary(self) -> list[str | None]:
        """The token of each id; None for an id that the tokenizer does not have."""
        size = 1 + max(self.tokenizer.get_vocab().values())
        return list(self.tokenizer.convert_ids_to_tokens(list(range(size))))

    @cached_property
    def roles(self) -> dict[str, tuple[str, int]]:
        """Role, such as bos_token -> the token and its id."""
        named = self.tokenizer.special_tokens_map
        tokens = {role: str(token) for role, token in named.items() if not isinstance(token, (list, tuple, dict))}
        return {role: (token, self.tokenizer.convert_tokens_to_ids(token)) for role, token in tokens.items()}

    @cached_property
    def added(self) -> dict[str, int]:
        """Added token -> id."""
        return dict(self.tokenizer.get_added_vocab())

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text, with or without the special tokens around it."""
        with library_errors(self.path):
            return list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    @cached_property
    def file_encoders(self) -> list[Encode]:
        """What tokenizer.json says, which the class may ignore: all of it, and with what the class adds and frames."""
        from tokenizers import Tokenizer

        path = self.path / "tokenizer.json"
        if not path.is_file():
            return []
        with library_errors(path):
            whole = Tokenizer.from_file(str(path))
        found = [whole]
        if (of_class := getattr(self.tokenizer, "backend_tokenizer", None)) is not None:
            mixed = copy.deepcopy(of_class)
            mixed.normalizer, mixed.pre_tokenizer = whole.normalizer, whole.pre_tokenizer
            if whole.get_vocab(with_added_tokens=False) == of_class.get_vocab(with_added_tokens=False):
                mixed.model = whole.model
            found.append(mixed)
        for backend in found:
            backend.no_truncation()
            backend.no_padding()
        return [partial(_encode, backend) for backend in found]

    @cached_property
    def complete_config(self) -> Any:
        """The config as transformers completes it; None where it cannot read one."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                str(self.path), local_files_only=True, trust_remote_code=self.trust_remote_code
            )
        except Exception:  # whatever the config's own class raises
            return None

    @property
    def defaults(self) -> dict[str, Any]:
        """The complete config as plain data; {} where there is none."""
        return dict(self.complete_config.to_dict()) if self.complete_config is not None else {}

    @property
    def class_defaults(self) -> dict[str, Any]:
        """What a config of the same class says that nobody has set; {} where that cannot be known."""
        try:
            return dict(type(self.complete_config)().to_dict())
        except Exception:  # a class may need arguments
            return {}

    @property
    def config_rows(self) -> int | None:
        """The number of tokens that the config names, None without one."""
        config = self.complete_config
        text = config.get_text_config() if config is not None and "vocab_size" not in config.to_dict() else config
        size = getattr(text, "vocab_size", None)
        return size if type(size) is int else None

    @property
    def reads_pages(self) -> bool:
        """Whether the class takes a text for a list of words, with their boxes or paths (LayoutLM, MarkupLM)."""
        return not signature(type(self.tokenizer).__call__).parameters.keys().isdisjoint(("boxes", "xpaths"))

    @property
    def reads_text(self) -> bool:
        """Whether the tokenizer tokenizes plain text."""
        try:
            self.encode("a b")
        except Exception:  # whatever the tokenizer's own class raises
            return False
        return True

    def load_model(self) -> Weights:
        """Load the model with the class that its files are for. Raises whatever transformers raises."""
        check_code(self.path, self.trust_remote_code)
        for name in self.classes[:-1]:
            loaded = self._load(name)
            if not loaded.missing and not loaded.mismatched:
                return loaded
        return self._load(self.classes[-1])

    def _load(self, name: str) -> Weights:
        import transformers

        model, info = getattr(transformers, name, transformers.AutoModel).from_pretrained(
            str(self.path),
            output_loading_info=True,
            dtype="auto",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=self.trust_remote_code,
        )
        mismatched = tuple(map(str, info.get("mismatched_keys") or ()))
        return Weights(model.eval(), frozenset(map(str, info["missing_keys"])), mismatched)


def _finds_special(tokenizer: Any) -> bool:
    """Whether a tokenizer finds special tokens in a text. The class of mistral-common does not."""
    if hasattr(tokenizer, "get_added_vocab") or not tokenizer.all_special_tokens:
        return True
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in tokenizer.all_special_tokens}
    return any(list(tokenizer.encode(text, add_special_tokens=False)) == [token] for text, token in ids.items())


def _finding_special(tokenizer: Any, path: Path) -> Any:
    """The plain tokenizer of a folder, with the roles of another class, and bos and eos where that has them."""
    from transformers import PreTrainedTokenizerFast

    roles = {role: text for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    plain = PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True, **roles)
    ids = list(tokenizer.encode("a b"))
    plain.add_bos_token, plain.add_eos_token = ids[0] == plain.bos_token_id, ids[-1] == plain.eos_token_id
    return plain


def _encode(backend: Any, text: str, special: bool) -> list[int]:
    return list(backend.encode(text, add_special_tokens=special).ids)


def _optional(path: Path) -> dict[str, Any]:
    return dict(read_json(path, "config")) if path.is_file() else {}
