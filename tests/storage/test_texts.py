from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tokswap.errors import InputError
from tokswap.storage.texts import read_text, read_texts


def test_a_text_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffa\r\nb\tö\n".encode())
    assert read_text(path) == "a\r\nb\tö\n"


@pytest.mark.parametrize(
    ("content", "code", "part"),
    [(b"caf\xe9", "bad-text", "byte 0xe9 at 3"), (b"", "empty-text", "empty"), (b" \n\t\n", "empty-text", "empty")],
)
def test_texts_that_cannot_be_used(content: bytes, code: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert caught.value.code == code
    assert part in caught.value.message
    assert caught.value.where["file"] == str(path)


def test_a_text_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(InputError) as caught:
            read_text(path)
        assert caught.value.code == "bad-text"


def test_texts_of_one_name_keep_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder in ("a", "b") for name in ("same", folder)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(path), encoding="utf-8")
    named = read_texts([*paths, paths[0]])
    assert set(named) == {str(paths[0]), str(paths[2]), "a", "b"}
    assert list(named.values()) == [str(path) for path in paths]


def test_a_name_is_one_text_whatever_it_is_of(tmp_path: Path) -> None:
    texts = ["The ferry leaves.", "The bridge\nis closed."]
    lines = "".join(json.dumps({"text": text, "body": text.upper()}) + "\n" for text in texts)
    (tmp_path / "two.jsonl").write_text(lines, "utf-8")
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "folder").mkdir()
    for name, text in zip("ab", texts, strict=True):
        (tmp_path / "folder" / f"{name}.txt").write_text(text, "utf-8")
    whole = "\n\n".join(texts)
    names = ("two.jsonl", "two.jsonl.gz", "folder")
    assert read_texts([tmp_path / name for name in names]) == dict.fromkeys(names, whole)
    assert read_texts([tmp_path / "folder" / "*.txt"]) == {"*.txt": whole}
    assert read_texts([tmp_path / "two.jsonl"], "body") == {"two.jsonl": whole.upper()}
    with pytest.raises(InputError) as caught:
        read_texts([tmp_path / "two.jsonl"], "content")
    assert caught.value.code == "missing-field"


def test_an_empty_folder_and_a_missing_text_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n', "utf-8")
    for name, code in (("empty", "bad-text"), ("nowhere", "bad-text"), ("blank.jsonl", "empty-text")):
        with pytest.raises(InputError) as caught:
            read_texts([tmp_path / name])
        assert caught.value.code == code
