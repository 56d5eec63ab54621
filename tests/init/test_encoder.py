"""Encoders from outside: what is read, what is kept, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest

from tokswap.errors import TokswapError
from tokswap.init.resources import encoder as module
from tokswap.init.resources.encoder import encode, find_encoder
from tokswap.storage.resolve import cache_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers.make_encoder(tmp_path_factory.mktemp("encoder") / "made")


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder to damage, and an empty cache."""
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    return makers.copy_model(made, tmp_path / "encoder")


def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Watch how often an encoder is loaded."""
    found: list[Path] = []
    real = module._load

    def load(folder: Path, device: str) -> Any:
        found.append(folder)
        return real(folder, device)

    monkeypatch.setattr(module, "_load", load)
    return found


def test_vectors_are_the_librarys(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["house", "a much longer text than the others", "é", "at"]
    (vectors,) = encode(str(folder), [texts])
    wanted = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_text_without_pieces_has_no_vector(folder: Path) -> None:
    """Else all such texts were the same, and each other's nearest neighbours."""
    vectors = encode(str(folder), [["house", "\u2603", "house \u2603", "\U0001f600"]])[0]
    assert [bool(row.any()) for row in vectors] == [True, False, False, False]


def test_vectors_are_kept_by_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = loads(monkeypatch)
    first, second = encode(str(folder), [["a", "b"], ["c"]])
    assert len(seen) == 1, "one loading for all lists"
    moved = folder.rename(folder.with_name("renamed"))
    again = encode(str(moved), [["a", "b"]])[0]
    np.testing.assert_array_equal(first, again)
    assert len(seen) == 1
    encode(str(moved), [["a", "bc"]])
    assert len(seen) == 2, "other texts"
    (moved / "README.md").write_text("for people")
    encode(str(moved), [["c"]])
    assert len(seen) == 2
    makers.edit_json(moved / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    other = encode(str(moved), [["c"]])[0]
    assert len(seen) == 3, "another encoder"
    assert np.abs(other - second).max() > 1e-3


@pytest.mark.parametrize("size", [0, 40])
def test_a_damaged_cache_is_made_again(folder: Path, size: int) -> None:
    before = np.array(encode(str(folder), [["a", "b"]])[0])
    (path,) = (cache_folder() / "encoder").iterdir()
    path.write_bytes(path.read_bytes()[:size])
    np.testing.assert_array_equal(encode(str(folder), [["a", "b"]])[0], before)


def test_no_text(folder: Path) -> None:
    assert encode(str(folder), [[]])[0].shape[0] == 0


def test_a_cache_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "file"))
    assert code_of(folder) == "cannot-write"


def test_a_full_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write through a map that has no block ends the process, without a message: the blocks are asked for before."""

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert code_of(folder) == "disk-full"
    assert list((cache_folder() / "encoder").iterdir()) == []


def code_of(folder: Path) -> str:
    with pytest.raises(TokswapError) as caught:
        encode(str(folder), [["a"]])
    assert not list(cache_folder().glob("encoder/*")), "nothing is left behind"
    return caught.value.code


def test_a_folder_without_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()
    assert code_of(folder) == "not-an-encoder"


@pytest.mark.parametrize("content", ["{", "[1]", "[{}]", "3"])
def test_damaged_modules(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content)
    assert code_of(folder) == "not-an-encoder"


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert code_of(folder) == "not-an-encoder"


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert code_of(folder) == "not-an-encoder"


def test_code_of_its_own(folder: Path) -> None:
    modules = makers.read_json(folder / "modules.json")
    modules[0]["type"] = "custom_code.Transformer"
    makers.write_json(folder / "modules.json", modules)
    assert code_of(folder) == "remote-code"


def test_not_a_number(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for tensor in weights.values():
        tensor.fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert code_of(folder) == "not-an-encoder"


def test_one_vector_a_token_is_no_encoder(folder: Path) -> None:
    modules = makers.read_json(folder / "modules.json")[:1]
    makers.write_json(folder / "modules.json", modules)
    assert code_of(folder) == "not-an-encoder"


def test_a_model_that_reads_images(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    for path in folder.iterdir():
        if path.is_file() and path.name != "modules.json":
            path.unlink()
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    ViTModel(config).save_pretrained(folder)
    assert code_of(folder) == "not-an-encoder"


def test_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "sentence_transformers" else real(name))
    assert code_of(folder) == "missing-extra"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("./nowhere", "unknown-encoder"),
        ("nowhere", "unknown-encoder"),
        ("some/encoder", "offline"),
        (__file__, "bad-encoder"),
    ],
)
def test_names(name: str, code: str) -> None:
    with pytest.raises(TokswapError) as caught:
        find_encoder(name)
    assert caught.value.code == code


def test_finding_an_encoder_loads_nothing(made: Path) -> None:
    import subprocess

    module = "tokswap.init.resources.encoder"
    code = f"import sys, {module}; {module}.find_encoder({str(made)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "sentence_transformers"}.isdisjoint(done.stdout.split())
