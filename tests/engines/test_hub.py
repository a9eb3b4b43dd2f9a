"""Checkpoints from directories and from a hub: a small server that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from engines import hub
from engines.errors import ConfigurationError

COMMIT = "a" * 40
REPOSITORY = "owner/model"
RESOLVE = f"/{REPOSITORY}/resolve/{COMMIT}/"


@dataclass
class Hub:
    """What the server has, and which files it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)


def answer(state: Hub, path: str) -> bytes | None:
    """What the hub's protocol has under a path."""
    if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
        return json.dumps([entry(name, data) for name, data in state.files.items()]).encode()
    if path.startswith(f"/api/models/{REPOSITORY}"):
        return json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode()
    return state.files.get(path.removeprefix(RESOLVE))


def handler(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            path = self.path.split("?")[0]
            data = answer(state, path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            if data is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            path = self.path.split("?")[0]
            self.wfile.write(answer(state, path) or b"")
            if path.startswith(RESOLVE):
                state.sent.append(path.removeprefix(RESOLVE))

    return Handler


def entry(name: str, data: bytes) -> dict[str, object]:
    oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}


@pytest.fixture
def served() -> Iterator[Hub]:
    """A hub on loopback with one repository."""
    files = {"config.json": b"{}", "model.safetensors": bytes(5000), "README.md": b"# model"}
    state = Hub(files=files)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(state)) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def the_hub(served: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same, as the library's endpoint in this process."""
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return served


PATTERNS = ("*.json", "model*.safetensors")


def test_a_directory_goes_before_a_repository(tmp_path: Path, the_hub: Hub) -> None:
    (tmp_path / REPOSITORY).mkdir(parents=True)
    assert hub.checkpoint(REPOSITORY, tmp_path, PATTERNS) == tmp_path / REPOSITORY
    assert hub.checkpoint(str(tmp_path), Path("elsewhere"), PATTERNS) == tmp_path
    assert the_hub.sent == []


def test_a_repository_is_fetched_once_and_only_what_is_wanted(tmp_path: Path, the_hub: Hub) -> None:
    found = hub.checkpoint(REPOSITORY, tmp_path, PATTERNS)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": bytes(5000),
    }
    assert tmp_path / hub.CACHE in found.parents
    assert sorted(the_hub.sent) == ["config.json", "model.safetensors"]
    the_hub.files["config.json"] = b"changed"
    assert (hub.checkpoint(REPOSITORY, tmp_path, PATTERNS) / "config.json").read_bytes() == b"{}"
    assert len(the_hub.sent) == 2


def test_what_an_interruption_left_out_is_fetched(tmp_path: Path, the_hub: Hub) -> None:
    found = hub.checkpoint(REPOSITORY, tmp_path, PATTERNS)
    (found / "model.safetensors").unlink()
    hub.checkpoint(REPOSITORY, tmp_path, PATTERNS)
    assert (found / "model.safetensors").read_bytes() == the_hub.files["model.safetensors"]


def test_a_repository_that_does_not_exist(tmp_path: Path, the_hub: Hub) -> None:
    assert the_hub.url
    with pytest.raises(ConfigurationError, match=r"owner/other could not be downloaded: the hub has no such"):
        hub.checkpoint("owner/other", tmp_path, PATTERNS)


def test_a_hub_that_nobody_answers_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="it is not at hand, and the hub cannot be reached"):
        hub.checkpoint(REPOSITORY, tmp_path, PATTERNS)


@pytest.mark.parametrize("source", ["feelings", "/opt/models/feelings", "../feelings", "a/b/c", "a/b c", ""])
def test_a_source_that_is_neither_is_told_by_its_last_part(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigurationError, match="is neither a directory") as caught:
        hub.checkpoint(source, tmp_path, PATTERNS)
    assert caught.value.message.startswith(repr(Path(source).name))


def test_a_models_directory_that_cannot_be_written(tmp_path: Path, the_hub: Hub) -> None:
    assert the_hub.url
    (tmp_path / hub.CACHE).write_text("no directory")
    with pytest.raises(ConfigurationError, match="could not be downloaded") as caught:
        hub.checkpoint(REPOSITORY, tmp_path, PATTERNS)
    assert str(tmp_path) not in caught.value.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk_is_told(small_disk: Path, the_hub: Hub) -> None:
    the_hub.files["model.safetensors"] = bytes(1 << 20)
    with pytest.raises(ConfigurationError, match="the disk of the models directory is full"):
        hub.checkpoint(REPOSITORY, small_disk, PATTERNS)


FETCH = """
import sys
from pathlib import Path
from engines import hub
from engines.errors import ConfigurationError
try:
    print(hub.checkpoint("owner/model", Path(sys.argv[1]), ["*.json"]).is_dir())
except ConfigurationError as error:
    print(error.message)
"""


@pytest.mark.parametrize(("offline", "says"), [("0", "True"), ("1", "HF_HUB_OFFLINE is set")])
def test_the_environment_of_the_library_is_kept(tmp_path: Path, served: Hub, offline: str, says: str) -> None:
    environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-c", FETCH, str(tmp_path)]
    ended = subprocess.run(
        command,
        env=environment,
        cwd=Path(hub.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert says in ended.stdout
    assert served.sent == ([] if offline == "1" else ["config.json"])
