"""Everything in a result that is neither weights nor report: tokenizer files, configs, and what the source carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import Configs, edit_config, edit_generation_config
from tokswap.checkpoint.id_map import IdMap
from tokswap.checkpoint.modules import check_modules, edit_modules
from tokswap.checkpoint.positions import fitting_length
from tokswap.checkpoint.reader import Checkpoint
from tokswap.storage.json_files import json_bytes
from tokswap.storage.links import check_links
from tokswap.storage.own_class import CLASS_OF_MODEL_TYPE, CODE_FILE, with_own_class
from tokswap.tokenizer.tokenizer import COMPANIONS, Tokenizer

MAP_NAME = "vocab_map.json"
"""The file beside the weights that says where each id has gone; adapters and draft heads follow it."""
_CARRIED = (
    "*processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "artifact.metadata",
    "[0-9]_*",
    "*_tokenizer",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of the source, besides weights and configs, that the result needs and that no tokenizer owns.

A folder such as `qformer_tokenizer` holds the second tokenizer of a processor.
"""


@dataclass(frozen=True)
class ResultFiles:
    """The files of a result but weights and report.

    Attributes:
        configs: The JSON files that later steps may still change.
        files: Name -> content, or the path of a file or folder to copy; all others.
        notes: What the user should know about them.
    """

    configs: Configs
    files: Mapping[str, bytes | Path]
    notes: tuple[str, ...] = ()


def result_files(
    source: Checkpoint,
    target: Tokenizer,
    configs: Configs,
    *,
    bos: int | None = None,
    own: bool = False,
    modules: Mapping[str, Mapping[str, Any]] | None = None,
    input_names: Sequence[str] | None = None,
    trust_remote_code: bool = False,
) -> ResultFiles:
    """Gather the files of a result.

    Args:
        source: The source model, whose licence, processor and other files are carried over.
        target: The tokenizer of the result.
        configs: Its configs; the tokenizer config is the target's own, before anything is done to it.
        bos: Id that the tokenizer must put first, None to leave its template alone.
        own: Whether the target is the source's own tokenizer, which goes on being loaded as it was.
        modules: The new content of files of sentence-transformers and of processors that change, see `edit_modules`
            and `edit_processors`.
        input_names: What the source's tokenizer gives to the model, for a target that is not its own.
        trust_remote_code: Whether to carry over the source's Python code.
    """
    files: dict[str, bytes | Path] = target.output_files(bos=bos)
    for pattern in (*_CARRIED, "*.py") if trust_remote_code else _CARRIED:
        for path in sorted(source.folder.glob(pattern)) if source.on_disk else ():
            if path.name not in COMPANIONS:
                check_links(source.folder, [path.name])
                files.setdefault(path.name, path)
    for name, config in (modules or {}).items():
        files = _with_file(files, name, json_bytes(config))
    files.pop("tokenizer_config.json", None)
    notes: list[str] = []
    model = dict(configs.model)
    if not trust_remote_code and model.pop("auto_map", None) is not None:
        notes.append("`auto_map` was left out of config.json: transformers has this architecture built in")
    settings = dict(configs.tokenizer)
    if not own:
        settings = target.output_config(bos=bos)
        if input_names is not None:
            settings["model_input_names"] = list(input_names)
        settings, code, note = _loadable(settings, model)
        settings, shorter = fitting_length(settings, model)
        files |= code
        notes += (*note, *shorter)
    return ResultFiles(Configs(model=model, generation=configs.generation, tokenizer=settings), files, tuple(notes))


def renumbered_files(
    source: Checkpoint, target: Tokenizer, ids: IdMap, rows: int, *, trust_remote_code: bool
) -> ResultFiles:
    """Gather the files of a result that keeps the source's tokenizer, with other ids or more of them.

    Args:
        source: The source model.
        target: The source's tokenizer as it is in the result.
        ids: How ids translate.
        rows: Rows of the vocabulary matrices of the result.
        trust_remote_code: Whether to carry over the source's Python code.

    Raises:
        InputError: unmapped-id where a config needs a token that the result lacks.
    """
    model = edit_config(source.config, ids, rows)
    generation = edit_generation_config(source.generation_config, ids)
    check_modules(source.folder, source.modules, source.matrices[0].rows)
    modules, notes = edit_modules(source.modules, ids, (source.matrices[0].rows, rows))
    edited = Configs(model=model.config, generation=generation.config, tokenizer=target.config)
    result = result_files(source, target, edited, own=True, modules=modules, trust_remote_code=trust_remote_code)
    return replace(result, notes=(*model.notes, *generation.notes, *notes, *result.notes))


def _with_file(files: Mapping[str, bytes | Path], name: str, content: bytes) -> dict[str, bytes | Path]:
    """Replace one file, which may lie in a folder that would be copied whole."""
    folder = Path(name).parts[0]
    whole = files.get(folder)
    if not isinstance(whole, Path) or not whole.is_dir():
        return {**files, name: content}
    inside = {f"{folder}/{path.relative_to(whole).as_posix()}": path for path in whole.rglob("*") if path.is_file()}
    return {**{other: path for other, path in files.items() if other != folder}, **inside, name: content}


def _loadable(
    settings: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, bytes], list[str]]:
    """Make AutoTokenizer load what the files describe: a tokenizer config, the code that it needs, and notes."""
    settings = dict(settings)
    if settings.pop("auto_map", None) is not None:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # tokenizer.json says it all without the owner's code
    forced = CLASS_OF_MODEL_TYPE.get(str(config.get("model_type")))
    if forced is None or settings["tokenizer_class"].removesuffix("Fast") == forced:
        return settings, {}, []
    settings, code = with_own_class(settings)
    note = (
        f"transformers would load {forced} for every {config['model_type']} model; {CODE_FILE} and an `auto_map` "
        "in tokenizer_config.json make it load what tokenizer.json describes"
    )
    return settings, code, [note]
