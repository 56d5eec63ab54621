"""Checks on the configs of a result: the ids that they name, and the length that the tokenizer allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.pooled import eos_is_last, takes_highest
from tokswap.evaluation.verify.reference import Reference
from tokswap.report.wording import listed

_KEYS = ("_token_id", "_token_ids", "_token_index")
_MORE_KEYS = (
    *("im_start_id", "im_end_id", "im_newline_id", "image_start_id", "image_end_id", "image_patch_id"),
    *("slice_start_id", "slice_end_id", "newline_id"),
)
_ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))
_NOT_TEXT = ("vision", "audio")
_FINITE = 10**9
"""transformers says a far larger number where a tokenizer has no limit."""

Named = dict[str, list[int]]
"""Dotted path of a key -> the ids that it names."""


def range_check(folder: Folder, rows: int) -> Check:
    """Check that every id in config.json and generation_config.json has a row.

    An id that the config's class has by default names nothing: `save_pretrained` writes it into every small GPT-2.

    Args:
        folder: The result.
        rows: Rows of its input embeddings.
    """
    usual = folder.class_defaults
    outside = {key: [token for token in ids if not -1 <= token < rows] for key, ids in _named(folder).items()}
    wrong = [key for key, ids in outside.items() for token in ids if usual.get(key.rpartition(".")[2]) != token]
    return Check("token ids in range", not wrong, listed(wrong) or "every id of config and generation_config")


def role_check(folder: Folder, source: Folder, reference: Reference) -> Check:
    """Check that the ids of the configs mean what those of the source model mean.

    Args:
        folder: The result.
        source: The source model.
        reference: What the tokenizer of the result should be.
    """
    before, after = _named(source), _named(folder)
    defaults, now = _flat("config", source.defaults), _flat("config", folder.defaults)
    roles = {role: token for role, (_, token) in source.roles.items()}
    before |= {key: ids for key, ids in defaults.items() if key not in before and ids == [roles.get(_role_of(key), -1)]}
    wrong, compared = [], 0
    if takes_highest(source) and eos_is_last(source):
        names_eos = {key for key in before if key.endswith(".eos_token_id") and key.startswith("config")}
        before |= {key: [roles["eos_token"]] for key in names_eos}  # whatever it names, that is what it does
        if takes_highest(folder) and not eos_is_last(folder):
            wrong.append("a text is read at its highest id, which is not eos")
    for key, ids in before.items():
        found = after.get(key, now.get(key, []))
        expected = _kept(ids, reference) if reference.trim else _by_role(key, ids, roles, reference)
        compared += bool(expected)
        missing = [token for token in expected if token not in found]
        unset = bool(ids) and not found and key.endswith("decoder_start_token_id")  # then nothing can be generated
        if unset or (reference.trim and missing) or (expected and not set(expected) & set(found)):
            wrong.append(f"{key} is {_short(found)}" + (f", not {_short(expected)}" if expected else ""))
    return check_empty("config roles", "differ", wrong, f"{compared} ids mean what they meant")


def length_check(folder: Folder, source: Folder | None, model: Any) -> Check:
    """Check that `truncation=True` gives no more tokens than the model has positions, if it did so before.

    A limit that the source has too is no fault of the result.

    A model that computes its positions reads longer texts, though worse; one that has learned each of them fails.

    Args:
        folder: The result, or a model alone.
        source: The source model, None for a model alone.
        model: The result, loaded.
    """
    limit, positions = int(folder.tokenizer.model_max_length), positions_of(model)
    said = f"{limit:,}" if limit < _FINITE else "none"
    detail = f"model_max_length {said}, {f'{positions:,}' if positions else 'any number of'} positions"
    if source is None or positions is None or limit <= positions or limit == int(source.tokenizer.model_max_length):
        return Check("maximum length", True, detail)
    protected = int(source.tokenizer.model_max_length) <= positions
    wrong = (protected, _learned(model, positions), limit < _FINITE).count(True) > 1
    return Check("maximum length", not wrong, detail)


def positions_of(model: Any) -> int | None:
    """Return how many positions a model has, None where its config does not say."""
    config = model.config
    for part in (config, *(getattr(config, name, None) for name in ("text_config", "decoder"))):
        for name in ("max_position_embeddings", "n_positions", "max_target_positions"):
            value = getattr(part, name, None)
            if type(value) is int and value > 0:
                return value
    return None


def _learned(model: Any, positions: int) -> bool:
    """Whether each position has an embedding of its own, so that one more position is an error."""
    return any(
        "pos" in name or name.endswith("wpe.weight")
        for name, tensor in model.state_dict().items()
        if tensor.dim() == 2 and positions <= tensor.shape[0] <= positions + 8
    )


def _named(folder: Folder) -> Named:
    found = {**_flat("config", folder.config), **_flat("generation_config", folder.generation)}
    for name, config in folder.modules.items():
        found |= _flat(name, config)
    return found


def _flat(path: str, config: Mapping[str, Any]) -> Named:
    """The ids that a config names, at every level but those of images and sound."""
    found: Named = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if not any(word in key for word in _NOT_TEXT):
                found |= _flat(f"{path}.{key}", value)
        elif str(key).endswith(_KEYS) or key in _MORE_KEYS:
            values = value if isinstance(value, list) else [value]
            found[f"{path}.{key}"] = [token for token in values if type(token) is int]
    return found


def _role_of(key: str) -> str:
    return key.rpartition(".")[2].removesuffix("_id")


def _kept(ids: list[int], reference: Reference) -> list[int]:
    """What a trim makes of the ids; those that it has dropped are gone."""
    return [new for token in ids if not reference.may_lack(token) and (new := reference.new(token)) is not None]


def _by_role(key: str, ids: list[int], roles: Mapping[str, int], reference: Reference) -> list[int]:
    """The ids with the same roles in the reference, of which a transplant must name one."""
    words = reference.folder.vocabulary
    target = {role: [token] for role, (_, token) in reference.folder.roles.items() if not reference.may_lack(token)}
    for key_there, named in _flat("config", reference.folder.config).items():
        # The id of a padding row means nothing: a transplant cannot know what it is for.
        known = (token for token in named if token < len(words) and words[token] is not None)
        present = [token for token in known if not reference.may_lack(token)]
        target[_role_of(key_there)] = [*target.get(_role_of(key_there), []), *present]
    meant = {role for role, token in roles.items() if token in ids and role in target}
    own = _role_of(key)
    if own in meant or (meant and own in _ROLES and own in target):  # Qwen's config names its pad token as bos
        meant = {own}
    found = (reference.new(token) for role in sorted(meant) for token in target[role])
    return list(dict.fromkeys(new for new in found if new is not None))


def _short(ids: list[int]) -> str:
    return str(ids[0]) if len(ids) == 1 else str(ids) if ids else "missing"
