"""Give a model another model's tokenizer: plan it from metadata, then run the plan."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.configs import IdMap, edit_config, edit_generation_config, token_ids
from tokswap.checkpoint.matrices import configs
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.checkpoint.result_files import result_files
from tokswap.checkpoint.writer import Edit, Layout, MatrixEdit, apply, lay_out
from tokswap.distributed import LOCAL, Backend, check_backend, find_backend, idle_notes
from tokswap.errors import InputError, UsageError
from tokswap.evaluation.losses import check_device
from tokswap.heal.calibrate import CalibrationJob, Outcome, candidates, plan_calibration
from tokswap.init.base import WORK_BYTES, BaseBound, Checked, Initializer
from tokswap.init.blend import described, read_method
from tokswap.init.diagnostics import row_notes
from tokswap.init.donor import find_donor
from tokswap.init.solver import Solver, estimate, looked_up
from tokswap.report.record import REPORT_NAME, MatrixPlan, Plan, Report
from tokswap.storage.atomic import check_output
from tokswap.storage.json_files import read_json
from tokswap.storage.resolve import resolve_model, resolve_tokenizer, short_name
from tokswap.storage.trust import check_remote_code
from tokswap.tokenizer.alignment import Alignment, Reason, align, identity
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.transplant.advice import plan_notes
from tokswap.transplant.vocabulary import bos_to_add, matrix_edits, matrix_rows, read_token_map, set_tie
from tokswap.trim.plan import MAP_NAME, Choice, trim_target


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
    output_initializer: Initializer
    edit: Edit
    layout: Layout
    calibration: CalibrationJob | None
    seed: int = 0
    device: str = "cpu"
    memory: int = WORK_BYTES
    link: bool = False
    force: bool = False
    donor_rows: np.ndarray | None = None
    backend: Backend = LOCAL

    def run(self, *, progress: bool = False) -> Report:
        """Make the missing rows and write the result; returns the Report that also lies in it as tokswap.json.

        progress: show bars on a terminal. Raises InputError nan-in-table, OutputError; then nothing is written.
        """
        from tqdm import tqdm

        begin = time.perf_counter()
        self.target.check()

        def solver_of(initializer: Initializer, output_initializer: Initializer) -> Solver:
            return Solver(
                self.source,
                self.source_tokenizer,
                self.target,
                self.donor,
                self.alignment,
                initializer,
                self.edit.matrices,
                self.seed,
                self.device,
                self.memory,
                progress,
                self.donor_rows,
                output_initializer,
                self.backend,
            )

        clock: dict[str, float] = {"prepare": time.perf_counter() - begin}
        if self.calibration is None:
            outcome = Outcome(solver_of(self.initializer, self.output_initializer), self.edit)
        else:
            outcome = self.calibration.run(self.edit, solver_of)
            clock["calibrate"] = time.perf_counter() - begin - clock["prepare"] - outcome.solver.seconds
        solver = outcome.solver
        reports: list[Report] = []

        def finish() -> dict[str, bytes]:
            clock["rows"] = solver.seconds
            clock["all"] = time.perf_counter() - begin
            clock["write"] = 2 * clock["all"] - sum(clock.values())
            seconds = {stage: round(value, 3) for stage, value in clock.items()}
            far = row_notes(self.target.vocabulary, self.alignment.missing, solver.diagnostics, solver.lengths)
            vocabulary = self.source_tokenizer.vocabulary
            reports.append(
                Report(
                    self.plan,
                    self.alignment,
                    seconds,
                    solver.checks,
                    solver.diagnostics,
                    solver.worst(),
                    (*solver.notes, *outcome.notes, *far, *idle_notes(self.backend)),
                    {**solver.evidence, **outcome.evidence},
                    outcome.calibrated,
                    groups=self.alignment.by_group(self.target.vocabulary),
                    groups_before=dict(Counter(vocabulary.groups()).most_common()),
                    norms=solver.norms,
                    unusual=solver.unusual(),
                )
            )
            return {REPORT_NAME: reports[0].to_json()}

        with tqdm(
            total=self.layout.nbytes, desc="write", unit="B", unit_scale=True, disable=None if progress else True
        ) as bar:
            apply(
                outcome.edit,
                lay_out(outcome.edit),
                Path(self.plan.out),
                outcome.new_rows,
                link=self.link,
                force=self.force,
                extra_files=finish,
                progress=bar.update,
            )
        return reports[0]


def transplant_tokenizer(model: str, tokenizer: str, *, progress: bool = False, **options: Any) -> Report:
    """Put a tokenizer on a model and write the result; see `plan_transplant` for the options."""
    return plan_transplant(model, tokenizer, **options).run(progress=progress)


def plan_transplant(
    model: str,
    tokenizer: str,
    *,
    donor: str | None = None,
    out: str | Path | None = None,
    init: str = "auto",
    settings: Mapping[str, object] | None = None,
    output_init: str | None = None,
    calibrate: Sequence[str | Path] = (),
    map_tokens: Sequence[str] = (),
    vocab_size: str | int = "match",
    pad_to_multiple: int | None = None,
    tie: bool | None = None,
    bos: str = "auto",
    keep_rows: bool = False,
    trim_corpora: Sequence[str] = (),
    trim_languages: Sequence[str] = (),
    trim_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    memory: int = WORK_BYTES,
    backend: str = "local",
    link: bool = False,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Transplant:
    """Check a transplant and say what it will do, without reading a weight.

    model, donor: a folder, hub id, alias or .gguf file. tokenizer: one of those, or a tokenizer.json.
    donor: the model that owns the tokenizer; by default the tokenizer's own model where it has weights.
    init, settings: the method and its hyperparameters, or a weighted sum of methods (see `init.blend`). output_init: the same
    for the output head, where that is a table of its own. calibrate: texts to fit the new tables to. map_tokens: "TARGET=SOURCE" pairs of token texts.
    vocab_size: "match" (as many rows as the tokenizer's own model), "tight" (one a token), or a number of rows.
    pad_to_multiple: round the rows up. tie: True or False to join or split input and output tables.
    memory: bytes that a method may take for its work besides the tables. backend: "local", or "ray" to compute `omp` and to
    count corpora on a Ray cluster; see `tokswap.cluster`.
    bos: "auto" lets the tokenizer begin texts with bos where the source model's does; "keep" leaves it alone; a token of
    the target begins every text, whatever the source does.
    keep_rows: every id keeps its own row, roles and names notwithstanding; for a model that has this vocabulary already.
    trim_corpora, trim_languages, trim_size: trim the target vocabulary first; see `tokswap.trim.plan_trim`.

    Raises UsageError, InputError or OutputError for everything that can be known beforehand.
    """
    initializer = read_method(init, settings)
    output_initializer = initializer if output_init is None else read_method(output_init)
    for method in (initializer, output_initializer):
        if isinstance(method, Checked):
            method.check()
    where = find_backend(backend)
    check_backend(where, device)
    source = open_checkpoint(resolve_model(model))
    check_remote_code(source.folder, source.config, trust_remote_code)
    source_tokenizer = read_tokenizer(source.folder, trust_remote_code=trust_remote_code)
    target_path = resolve_tokenizer(tokenizer)
    target = read_tokenizer(target_path, trust_remote_code=trust_remote_code)
    if len(source_tokenizer.vocabulary) > source.matrices[0].rows:
        raise InputError(
            "source-too-small",
            f"the source tokenizer has {len(source_tokenizer.vocabulary):,} ids, and the model only "
            f"{source.matrices[0].rows:,} rows",
            "the model and its tokenizer do not belong together",
            model=source.folder,
        )
    notes: list[str] = []
    donor_checkpoint = find_donor(donor, [initializer, output_initializer], tokenizer, target_path, target, notes)
    target_config, target_generation = _owner_configs(target_path, donor_checkpoint)
    cut = None
    if trim_corpora or trim_languages or trim_size is not None:
        choice = Choice(tuple(trim_corpora), tuple(trim_languages), target_size=trim_size)
        cut = trim_target(target, target_config, target_generation, choice, notes, backend=where)
        target, target_config, target_generation = cut.tokenizer, cut.config, cut.generation
    rows = matrix_rows(vocab_size, pad_to_multiple, len(target.vocabulary), target_config)
    if keep_rows:
        alignment = identity(target.vocabulary, source_tokenizer.vocabulary, rows)
    else:
        alignment = align(
            target.vocabulary,
            source_tokenizer.vocabulary,
            rows=rows,
            mapped=read_token_map(map_tokens, target.vocabulary, source_tokenizer.vocabulary),
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
    if not getattr(initializer, "keeps_shared", True):
        alignment = alignment.without_shared_text()
    if isinstance(initializer, BaseBound):
        table = source.matrices[0]
        initializer.check_base(source_tokenizer.vocabulary, table.width, table.rows, source.tied)
    notes += plan_notes(source_tokenizer, target)
    bos_id = bos_to_add(bos, source_tokenizer, target, alignment, notes)
    tables = matrix_edits(source, alignment, tie, notes)
    if any(table.matrix.role == "lookup" for table in tables):
        tables = looked_up(tables, alignment, source_tokenizer, target)
        notes.append(
            "each token is looked up in a table of integers, where new tokens get the row of their first piece"
        )
    if output_init is not None and not any(table.matrix.role == "output" for table in tables):
        raise UsageError(
            "no-output-head",
            "--init-output is for an output head of its own, and in this model the input table is the head too",
            "add --untie to give it one, or leave out --init-output",
        )
    ids = IdMap(alignment, source_tokenizer.vocabulary, target.vocabulary, target_config, notes)
    config = edit_config(source.config, ids, rows)
    set_tie(config, tie)
    owner_eos = [token for token in token_ids(target_generation, "eos_token_id") if token < rows]
    generation = edit_generation_config(source.generation_config, ids, owner_eos, config)
    files = result_files(source, target, config, generation, bos_id, trust_remote_code, notes)
    if cut is not None:
        files[MAP_NAME] = cut.map_file
    if target.chat_template is None:
        notes.append("the target tokenizer has no chat template, so the result has none")
    edit = Edit(source, tables, files)
    layout = lay_out(edit)
    out_path = Path(out) if out is not None else Path(f"{short_name(model)}-{short_name(tokenizer)}")
    written = layout.nbytes - (sum(shard.nbytes for shard in layout.shards if shard.untouched) if link else 0)
    check_output(
        out_path,
        sources=[
            source.folder,
            *([target_path] if target_path.is_dir() else []),
            *([donor_checkpoint.folder] if donor_checkpoint else []),
        ],
        needed=written,
        force=force,
    )
    check_device(device)
    calibration, work = None, 0.0
    if calibrate:
        methods = [(init, initializer, output_initializer)]
        if init == "auto" and output_init is None and not settings:
            methods = candidates(donor_checkpoint is not None)
        calibration, work = plan_calibration(calibrate, source, target, bos_id, methods, trust_remote_code, notes)
    needed, seconds = estimate(
        initializer,
        donor_checkpoint,
        alignment,
        source_tokenizer.vocabulary,
        tables,
        written,
        memory,
        output_initializer=output_initializer,
        extra_flops=work,
    )
    plan = Plan(
        operation="transplant",
        model=model,
        tokenizer=tokenizer,
        donor=str(donor_checkpoint.folder) if donor_checkpoint else None,
        out=str(out_path),
        family_before=source_tokenizer.family,
        family_after=target.family,
        method=init,
        settings=described(initializer),
        output_method=output_init,
        output_settings=described(output_initializer) if output_init else {},
        options={
            "vocab_size": vocab_size,
            "pad_to_multiple": pad_to_multiple,
            "map_tokens": list(map_tokens),
            "tie": tie,
            "bos": bos,
            "trim_corpora": list(trim_corpora),
            "trim_languages": list(trim_languages),
            "trim_size": trim_size,
            "seed": seed,
            "device": device,
            "memory": memory,
            "backend": backend,
            "link": link,
            "calibrate": [str(path) for path in calibrate],
        },
        coverage=alignment.counts(),
        matrices=_table_plans(source, tables),
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
        plan,
        source,
        source_tokenizer,
        target,
        donor_checkpoint,
        alignment,
        initializer,
        output_initializer,
        edit,
        layout,
        calibration,
        seed,
        device,
        memory,
        link,
        force,
        cut.kept if cut else None,
        where,
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


def _table_plans(source: Checkpoint, tables: Sequence[MatrixEdit]) -> tuple[MatrixPlan, ...]:
    plans = [
        MatrixPlan(
            edit.names,
            edit.matrix.role,
            edit.matrix.dtype,
            edit.matrix.shape if edit.names[0] in source.tensors else None,
            edit.shape,
        )
        for edit in tables
    ]
    written = {name for edit in tables for name in edit.names}
    dropped = [table for table in source.matrices if not written.intersection(table.names)]
    plans += [MatrixPlan(table.names, table.role, table.dtype, table.shape, None) for table in dropped]
    return tuple(plans)
