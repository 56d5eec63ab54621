"""GGUF files: converted once, for their content; a conversion that fails leaves nothing."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from soak.good_files import make_gguf

from tokswap.errors import InputError, OutputError, TokswapError
from tokswap.storage.gguf import convert as gguf
from tokswap.storage.resolve import resolve_model, resolve_tokenizer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, a cache and a working folder of the test's own."""
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


def refusal(call: Callable[..., object], *arguments: object) -> TokswapError:
    with pytest.raises(TokswapError) as caught:
        call(*arguments)
    return caught.value


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    path = tmp_path / "cwd" / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(range(64)))
    return str(path)


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.name != "gguf"]


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_gguf_needs_its_extra(package: str, damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = refusal(resolve_model, damaged)
    assert error.code == "missing-extra"
    assert "tokswap[gguf]" in error.hint
    assert cached(tmp_path) == []


@pytest.mark.filterwarnings("default")
def test_a_damaged_gguf_file_is_refused(damaged: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    for resolve in (resolve_model, resolve_tokenizer):
        error = refusal(resolve, damaged)
        assert isinstance(error, InputError)
        assert error.code == "bad-gguf"
        assert error.where["file"] == damaged
    assert cached(tmp_path) == []


def test_a_gguf_file_is_converted_once_for_its_content(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[Path] = []

    def convert(path: Path, folder: Path) -> None:
        converted.append(path)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf, "_convert", convert)
    first = resolve_model(damaged)
    assert (first / "config.json").read_text() == "{}"
    assert first.parent == tmp_path / "cache" / "gguf"
    assert resolve_tokenizer(damaged) == resolve_model(damaged) == first
    assert len(converted) == 1
    Path(damaged).write_bytes(b"other")
    assert resolve_model(damaged) not in (first, None)
    assert len(converted) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError()])
def test_a_conversion_that_stops_leaves_nothing(
    error: BaseException, damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(path: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise error

    monkeypatch.setattr(gguf, "_convert", convert)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        resolve_model(damaged)
    assert cached(tmp_path) == []


# Killed runs, full disks and damaged files.


def test_a_killed_conversion_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "_convert", lambda path, folder: (folder / "config.json").write_text("{}"))
    done = gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache")
    done.rename(tmp_path / "cache" / f".{done.name}.tokswap-killed")
    assert gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache") == done
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [done.name]


def test_a_conversion_that_another_run_has_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    made = []

    def convert(path: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        if not made:
            made.append(folder)
            gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache")

    monkeypatch.setattr(gguf, "_convert", convert)
    done = gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [done.name]


def test_a_full_disk_under_a_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(path: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "_convert", convert)
    error = refusal(gguf.dequantised, tmp_path / "model.gguf", tmp_path / "cache")
    assert error.code == "disk-full"
    assert "TOKSWAP_CACHE" in error.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_conversion_of_more_layers_than_any_file_holds(tmp_path: Path) -> None:
    make_gguf(tmp_path)
    data = (tmp_path / "model.gguf").read_bytes()
    at = data.index(b"llama.block_count") + len(b"llama.block_count") + 4  # past the type of the value
    (tmp_path / "model.gguf").write_bytes(data[:at] + (1 << 28).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(InputError, match="268,435,456 layers, but holds only 11 tensors") as found:
        gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache")
    assert found.value.code == "bad-gguf"


def test_a_full_disk_under_the_weights_of_a_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    def save(self: object, folder: Path) -> None:
        raise Exception("No space left on device (os error 28)")  # the exception of the safetensors library

    make_gguf(tmp_path)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    error = refusal(gguf.dequantised, tmp_path / "model.gguf", tmp_path / "cache")
    assert error.code == "disk-full"
    assert "TOKSWAP_CACHE" in error.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_conversions_of_older_releases_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They kept neither the pre-tokenizer nor user-defined tokens. Their folders end with the digest alone."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    old = tmp_path / "cache" / f"model-{hashlib.sha256(b'GGUF').hexdigest()[:16]}"
    old.mkdir(parents=True)
    monkeypatch.setattr(gguf, "_convert", lambda path, folder: (folder / "config.json").write_text("{}"))
    assert gguf.dequantised(tmp_path / "model.gguf", tmp_path / "cache") != old
