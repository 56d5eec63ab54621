"""Which tensors of a model have one row per token, and what each is for. Pure: names, shapes and config only.

Names come from the rule table below; sizes come from the config. A tensor with a vocabulary-sized side that no rule
explains stops the run, because leaving it alone would silently break the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from tokswap.errors import InputError

Role = Literal["input", "output", "bias", "per-layer", "lookup"]
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The types a vocabulary table may have, and bytes an element."""
_INTEGERS = {"I64": 8, "I32": 4}
"""The same for a lookup table."""

_HEADS = (
    r"lm_head|lm_head\.out_proj|embed_out|proj_out|output_projection|generator_lm_head|vocab_projector|lm_loss"
    r"|pred_layer\.proj|decoder|embedding_decoder|head|output|cls|unembed"
)
_RULES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("lookup", re.compile(r"(^|\.)tid2eid$")),
    ("per-layer", re.compile(r"(^|\.)(embed_tokens_per_layer|value_embeddings)\.weight$")),
    ("output", re.compile(rf"(^|\.)({_HEADS})\.weight$")),
    ("bias", re.compile(rf"(^|\.)(({_HEADS}|predictions)\.bias|final_logits_bias)$")),
    (
        "input",
        re.compile(
            r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|embed_in|shared|tokens_embed|token_embedding"
            r"|token_embeddings|word_embed_proj|embeddings|embedding|embed|transformer\.w)\.weight$"
        ),
    ),
)
_NO_TEXT = re.compile(r"(vision|audio|speech|image|video|codec|depth|vq|qformer)")


@dataclass(frozen=True)
class VocabMatrix:
    """One table of the vocabulary; several tensor names when they are tied and all stored.

    names: tensor names, the input embedding's first. role: a lookup table holds integers, the experts of each token in
    DeepSeek-V4, which can be copied and not computed. shape: as stored. axis: the side that counts tokens.
    is_head: whether an input table is the output head too.
    """

    names: tuple[str, ...]
    role: Role
    dtype: str
    shape: tuple[int, ...]
    axis: int = 0
    is_head: bool = False

    @property
    def rows(self) -> int:
        """Number of rows, padding included."""
        return self.shape[self.axis]

    @property
    def width(self) -> int:
        """Elements a row."""
        return prod(self.shape) // max(self.rows, 1)

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return self.width * (FLOATS | _INTEGERS)[self.dtype]


def configs(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield ("", config) and then every nested config with its dotted path."""
    yield "", config
    for key, value in config.items():
        if isinstance(value, dict):
            for path, child in configs(value):
                yield (f"{key}.{path}" if path else key), child


def text_config(config: Mapping[str, Any], folder: Path | str = "") -> tuple[str, Mapping[str, Any]]:
    """Return the path and content of the config that owns the text vocabulary: the first with a vocab_size."""
    owners = [
        (path, child)
        for path, child in configs(config)
        if type(child.get("vocab_size")) is int and child["vocab_size"] > 0 and not _NO_TEXT.search(path)
    ]
    if "src_vocab_size" in config and "tgt_vocab_size" in config:
        raise InputError("two-vocabularies", "source and target language have vocabularies of their own", folder=folder)
    if not owners:
        raise InputError("bad-config", "config.json names no vocab_size", "is this a language model?", folder=folder)
    sizes = {child["vocab_size"] for _, child in owners}
    if ({"encoder", "decoder"} <= set(config) and len(sizes) > 1) or (
        owners[0][1].get("share_encoder_decoder_embeddings") is False
    ):
        raise InputError("two-vocabularies", "encoder and decoder have vocabularies of their own", folder=folder)
    return owners[0]


def find_matrices(
    folder: Path | str,
    config: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    same_bytes: Callable[[str, str], bool],
) -> tuple[VocabMatrix, ...]:
    """Find the vocabulary tables of a model.

    tensors: name -> (dtype, shape). same_bytes: asked only for tensors of one shape that may be tied.
    Raises InputError: bad-config, unknown-vocab-tensor, quantised-table, vocab-size-mismatch, no-embedding.
    """
    _, text = text_config(config, folder)
    size = text["vocab_size"]
    sizes = {size} | {value for key, value in text.items() if key == "vocab_size_per_layer_input"}
    found: list[VocabMatrix] = []
    for name, (dtype, shape) in tensors.items():
        role = _role(name, shape, sizes)
        if role is not None:
            if dtype not in (_INTEGERS if role == "lookup" else FLOATS):
                raise _quantised(folder, name, dtype, shape)
            found.append(VocabMatrix((name,), role, dtype, shape, axis=1 if shape[0] == 1 and len(shape) == 2 else 0))
        elif size in shape and not _explained(config, size):
            if _role(name.rpartition(".")[0] + ".weight", (size, 1), {size}) is not None:
                raise _quantised(folder, name, dtype, shape)  # scales or packed bits that stand in for a table
            raise InputError(
                "unknown-vocab-tensor",
                f"the tensor {name} has a side of the vocabulary's size, and tokswap does not know what it is",
                "leaving it as it is would break the model; please report the architecture",
                folder=folder,
                shape=list(shape),
                vocab_size=size,
            )
    if not any(table.role == "input" for table in found):
        _no_embedding(folder, tensors, size)
    _check_heads(folder, found, tensors, size)
    return _mark_head(_group(found, config, text, same_bytes), config, text)


def _role(name: str, shape: tuple[int, ...], sizes: set[int]) -> Role | None:
    for role, pattern in _RULES:
        if pattern.search(name):
            if role == "bias":
                return role if shape[-1:] and shape[-1] in sizes and prod(shape) == shape[-1] else None
            return role if len(shape) == 2 and shape[0] in sizes else None
    return None


def _explained(config: Mapping[str, Any], size: int) -> bool:
    """Whether another number of the config equals the vocabulary's size, so that a side of that size proves nothing."""
    for _, child in configs(config):
        for key, value in child.items():
            if (
                type(value) is int
                and value == size
                and "vocab" not in key
                and not re.search(r"_token_(id|index)$", key)
            ):
                return True
    return False


def _quantised(folder: Path | str, name: str, dtype: str, shape: tuple[int, ...]) -> InputError:
    return InputError(
        "quantised-table",
        f"the vocabulary table {name} is quantised ({dtype}), so its rows cannot be copied and made one by one",
        "start from the checkpoint before quantisation, and quantise the result",
        folder=folder,
        shape=list(shape),
    )


def _no_embedding(folder: Path | str, tensors: Mapping[str, tuple[str, tuple[int, ...]]], size: int) -> None:
    candidates = {
        name: (dtype, shape)
        for name, (dtype, shape) in tensors.items()
        if len(shape) == 2 and _RULES[-1][1].search(name) and "position" not in name and "token_type" not in name
    }
    packed = [name for name in tensors if re.search(r"(embed_tokens|wte|word_embeddings)\.(qweight|scales)$", name)]
    packed += [name for name, (dtype, _) in candidates.items() if dtype not in FLOATS]
    if packed:
        raise _quantised(folder, packed[0], *tensors[packed[0]])
    if candidates:
        name = max(candidates, key=lambda name: candidates[name][1][0])
        if candidates[name][1][0] > size and any(
            _role(n, shape, {size}) == "output" for n, (_, shape) in tensors.items()
        ):
            raise InputError(
                "vocab-size-mismatch",
                f"{name} has {candidates[name][1][0] - size:,} rows more than the {size:,} that the output head and "
                "config.json have: tokens that are read and never predicted, pictures say",
                "tokswap does not know what these rows are for; no model of this kind is supported",
                folder=folder,
            )
        raise _mismatch(folder, name, candidates[name][1], size)
    raise InputError("no-embedding", "no input embedding was found in the weights", folder=folder)


def _check_heads(
    folder: Path | str,
    found: list[VocabMatrix],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    size: int,
) -> None:
    """Stop at a head of another size than its input table, which no rule has found."""
    known = {table.names[0] for table in found}
    for table in found:
        name = head_name(table) if table.role == "input" else None
        if name is not None and name in tensors and name not in known:
            dtype, shape = tensors[name]
            raise _mismatch(folder, name, shape, size) if dtype in FLOATS else _quantised(folder, name, dtype, shape)


def _mismatch(folder: Path | str, name: str, shape: tuple[int, ...], size: int) -> InputError:
    return InputError(
        "vocab-size-mismatch",
        f"config.json says vocab_size {size:,}, and {name} has {shape[0] if shape else 0:,} rows",
        "correct the config, or resize the model's embeddings, so that both agree",
        folder=folder,
    )


def _group(
    tables: list[VocabMatrix],
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    same_bytes: Callable[[str, str], bool],
) -> list[VocabMatrix]:
    """Join the tensors that are one table: equal bytes, and no config that says they are apart."""
    untied = tie_flag(config, text) is False
    groups: list[VocabMatrix] = []
    for table in sorted(tables, key=lambda t: ("input", "per-layer", "output", "bias", "lookup").index(t.role)):
        for n, group in enumerate(groups):
            crosses = {group.role, table.role} == {"input", "output"}
            if (group.role == table.role or (crosses and not untied)) and (
                (group.dtype, group.shape) == (table.dtype, table.shape) and same_bytes(group.names[0], table.names[0])
            ):
                groups[n] = VocabMatrix(
                    (*group.names, *table.names),
                    group.role,
                    group.dtype,
                    group.shape,
                    group.axis,
                    is_head=group.is_head or crosses,
                )
                break
        else:
            groups.append(table)
    return groups


def tie_flag(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool | None:
    """Return what the config says about tied embeddings; None where it says nothing."""
    for child in (config, text):
        if isinstance(child.get("tie_word_embeddings"), bool):
            return bool(child["tie_word_embeddings"])
    return None


def _mark_head(
    tables: list[VocabMatrix], config: Mapping[str, Any], text: Mapping[str, Any]
) -> tuple[VocabMatrix, ...]:
    """Mark the input table as the head where the model has a head and stores no other table for it."""
    stored = any(table.role == "output" or table.is_head for table in tables)
    architectures = config.get("architectures") or text.get("architectures") or []
    has_head = any(
        word in name
        for name in architectures
        for word in ("LMHead", "ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining", "MTModel")
    )
    if stored or not has_head or tie_flag(config, text) is False:
        return tuple(tables)
    first = next(n for n, table in enumerate(tables) if table.role == "input")
    head = tables[first]
    tables[first] = VocabMatrix(head.names, head.role, head.dtype, head.shape, head.axis, is_head=True)
    return tuple(tables)


def head_name(table: VocabMatrix) -> str | None:
    """Return the tensor name that an untied head would have beside a tied input table; None where that is not known.

    Known for the causal models whose head sits beside the body; a T5 or BERT head is more than a table.
    """
    name = table.names[0]
    if name.startswith("language_model.model."):
        return "language_model.lm_head.weight"
    if re.search(r"(^|\.)(embed_tokens|wte)\.weight$", name) and not re.search(
        r"(encoder|decoder)\.embed_tokens", name
    ):
        return "lm_head.weight"
    return "embed_out.weight" if name.endswith("embed_in.weight") else None
