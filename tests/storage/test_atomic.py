"""Two runs that write at once, and what killed runs leave."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import makers
import pytest
from click.testing import CliRunner

from tokswap.cli import main
from tokswap.errors import OutputError
from tokswap.storage.atomic import CACHE, check_room, held, replace_file, scratch, temporary_copy, workspace
from tokswap.storage.resolve import set_alias, user_aliases


def change(number: int) -> None:
    for n in range(5):
        set_alias(f"name{number}-{n}", "somebody/model")


def test_changes_of_aliases_at_once_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path / "home"))
    processes = [get_context("fork").Process(target=change, args=(n,)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(user_aliases()) == 20
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["aliases.json"]


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path / "new", wait=False):
        with pytest.raises(OutputError, match="another run") as caught, held(tmp_path / "new", wait=False):
            pass
        assert caught.value.code == "output-in-use"
    with held(tmp_path / "new", wait=False):
        replace_file(tmp_path / "new" / "a", b"one")
    assert (tmp_path / "new" / "a").read_bytes() == b"one"


def test_a_training_into_a_folder_that_is_in_use(model_of: Callable[..., Path], tmp_path: Path) -> None:
    from soak.commands import TRAINING

    command = ["hypernet", "train", "--model", str(model_of("llama")), "--text", str(makers.TEXTS / "english.txt")]
    with held(tmp_path / "out"):
        result = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out"), "-q", *TRAINING])
    assert "[output-in-use]" in result.stderr


def test_a_killed_run_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    for name in ("killed", "living"):
        (tmp_path / f".cache.tokswap-{name}").mkdir()
        (tmp_path / f".cache.tokswap-{name}" / "unfinished.npy").touch()
    living = os.open(tmp_path / ".cache.tokswap-living", os.O_RDONLY)
    try:
        fcntl.flock(living, fcntl.LOCK_EX)
        with scratch(tmp_path / "cache") as folder:
            assert {path.name for path in tmp_path.iterdir()} == {".cache.tokswap-living", folder.name}
    finally:
        os.close(living)
    assert [path.name for path in tmp_path.iterdir()] == [".cache.tokswap-living"]


FULL_LIBRARIES = {
    "system": OSError(28, "No space left on device"),
    "safetensors": Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
}


@pytest.mark.parametrize("library", FULL_LIBRARIES)
def test_a_full_disk_in_the_words_of_a_library(library: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, workspace(tmp_path / "out", force=False, place=CACHE):
        raise FULL_LIBRARIES[library]
    assert caught.value.code == "disk-full"
    assert "TOKSWAP_CACHE" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_torch_cannot_finish(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, workspace(tmp_path / "out", force=False):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    assert caught.value.code == "cannot-write"
    with pytest.raises(RuntimeError, match="a bug"), workspace(tmp_path / "out", force=False):
        raise RuntimeError("a bug")


def test_a_check_names_the_option_of_its_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        check_room(tmp_path / "out", 1 << 60)
    assert "--out" in caught.value.hint
    with pytest.raises(OutputError) as caught:
        check_room(tmp_path / "out", 1 << 60, CACHE)
    assert caught.value.message.startswith("the cache needs")
    assert "TOKSWAP_CACHE" in caught.value.hint
    assert "--out" not in caught.value.hint


def test_temporary_files_that_cannot_be_written(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught, temporary_copy(fill):
        pass
    assert caught.value.code == "disk-full"
    assert "TMPDIR" in caught.value.hint
