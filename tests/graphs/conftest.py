"""A web server with faults, a small disk, and the longest directory that HAProxy can use."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from graphs import ray_runtime


@dataclass
class Resource:
    """What a path answers. cuts: bytes after which each of the next answers stops, the connection closed."""

    url: str
    body: bytes
    etag: str = '"v1"'
    modified: str = ""
    ranges: bool = True
    ignores_if_range: bool = False
    lengthless: bool = False
    status: int = 200
    location: str = ""
    cuts: list[int] = field(default_factory=list)
    pause_at: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass
class Origin:
    """A web server on loopback. requests: path, Range and bytes sent of each answer."""

    port: int
    resources: dict[str, Resource]
    requests: list[tuple[str, str | None, int]]

    def put(self, path: str, body: bytes, **more: Any) -> Resource:
        """Answers a path from now on. more: the other fields of Resource."""
        self.resources[path] = Resource(f"http://127.0.0.1:{self.port}{path}", body, **more)
        return self.resources[path]


def handler(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, asked = self.path.partition("?")[0], self.headers.get("Range")
            resource = origin.resources.get(path, Resource("", b"no such file", status=404))
            start = first_byte(resource, asked, self.headers.get("If-Range"))
            body = resource.body[start:]
            self.send_response(status(resource, start))
            for name, value in headers(resource, start).items():
                self.send_header(name, value)
            self.end_headers()
            sent = body[: resource.cuts.pop(0) if resource.cuts else None]
            origin.requests.append((path, asked, len(sent)))
            try:
                if resource.pause_at:
                    self.wfile.write(sent[: resource.pause_at])
                    resource.go_on.wait()
                    sent = sent[resource.pause_at :]
                self.wfile.write(sent)
            except ConnectionError:
                self.close_connection = True

    return Handler


def first_byte(resource: Resource, asked: str | None, if_range: str | None) -> int:
    strong = {resource.etag, resource.modified} - {""}
    same = resource.ignores_if_range or (if_range in strong and not str(if_range).startswith("W/"))
    if not (asked and resource.ranges and same):
        return 0
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def status(resource: Resource, start: int) -> int:
    if not start:
        return resource.status
    return 206 if start < len(resource.body) else 416


def headers(resource: Resource, start: int) -> dict[str, str]:
    size = len(resource.body)
    found = {"ETag": resource.etag, "Last-Modified": resource.modified, "Location": resource.location}
    if not resource.lengthless:
        found["Content-Length"] = str(max(size - start, 0))
    if 0 < start < size:
        found["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return {name: value for name, value in found.items() if value}


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin(0, {}, [])
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(made)) as server:
        made.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        for resource in made.resources.values():
            resource.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def longest_directory() -> Iterator[Path]:
    """A directory whose path is as long as is allowed."""
    with tempfile.TemporaryDirectory(prefix="p") as parent:
        padding = ray_runtime.MAX_DIRECTORY_LENGTH - len(parent) - 1
        if padding < 1:
            pytest.skip("TMPDIR is longer than the run's directory may be")
        path = Path(parent) / ("d" * padding)
        path.mkdir()
        yield path
