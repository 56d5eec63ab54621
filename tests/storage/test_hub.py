"""Uploads, to a stand-in for the hub on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tokswap.errors import OutputError
from tokswap.storage.hub import push_folder

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)), "README.md": b"---\ntags:\n- tokswap\n---\n"}


class Hub(ThreadingHTTPServer):
    """A hub with one user, `me`. answers: part of a path -> the status that it answers with, 0 to hang up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, int] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        status = next((status for part, status in self.server.answers.items() if part in self.path), 200)
        if status == 0:
            self.close_connection = True
            return
        if status != 200:
            self._send(status, {"error": f"the hub says {status}"})
        elif self.path == "/api/repos/create":
            self.server.tokens.add(self.headers["authorization"])
            self.server.created.append(json.loads(body))
            self._send(200, {"url": f"{self.server.url}/me/result"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._send(200, {"files": modes})
        elif "/commit/" in self.path:
            values = [entry["value"] for entry in map(json.loads, body.splitlines()) if entry["key"] == "file"]
            self.server.files |= {value["path"]: base64.b64decode(value["content"]) for value in values}
            url = f"{self.server.url}/me/result/commit/{'0' * 40}"
            self._send(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url})
        else:
            self._send(200, {"errors": [], "warnings": []})

    def do_GET(self) -> None:
        exists = self.path.startswith("/api/models/me/result") and bool(self.server.answers.get("exists"))
        self._send(200 if exists else 404, {"id": "me/result"} if exists else {"error": "nothing here"})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"] or 0))

    def _send(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = tmp_path / "result"
    result.mkdir()
    for name, content in FILES.items():
        (result / name).write_bytes(content)
    return result


def push(url: str, folder: Path, repo_id: str = "me/result", *, private: bool = False, **settings: str) -> Any:
    """Push in a process of its own, since the hub's library reads its settings once; returns a URL or an error."""
    code = f"""
import json, time
from tokswap.errors import OutputError
from tokswap.storage.hub import push_folder
time.sleep = lambda seconds: None  # the hub's library waits long before it tries again
try:
    print(json.dumps(push_folder({str(folder)!r}, {repo_id!r}, private={private})))
except OutputError as error:
    print(json.dumps([error.code, error.message, error.hint, error.where]))
"""
    environment = {
        **os.environ,
        "HF_HOME": str(folder.parent / "hf"),
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secret",
        "NO_PROXY": "127.0.0.1",
        **settings,
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_folder_arrives_whole(hub: Hub, folder: Path) -> None:
    assert push(hub.url, folder) == f"{hub.url}/me/result"
    assert hub.files == FILES
    assert hub.tokens == {"Bearer hf_secret"}
    assert [(one["organization"], one["name"]) for one in hub.created] == [("me", "result")]
    assert "private" not in json.dumps(hub.created)


def test_what_belongs_to_git_and_to_a_download_stays_here(hub: Hub, folder: Path) -> None:
    for name in (".git/config", ".cache/huggingface/download/model.lock"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("private", encoding="utf-8")
    push(hub.url, folder)
    assert hub.files == FILES


def test_a_private_repository_by_its_name_alone(hub: Hub, folder: Path) -> None:
    assert push(hub.url, folder, "result", private=True) == f"{hub.url}/me/result"
    assert hub.created[0]["organization"] is None
    assert "private" in json.dumps(hub.created)
    assert hub.files == FILES


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login(status: int, hub: Hub, folder: Path) -> None:
    hub.answers = {"/create": status}
    code, message, hint, _ = push(hub.url, folder)
    assert code == "login-refused"
    assert "`me/result`" in message
    assert "hf auth login" in hint
    assert hub.files == {}


def test_a_token_that_may_only_read(hub: Hub, folder: Path) -> None:
    hub.answers = {"/create": 403, "/preupload/": 403, "exists": 1}
    assert push(hub.url, folder)[0] == "login-refused"


@pytest.mark.parametrize("part", ["/create", "/commit/"])
def test_a_lost_connection(part: str, hub: Hub, folder: Path) -> None:
    hub.answers = {part: 0}
    code, message, hint, where = push(hub.url, folder)
    assert code == "push-failed"
    assert message.startswith("the upload did not finish: ")
    assert "again" in hint
    assert where == {"folder": str(folder), "repository": "me/result"}
    assert hub.files == {}


def test_a_hub_that_does_not_answer(folder: Path) -> None:
    code, message, *_ = push("http://127.0.0.1:9", folder)
    assert code == "push-failed"
    assert message.startswith("the upload did not finish: ")


def test_the_reason_of_the_hub_is_passed_on(hub: Hub, folder: Path) -> None:
    hub.answers = {"/commit/": 400}
    code, message, *_ = push(hub.url, folder)
    assert code == "push-failed"
    assert "the hub says 400" in message


@pytest.mark.parametrize(("repo_id", "settings"), [("a/b/c", {}), ("me/result", {"HF_HUB_OFFLINE": "1"})])
def test_a_wrong_name_and_no_network_allowed(repo_id: str, settings: dict[str, str], hub: Hub, folder: Path) -> None:
    code, message, hint, _ = push(hub.url, folder, repo_id, **settings)
    assert code == "push-failed"
    assert ("HF_HUB_OFFLINE" if settings else "`a/b/c`") in message
    assert hint
    assert hub.created == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        push_folder(tmp_path / "nowhere", "me/result")
    assert caught.value.code == "push-failed"


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [("a b/c!", {}, "push-failed"), ("me/x", {"HF_HUB_OFFLINE": "1"}, "push-failed"), ("me/x", {}, "login-refused")],
)
def test_what_an_upload_needs_is_checked_before_the_run(
    name: str, settings: dict[str, str], code: str, tmp_path: Path
) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), **settings}
    env.pop("HF_TOKEN", None)
    command = [sys.executable, "-m", "tokswap", "trim", "--model", "nowhere", "--corpus", "x", "--push-to-hub", name]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert f"[{code}]" in done.stderr
