"""Faults and damaged files: each case here once ended in a traceback, a lost change or files left for ever."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
from click.testing import CliRunner
from soak.good_files import make_adapter

from tokswap.checkpoint.id_map import KeptIds
from tokswap.checkpoint.shards import load_tensors
from tokswap.cli import main
from tokswap.errors import TokswapError
from tokswap.hypernet.config import read_config
from tokswap.init.resources.vectors import read_vectors
from tokswap.storage import documents
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.trim import corpora
from tokswap.trim.adapters import remap_adapter
from tokswap.trim.ids import read_map


def code_of(function: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(TokswapError) as caught:
        function(*arguments, **options)
    return caught.value.code


# Signals.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("swallowed", [False, True], ids=["as it is", "made an error of by native code"])
def test_a_signal_is_answered(number: signal.Signals, swallowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def hit(path: Path) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            if swallowed:
                raise RuntimeError("could not determine the shape") from error
            raise

    handler = signal.getsignal(number)
    importlib.import_module("tokswap.checkpoint.inspect")
    monkeypatch.setattr(sys.modules["tokswap.checkpoint.inspect"], "inspect_checkpoint", hit)
    monkeypatch.setattr("tokswap.storage.resolve._resolve", lambda *arguments: Path())
    result = CliRunner().invoke(main, ["inspect", "x"])
    assert (result.exit_code, result.stderr) == (128 + number, "\ninterrupted: nothing half-written is left\n")
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("weak", [False, True])
def test_a_signal_where_errors_are_dropped_is_answered(
    weak: bool, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops what a destructor raises, or what the callback of a weak reference does; the run would go on."""

    class Fragile:
        def __del__(self) -> None:
            if not weak:
                os.kill(os.getpid(), number)

    class Key:
        asked = 0

        def __hash__(self) -> int:
            self.asked += 1
            if weak and self.asked == 2:  # the callback removes what is gone
                os.kill(os.getpid(), number)
            return 1

    def hit(path: Path) -> None:
        table: weakref.WeakValueDictionary[Key, Fragile] = weakref.WeakValueDictionary()
        value = Fragile()
        table[Key()] = value
        del value
        time.sleep(20)

    importlib.import_module("tokswap.checkpoint.inspect")
    monkeypatch.setattr(sys.modules["tokswap.checkpoint.inspect"], "inspect_checkpoint", hit)
    monkeypatch.setattr("tokswap.storage.resolve._resolve", lambda *arguments: Path())
    result = CliRunner().invoke(main, ["inspect", "x"])
    assert (result.exit_code, result.stderr) == (128 + number, "\ninterrupted: nothing half-written is left\n")


def test_an_ignored_signal_stays_ignored() -> None:
    """A shell starts its background jobs so."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import os, tokswap.storage.resolve as s\n"
    code += "s.user_aliases = lambda: os.kill(os.getpid(), signal.SIGINT) or {}\n"
    code += "from tokswap.cli import main; main(['alias'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_a_name_that_utf_8_cannot_spell_is_printed_as_an_escape(model_of: Callable[..., Path], tmp_path: Path) -> None:
    model = makers.copy_model(model_of("qwen2", shards=2), tmp_path / "model")
    index = makers.read_json(model / "model.safetensors.index.json")
    text = json.dumps(
        {**index, "weight_map": {**index["weight_map"], "\ud800": next(iter(index["weight_map"].values()))}}
    )
    (model / "model.safetensors.index.json").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "tokswap", "inspect", str(model), "--json"],
        capture_output=True,
        timeout=60,
        encoding="utf-8",
    )
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "bad-index"
    assert "\\ud800" in result.stderr


# Damaged files.


def test_a_line_that_would_fill_the_memory(
    tokenizer_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + b"a" * 2000 + b'"}'))
    corpus = corpora.find_corpus(str(tmp_path / "a.jsonl.gz"))
    assert code_of(corpora.count, corpus, read_tokenizer(tokenizer_of("byte-level"))) == "bad-text"


def test_a_parquet_file_whose_text_is_no_text(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    column = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    corpus = corpora.find_corpus(str(tmp_path / "a.parquet"))
    assert code_of(corpora.count, corpus, read_tokenizer(tokenizer_of("byte-level"))) == "bad-text"


@pytest.mark.parametrize(("words", "rows"), [(np.zeros(()), np.zeros((2, 2))), (np.array(["a"]), np.zeros(()))])
def test_vectors_without_a_shape(words: np.ndarray, rows: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", words=words, vectors=rows)
    assert code_of(read_vectors, str(tmp_path / "v.npz"), 5) == "bad-vectors"


def test_vectors_in_a_file_that_asks_for_the_impossible(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", words=np.array(["a", "b", "c"]), vectors=np.zeros((3, 2), np.float32))
    data = (tmp_path / "v.npz").read_bytes()
    (tmp_path / "v.npz").write_bytes(
        data.replace(b"'shape': (3, 2), }              ", b"'shape': (3000000000000, 2), }  ")
    )
    assert code_of(read_vectors, str(tmp_path / "v.npz"), 5) == "bad-vectors"
    flags = bytearray(data)
    for at in range(len(data) - 4):  # a way of packing that Python cannot unpack
        if data[at : at + 4] == b"PK\x01\x02":
            flags[at + 8] |= 0x20
    (tmp_path / "v.npz").write_bytes(bytes(flags))
    assert code_of(read_vectors, str(tmp_path / "v.npz"), 5) == "bad-vectors"


@pytest.mark.parametrize(
    "change",
    [
        {"n_embd": 1 << 64},
        {"hn_n_layers": 1 << 20},
        {"hn_n_extra_tokens": 1 << 70},
        {"pad_token_id": -1},
        {"n_langs": -1},
    ],
)
def test_a_hypernetwork_of_impossible_size(change: dict[str, int]) -> None:
    values = {
        "n_embd": 8,
        "original_vocab_size": 9,
        "hn_hidden_size": 8,
        "hn_intermediate_size": 8,
        "hn_num_attention_heads": 1,
    }
    read_config(values, Path("config.json"))
    assert code_of(read_config, {**values, **change}, Path("config.json")) == "bad-hypernet"


@pytest.mark.parametrize(
    "change",
    [
        {"rows_after": 1 << 60},
        {"rows_before": -3},
        {"new_id_of": {"0": 7}},
        {"new_id_of": {"9": 0}},
        {"rows_after": 0.5},
        {"rows_after": float("inf")},
    ],
)
def test_a_map_that_leads_nowhere(change: dict[str, Any], tmp_path: Path) -> None:
    good = {"rows_before": 5, "rows_after": 2, "new_id_of": {"0": 0, "3": 1}}
    makers.write_json(tmp_path / "vocab_map.json", good)
    assert read_map(tmp_path)[0] == {0: 0, 3: 1}
    makers.write_json(tmp_path / "vocab_map.json", {**good, **change})
    assert code_of(read_map, tmp_path) == "bad-map"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    makers.make_model("qwen2", tmp_path / "model", vocab_size=300)
    make_adapter(tmp_path / "in")
    return tmp_path / "in" / "adapter"


def test_damaged_adapters(adapter: Path, tmp_path: Path) -> None:
    trimmed = adapter.parent / "trimmed"
    for ids in ({"embed_tokens": 3}, ["a"], {"embed_tokens": [[0]]}):
        makers.edit_json(adapter / "adapter_config.json", trainable_token_indices=ids)
        assert code_of(remap_adapter, str(adapter), str(trimmed), tmp_path / "out") == "adapter-format"
    makers.edit_json(adapter / "adapter_config.json", trainable_token_indices=...)
    weights = adapter / "adapter_model.safetensors"
    data = weights.read_bytes()
    for damaged in (data[:-1], data.replace(b'"F32"', b'"XXX"', 1), data[:12] + b"\xff" + data[13:]):
        weights.write_bytes(damaged)
        assert code_of(remap_adapter, str(adapter), str(trimmed), tmp_path / "out") in (
            "bad-header",
            "truncated-weights",
        )
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_replaced_with_force(adapter: Path, tmp_path: Path) -> None:
    trimmed, out = adapter.parent / "trimmed", tmp_path / "out"
    remap_adapter(str(adapter), str(trimmed), out)
    assert code_of(remap_adapter, str(adapter), str(trimmed), out) == "output-exists"
    remap_adapter(str(adapter), str(trimmed), out, force=True)


def test_a_type_that_torch_does_not_know(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    try:
        load_tensors(tmp_path / "m.safetensors")
    except TokswapError as error:
        assert error.code == "bad-header"  # noqa: PT017  newer releases may know it


def test_forced_tokens_of_whisper_may_be_null() -> None:
    ids = KeptIds.__new__(KeptIds)
    object.__setattr__(ids, "new_of", {7: 3})
    assert ids.words("forced_decoder_ids", [[1, None], [2, 7]]) == ([[1, None], [2, 3]], 0)
