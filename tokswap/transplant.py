"""Give a model another model's tokenizer: plan it from metadata, then run the plan."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.align import Alignment, Reason, align
from tokswap.checkpoint import Checkpoint, has_weights, open_checkpoint, read_json
from tokswap.configs import IdMap, edit_config, edit_generation_config, token_ids
from tokswap.edit import Edit, Layout, TableEdit, apply, lay_out, untied
from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.evaluate import check_device
from tokswap.files import check_remote_code, result_files
from tokswap.init import WORK_BYTES, Initializer, make_initializer
from tokswap.report import REPORT_NAME, Plan, Report, TablePlan
from tokswap.solve import Solver, estimate
from tokswap.sources import resolve_model, resolve_tokenizer, short_name, user_aliases
from tokswap.tables import configs, head_name, text_config
from tokswap.tokenizer import Tokenizer, read_tokenizer
from tokswap.vocab import Vocabulary
from tokswap.workspace import check_output


@dataclass(frozen=True)
class Transplant:
    """A transplant that has been checked and is ready to run; made by `plan_transplant`."""

    plan: Plan
    source: Checkpoint
    source_tokenizer: Tokenizer
    target: Tokenizer
    donor: Checkpoint | None
    alignment: Alignment
    initializer: Initializer
    edit: Edit
    layout: Layout
    seed: int = 0
    device: str = "cpu"
    memory: int = WORK_BYTES
    link: bool = False
    force: bool = False

    def run(self, *, progress: bool = False) -> Report:
        """Make the missing rows and write the result; returns the Report that also lies in it as tokswap.json.

        progress: show bars on a terminal. Raises InputError nan-in-table, OutputError; then nothing is written.
        """
        from tqdm import tqdm

        begin = time.perf_counter()
        self.target.check()
        solver = Solver(
            self.source, self.source_tokenizer, self.target.vocabulary, self.donor, self.alignment, self.initializer,
            self.edit.tables, self.seed, self.device, self.memory, progress,
        )  # fmt: skip
        clock: dict[str, float] = {"prepare": time.perf_counter() - begin}
        reports: list[Report] = []

        def finish() -> dict[str, bytes]:
            clock["rows"] = solver.seconds
            clock["write"] = time.perf_counter() - begin - clock["prepare"] - solver.seconds
            clock["all"] = time.perf_counter() - begin
            seconds = {stage: round(value, 3) for stage, value in clock.items()}
            notes = tuple(solver.notes)
            reports.append(
                Report(self.plan, self.alignment, seconds, solver.checks, solver.diagnostics, solver.worst(), notes)
            )
            return {REPORT_NAME: reports[0].to_json()}

        with tqdm(total=self.layout.nbytes, desc="write", unit="B", unit_scale=True,
                  disable=None if progress else True) as bar:  # fmt: skip
            apply(
                self.edit, self.layout, Path(self.plan.out), solver.rows,
                link=self.link, force=self.force, extra_files=finish, progress=bar.update,
            )  # fmt: skip
        return reports[0]


def transplant(model: str, tokenizer: str, *, progress: bool = False, **options: Any) -> Report:
    """Put a tokenizer on a model and write the result; see `plan_transplant` for the options."""
    return plan_transplant(model, tokenizer, **options).run(progress=progress)


def plan_transplant(
    model: str,
    tokenizer: str,
    *,
    donor: str | None = None,
    out: str | Path | None = None,
    init: str = "omp",
    settings: Mapping[str, object] | None = None,
    map_tokens: Sequence[str] = (),
    vocab_size: str | int = "match",
    pad_to_multiple: int | None = None,
    tie: bool | None = None,
    bos: str = "auto",
    seed: int = 0,
    device: str = "cpu",
    memory: int = WORK_BYTES,
    link: bool = False,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Transplant:
    """Check a transplant and say what it will do, without reading a weight.

    model, donor: a folder, hub id, alias or .gguf file. tokenizer: one of those, or a tokenizer.json.
    donor: the model that owns the tokenizer; by default the tokenizer's own model where it has weights.
    init, settings: the method and its hyperparameters. map_tokens: "TARGET=SOURCE" pairs of token texts.
    vocab_size: "match" (as many rows as the tokenizer's own model), "tight" (one a token), or a number of rows.
    pad_to_multiple: round the rows up. tie: True or False to join or split input and output tables.
    memory: bytes that a method may take for its work besides the tables.
    bos: "auto" lets the tokenizer begin texts with bos where the source model's does; "keep" leaves it alone.

    Raises UsageError, InputError or OutputError for everything that can be known beforehand.
    """
    initializer = make_initializer(init, settings)
    source = open_checkpoint(resolve_model(model))
    check_remote_code(source, trust_remote_code)
    source_tokenizer = read_tokenizer(source.folder, trust_remote_code=trust_remote_code)
    target_path = resolve_tokenizer(tokenizer)
    target = read_tokenizer(target_path, trust_remote_code=trust_remote_code)
    if len(source_tokenizer.vocabulary) > source.tables[0].rows:
        raise InputError(
            "source-too-small",
            f"the source tokenizer has {len(source_tokenizer.vocabulary):,} ids, and the model only "
            f"{source.tables[0].rows:,} rows",
            "the model and its tokenizer do not belong together",
            model=source.folder,
        )
    donor_name = donor
    if donor is None and initializer.needs_donor:
        donor_name = _default_donor(init, tokenizer, target_path)
    donor_checkpoint = None
    if donor_name is not None and initializer.needs_donor:
        donor_checkpoint = open_checkpoint(resolve_model(donor_name))
        _check_donor(donor_checkpoint, target.vocabulary)
    target_config, target_generation = _owner_configs(target_path, donor_checkpoint)
    rows = _rows(vocab_size, pad_to_multiple, len(target.vocabulary), target_config)
    alignment = align(
        target.vocabulary,
        source_tokenizer.vocabulary,
        rows=rows,
        mapped=_read_map(map_tokens, target.vocabulary, source_tokenizer.vocabulary),
        bos_first=source_tokenizer.adds_bos,
    )
    if not (alignment.reason == Reason.BYTES).any():
        raise InputError(
            "no-shared-token",
            "the two vocabularies have no token in common",
            "nothing would be left of what the model knows about its input; is this the right tokenizer?",
            model=source.folder,
            tokenizer=target_path,
        )
    notes: list[str] = []
    if donor is not None and donor_checkpoint is None:
        notes.append(f"--donor is not used: `{init}` needs no donor")
    bos_id = _bos_to_add(bos, source_tokenizer, target, alignment, notes)
    tables = _table_edits(source, alignment, tie, notes)
    ids = IdMap(alignment, source_tokenizer.vocabulary, target.vocabulary, target_config, notes)
    config = edit_config(source.config, ids, rows)
    _set_tie(config, tie)
    owner_eos = [token for token in token_ids(target_generation, "eos_token_id") if token < rows]
    generation = edit_generation_config(source.generation_config, ids, owner_eos, config)
    files = result_files(source, target, config, generation, bos_id, trust_remote_code, notes)
    edit = Edit(source, tables, files)
    layout = lay_out(edit)
    out_path = Path(out) if out is not None else Path(f"{short_name(model)}-{short_name(tokenizer)}")
    written = layout.nbytes - (sum(shard.nbytes for shard in layout.shards if shard.untouched) if link else 0)
    check_output(
        out_path,
        sources=[source.folder, *([target_path] if target_path.is_dir() else []),
                 *([donor_checkpoint.folder] if donor_checkpoint else [])],
        needed=written,
        force=force,
    )  # fmt: skip
    check_device(device)
    needed, seconds = estimate(
        initializer, donor_checkpoint, alignment, source_tokenizer.vocabulary, tables, written, memory
    )
    plan = Plan(
        operation="transplant",
        model=model,
        tokenizer=tokenizer,
        donor=donor_name if donor_checkpoint else None,
        out=str(out_path),
        family_before=source_tokenizer.family,
        family_after=target.family,
        method=init,
        settings=dataclasses.asdict(initializer),  # type: ignore[call-overload]
        options={
            "vocab_size": vocab_size,
            "pad_to_multiple": pad_to_multiple,
            "map_tokens": list(map_tokens),
            "tie": tie,
            "bos": bos,
            "seed": seed,
            "device": device,
            "memory": memory,
            "link": link,
        },
        coverage=alignment.counts(),
        tables=_table_plans(source, tables),
        parameters_before=sum(int(np.prod(info.shape)) for info in source.tensors.values()),
        parameters_after=layout.parameters,
        bytes_before=source.nbytes,
        bytes_after=layout.nbytes,
        bytes_written=written,
        memory_bytes=needed,
        seconds=seconds,
        tied=source.tied if tie is None else tie,
        bos_added=bos_id is not None,
        notes=tuple(notes),
    )
    return Transplant(
        plan, source, source_tokenizer, target, donor_checkpoint, alignment, initializer, edit, layout,
        seed, device, memory, link, force,
    )  # fmt: skip


def _table_edits(source: Checkpoint, alignment: Alignment, tie: bool | None, notes: list[str]) -> tuple[TableEdit, ...]:
    edits = [TableEdit(table, table.names, alignment.source_of) for table in source.tables]
    if tie is False and source.tied:
        split = next(edit for edit in edits if edit.table.is_head)
        head = head_name(split.table)
        if head is None:
            raise UsageError(
                "cannot-untie",
                f"tokswap does not know how a separate head of this architecture is stored (beside {split.names[0]})",
                "leave out --untie",
            )
        kept = tuple(name for name in split.names if name != head)
        edits[edits.index(split) : edits.index(split) + 1] = untied(dataclasses.replace(split, names=kept), head)
    if tie is True and not source.tied:
        heads = [edit for edit in edits if edit.table.role == "output"]
        if not heads:
            raise UsageError("cannot-tie", "this model has no output head to tie to its embeddings", "leave out --tie")
        edits = [edit for edit in edits if edit.table.role != "output"]
        edits[0] = dataclasses.replace(edits[0], table=dataclasses.replace(edits[0].table, is_head=True))
        notes.append("the output head is thrown away (--tie): every logit of the model changes")
    return tuple(edits)


def _set_tie(config: dict[str, Any], tie: bool | None) -> None:
    if tie is None:
        return
    holders = [child for _, child in configs(config) if "tie_word_embeddings" in child] or [config]
    for child in holders:
        child["tie_word_embeddings"] = tie  # type: ignore[index]


def _rows(vocab_size: str | int, multiple: int | None, tokens: int, target_config: Mapping[str, Any]) -> int:
    if vocab_size == "match":
        owner = text_config(target_config)[1]["vocab_size"] if target_config else tokens
        rows = max(tokens, owner)
    elif vocab_size == "tight":
        rows = tokens
    else:
        try:
            rows = int(vocab_size)
        except ValueError as error:
            raise UsageError(
                "bad-vocab-size", f"--vocab-size is match, tight or a number, not {vocab_size!r}"
            ) from error
        if rows < tokens:
            raise UsageError("bad-vocab-size", f"{rows:,} rows are too few: the tokenizer has {tokens:,} ids")
    if multiple is not None:
        if multiple < 1:
            raise UsageError("bad-vocab-size", f"--pad-to-multiple takes a positive number, not {multiple}")
        rows = -(-rows // multiple) * multiple
    return rows


def _read_map(pairs: Sequence[str], target: Vocabulary, source: Vocabulary) -> dict[int, int]:
    """Read "TARGET=SOURCE" pairs. A token may contain "=": the split at which both sides exist is meant."""
    mapped: dict[int, int] = {}
    for pair in pairs:
        cuts = [n for n, character in enumerate(pair) if character == "=" and 0 < n < len(pair) - 1]
        found = [
            (_token(target, pair[:n]), _token(source, pair[n + 1 :]))
            for n in cuts
            if _token(target, pair[:n]) is not None and _token(source, pair[n + 1 :]) is not None
        ]
        if not found:
            left, _, right = pair.partition("=")
            side, word, names = (
                ("source", right, source) if _token(target, left) is not None else ("target", left, target)
            )
            raise UsageError(
                "unknown-token",
                f"--map-token {pair!r}: the {side} tokenizer has no token {word!r}."
                + did_you_mean(word, [text for text in names.text if text.startswith(("<", "["))]),
                "write it as TARGET=SOURCE, each token as its tokenizer spells it",
            )
        mapped[found[0][0]] = found[0][1]  # type: ignore[index,assignment]
    return mapped


def _token(vocabulary: Vocabulary, text: str) -> int | None:
    return vocabulary.id_of_text.get(text, vocabulary.id_of.get(text.encode()))


def _default_donor(init: str, tokenizer: str, path: Path) -> str:
    if path.is_dir() and has_weights(path):
        return str(path)
    if not Path(user_aliases().get(tokenizer, tokenizer)).expanduser().exists():
        return tokenizer  # a hub id, or an alias for one: only its tokenizer has been fetched so far
    raise InputError(
        "missing-donor",
        f"the target tokenizer comes without weights, and {init} needs the donor's embeddings",
        "name them with --donor MODEL, or use a method that needs none: subword",
        tokenizer=path,
    )


def _check_donor(donor: Checkpoint, target: Vocabulary) -> None:
    table = donor.table("input")
    if table is None or table.rows < len(target):
        raise InputError(
            "donor-too-small",
            f"the donor has {table.rows if table else 0:,} rows, and the target tokenizer {len(target):,} ids",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )
    if not (donor.folder / "tokenizer.json").is_file():
        return
    own = read_tokenizer(donor.folder).vocabulary
    wrong = [n for n, text in enumerate(target.text) if text and (n >= len(own) or own.text[n] != text)]
    if wrong:
        raise InputError(
            "donor-mismatch",
            f"{len(wrong):,} ids mean different tokens to the donor and to the target tokenizer, the first is {wrong[0]}",
            "the donor must be a model that uses the target tokenizer",
            donor=donor.folder,
        )


def _owner_configs(target_path: Path, donor: Checkpoint | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The config and generation config of the model that owns the tokenizer; {} where that is not known."""
    if donor is not None:
        return donor.config, donor.generation_config
    found = []
    for name in ("config.json", "generation_config.json"):
        path = target_path / name
        found.append(read_json(path, "config") if target_path.is_dir() and path.is_file() else {})
    has_size = any("vocab_size" in child for _, child in configs(found[0]))
    return (found[0] if has_size else {}), found[1]


def _bos_to_add(bos: str, source: Tokenizer, target: Tokenizer, alignment: Alignment, notes: list[str]) -> int | None:
    """The id that the result's tokenizer must begin texts with, None where it can stay as it is."""
    if bos not in ("auto", "keep"):
        raise UsageError("bad-bos", f"--bos is auto or keep, not {bos!r}")
    if not source.adds_bos or target.adds_bos:
        return None
    token = alignment.target_of(source.vocabulary.roles["bos"], target.vocabulary.roles.get("bos"))
    if token is None:
        notes.append(
            "the model expects every text to begin with bos, and the target tokenizer has no token for it: "
            f"name one with --map-token 'TARGET={source.vocabulary.text[source.vocabulary.roles['bos']]}'"
        )
        return None
    text = target.vocabulary.text[token]
    if bos == "keep":
        notes.append(f"the model expects every text to begin with bos ({text}), and the tokenizer will not add it")
        return None
    notes.append(f"the tokenizer will begin every text with {text}, as the model expects (--bos keep leaves it alone)")
    return token


def _table_plans(source: Checkpoint, tables: Sequence[TableEdit]) -> tuple[TablePlan, ...]:
    plans = [
        TablePlan(
            edit.names, edit.table.role, edit.table.dtype,
            edit.table.shape if edit.names[0] in source.tensors else None, edit.shape,
        )
        for edit in tables
    ]  # fmt: skip
    written = {name for edit in tables for name in edit.names}
    dropped = [table for table in source.tables if not written.intersection(table.names)]
    plans += [TablePlan(table.names, table.role, table.dtype, table.shape, None) for table in dropped]
    return tuple(plans)
