"""The first stages of a transplant: names to folders, folders to opened inputs. No weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokswap.checkpoint.class_defaults import with_class_size
from tokswap.checkpoint.loaded import Loaded, ModelLike
from tokswap.checkpoint.modules import fixed_texts
from tokswap.checkpoint.nested_configs import configs, text_config
from tokswap.checkpoint.reader import Checkpoint
from tokswap.checkpoint.rowless import with_rows
from tokswap.checkpoint.source import SourceModel, TargetTokenizer, open_source, open_target
from tokswap.distributed import Backend, check_backend, find_backend
from tokswap.init.blend import read_method
from tokswap.init.donor import Donor, find_donor
from tokswap.init.solver import Methods
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.auto import PLAIN, usable_tokenizer
from tokswap.tokenizer.classes import plain_settings
from tokswap.tokenizer.describe import digit_scheme
from tokswap.tokenizer.digits import SCHEME_OF, with_digits
from tokswap.tokenizer.loaded import TokenizerLike
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.transplant.options import TransplantOptions
from tokswap.trim.options import TrimChoice
from tokswap.trim.target import trim_target


@dataclass(frozen=True)
class Target:
    """The target tokenizer with the configs of the model that owns it, trimmed where the user asked for it.

    Attributes:
        name: How the user named it.
        path: Its folder or file, None where it is in memory.
        tokenizer: The tokenizer that the result gets.
        config: config.json of its owner, {} if unknown.
        generation: generation_config.json of its owner, {} if unknown.
        original: The transformers tokenizer, where it is in memory and unchanged.
        map_file: Content of vocab_map.json, where the vocabulary was trimmed.
    """

    name: str
    path: Path | None
    tokenizer: Tokenizer
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    original: Any = None
    map_file: bytes | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything that a transplant reads.

    Attributes:
        source: The model whose weights are kept.
        target: The tokenizer that it gets.
        donor: The model that lends its embeddings, None without one.
        methods: What computes new rows.
        backend: Where work that splits into parts is done.
        notes: What the user should know.
    """

    source: SourceModel
    target: Target
    donor: Donor | None
    methods: Methods
    backend: Backend
    notes: tuple[str, ...] = ()


def open_inputs(
    model: ModelLike | SourceModel,
    tokenizer: TokenizerLike | TargetTokenizer,
    options: TransplantOptions,
    *,
    prefer_file: bool = False,
) -> Inputs:
    """Open what a transplant reads.

    Args:
        model: The source model.
        tokenizer: The target tokenizer.
        options: What the user asked for.
        prefer_file: Whether the target tokenizes as its tokenizer.json says where its class tokenizes otherwise.

    Raises:
        UsageError, InputError: for everything that is wrong with the names, the files or the methods.
    """
    methods = Methods(
        read_method(options.init, options.settings),
        read_method(options.output_init) if options.output_init is not None else None,
    )
    backend = find_backend(options.backend)
    check_backend(backend, options.device)
    source = open_source(model, trust_remote_code=options.trust_remote_code)
    methods.check(source)
    opened = open_target(tokenizer, prefer_file=prefer_file, trust_remote_code=options.trust_remote_code)
    donor, notes = find_donor(options.donor, methods.all, opened)
    target, more = _with_rows(_with_owner(opened, donor.checkpoint if donor else None))
    notes = (*source.notes, *notes, *more)
    if options.digits is not None:
        target, more = _with_digits(target, options.digits, options.trust_remote_code)
        notes = (*notes, *more)
    if options.trims:
        target, donor, more = _trimmed(source.checkpoint, target, donor, options, backend)
        notes = (*notes, *more)
    return Inputs(source, target, donor, methods=methods, backend=backend, notes=notes)


def _with_owner(opened: TargetTokenizer, donor: Checkpoint | None) -> Target:
    """Add the configs of the model that owns the tokenizer, where it is known."""
    if donor is not None:
        config, generation = donor.config, donor.generation_config
    else:
        config, generation = (_config(opened.path, name) for name in ("config.json", "generation_config.json"))
        config = with_class_size(config) if config else config
        if not any("vocab_size" in child for _, child in configs(config)):
            config = {}
    original = opened.loaded.tokenizer if isinstance(opened.loaded, Loaded) else opened.loaded
    return Target(
        name=opened.name,
        path=opened.path,
        tokenizer=opened.tokenizer,
        config=config,
        generation=generation,
        original=original,
    )


def _with_rows(target: Target) -> tuple[Target, tuple[str, ...]]:
    """Leave out tokens that have no row in the model that owns the tokenizer."""
    if not target.config:
        return target, ()
    rows = text_config(target.config, target.path or target.name)[1]["vocab_size"]
    fit = with_rows(target.tokenizer, rows, target.config, target.generation)
    if not fit.notes:
        return target, ()
    return replace(target, tokenizer=fit.tokenizer, original=None), fit.notes


def _with_digits(target: Target, scheme: str, trust_remote_code: bool) -> tuple[Target, tuple[str, ...]]:
    """Let the target tokenizer split numbers in a scheme. transformers then loads what its tokenizer.json says."""
    if SCHEME_OF.get(digit_scheme(target.tokenizer)) == scheme:
        return target, (f"--digits {scheme}: the target tokenizer splits numbers so already",)
    tokenizer = with_digits(target.tokenizer, scheme)
    config = dict(tokenizer.config)
    if config.get("tokenizer_class") != PLAIN:  # the class of the model builds a pre-tokenizer of its own
        loaded = target.original
        if loaded is None and target.path is not None and target.path.is_dir():
            loaded = usable_tokenizer(target.path, trust_remote_code=trust_remote_code)
        config = plain_settings(config, loaded, tokenizer.spec)
    tokenizer = replace(tokenizer, config=config)
    lost = len(tokenizer.vocabulary.unproduced - target.tokenizer.vocabulary.unproduced)
    note = (
        f"--digits {scheme}: the vocabulary is the target's, id by id, and numbers are tokenized otherwise; {lost:,} "
        "tokens are never used. A model with the target's own tokenizer can be mixed with the result, but it expects "
        "other tokens where a text has numbers"
    )
    return replace(target, tokenizer=tokenizer, original=None), (note,)


def _config(path: Path | None, name: str) -> Mapping[str, Any]:
    if path is None or not path.is_dir() or not (path / name).is_file():
        return {}
    return read_json(path / name, "config")


def _trimmed(
    source: Checkpoint, target: Target, donor: Donor | None, options: TransplantOptions, backend: Backend
) -> tuple[Target, Donor | None, tuple[str, ...]]:
    """Trim the target vocabulary; the donor's rows follow."""
    choice = TrimChoice(
        corpora=options.trim_corpora,
        languages=options.trim_languages,
        target_size=options.trim_size,
        field=options.field,
    )
    cut = trim_target(
        target.tokenizer,
        target.config,
        target.generation,
        choice,
        texts=fixed_texts(source.config, source.modules, source.processors),
        multiple=options.pad_to_multiple,
        backend=backend,
        progress=options.progress,
    )
    trimmed = Target(
        name=target.name,
        path=target.path,
        tokenizer=cut.tokenizer,
        config=cut.config,
        generation=cut.generation,
        map_file=cut.map_file,
    )
    return trimmed, Donor(donor.checkpoint, cut.kept) if donor else None, cut.notes
