"""Fetching over a real socket, from a server with every fault that a test asks of it."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from engines.errors import ConfigurationError
from graphs.download import AbsentError, Reporter, fetch, locate, shown
from graphs.gallery import load
from graphs.models import install, installed

BODY = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(32_000))
"""1,024,000 bytes that don't repeat."""
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]


@dataclass
class Resource:
    """What a path answers. cuts: bytes after which each of the next answers stops, the connection closed."""

    body: bytes = BODY
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

    def put(self, path: str, resource: Resource) -> str:
        self.resources[path] = resource
        return f"http://127.0.0.1:{self.port}{path}"


def handler(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, asked = self.path.partition("?")[0], self.headers.get("Range")
            resource = origin.resources.get(path, Resource(body=b"no such file", status=404))
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
    same = resource.ignores_if_range or if_range in (resource.etag, resource.modified)
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
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "net.onnx"


def left_over(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def interrupt(url: str, resource: Resource, target: Path, at: int = 300_000) -> None:
    """A download that breaks after `at` bytes; the server sends nothing more to the second attempt."""
    resource.cuts = [at, 0]
    with pytest.raises(ConfigurationError, match="without sending complete message body"):
        fetch(url, target, SHA)
    assert not target.exists()
    assert target.with_name("net.onnx.part").stat().st_size == at


def test_a_file_arrives_whole_and_progress_is_told(origin: Origin, target: Path) -> None:
    class Heard(Reporter):
        said: list[tuple[str, int, int | None]] = []  # noqa: RUF012 - one test, one list

        def progress(self, name: str, done: int, total: int | None) -> None:
            self.said.append((name, done, total))

    heard = Heard()
    fetch(origin.put("/net", Resource()), target, SHA, heard)
    assert target.read_bytes() == BODY
    assert left_over(target) == ["net.onnx"]
    assert heard.said[0] == ("net.onnx", 0, len(BODY))
    assert heard.said[-1] == ("net.onnx", len(BODY), len(BODY))
    assert [done for _, done, _ in heard.said] == sorted(done for _, done, _ in heard.said)


def test_a_server_that_tells_no_length_is_read_to_its_end(origin: Origin, target: Path) -> None:
    fetch(origin.put("/net", Resource(lengthless=True)), target, SHA)
    assert target.read_bytes() == BODY


def test_a_broken_connection_is_continued_at_once(origin: Origin, target: Path) -> None:
    fetch(origin.put("/net", Resource(cuts=[200_000, 300_000])), target, SHA)
    assert target.read_bytes() == BODY
    assert origin.requests == [
        ("/net", None, 200_000),
        ("/net", "bytes=200000-", 300_000),
        ("/net", "bytes=500000-", len(BODY) - 500_000),
    ]


def test_it_gives_up_where_every_answer_breaks(origin: Origin, target: Path) -> None:
    url = origin.put("/net", Resource(cuts=[1000] * 9))
    with pytest.raises(ConfigurationError, match=r"4000 bytes are kept, install again to go on from there"):
        fetch(url, target, SHA)
    assert len(origin.requests) == 4
    assert left_over(target) == ["net.onnx.part", "net.onnx.part.json"]


def test_a_later_run_asks_only_for_the_rest(origin: Origin, target: Path) -> None:
    resource = Resource()
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    fetch(url, target, SHA)
    assert origin.requests[-1] == ("/net", "bytes=300000-", len(BODY) - 300_000)
    assert target.read_bytes() == BODY
    assert left_over(target) == ["net.onnx"]


def test_the_time_of_the_last_change_serves_where_the_etag_is_weak(origin: Origin, target: Path) -> None:
    resource = Resource(etag='W/"v1"', modified="Sat, 21 Nov 2026 06:00:00 GMT")
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    fetch(url, target, SHA)
    assert origin.requests[-1] == ("/net", "bytes=300000-", len(BODY) - 300_000)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    "resource", [Resource(ranges=False), Resource(etag="")], ids=["no ranges", "no validator"]
)
def test_it_starts_over_where_the_source_cannot_continue(
    origin: Origin, target: Path, resource: Resource
) -> None:
    url = origin.put("/net", resource)
    resource.cuts = [300_000, 0]
    with pytest.raises(ConfigurationError):
        fetch(url, target, SHA)
    fetch(url, target, SHA)
    assert origin.requests[-1][2] == len(BODY)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_that_changed_meanwhile_starts_over(
    origin: Origin, target: Path, ignores_if_range: bool
) -> None:
    resource = Resource(ignores_if_range=ignores_if_range)
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    resource.body, resource.etag = OTHER, '"v2"'
    fetch(url, target, hashlib.sha256(OTHER).hexdigest())
    assert target.read_bytes() == OTHER
    assert origin.requests[-1][2] == len(OTHER)


def test_a_file_that_shrank_meanwhile_starts_over(origin: Origin, target: Path) -> None:
    resource = Resource(ignores_if_range=True)
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    resource.body = BODY[:1000]
    fetch(url, target, hashlib.sha256(BODY[:1000]).hexdigest())
    assert target.read_bytes() == BODY[:1000]
    assert [request[1] for request in origin.requests[-2:]] == ["bytes=300000-", None]


def test_bytes_of_another_url_are_not_continued(origin: Origin, target: Path) -> None:
    resource = Resource()
    interrupt(origin.put("/old", resource), resource, target)
    fetch(origin.put("/new", Resource()), target, SHA)
    assert origin.requests[-1] == ("/new", None, len(BODY))
    assert target.read_bytes() == BODY


def test_a_part_that_is_complete_is_not_asked_for_again(origin: Origin, target: Path) -> None:
    resource = Resource()
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    target.with_name("net.onnx.part").write_bytes(BODY)
    before = len(origin.requests)
    fetch(url, target, SHA)
    assert len(origin.requests) == before
    assert target.read_bytes() == BODY


def test_a_damaged_part_ends_in_a_wrong_checksum_and_is_gone(origin: Origin, target: Path) -> None:
    resource = Resource()
    url = origin.put("/net", resource)
    interrupt(url, resource, target)
    target.with_name("net.onnx.part").write_bytes(bytes(300_000))
    with pytest.raises(ConfigurationError, match="wrong checksum"):
        fetch(url, target, SHA)
    assert left_over(target) == []
    fetch(url, target, SHA)
    assert target.read_bytes() == BODY


def test_a_wrong_checksum_names_file_expected_and_found(origin: Origin, target: Path) -> None:
    url = origin.put("/net", Resource(body=OTHER))
    with pytest.raises(ConfigurationError) as caught:
        fetch(f"{url}?token=secret", target, SHA)
    found = hashlib.sha256(OTHER).hexdigest()
    assert caught.value.message.startswith(f"net.onnx: wrong checksum: expected sha256 {SHA}, found {found}")
    assert "secret" not in caught.value.message
    assert left_over(target) == []


def test_a_file_in_place_survives_a_wrong_successor(origin: Origin, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    with pytest.raises(ConfigurationError, match="wrong checksum"):
        fetch(origin.put("/net", Resource(body=OTHER)), target, SHA)
    assert target.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("status", "absent"), [(404, True), (410, True), (403, True), (500, False), (204, False)]
)
def test_another_status_is_told_without_the_query(
    origin: Origin, target: Path, status: int, absent: bool
) -> None:
    url = origin.put("/net", Resource(status=status, body=b""))
    with pytest.raises(ConfigurationError, match=rf"net\.onnx: {url} answers {status} \w+") as caught:
        fetch(f"{url}?token=secret", target, SHA)
    assert isinstance(caught.value, AbsentError) == absent
    assert "secret" not in caught.value.message
    assert left_over(target) == []


def test_redirects_are_followed(origin: Origin, target: Path) -> None:
    origin.put("/real", Resource())
    for step in range(4):
        origin.put(f"/{step}", Resource(status=302, location=f"/{step + 1}", body=b""))
    fetch(origin.put("/4", Resource(status=307, location="/real", body=b"")), target, SHA)
    target.unlink()
    fetch(f"http://127.0.0.1:{origin.port}/0", target, SHA)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("location", "reason"),
    [("/loop", "Exceeded maximum allowed redirects"), ("file:///etc/passwd", "unsupported protocol")],
)
def test_redirects_that_lead_nowhere_are_told(
    origin: Origin, target: Path, location: str, reason: str
) -> None:
    url = origin.put("/loop", Resource(status=302, location=location, body=b""))
    with pytest.raises(ConfigurationError, match=reason):
        fetch(url, target, SHA)
    assert len(origin.requests) <= 6
    assert left_over(target) == []


def test_a_body_that_hangs_times_out_and_is_continued_later(origin: Origin, target: Path) -> None:
    resource = Resource(pause_at=200_000)
    url = origin.put("/net", resource)
    resource.cuts = [len(BODY), 0]
    with pytest.raises(ConfigurationError, match=r"timed out|without sending|disconnected"):
        fetch(url, target, SHA, timeout_s=0.3)
    kept = target.with_name("net.onnx.part").stat().st_size
    assert kept == 200_000
    resource.pause_at = 0
    fetch(url, target, SHA)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert target.read_bytes() == BODY


def test_a_server_that_is_not_there_is_told(origin: Origin, target: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(origin)) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/net"
    with pytest.raises(ConfigurationError, match=rf"net\.onnx: {url}: .*[Cc]onn"):
        fetch(url, target, SHA)


def test_a_local_file_is_copied(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "a file.onnx"
    source.write_bytes(BODY)
    fetch(source.as_uri(), target, SHA)
    assert target.read_bytes() == source.read_bytes() == BODY
    assert left_over(target) == ["net.onnx"]
    with pytest.raises(AbsentError, match="missing"):
        fetch((tmp_path / "missing").as_uri(), target, SHA)


def test_what_a_uri_means() -> None:
    hub = "https://huggingface.co/owner/repository/resolve/main/deep/file.onnx"
    assert locate("huggingface://owner/repository/deep/file.onnx") == hub
    assert locate("hf://owner/repository/deep/file.onnx") == hub
    assert locate("https://example.org/x?y=z") == "https://example.org/x?y=z"
    assert locate("file:///a%20b/c") == Path("/a b/c")


@pytest.mark.parametrize(
    "uri",
    ["ftp://a/b", "hf://owner/repository", "file://host/x", "oci://a/b", "/x", "https://", "", "ollama://x"],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="not understood"):
        locate(uri)


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown("https://user:pass@host:1/a/b?token=1#f") == "https://host:1/a/b"
    assert shown("/a/directory") == "/a/directory"


# Whole installations over HTTP.


def gallery_of(tmp_path: Path, url: str) -> Path:
    entry = {
        "name": "net",
        "license": "apache-2.0",
        "commercial": True,
        "backend": "fake",
        "known_usecases": ["face_recognition"],
        "files": [{"filename": "net.onnx", "uri": url, "sha256": SHA}],
    }
    path = tmp_path / "gallery.yaml"
    path.write_text(yaml.safe_dump([entry]))
    return path


def start_install(gallery: Path, models_dir: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "graphs.cli_models", "install", "net"]
    command += ["--gallery", str(gallery), "--models-dir", str(models_dir)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HALF = r"net\.onnx: 0\.[456]"


def read_until(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(words, line):
            return
    pytest.fail(f"{words!r} was never said: {said}")


def test_a_killed_installation_is_not_listed_and_goes_on(origin: Origin, tmp_path: Path) -> None:
    resource = Resource(pause_at=600_000)
    gallery, models_dir = gallery_of(tmp_path, origin.put("/net", resource)), tmp_path / "models"
    with start_install(gallery, models_dir) as process:
        read_until(process, HALF)
        process.kill()
    resource.go_on.set()
    assert installed(models_dir) == {}
    kept = (models_dir / "net.onnx.part").stat().st_size
    assert 300_000 < kept <= 600_000
    resource.pause_at = 0
    path = install(load(gallery)["net"], models_dir)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert (models_dir / "net.onnx").read_bytes() == BODY
    assert [model.name for model in installed(models_dir).values()] == ["net"]
    assert path == models_dir / "net.yaml"


def test_two_installations_at_once_fetch_once(origin: Origin, tmp_path: Path) -> None:
    resource = Resource(pause_at=600_000)
    gallery, models_dir = gallery_of(tmp_path, origin.put("/net", resource)), tmp_path / "models"
    with start_install(gallery, models_dir) as first:
        read_until(first, HALF)
        with start_install(gallery, models_dir) as second:
            read_until(second, "waiting for another installation")
            resource.go_on.set()
            _, said = second.communicate()
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "net.onnx: in place" in said
    assert "net.yaml: in place" in said
    assert origin.requests == [("/net", None, len(BODY))]
    assert (models_dir / "net.onnx").read_bytes() == BODY


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


def test_a_full_disk_is_told_and_the_download_goes_on_when_there_is_space(
    origin: Origin, tmp_path: Path, small_disk: Path
) -> None:
    entry = load(gallery_of(tmp_path, origin.put("/net", Resource())))["net"]
    with pytest.raises(ConfigurationError, match="the disk is full; free some space and install again"):
        install(entry, small_disk)
    assert installed(small_disk) == {}
    assert not (small_disk / "net.onnx").exists()
    kept = (small_disk / "net.onnx.part").stat().st_size
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    install(entry, small_disk)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert (small_disk / "net.onnx").read_bytes() == BODY
