"""Texts of files that a user names: odd fields, data sets that are saved as .json, and folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tokswap.errors import InputError
from tokswap.storage import documents as module
from tokswap.storage.documents import documents, find_files

TEXTS = ["The old bridge", "größe\u2028", "42"]
RECORDS = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]


def read(path: Path, key: str = "text") -> list[str]:
    return [text for text, _ in documents(path, key)]


def lines(records: list[dict[str, object]]) -> str:
    return "\n".join(json.dumps(one, ensure_ascii=False) for one in records)


@pytest.mark.parametrize(
    "content", [lines(RECORDS), json.dumps(RECORDS), json.dumps(RECORDS, indent=2), "\ufeff" + json.dumps(TEXTS)]
)
def test_a_data_set_that_is_saved_as_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")
    assert read(tmp_path / "a.json") == TEXTS
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(content.encode()))
    assert read(tmp_path / "a.json.gz") == TEXTS


@pytest.mark.parametrize("content", ['{"name": "package"}', "[1, 2]", "[", '{"text": 3}', '["a", '])
def test_other_json_is_text(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")
    assert "".join(read(tmp_path / "a.json")) == content


def test_a_long_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RECORDS, indent=2), "utf-8")
    monkeypatch.setattr(module, "_LINE_BYTES", 20)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.json")
    assert caught.value.code == "bad-text"


def test_null_is_left_out_and_other_values_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"text": None}, *RECORDS, {"text": None}]), "utf-8")
    assert read(path) == TEXTS
    for record in ({"messages": []}, {"text": ["a"]}):
        path.write_text(lines([record]), "utf-8")
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.code == "missing-field"
        assert ("--chat" in caught.value.hint) == ("messages" in record)


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", ".git/index", "b/.cache/d.txt", ".hidden"):
        path = tmp_path / ".all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    assert [path.name for path in find_files(str(tmp_path / ".all"))] == ["a.txt", "c.txt"]


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("block", [4, 1 << 20])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82"], ids=["no UTF-8", "a cut character"])
def test_the_byte_that_is_no_utf8_is_named(
    bad: bytes, block: int, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_BYTES", block)
    good = f"{start}a bridge ü€".encode()
    (tmp_path / "a.txt").write_bytes(good + bad + b" and more" * (len(bad) == 1))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.txt")
    assert caught.value.message.endswith(f" at byte {len(good)}")
