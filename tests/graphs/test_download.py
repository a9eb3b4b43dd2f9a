"""Fetching over a real socket, from a server with every fault that a test asks of it."""

import hashlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines.errors import ConfigurationError
from graphs.download import AbsentError, Reporter, fetch, locate, shown

if TYPE_CHECKING:
    from tests.graphs.conftest import Origin, Resource

BODY = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(32_000))
"""1,024,000 bytes that don't repeat."""
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "net.onnx"


def left_over(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def interrupt(resource: "Resource", target: Path, at: int = 300_000) -> None:
    """A download that breaks after `at` bytes; the server sends nothing more to the second attempt."""
    resource.cuts = [at, 0]
    with pytest.raises(ConfigurationError, match="without sending complete message body"):
        fetch(resource.url, target, SHA)
    assert not target.exists()
    assert target.with_name("net.onnx.part").stat().st_size == at


def test_a_file_arrives_whole_and_progress_is_told(origin: "Origin", target: Path) -> None:
    class Heard(Reporter):
        said: list[tuple[str, int, int | None]] = []  # noqa: RUF012 - one test, one list

        def progress(self, name: str, done: int, total: int | None) -> None:
            self.said.append((name, done, total))

    heard = Heard()
    fetch(origin.put("/net", BODY).url, target, SHA, heard)
    assert target.read_bytes() == BODY
    assert left_over(target) == ["net.onnx"]
    assert heard.said[0] == ("net.onnx", 0, len(BODY))
    assert heard.said[-1] == ("net.onnx", len(BODY), len(BODY))
    assert [done for _, done, _ in heard.said] == sorted(done for _, done, _ in heard.said)


def test_a_server_that_tells_no_length_is_read_to_its_end(origin: "Origin", target: Path) -> None:
    fetch(origin.put("/net", BODY, lengthless=True).url, target, SHA)
    assert target.read_bytes() == BODY


def test_a_broken_connection_is_continued_at_once(origin: "Origin", target: Path) -> None:
    fetch(origin.put("/net", BODY, cuts=[200_000, 300_000]).url, target, SHA)
    assert target.read_bytes() == BODY
    assert origin.requests == [
        ("/net", None, 200_000),
        ("/net", "bytes=200000-", 300_000),
        ("/net", "bytes=500000-", len(BODY) - 500_000),
    ]


def test_it_gives_up_where_every_answer_breaks(origin: "Origin", target: Path) -> None:
    url = origin.put("/net", BODY, cuts=[1000] * 9).url
    with pytest.raises(ConfigurationError, match=r"4000 bytes are kept, install again to go on from there"):
        fetch(url, target, SHA)
    assert len(origin.requests) == 4
    assert left_over(target) == ["net.onnx.part", "net.onnx.part.json"]


def test_a_later_run_asks_only_for_the_rest(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY)
    interrupt(resource, target)
    fetch(resource.url, target, SHA)
    assert origin.requests[-1] == ("/net", "bytes=300000-", len(BODY) - 300_000)
    assert target.read_bytes() == BODY
    assert left_over(target) == ["net.onnx"]


def test_the_time_of_the_last_change_serves_where_the_etag_is_weak(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY, etag='W/"v1"', modified="Sat, 21 Nov 2026 06:00:00 GMT")
    interrupt(resource, target)
    fetch(resource.url, target, SHA)
    assert origin.requests[-1] == ("/net", "bytes=300000-", len(BODY) - 300_000)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("options", [{"ranges": False}, {"etag": ""}], ids=["no ranges", "no validator"])
def test_it_starts_over_where_the_source_cannot_continue(
    origin: "Origin", target: Path, options: dict[str, Any]
) -> None:
    url = origin.put("/net", BODY, cuts=[300_000, 0], **options).url
    with pytest.raises(ConfigurationError):
        fetch(url, target, SHA)
    fetch(url, target, SHA)
    assert origin.requests[-1][2] == len(BODY)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_that_changed_meanwhile_starts_over(
    origin: "Origin", target: Path, ignores_if_range: bool
) -> None:
    resource = origin.put("/net", BODY, ignores_if_range=ignores_if_range)
    interrupt(resource, target)
    resource.body, resource.etag = OTHER, '"v2"'
    fetch(resource.url, target, hashlib.sha256(OTHER).hexdigest())
    assert target.read_bytes() == OTHER
    assert origin.requests[-1][2] == len(OTHER)


def test_a_file_that_shrank_meanwhile_starts_over(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY, ignores_if_range=True)
    interrupt(resource, target)
    resource.body = BODY[:1000]
    fetch(resource.url, target, hashlib.sha256(BODY[:1000]).hexdigest())
    assert target.read_bytes() == BODY[:1000]
    assert [request[1] for request in origin.requests[-2:]] == ["bytes=300000-", None]


def test_bytes_of_another_url_are_not_continued(origin: "Origin", target: Path) -> None:
    interrupt(origin.put("/old", BODY), target)
    fetch(origin.put("/new", BODY).url, target, SHA)
    assert origin.requests[-1] == ("/new", None, len(BODY))
    assert target.read_bytes() == BODY


def test_a_part_that_is_complete_is_not_asked_for_again(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY)
    interrupt(resource, target)
    target.with_name("net.onnx.part").write_bytes(BODY)
    before = len(origin.requests)
    fetch(resource.url, target, SHA)
    assert len(origin.requests) == before
    assert target.read_bytes() == BODY


def test_a_damaged_part_ends_in_a_wrong_checksum_and_is_gone(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY)
    interrupt(resource, target)
    target.with_name("net.onnx.part").write_bytes(bytes(300_000))
    with pytest.raises(ConfigurationError, match="wrong checksum"):
        fetch(resource.url, target, SHA)
    assert left_over(target) == []
    fetch(resource.url, target, SHA)
    assert target.read_bytes() == BODY


def test_a_wrong_checksum_names_file_expected_and_found(origin: "Origin", target: Path) -> None:
    url = origin.put("/net", OTHER).url
    with pytest.raises(ConfigurationError) as caught:
        fetch(f"{url}?token=secret", target, SHA)
    found = hashlib.sha256(OTHER).hexdigest()
    assert caught.value.message.startswith(f"net.onnx: wrong checksum: expected sha256 {SHA}, found {found}")
    assert "secret" not in caught.value.message
    assert left_over(target) == []


def test_a_file_in_place_survives_a_wrong_successor(origin: "Origin", target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    with pytest.raises(ConfigurationError, match="wrong checksum"):
        fetch(origin.put("/net", OTHER).url, target, SHA)
    assert target.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("status", "absent"), [(404, True), (410, True), (403, True), (500, False), (204, False)]
)
def test_another_status_is_told_without_the_query(
    origin: "Origin", target: Path, status: int, absent: bool
) -> None:
    url = origin.put("/net", b"", status=status).url
    with pytest.raises(ConfigurationError, match=rf"net\.onnx: {url} answers {status} \w+") as caught:
        fetch(f"{url}?token=secret", target, SHA)
    assert isinstance(caught.value, AbsentError) == absent
    assert "secret" not in caught.value.message
    assert left_over(target) == []


def test_redirects_are_followed(origin: "Origin", target: Path) -> None:
    origin.put("/real", BODY)
    for step in range(4):
        origin.put(f"/{step}", b"", status=302, location=f"/{step + 1}")
    fetch(origin.put("/4", b"", status=307, location="/real").url, target, SHA)
    target.unlink()
    fetch(f"http://127.0.0.1:{origin.port}/0", target, SHA)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("location", "reason"),
    [("/loop", "Exceeded maximum allowed redirects"), ("file:///etc/passwd", "unsupported protocol")],
)
def test_redirects_that_lead_nowhere_are_told(
    origin: "Origin", target: Path, location: str, reason: str
) -> None:
    url = origin.put("/loop", b"", status=302, location=location).url
    with pytest.raises(ConfigurationError, match=reason):
        fetch(url, target, SHA)
    assert len(origin.requests) <= 6
    assert left_over(target) == []


def test_a_body_that_hangs_times_out_and_is_continued_later(origin: "Origin", target: Path) -> None:
    resource = origin.put("/net", BODY, pause_at=200_000)
    resource.cuts = [len(BODY), 0]
    with pytest.raises(ConfigurationError, match=r"timed out|without sending|disconnected"):
        fetch(resource.url, target, SHA, timeout_s=0.3)
    kept = target.with_name("net.onnx.part").stat().st_size
    assert kept == 200_000
    resource.pause_at = 0
    fetch(resource.url, target, SHA)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert target.read_bytes() == BODY


def test_a_server_that_is_not_there_is_told(target: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
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
