"""Trim a vocabulary: keep the tokens of a language or a domain, exactly. Plan it from metadata and counts, then run the plan."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.configs import edit_config, edit_generation_config, needed_ids
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.checkpoint.result_files import result_files
from tokswap.checkpoint.writer import Edit, Layout, MatrixEdit, NewRows, apply, lay_out
from tokswap.distributed import LOCAL, Backend, find_backend, idle_notes
from tokswap.errors import InputError, OutputError, UsageError
from tokswap.evaluation.losses import check_device
from tokswap.init.registry import make_initializer
from tokswap.init.solver import Solver, estimate
from tokswap.report.record import REPORT_NAME, MatrixPlan, Plan, Report
from tokswap.storage.atomic import check_output
from tokswap.storage.resolve import resolve_model, short_name
from tokswap.storage.trust import check_remote_code
from tokswap.tokenizer.alignment import Alignment, Reason
from tokswap.tokenizer.schema import MOST_IDS
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim.chat import renderings
from tokswap.trim.checks import failures, model_figures, reload_figures, sequences, token_figures, unreachable
from tokswap.trim.corpora import find_corpus, read_sample
from tokswap.trim.ids import MAP_NAME, KeptIds, map_file, read_map, rows_of
from tokswap.trim.rebuild import Trimmed, rebuilt, trim_tokenizer
from tokswap.trim.selection import Choice, CorpusFacts, Selection, select

__all__ = [
    "MAP_NAME",
    "Choice",
    "Selection",
    "Trim",
    "TrimPlan",
    "Trimmed",
    "TrimmedTarget",
    "plan_trim",
    "trim_target",
    "trim_tokenizer",
    "trim_vocabulary",
]

_MODEL_CHECK_SHARE = 0.25
"""A model is loaded to compare its outputs where it takes no more than this share of the machine's memory."""


@dataclass(frozen=True)
class TrimPlan(Plan):
    """A Plan that says what was counted. least: rows that no choice of tokens could do without."""

    corpora: tuple[CorpusFacts, ...] = ()
    least: int = 0


@dataclass(frozen=True)
class Trim:
    """A trim that has been checked and is ready to run; made by `plan_trim`."""

    plan: TrimPlan
    source: Checkpoint
    source_tokenizer: Tokenizer
    trimmed: Trimmed
    alignment: Alignment
    edit: Edit
    layout: Layout
    sample: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    check_model: bool = True
    device: str = "cpu"
    link: bool = False
    force: bool = False
    trust_remote_code: bool = False

    def run(self, *, progress: bool = False) -> Report:
        """Write the result and verify it before it takes its place; returns the Report that lies in it as tokswap.json.

        progress: show a bar on a terminal. Raises OutputError; not-exact where the new tokenizer cuts text otherwise than
        it must. Then nothing is written. Checks that need the libraries to agree are only reported: see `Report.checks`.
        """
        from tqdm import tqdm

        begin = time.perf_counter()
        self.trimmed.tokenizer.check()
        checks: dict[str, Any] = {"corpus": token_figures(self.source_tokenizer, self.trimmed, self.sample)}
        if self.held_out:
            checks["held_out"] = token_figures(self.source_tokenizer, self.trimmed, self.held_out)
        if wrong := failures(checks):
            raise OutputError("not-exact", wrong[0], "please report this, with the tokenizer and the command")
        checks["unreachable"] = [unreachable(self.source_tokenizer), unreachable(self.trimmed.tokenizer)]
        clock = {"prepare": time.perf_counter() - begin}
        solver: Solver | None = None
        reports: list[Report] = []

        def rows(table: MatrixEdit) -> NewRows:
            nonlocal solver
            if (table.source_of >= 0).all():
                return np.zeros((0, table.matrix.width), np.float32)
            if solver is None:
                solver = Solver(
                    self.source,
                    self.source_tokenizer,
                    self.trimmed.tokenizer,
                    None,
                    self.alignment,
                    make_initializer("mean"),
                    self.edit.matrices,
                )
            return solver.rows(table)

        def check(folder: Path) -> None:
            clock["write"] = time.perf_counter() - begin - clock["prepare"]
            texts = self.sample or tuple(renderings(self.trimmed.tokenizer))
            checks["reloaded"] = reload_figures(self.source.folder, folder, self.trimmed, texts, self.trust_remote_code)
            ids = sequences(self.source_tokenizer, self.trimmed, texts)
            if self.check_model and ids:
                architecture = (self.source.config.get("architectures") or ["AutoModel"])[0]
                checks["model"] = model_figures(
                    self.source.folder,
                    folder,
                    architecture,
                    self.alignment.source_of,
                    ids,
                    self.device,
                    self.trust_remote_code,
                )
            checks["failed"] = failures(checks)
            clock["check"] = time.perf_counter() - begin - clock["prepare"] - clock["write"]

        def finish() -> Mapping[str, bytes]:
            clock["all"] = time.perf_counter() - begin
            seconds = {stage: round(value, 3) for stage, value in clock.items()}
            reports.append(
                Report(
                    self.plan,
                    self.alignment,
                    seconds,
                    checks,
                    groups=self.alignment.by_group(self.trimmed.tokenizer.vocabulary),
                    groups_before=dict(Counter(self.source_tokenizer.vocabulary.groups()).most_common()),
                )
            )
            return {REPORT_NAME: reports[0].to_json()}

        with tqdm(
            total=self.layout.nbytes, desc="write", unit="B", unit_scale=True, disable=None if progress else True
        ) as bar:
            apply(
                self.edit,
                self.layout,
                Path(self.plan.out),
                rows,
                link=self.link,
                force=self.force,
                check=check,
                extra_files=finish,
                progress=bar.update,
            )
        return reports[0]


def trim_vocabulary(model: str, *, progress: bool = False, **options: Any) -> Report:
    """Trim the vocabulary of a model and write the result; see `plan_trim` for the options."""
    return plan_trim(model, progress=progress, **options).run(progress=progress)


def plan_trim(
    model: str,
    *,
    corpora: Sequence[str] = (),
    languages: Sequence[str] = (),
    words: Sequence[str] = (),
    scripts: Sequence[str] = (),
    keep_tokens: Sequence[str] = (),
    drop_tokens: Sequence[str] = (),
    like: str | Path | None = None,
    target_size: int | None = None,
    min_count: int = 1,
    coverage: float | None = None,
    field: str = "text",
    held_out: Sequence[str] = (),
    out: str | Path | None = None,
    pad_to_multiple: int | None = None,
    check: str = "auto",
    backend: str = "local",
    device: str = "cpu",
    link: bool = False,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> Trim:
    """Decide which tokens to keep and say what a trim will do, without reading a weight. Corpora are counted.

    model: a folder, hub id, alias or .gguf file. corpora: files, folders or patterns; "FILE=N" with a minimum of its own.
    languages: codes such as "de", whose frequent words are kept. words: files of words. scripts: names such as "Latin".
    keep_tokens, drop_tokens: tokens by name; only control tokens that nothing needs can be dropped.
    like: a folder that a trim has written: keep exactly its tokens.
    target_size: rows of the result at most, scaffold and padding included. min_count: keep tokens that occur so often in a
    corpus. coverage: keep the most frequent tokens that make up this share of each corpus.
    field: where the text is in JSON lines and parquet files. held_out: texts to measure the result on.
    pad_to_multiple: round the rows up. check: "full" compares the outputs of both models after writing, "tokens" leaves
    them out, "auto" compares them where the model is small beside the machine's memory. backend: "local", or "ray" to count
    corpora on a Ray cluster, with the same result.

    Raises UsageError, InputError or OutputError for everything that can be known beforehand.
    """
    choice = Choice(
        tuple(corpora),
        tuple(languages),
        tuple(words),
        tuple(scripts),
        tuple(keep_tokens),
        tuple(drop_tokens),
        target_size,
        min_count,
        coverage,
        field,
    )
    if like is None:
        choice.check()
    elif choice != Choice():
        raise UsageError(
            "bad-like", "--like keeps exactly another model's tokens", "leave out what else says what to keep"
        )
    if pad_to_multiple is not None and not 0 < pad_to_multiple <= MOST_IDS:
        message = f"--pad-to-multiple takes a positive number up to {MOST_IDS:,}, not {pad_to_multiple}"
        raise UsageError("bad-vocab-size", message)
    if check not in ("auto", "full", "tokens"):
        raise UsageError("bad-check", f"--check is auto, full or tokens, not {check!r}")
    check_device(device)
    where = find_backend(backend)
    source = open_checkpoint(resolve_model(model))
    check_remote_code(source.folder, source.config, trust_remote_code)
    tokenizer = read_tokenizer(source.folder, trust_remote_code=trust_remote_code)
    old_rows, size = source.matrices[0].rows, len(tokenizer.vocabulary)
    if size > old_rows:
        raise InputError(
            "source-too-small",
            f"the tokenizer has {size:,} ids, and the model only {old_rows:,} rows",
            "the model and its tokenizer do not belong together",
            model=source.folder,
        )
    out_path = Path(out) if out is not None else Path(f"{short_name(model)}-trimmed")
    check_output(out_path, sources=[source.folder], needed=0, force=force)  # before the corpora are counted
    notes: list[str] = []
    needed, extra = _needed(source, size, old_rows, notes)
    held = tuple(text for spec in held_out for text in read_sample(find_corpus(spec), field))
    selection = (
        _like(Path(like), tokenizer, needed)
        if like is not None
        else _counted(
            choice, tokenizer, needed | _chat_ids(tokenizer, notes), notes, len(extra), pad_to_multiple, where, progress
        )
    )
    notes += idle_notes(where)
    trimmed = rebuilt(tokenizer, selection.ids.tolist())
    alignment = rows_of(trimmed.kept, selection.reason, extra, size, old_rows, pad_to_multiple)
    copied = np.maximum(alignment.source_of, 0)  # padding cannot be made in a table of integers
    tables = tuple(
        MatrixEdit(table, table.names, copied if table.role == "lookup" else alignment.source_of)
        for table in source.matrices
    )
    new_of = {old: new for new, old in enumerate([*trimmed.kept.tolist(), *extra])}
    ids = KeptIds(alignment, tokenizer.vocabulary, trimmed.tokenizer.vocabulary, {}, notes, new_of)
    rows = len(alignment)
    config = edit_config(source.config, ids, rows)
    generation = edit_generation_config(source.generation_config, ids)
    files = result_files(source, trimmed.tokenizer, config, generation, None, trust_remote_code, notes, own=True)
    files[MAP_NAME] = map_file(alignment.source_of[: len(new_of)], old_rows)
    left_out = sorted(set(tokenizer.files) - set(trimmed.tokenizer.files))
    if left_out:
        notes.append(f"{', '.join(left_out)} left out: tokenizer.json says all, and these have the old ids")
    edit = Edit(source, tables, files)
    layout = lay_out(edit)
    written = layout.nbytes - (sum(shard.nbytes for shard in layout.shards if shard.untouched) if link else 0)
    check_output(out_path, sources=[source.folder], needed=written, force=force)
    memory, seconds = estimate(make_initializer("mean"), None, alignment, tokenizer.vocabulary, tables, written, 0)
    check_model = check == "full" or (check == "auto" and source.nbytes <= _MODEL_CHECK_SHARE * _memory())
    if check == "auto" and not check_model:
        notes.append("the model is too large to compare its outputs beside; --check full does it all the same")
    plan = TrimPlan(
        operation="trim",
        model=model,
        tokenizer=model,
        donor=None,
        out=str(out_path),
        family_before=tokenizer.family,
        family_after=tokenizer.family,
        method="",
        settings={},
        options={
            **choice.as_dict(),
            "like": None if like is None else str(like),
            "pad_to_multiple": pad_to_multiple,
            "held_out": list(held_out),
            "check": check,
            "backend": backend,
            "device": device,
            "link": link,
        },
        coverage=alignment.counts(),
        matrices=tuple(
            MatrixPlan(edit.names, edit.matrix.role, edit.matrix.dtype, edit.matrix.shape, edit.shape)
            for edit in tables
        ),
        parameters_before=sum(int(np.prod(info.shape)) for info in source.tensors.values()),
        parameters_after=layout.parameters,
        bytes_before=source.nbytes,
        bytes_after=layout.nbytes,
        bytes_written=written,
        memory_bytes=memory,
        seconds=seconds,
        tied=source.tied,
        bos_added=False,
        notes=tuple(notes),
        corpora=selection.corpora,
        least=selection.least,
    )
    return Trim(
        plan,
        source,
        tokenizer,
        trimmed,
        alignment,
        edit,
        layout,
        selection.sample,
        held,
        check_model,
        device,
        link,
        force,
        trust_remote_code,
    )


@dataclass(frozen=True)
class TrimmedTarget:
    """A tokenizer that a model is about to get, trimmed, with the configs of the model that owns it in the new ids.

    kept: int64[V_new], the row of each token in the owner's tables. map_file: the content of vocab_map.json.
    """

    tokenizer: Tokenizer
    kept: np.ndarray
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    map_file: bytes


def trim_target(
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    choice: Choice,
    notes: list[str],
    *,
    backend: Backend = LOCAL,
    progress: bool = False,
) -> TrimmedTarget:
    """Trim a tokenizer that a model is about to get. config, generation: of the model that owns it, {} where unknown.

    backend: where corpora are counted.
    """
    choice.check()
    vocabulary = tokenizer.vocabulary
    needed = {token for token in {**needed_ids(config), **needed_ids(generation)} if 0 <= token < len(vocabulary)}
    selection = _counted(choice, tokenizer, needed | _chat_ids(tokenizer, notes), notes, 0, None, backend, progress)
    trimmed = rebuilt(tokenizer, selection.ids.tolist())
    alignment = rows_of(trimmed.kept, selection.reason, [], len(vocabulary), len(vocabulary), None)
    new_of = {old: new for new, old in enumerate(trimmed.kept.tolist())}
    ids = KeptIds(alignment, vocabulary, trimmed.tokenizer.vocabulary, {}, notes, new_of)
    notes.append(f"the target vocabulary is trimmed first, from {len(vocabulary):,} to {len(trimmed.kept):,} ids")
    return TrimmedTarget(
        trimmed.tokenizer,
        trimmed.kept,
        edit_config(config, ids, len(trimmed.kept)) if config else {},
        edit_generation_config(generation, ids),
        map_file(trimmed.kept, len(vocabulary)),
    )


def _needed(source: Checkpoint, size: int, rows: int, notes: list[str]) -> tuple[set[int], list[int]]:
    """The ids that the configs need, and the rows past the tokenizer's ids among them."""
    named = {**needed_ids(source.config), **needed_ids(source.generation_config)}
    for token, key in named.items():
        if token >= rows:
            notes.append(f"the config names the id {token:,} (`{key}`), past the model's rows: it is left as it is")
    return {token for token in named if 0 <= token < size}, sorted(token for token in named if size <= token < rows)


def _chat_ids(tokenizer: Tokenizer, notes: list[str]) -> set[int]:
    texts = renderings(tokenizer)
    if tokenizer.chat_template is not None and not texts:
        notes.append("the chat template refuses plain conversations: name the tokens that it writes with --keep-token")
    return {token for text in texts for token in tokenizer.encode(text)}


def _counted(
    choice: Choice,
    tokenizer: Tokenizer,
    needed: set[int],
    notes: list[str],
    extra: int,
    multiple: int | None,
    backend: Backend,
    progress: bool,
) -> Selection:
    from tqdm import tqdm

    if choice.target_size is not None and multiple is not None and choice.target_size % multiple:
        # Padding counts: the tokens must leave room for the rows that fill up to the multiple.
        choice = replace(choice, target_size=choice.target_size // multiple * multiple)
    total = sum(find_corpus(spec).nbytes for spec in choice.corpora)
    with tqdm(total=total, desc="count", unit="B", unit_scale=True, disable=None if progress else True) as bar:
        return select(choice, tokenizer, needed, notes, extra_rows=extra, backend=backend, progress=bar.update)


def _like(folder: Path, tokenizer: Tokenizer, needed: set[int]) -> Selection:
    """Keep what another trim has kept. Raises InputError not-alike."""
    new_of, _, _ = read_map(folder)
    other = read_tokenizer(folder).vocabulary
    kept = {old: new for old, new in new_of.items() if new < len(other)}
    text = tokenizer.vocabulary.text
    wrong = [old for old, new in kept.items() if old >= len(text) or text[old] != other.text[new]]
    if wrong or not needed.issubset(kept):
        raise InputError(
            "not-alike",
            f"id {wrong[0]} is another token there"
            if wrong
            else f"the model needs the token {text[min(needed - set(kept))]!r}",
            "--like takes the result of a trim of a model with the same tokenizer",
            folder=folder,
        )
    ids = np.array(sorted(kept), np.int64)
    return Selection(ids, np.full(len(ids), Reason.FORCED, np.uint8), len(ids), (), ())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
