from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tokswap.checkpoint import writer as writer_module
from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.edit import Edit, GroupRows, MatrixEdit, untied
from tokswap.checkpoint.layout import Layout, lay_out
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.checkpoint.writer import Hooks, write_result
from tokswap.errors import OutputError
from tokswap.storage import atomic as workspace_module
from tokswap.storage.atomic import check_output

V, D = 12, 4
SOURCE_OF = np.array([3, -1, 0, 11, 11, -1, 5], np.int32)
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INPUT, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "final_logits_bias"
FIRST, SECOND, THIRD = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))


def weights(dtype: torch.dtype = torch.float32, *, head: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """Vocabulary matrices of 12 rows, and tensors of other types and sizes between them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        INPUT: torch.randn(V, D, generator=generator).to(dtype),
        BIAS: torch.randn(1, V, generator=generator).to(dtype),
        "model.layers.0.weight": torch.randn(5, 6, generator=generator).to(dtype),
        "model.norm.weight": torch.randn(D, generator=generator),
        "model.mask": torch.tensor([True, False, True]),
        "model.step": torch.tensor(7),
    }
    if head:
        tensors[HEAD] = torch.randn(V, D, generator=generator).to(dtype)
    return tensors


def save(folder: Path, tensors: Mapping[str, torch.Tensor], *, shards: bool = False, **config: Any) -> Path:
    folder.mkdir(parents=True)
    head = HEAD in tensors
    known = {"architectures": ["LlamaForCausalLM"], "vocab_size": V, "hidden_size": D, "tie_word_embeddings": not head}
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    if not shards:
        save_file(dict(tensors), folder / "model.safetensors", {"format": "pt", "note": "Ω"})
        return folder
    place = {name: FIRST if name == INPUT else THIRD if name in (HEAD, BIAS) else SECOND for name in tensors}
    for file in sorted(set(place.values())):
        save_file({n: t for n, t in tensors.items() if place[n] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1, "total_parameters": 1, "by": "someone"}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def new_rows(edit: MatrixEdit) -> np.ndarray:
    count = int((edit.source_of < 0).sum())
    return np.random.default_rng(len(edit.name)).standard_normal((count, edit.matrix.width)).astype(np.float32)


def solve(group: tuple[MatrixEdit, ...]) -> GroupRows:
    return {edit.name: new_rows(edit) for edit in group}


def edit_of(checkpoint: Checkpoint, source_of: np.ndarray = SOURCE_OF) -> Edit:
    matrices = tuple(MatrixEdit(matrix, matrix.names, source_of) for matrix in checkpoint.matrices)
    config = {**checkpoint.config, "vocab_size": len(source_of)}
    return Edit(checkpoint, matrices, Configs(config, generation={}, tokenizer={}), files={})


def write(folder: Path, out: Path, make: Callable[[Edit], Edit] = lambda edit: edit, **options: Any) -> Layout:
    edit = make(edit_of(open_checkpoint(folder)))
    layout = lay_out(edit)
    write_result(edit, layout, out, solve, **options)
    return layout


def expected(old: torch.Tensor, name: str, source_of: np.ndarray = SOURCE_OF, axis: int = 0) -> torch.Tensor:
    """The matrix that an edit must make, by plain torch indexing."""
    rows = old.movedim(axis, 0)
    copied, missing = torch.from_numpy(source_of.clip(0)).long(), source_of < 0
    result = rows[copied].clone()
    new = np.random.default_rng(len(name)).standard_normal((int(missing.sum()), rows[0].numel())).astype(np.float32)
    result[torch.from_numpy(missing)] = torch.from_numpy(new).to(old.dtype).reshape(-1, *rows.shape[1:])
    return result.movedim(0, axis)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def state(folder: Path) -> dict[str, str]:
    """File -> hash, for everything in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def beside(out: Path) -> list[str]:
    """What lies in the output's folder besides the output and the source."""
    return sorted(path.name for path in out.parent.iterdir() if path.name not in (out.name, "source"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "source", weights())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save(tmp_path / "source", weights(), shards=True)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output path. No test may leave anything else beside it, or touch the source."""
    source = tmp_path / "source"
    before: dict[str, str] = {}
    folder = tmp_path / "out"
    if source.exists():
        before = state(source)
    yield folder
    assert beside(folder) == []
    if before:
        assert state(source) == before


# What is written.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [False, True])
def test_rows_are_copied_bit_for_bit_and_computed_rows_cast_once(dtype: str, shards: bool, tmp_path: Path) -> None:
    old = weights(DTYPES[dtype])
    write(save(tmp_path / "source", old, shards=shards), tmp_path / "out")
    new = {
        name: tensor for path in (tmp_path / "out").glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    assert set(new) == set(old)
    for name, tensor in old.items():
        axis = 1 if name == BIAS else 0
        want = expected(tensor, name, axis=axis) if name in (INPUT, HEAD, BIAS) else tensor
        assert new[name].dtype == tensor.dtype
        assert new[name].shape == want.shape
        assert bits(new[name]) == bits(want), name


def test_non_finite_rows_are_copied_too(tmp_path: Path) -> None:
    old = weights(torch.bfloat16)
    old[INPUT].view(torch.int16)[3] = torch.tensor([0x7FC1, 0x7F81, -0x80, 0x7F80], dtype=torch.int16)
    write(save(tmp_path / "source", old), tmp_path / "out")
    assert bits(load_file(tmp_path / "out" / "model.safetensors")[INPUT][0]) == bits(old[INPUT][3])


@pytest.mark.parametrize("step", [1, 8, 100])
def test_blocks_of_any_size_make_the_same_file(
    step: int, source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source, tmp_path / "whole")
    monkeypatch.setattr(writer_module, "_ROWS_BYTES", step)
    monkeypatch.setattr(writer_module, "_COPY_BYTES", step)
    write(source, out)
    assert state(out) == state(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")


def test_the_header_keeps_its_metadata_and_its_order(source: Path, out: Path) -> None:
    write(source, out)
    with safe_open(source / "model.safetensors", "pt") as old, safe_open(out / "model.safetensors", "pt") as new:
        assert new.metadata() == old.metadata() == {"format": "pt", "note": "Ω"}
    order = [[info.name for info in open_checkpoint(folder).shards[0].tensors] for folder in (source, out)]
    assert order[0] == order[1]


def test_the_header_ends_on_eight_bytes(source: Path, out: Path) -> None:
    write(source, out)
    assert int.from_bytes((out / "model.safetensors").read_bytes()[:8], "little") % 8 == 0


def test_the_layout_foretells_the_files(sharded: Path, out: Path) -> None:
    written: list[int] = []
    layout = write(sharded, out, hooks=Hooks(progress=written.append))
    sizes = {path.name: path.stat().st_size for path in out.glob("*.safetensors")}
    assert sizes == {shard.source.path.name: shard.nbytes for shard in layout.shards}
    assert layout.nbytes == sum(sizes.values()) == open_checkpoint(out).nbytes
    assert layout.parameters == sum(
        tensor.numel() for path in out.glob("*.safetensors") for tensor in load_file(path).values()
    )
    headers = sum(len(shard.header) for shard in layout.shards)
    assert sum(written) == layout.nbytes - headers


def test_the_index_says_what_is_there(sharded: Path, out: Path) -> None:
    layout = write(sharded, out)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    new = {path.name: load_file(path) for path in sorted(out.glob("*.safetensors"))}
    assert index["weight_map"] == {name: file for file, tensors in new.items() for name in tensors}
    assert index["metadata"] == {
        "total_size": sum(t.numel() * t.element_size() for tensors in new.values() for t in tensors.values()),
        "total_parameters": layout.parameters,
        "by": "someone",
    }
    assert open_checkpoint(out).weights.index == index


def test_one_file_gets_no_index(source: Path, out: Path) -> None:
    write(source, out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer_config.json"]


def test_an_index_without_metadata_gets_its_size(sharded: Path, tmp_path: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": json.loads(path.read_text())["weight_map"]}))
    layout = write(sharded, tmp_path / "out")
    index = json.loads((tmp_path / "out" / path.name).read_text())
    assert index["metadata"] == {"total_size": layout.nbytes - sum(_header_size(p) for p in tmp_path.glob("out/m*rs"))}


def _header_size(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("link", [False, True])
def test_an_untouched_shard_is_copied_or_linked(link: bool, sharded: Path, out: Path) -> None:
    layout = write(sharded, out, link=link)
    assert [shard.source.path.name for shard in layout.shards if shard.untouched] == [SECOND]
    assert (out / SECOND).read_bytes() == (sharded / SECOND).read_bytes()
    assert (out / SECOND).samefile(sharded / SECOND) is link
    assert not (out / FIRST).samefile(sharded / FIRST)


def test_a_shard_behind_a_link_is_linked_to_its_file(sharded: Path, out: Path, tmp_path: Path) -> None:
    blob = tmp_path / "source" / "blob"
    (sharded / SECOND).rename(blob)
    (sharded / SECOND).symlink_to("blob")
    write(sharded, out, link=True)
    assert not (out / SECOND).is_symlink()
    assert (out / SECOND).samefile(blob)
    blob.rename(sharded / "gone")
    assert open_checkpoint(out).tensors  # the result needs nothing of the source's folder
    (sharded / "gone").rename(blob)
    (sharded / SECOND).unlink()
    blob.rename(sharded / SECOND)


def test_where_no_link_can_be_made_the_shard_is_copied(
    sharded: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    write(sharded, out, link=True)
    assert (out / SECOND).read_bytes() == (sharded / SECOND).read_bytes()


@pytest.mark.parametrize("error", [OSError(errno.EXDEV, ""), OSError(errno.ENOSYS, ""), AttributeError()])
def test_a_kernel_without_copy_file_range(
    error: Exception, sharded: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sharded, tmp_path / "other")

    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "copy_file_range", refuse)
    write(sharded, out)
    assert state(out) == state(tmp_path / "other")
    shutil.rmtree(tmp_path / "other")


def test_files_and_folders_travel_along(source: Path, out: Path, tmp_path: Path) -> None:
    extra = source / "1_Pooling"
    extra.mkdir()
    (extra / "config.json").write_text("{}")

    def more(edit: Edit) -> Edit:
        files = {**edit.files, "tokenizer.json": b"{}", "1_Pooling": extra, "LICENSE": source / "config.json"}
        return dataclasses.replace(edit, files=files)

    write(source, out, more, hooks=Hooks(last_files=lambda: {"tokswap.json": b"report"}))
    assert (out / "tokenizer.json").read_bytes() == b"{}"
    assert (out / "1_Pooling" / "config.json").read_text() == "{}"
    assert (out / "LICENSE").read_bytes() == (source / "config.json").read_bytes()
    assert (out / "tokswap.json").read_bytes() == b"report"
    shutil.rmtree(extra)


def test_rows_are_computed_once_a_matrix(tmp_path: Path) -> None:
    old = weights(head=False)
    old["model.shared.weight"] = old[INPUT].clone()
    asked: list[tuple[str, ...]] = []

    def count(group: tuple[MatrixEdit, ...]) -> GroupRows:
        asked.extend(edit.names for edit in group)
        return solve(group)

    edit = edit_of(open_checkpoint(save(tmp_path / "source", old)))
    write_result(edit, lay_out(edit), tmp_path / "out", count)
    assert sorted(asked) == sorted(matrix.names for matrix in edit.matrices)
    new = load_file(tmp_path / "out" / "model.safetensors")
    assert bits(new[INPUT]) == bits(new["model.shared.weight"])


def test_computed_rows_are_let_go_when_their_group_is_written(source: Path, out: Path) -> None:
    """An untied model would otherwise hold the rows of both matrices, where the plan counts those of one."""
    import gc
    import weakref

    class Rows:
        def __init__(self, edit: MatrixEdit) -> None:
            self.rows = new_rows(edit)

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, part: slice) -> np.ndarray:
            return self.rows[part]

    alive: list[weakref.ref[Rows]] = []
    held: list[int] = []

    def make(group: tuple[MatrixEdit, ...]) -> GroupRows:
        gc.collect()
        held.append(sum(ref() is not None for ref in alive))
        rows = {edit.name: Rows(edit) for edit in group}
        alive.extend(map(weakref.ref, rows.values()))
        return rows

    edit = edit_of(open_checkpoint(source))
    write_result(edit, lay_out(edit), out, make)
    assert [[matrix.name for matrix in group] for group in edit.groups] == [[INPUT], [HEAD, BIAS]]
    assert len(alive) == 3
    assert held == [0, 0]


def test_the_wrong_number_of_computed_rows_is_a_bug_and_not_a_broken_matrix(source: Path, out: Path) -> None:
    edit = edit_of(open_checkpoint(source))
    with pytest.raises(ValueError, match="2 rows of"):
        write_result(edit, lay_out(edit), out, lambda group: {matrix.name: new_rows(matrix)[:1] for matrix in group})
    assert not out.exists()


def test_a_shorter_per_layer_matrix_reads_its_first_row_for_the_rest(tmp_path: Path) -> None:
    """Gemma-3n has fewer per-layer rows than tokens, and reads row 0 for those past the end."""
    old = weights(head=False) | {"model.embed_tokens_per_layer.weight": torch.randn(8, 6)}
    write(save(tmp_path / "source", old, vocab_size_per_layer_input=8), tmp_path / "out")
    new = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens_per_layer.weight"]
    within = np.where(SOURCE_OF < 8, SOURCE_OF, 0)
    name = "model.embed_tokens_per_layer.weight"
    assert bits(new) == bits(expected(old[name], name, within))


@pytest.mark.parametrize("architecture", makers.ARCHITECTURES)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_model_of_shuffled_tokens_computes_the_same(
    architecture: str, shards: int, model_of: Callable[..., Path], out: Path
) -> None:
    """Every vocabulary matrix of every architecture is moved, and nothing else: logits only change places."""
    source = model_of(architecture, shards=shards)
    before = state(source)
    checkpoint = open_checkpoint(source)
    rows, kept = checkpoint.matrix("input").rows, 20  # type: ignore[union-attr]
    order = np.concatenate([np.arange(kept), np.random.default_rng(0).permutation(np.arange(kept, rows))])
    edit = edit_of(checkpoint, order.astype(np.int32))
    write_result(edit, lay_out(edit), out, solve)
    assert state(source) == before
    new = torch.from_numpy(np.random.default_rng(1).integers(kept, rows, (1, 9)))
    first, second = logits(source, torch.from_numpy(order)[new]), logits(out, new)
    assert first.std() > 0
    torch.testing.assert_close(second, first[..., torch.from_numpy(order)], rtol=1e-4, atol=1e-5)


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    decoder = {"decoder_input_ids": ids.flip(1)} if config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model(input_ids=ids, **decoder).logits  # type: ignore[no-any-return]


# Matrices that appear and disappear.


@pytest.mark.parametrize("shards", [False, True])
def test_untying_adds_a_head(shards: bool, tmp_path: Path) -> None:
    old = weights(torch.bfloat16, head=False)

    def split(edit: Edit) -> Edit:
        parts = [part for m in edit.matrices for part in (untied(m, HEAD) if m.matrix.role == "input" else (m,))]
        return dataclasses.replace(edit, matrices=tuple(parts))

    write(save(tmp_path / "source", old, shards=shards), tmp_path / "out", split)
    (tmp_path / "out" / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "vocab_size": 7, "tie_word_embeddings": False})
    )
    result = open_checkpoint(tmp_path / "out")
    assert not result.tied
    assert result.tensors[HEAD].file == result.tensors[INPUT].file
    new = load_file(result.path_of(HEAD))
    assert bits(new[INPUT]) == bits(expected(old[INPUT], INPUT))
    assert bits(new[HEAD]) == bits(expected(old[INPUT], HEAD))


@pytest.mark.parametrize("shards", [False, True])
def test_tying_drops_the_head(shards: bool, tmp_path: Path) -> None:
    def join(edit: Edit) -> Edit:
        return dataclasses.replace(edit, matrices=tuple(m for m in edit.matrices if m.matrix.role != "output"))

    write(save(tmp_path / "source", weights(), shards=shards), tmp_path / "out", join)
    new = [name for path in (tmp_path / "out").glob("*.safetensors") for name in load_file(path)]
    assert sorted(new) == sorted(name for name in weights() if name != HEAD)
    assert HEAD not in open_checkpoint(tmp_path / "out").tensors


def test_a_shard_that_loses_everything_is_still_a_file(tmp_path: Path) -> None:
    """Its name is part of the numbering of the others."""
    tensors = {name: tensor for name, tensor in weights().items() if name != BIAS}

    def join(edit: Edit) -> Edit:
        return dataclasses.replace(edit, matrices=tuple(m for m in edit.matrices if m.matrix.role != "output"))

    write(save(tmp_path / "source", tensors, shards=True), tmp_path / "out", join)
    assert load_file(tmp_path / "out" / THIRD) == {}
    assert sorted(open_checkpoint(tmp_path / "out").tensors) == sorted(name for name in tensors if name != HEAD)


@pytest.mark.parametrize("rows", [1, 12, 40])
def test_any_number_of_rows(rows: int, source: Path, out: Path) -> None:
    source_of = np.resize(SOURCE_OF, rows).astype(np.int32)
    edit = edit_of(open_checkpoint(source), source_of)
    write_result(edit, lay_out(edit), out, solve)
    new = load_file(out / "model.safetensors")
    assert bits(new[INPUT]) == bits(expected(weights()[INPUT], INPUT, source_of))
    assert new[BIAS].shape == (1, rows)


# Where a result may go.


def refusal(out: Path, *, sources: list[Path], needed: int = 1, force: bool = False) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(out, sources=sources, needed=needed, force=force)
    return caught.value.code


@pytest.mark.parametrize("name", [".", "sub", "sub/deeper", "..", "../..", "../source", "other/../."])
@pytest.mark.parametrize("force", [False, True])
def test_the_output_stays_out_of_the_source(name: str, force: bool, source: Path) -> None:
    assert refusal(source / name, sources=[source], force=force) == "output-is-source"


def test_a_link_to_the_source_is_the_source(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert refusal(tmp_path / "link", sources=[source], force=True) == "output-is-source"
    assert refusal(tmp_path / "link" / "sub", sources=[source]) == "output-is-source"
    assert refusal(source, sources=[tmp_path / "link"]) == "output-is-source"
    (tmp_path / "link").unlink()


def test_every_input_is_protected(source: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "donor", weights())
    assert refusal(other / "x", sources=[source, other]) == "output-is-source"


def _file(path: Path) -> None:
    path.write_text("precious")


def _model(path: Path) -> None:
    save(path, weights(seed=1))


def _notes(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("precious")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("there", "without_force", "with_force"),
    [
        (lambda path: None, None, None),
        (Path.mkdir, None, None),
        (_model, "output-exists", None),
        (_file, "output-exists", "not-a-checkpoint"),
        (_notes, "output-exists", "not-a-checkpoint"),
        (_dangling, "output-exists", "output-exists"),
    ],
    ids=["nothing", "an empty folder", "a model", "a file", "another folder", "a dangling link"],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_stands_at_the_output(
    there: Callable[[Path], object],
    without_force: str | None,
    with_force: str | None,
    force: bool,
    source: Path,
    tmp_path: Path,
) -> None:
    target = tmp_path / "out"
    there(target)
    wanted = with_force if force else without_force
    if wanted is not None:
        assert refusal(target, sources=[source], force=force) == wanted
    else:
        check_output(target, sources=[source], needed=1, force=force)
        write(source, target, force=force)
        assert bits(load_file(target / "model.safetensors")[INPUT]) == bits(expected(weights()[INPUT], INPUT))
        assert not (target / "thesis.tex").exists()
    assert beside(target) == []


def test_a_link_that_leads_nowhere_is_named(source: Path, tmp_path: Path) -> None:
    """The error called it an output that exists."""
    _dangling(tmp_path / "out")
    with pytest.raises(OutputError, match="which is not there"):
        check_output(tmp_path / "out", sources=[source], needed=1, force=False)


def test_a_disk_that_is_too_small_is_known_before(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(Path(path))
        return shutil._ntuple_diskusage(100, 50, 50)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    out = tmp_path / "not" / "there" / "yet"
    assert refusal(out, sources=[source], needed=51) == "disk-full"
    assert asked == [tmp_path]
    check_output(out, sources=[source], needed=50, force=False)


def test_a_folder_that_is_not_writable_is_known_before(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    assert refusal(closed / "deep" / "out", sources=[source]) == "cannot-write"
    check_output(tmp_path / "out", sources=[source], needed=1, force=False)


def test_a_file_where_a_folder_should_be_is_known_before(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "out", sources=[source]) == "cannot-write"
    with pytest.raises(OutputError) as caught:
        write(source, tmp_path / "file" / "out")
    assert caught.value.code == "cannot-write"


def test_missing_parents_are_made(source: Path, tmp_path: Path) -> None:
    write(source, tmp_path / "a" / "b" / "out")
    assert open_checkpoint(tmp_path / "a" / "b" / "out").tensors


def test_a_relative_output(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    check_output(Path("out"), sources=[source], needed=1, force=False)
    write(source, Path("out"))
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == ["out"]


@pytest.mark.parametrize("full", [False, True])
def test_a_link_to_a_folder_stays_a_link(full: bool, source: Path, tmp_path: Path) -> None:
    """As where ./out leads to a larger disk."""
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.parent.mkdir()
    (_model if full else Path.mkdir)(real)
    link.symlink_to(real)
    check_output(link, sources=[source], needed=1, force=full)
    write(source, link, force=full)
    assert link.is_symlink()
    assert open_checkpoint(real).config["vocab_size"] == len(SOURCE_OF)
    assert beside(real) == []
    assert beside(link) == ["disk"]


def test_the_result_has_the_rights_of_any_new_folder(source: Path, out: Path) -> None:
    old = os.umask(0o027)
    try:
        write(source, out)
    finally:
        os.umask(old)
    assert out.stat().st_mode & 0o777 == 0o750


# What goes wrong in the middle.


class Full(OSError):
    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device")


def _fail_copy(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    real, calls = os.copy_file_range, iter(range(100))
    monkeypatch.setattr(writer_module, "_COPY_BYTES", 64)

    def fail(*arguments: Any) -> int:
        if next(calls) == 1:
            raise error
        return real(*arguments)

    monkeypatch.setattr(os, "copy_file_range", fail)


def _fail_plain_write(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def no_range(*arguments: Any) -> int:
        raise OSError(errno.ENOSYS, "")

    def fail(*arguments: Any) -> int:
        raise error

    monkeypatch.setattr(os, "copy_file_range", no_range)
    monkeypatch.setattr(os, "write", fail)


def _fail_matrix(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(writer_module, "_write_all", fail)


def _fail_sync(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """A disk may say so as late as this."""
    real, calls = os.fsync, iter(range(100))

    def fail(handle: int) -> None:
        if next(calls) == 3:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", fail)


FAILURES = {"copying": _fail_copy, "writing": _fail_plain_write, "a matrix": _fail_matrix, "fsync": _fail_sync}


@pytest.mark.parametrize("where", FAILURES)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Full(), "disk-full"),
        (OSError(errno.EDQUOT, "quota"), "disk-full"),
        (OSError(errno.EIO, "I/O error"), "cannot-write"),
    ],
    ids=["full", "quota", "broken"],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_failure_in_the_middle_leaves_what_was_there(
    where: str, error: OSError, code: str, force: bool, sharded: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if force:
        _model(out)
    before = state(out)
    with monkeypatch.context() as patch:
        FAILURES[where](patch, error)
        with pytest.raises(OutputError) as caught:
            write(sharded, out, force=force)
    assert caught.value.code == code
    assert state(out) == before
    assert out.exists() is force
    assert beside(out) == []
    write(sharded, out, force=force)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug"), MemoryError()])
@pytest.mark.parametrize("force", [False, True])
def test_any_other_end_leaves_what_was_there(error: BaseException, force: bool, sharded: Path, out: Path) -> None:
    if force:
        _model(out)
    before = state(out)

    def stop(n: int) -> None:
        raise error

    with pytest.raises(type(error)):
        write(sharded, out, force=force, hooks=Hooks(progress=stop))
    assert state(out) == before
    assert beside(out) == []


def test_a_source_that_shrinks_is_not_copied_for_ever(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x" * 100)
    with open(tmp_path / "short", "rb") as reader, open(tmp_path / "copy", "wb") as writer:
        writer_module._copy_range(reader.fileno(), writer.fileno(), 40, 60)
        with pytest.raises(OSError, match="ends before its header says"):
            writer_module._copy_range(reader.fileno(), writer.fileno(), 40, 61)
    assert (tmp_path / "copy").read_bytes() == b"x" * 120


# An old result that is replaced.


@pytest.mark.parametrize("atomic", [True, False])
def test_force_replaces_a_model_as_a_whole(
    atomic: bool, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(out)
    (out / "stale.json").write_text("{}")
    if not atomic:
        monkeypatch.setattr(workspace_module, "_exchange", lambda first, second: False)
    write(source, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer_config.json"]
    assert open_checkpoint(out).config["vocab_size"] == len(SOURCE_OF)


def test_without_an_atomic_exchange_a_failed_rename_is_undone(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(out)
    before = state(out)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith("-old"):
            raise OSError(errno.EIO, "I/O error")
        return real(self, target)

    monkeypatch.setattr(workspace_module, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError):
        write(source, out, force=True)
    assert state(out) == before


def test_an_old_result_that_a_killed_run_had_set_aside_comes_back(source: Path, out: Path) -> None:
    aside = out.with_name(f".{out.name}.tokswap-abc-old")
    _model(aside)
    before = state(aside)
    with pytest.raises(RuntimeError):
        write(source, out, force=True, hooks=Hooks(progress=_bug))
    assert state(out) == before


def _bug(n: int) -> None:
    raise RuntimeError


def test_an_output_that_appears_meanwhile_is_not_overwritten(source: Path, out: Path) -> None:
    def appear() -> dict[str, bytes]:
        _notes(out)
        return {}

    with pytest.raises(OutputError) as caught:
        write(source, out, hooks=Hooks(last_files=appear))
    assert caught.value.code == "output-exists"
    assert (out / "thesis.tex").read_text() == "precious"


def test_of_two_runs_at_once_one_wins(source: Path, out: Path) -> None:
    barrier = threading.Barrier(2, timeout=30)
    codes: list[str] = []

    def meet() -> dict[str, bytes]:
        barrier.wait()
        return {}

    def run() -> None:
        try:
            write(source, out, hooks=Hooks(last_files=meet))
            codes.append("done")
        except OutputError as error:
            codes.append(error.code)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["done", "output-exists"]
    assert open_checkpoint(out).config["vocab_size"] == len(SOURCE_OF)


# What a killed run leaves.


@pytest.mark.parametrize("name", ["out", "m[v2]", "a*b", "ü x"])
def test_the_leavings_of_a_killed_run_are_removed(name: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    stale = tmp_path / f".{name}.tokswap-x1y2"
    _model(stale)
    write(source, out)
    assert beside(out) == []


def test_the_workspace_of_a_living_run_is_left_alone(source: Path, tmp_path: Path) -> None:
    out, living = tmp_path / "out", tmp_path / ".out.tokswap-living"
    _model(living)
    before = state(living)
    handle = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        write(source, out)
        assert state(living) == before
    finally:
        os.close(handle)
    write(source, out, force=True)
    assert not living.exists()


def test_the_workspaces_of_other_outputs_are_left_alone(source: Path, tmp_path: Path) -> None:
    for name in (".other.tokswap-x", ".out2.tokswap-x", "out.tokswap-x"):
        (tmp_path / name).mkdir()
    write(source, tmp_path / "out")
    assert beside(tmp_path / "out") == [".other.tokswap-x", ".out2.tokswap-x", "out.tokswap-x"]


def test_a_workspace_that_is_swept_before_it_is_locked_is_made_anew(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = tempfile.mkdtemp, []

    def swept(*arguments: Any, **options: Any) -> str:
        made.append(real(*arguments, **options))
        if len(made) == 1:
            workspace_module._sweep(out)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    write(source, out)
    assert len(made) == 2
    assert open_checkpoint(out).tensors


WRITER = """
import shutil, signal, sys, time
from pathlib import Path
import numpy as np
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.edit import Edit, MatrixEdit
from tokswap.checkpoint.layout import lay_out
from tokswap.checkpoint.writer import Hooks, write_result

def write(source, out, version, **options):
    checkpoint = open_checkpoint(source)
    order = np.arange(12, dtype=np.int32)[:: -1 if version else 1].copy()
    matrices = tuple(MatrixEdit(matrix, matrix.names, order) for matrix in checkpoint.matrices)
    edit = Edit(checkpoint, matrices, Configs(checkpoint.config, {}, {}), files={"version": b"%d" % version})
    solve = lambda group: {edit.name: np.zeros((0, edit.matrix.width), np.float32) for edit in group}
    write_result(edit, lay_out(edit), out, solve, **options)

def wait(_):
    print("in the middle", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    source, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if mode == "wait":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
        write(source, out, 1, hooks=Hooks(progress=wait), force=out.exists())
    if mode == "force":
        write(source, out, 0)
    print("ready", flush=True)
    for n in range(10_000):
        write(source, out, n % 2, force=mode == "force")
        if mode == "new":
            out.rename(out.parent / "trash" / str(n))
            shutil.rmtree(out.parent / "trash" / str(n - 2), ignore_errors=True)
"""
"""A program that writes one checkpoint after another, in two versions, until it is stopped."""


def start(source: Path, out: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(source), str(out), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == ("in the middle" if mode == "wait" else "ready")
    return process


@pytest.mark.parametrize("mode", ["new", "force"])
def test_kill_9_at_any_moment(mode: str, tmp_path: Path) -> None:
    """The result is absent or whole (with force always whole), and the next run clears away what was left."""
    big = weights() | {f"model.layers.{n}.mlp.weight": torch.randn(1000, 3000) for n in range(2)}
    source = save(tmp_path / "source", big, shards=True)
    before = state(source)
    program: dict[str, Any] = {"__name__": "writer"}
    exec(WRITER, program)
    whole = {}
    for version in (0, 1):
        program["write"](source, tmp_path / "reference", version, force=version == 1)
        whole[version] = state(tmp_path / "reference")
    assert whole[0] != whole[1]
    out = tmp_path / "work" / "out"
    (out.parent / "trash").mkdir(parents=True)
    moments = random.Random(mode)
    for _ in range(6):
        with start(source, out, mode) as process:
            time.sleep(moments.uniform(0, 0.2))
            process.kill()
            process.communicate()
        assert out.exists() or mode == "new"
        if out.exists():
            assert state(out) == whole[int((out / "version").read_bytes())]
        program["write"](source, out, 1, force=out.exists())
        assert sorted(path.name for path in out.parent.iterdir()) == ["out", "trash"]
        assert state(out) == whole[1]
        shutil.rmtree(out)
    assert state(source) == before


@pytest.mark.parametrize("mode", ["new", "force"])
def test_kill_9_in_the_middle_of_a_write(mode: str, source: Path, out: Path) -> None:
    """At a moment that does not depend on how fast this machine is: the writer sleeps there."""
    program: dict[str, Any] = {"__name__": "writer"}
    exec(WRITER, program)
    if mode == "force":
        program["write"](source, out, 0)
    before = state(out) if mode == "force" else None
    with start(source, out, "wait") as process:
        process.kill()
        process.communicate()
    assert len(list(out.parent.glob(".out.tokswap-*"))) == 1
    assert (state(out) if out.exists() else None) == before
    program["write"](source, out, 1, force=mode == "force")
    assert not list(out.parent.glob(".out.tokswap-*"))
    assert (out / "version").read_bytes() == b"1"


def test_an_interrupt_leaves_nothing_behind(source: Path, out: Path) -> None:
    with start(source, out, "wait") as process:
        assert [path.name.startswith(".out.tokswap-") for path in out.parent.iterdir()].count(True) == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not out.exists()
