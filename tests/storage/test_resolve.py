from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.storage import resolve as sources
from tokswap.storage.resolve import (
    ALIASES,
    cache_folder,
    config_folder,
    lasting_name,
    output_path,
    resolve_model,
    resolve_tokenizer,
    set_alias,
    short_name,
    user_aliases,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own settings and cache, and a working folder without surprises."""
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOKSWAP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


Download = list[tuple[str, list[str]]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Download:
    """A hub that has every model; holds what it was asked for."""
    asked: Download = []

    def download(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((hub_id, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def refusal(call: Callable[..., object], *arguments: object) -> TokswapError:
    with pytest.raises(TokswapError) as caught:
        call(*arguments)
    return caught.value


# Folders and files.


@pytest.mark.parametrize("resolve", [resolve_model, resolve_tokenizer])
@pytest.mark.parametrize("name", ["./model", "model", "{}/model", "~/model", "./model/", "../cwd/model"])
def test_a_folder_is_taken_as_it_is(
    resolve: Callable[[str], Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "cwd"))
    (tmp_path / "cwd" / "model").mkdir()
    assert resolve(name.format(tmp_path / "cwd")).resolve() == tmp_path / "cwd" / "model"


def test_a_folder_outranks_an_alias_and_a_hub_id(tmp_path: Path, hub: Download) -> None:
    for name in ("llama", "google/gemma-3-270m"):
        Path(name).mkdir(parents=True)
        assert resolve_model(name) == Path(name)
    assert hub == []


def test_a_tokenizer_may_be_a_file() -> None:
    Path("tokenizer.json").write_text("{}")
    assert resolve_tokenizer("./tokenizer.json") == Path("tokenizer.json")
    assert resolve_tokenizer("tokenizer.json") == Path("tokenizer.json")


@pytest.mark.parametrize(
    ("resolve", "name", "code"),
    [
        (resolve_model, "tokenizer.json", "bad-model"),
        (resolve_model, "model.safetensors", "bad-model"),
        (resolve_tokenizer, "tokenizer.model", "bad-tokenizer"),
        (resolve_tokenizer, "model.safetensors", "bad-tokenizer"),
    ],
)
def test_a_file_of_another_kind_is_refused(resolve: Callable[[str], Path], name: str, code: str) -> None:
    Path(name).write_text("{}")
    error = refusal(resolve, name)
    assert isinstance(error, UsageError)
    assert error.code == code
    assert error.where["file"] == name
    assert ("a tokenizer.json" in error.hint) is (resolve is resolve_tokenizer)


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/model", "~/nowhere", "~nobody-at-all/model", "a/b/c", "x.gguf", "t/tokenizer.json"]
)
def test_a_path_that_is_missing_is_never_asked_of_the_hub(name: str, hub: Download) -> None:
    error = refusal(resolve_model, name)
    assert isinstance(error, InputError)
    assert error.code == "unknown-model"
    assert f"`{name}`" in error.message
    assert hub == []


@pytest.mark.parametrize("name", ["", "lama", "nothing-like-it"])
def test_a_word_that_is_no_alias_is_refused(name: str, hub: Download) -> None:
    assert refusal(resolve_model, name).code == "unknown-model"
    assert refusal(resolve_tokenizer, name).code == "unknown-tokenizer"
    assert hub == []


def test_the_nearest_alias_is_suggested() -> None:
    set_alias("housemodel", "./house")
    assert "Did you mean `llama`?" in refusal(resolve_model, "lama").message
    assert "Did you mean `housemodel`?" in refusal(resolve_model, "housmodel").message
    assert "Did you mean" not in refusal(resolve_model, "zzzzzz").message


# The hub and aliases.


def test_a_hub_id_is_downloaded(tmp_path: Path, hub: Download) -> None:
    assert resolve_model("someone/model") == tmp_path / "snapshot"
    assert hub[0][0] == "someone/model"
    assert "*.safetensors" in hub[0][1]


def test_a_tokenizer_is_downloaded_without_weights(hub: Download) -> None:
    resolve_tokenizer("someone/model")
    assert not [pattern for pattern in hub[0][1] if "safetensors" in pattern or pattern in ("*", "*.bin")]


@pytest.mark.parametrize("patterns", [sources._MODEL_FILES, sources._TOKENIZER_FILES])
def test_pickles_and_code_are_never_downloaded(patterns: list[str]) -> None:
    from fnmatch import fnmatch

    for name in ("pytorch_model.bin", "modeling_x.py", "model.pt", "model.pth", "x.pkl", "flax_model.msgpack"):
        assert not [pattern for pattern in patterns if fnmatch(name, pattern)], name


@pytest.mark.parametrize("name", ALIASES)
def test_a_built_in_alias_is_a_hub_id(name: str, hub: Download) -> None:
    resolve_model(name)
    assert [hub_id for hub_id, _ in hub] == [ALIASES[name]]
    assert ALIASES[name].count("/") == 1


def test_aliases_of_the_user(home: Path, hub: Download, tmp_path: Path) -> None:
    assert user_aliases() == {}
    set_alias("mine", "someone/model")
    set_alias("llama", "someone/other")
    assert user_aliases() == {"mine": "someone/model", "llama": "someone/other"}
    assert json.loads((home / "aliases.json").read_text()) == user_aliases()
    assert [path.name for path in home.iterdir()] == ["aliases.json"]
    for name in ("mine", "llama", "qwen"):
        resolve_model(name)
    assert [hub_id for hub_id, _ in hub] == ["someone/model", "someone/other", ALIASES["qwen"]]
    set_alias("llama", None)
    resolve_model("llama")
    assert hub[-1][0] == ALIASES["llama"]


def test_an_alias_may_be_a_folder_or_file(tmp_path: Path, hub: Download) -> None:
    Path("model").mkdir()
    Path("model/tokenizer.json").write_text("{}")
    set_alias("absolute", str(tmp_path / "cwd" / "model"))
    set_alias("relative", "./model")
    set_alias("file", str(tmp_path / "cwd" / "model" / "tokenizer.json"))
    assert resolve_model("absolute") == tmp_path / "cwd" / "model"
    assert resolve_model("relative") == Path("model")
    assert resolve_tokenizer("file").name == "tokenizer.json"
    assert hub == []


def test_an_alias_of_an_alias(hub: Download) -> None:
    set_alias("first", "second")
    set_alias("second", "llama")
    resolve_model("first")
    assert hub[0][0] == ALIASES["llama"]


@pytest.mark.parametrize("targets", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "./gone"}, {"a": "/gone"}, {"a": "~x/y"}])
def test_an_alias_that_leads_nowhere(targets: dict[str, str], hub: Download) -> None:
    for name, target in targets.items():
        set_alias(name, target)
    assert refusal(resolve_model, "a").code == "unknown-model"
    assert hub == []


@pytest.mark.parametrize("name", ["", "a/b", "/"])
def test_an_alias_is_a_plain_word(name: str, home: Path) -> None:
    assert refusal(set_alias, name, "someone/model").code == "bad-alias"
    assert not home.exists()


def test_removing_an_alias_that_is_not_there() -> None:
    set_alias("mine", "someone/model")
    unknown, built_in = refusal(set_alias, "mone", None), refusal(set_alias, "llama", None)
    assert unknown.code == built_in.code == "unknown-alias"
    assert "Did you mean `mine`?" in unknown.message
    assert "built-in" in built_in.hint
    assert user_aliases() == {"mine": "someone/model"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": 1}', b'{"a": null}', b"\xff"])
def test_damaged_aliases_are_reported_and_kept(content: bytes, home: Path) -> None:
    home.mkdir()
    (home / "aliases.json").write_bytes(content)
    for call in (lambda: resolve_model("llama"), lambda: set_alias("a", "b/c"), user_aliases):
        assert refusal(call).code == "bad-aliases"
    assert (home / "aliases.json").read_bytes() == content


def test_a_settings_folder_that_is_a_file(home: Path) -> None:
    home.write_text("a file")
    assert refusal(set_alias, "a", "b/c").code == "bad-aliases"
    assert home.read_text() == "a file"


def test_a_settings_folder_that_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    error = refusal(set_alias, "a", "b/c")
    assert isinstance(error, OutputError)
    assert error.code == "cannot-write"
    assert error.where["folder"] == str(home)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a user that its system does not know: every command ended in a traceback."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("TOKSWAP_HOME", "TOKSWAP_CACHE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert user_aliases() == {}
    assert cache_folder() == Path("/.cache/tokswap")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/tokswap")


def test_aliases_of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(InputError, match="cannot read your aliases") as caught:
        user_aliases()
    assert "set HOME or TOKSWAP_HOME" in str(caught.value.hint)


def test_an_output_that_is_no_path() -> None:
    with pytest.raises(UsageError, match="must be a path") as caught:
        output_path(None)  # type: ignore[arg-type]
    assert caught.value.code == "missing-out"


def test_folders_of_settings_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (config_folder(), cache_folder()) == (tmp_path / "home", tmp_path / "cache")
    monkeypatch.delenv("TOKSWAP_HOME")
    monkeypatch.delenv("TOKSWAP_CACHE")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x/config")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    assert (config_folder(), cache_folder()) == (Path("/x/config/tokswap"), Path("/x/cache/tokswap"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert (config_folder(), cache_folder()) == (Path("/home/me/.config/tokswap"), Path("/home/me/.cache/tokswap"))


# What the hub may answer.


def _hub_error(name: str) -> Exception:
    import huggingface_hub.errors as errors

    kind = getattr(errors, name)
    try:
        return kind("no")  # type: ignore[no-any-return]
    except TypeError:
        error: Exception = kind.__new__(kind, "no")
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lambda: _hub_error("GatedRepoError"), "gated-model"),
        (lambda: _hub_error("RepositoryNotFoundError"), "unknown-model"),
        (lambda: _hub_error("HFValidationError"), "unknown-model"),
        (lambda: _hub_error("LocalEntryNotFoundError"), "offline"),
        (lambda: _hub_error("OfflineModeIsEnabled"), "offline"),
        (lambda: ConnectionError("no"), "offline"),
        (lambda: TimeoutError("no"), "offline"),
    ],
)
@pytest.mark.parametrize("name", ["llama", "meta-llama/Llama-3.2-1B"])
def test_every_answer_of_the_hub_has_a_code(
    error: Callable[[], Exception], code: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    refused = refusal(resolve_model, name)
    assert isinstance(refused, InputError)
    assert refused.code == code
    assert refused.where == ({"alias for": "meta-llama/Llama-3.2-1B"} if name == "llama" else {})
    assert name in str(refused)


@pytest.mark.parametrize("settings", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_network(settings: dict[str, str], tmp_path: Path) -> None:
    code = "from tokswap.errors import *\nfrom tokswap.storage.resolve import *\n" + (
        "try: resolve_model('llama')\nexcept InputError as error: print(error.code)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", **settings}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "offline\n"
    assert "Traceback" not in done.stderr


PARENT = "the folder above"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", "llama"),
        ("google/gemma-3-270m", "gemma-3-270m"),
        ("./models/mine/", "mine"),
        ("/a/b/tokenizer.json", "b"),
        ("models/x.Q4_K_M.gguf", "x.Q4_K_M"),
        ("my.json", "my"),
        (".", "cwd"),
        ("..", PARENT),
        ("../", PARENT),
        ("tokenizer.json", "cwd"),
    ],
)
def test_short_name(name: str, expected: str, tmp_path: Path) -> None:
    assert short_name(name) == (tmp_path.name if expected is PARENT else expected)


def test_a_lasting_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lasting_name(Path("/cache/hub/models--owner--a-model/snapshots/0123")) == "owner/a-model"
    monkeypatch.chdir(tmp_path)
    assert lasting_name(Path("model")) == str(tmp_path / "model")


def test_aliases_that_form_a_circle_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKSWAP_HOME", str(tmp_path))
    set_alias("one", "two")
    set_alias("two", "one")
    with pytest.raises(InputError, match="one -> two -> one") as wrong:
        resolve_model("one")
    assert (wrong.value.code, "Did you mean" in str(wrong.value)) == ("unknown-model", False)


@pytest.mark.parametrize("resolve", [resolve_model, resolve_tokenizer, output_path])
def test_a_name_that_the_libraries_cannot_spell(resolve: Callable[[str], Path], tmp_path: Path) -> None:
    """Python gives such names to a process with the locale C, and to any for names in another encoding."""
    folder = os.fsdecode(os.fsencode(tmp_path / "mod") + b"\xe8le")
    os.mkdir(folder)
    with pytest.raises(TokswapError) as caught:
        resolve(folder)
    assert "UTF-8" in caught.value.message
