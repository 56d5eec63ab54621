from __future__ import annotations

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
