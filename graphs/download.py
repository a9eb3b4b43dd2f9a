"""Fetching one file: resumed where it stopped, checked while it streams, in place only when it is whole."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from engines.errors import ConfigurationError

TIMEOUT_S = 30.0
ATTEMPTS = 4
MAX_REDIRECTS = 5
CHUNK_BYTES = 2**18
UNSATISFIABLE = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
ABSENT = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
"""Answers that mean "no such file": object stores say 403 where a caller may not list."""


class AbsentError(ConfigurationError):
    """The source was reached and does not have the file."""


class Reporter:
    """Hears what an install does. This one is silent."""

    def message(self, line: str) -> None:
        """One thing that happened."""

    def progress(self, name: str, done: int, total: int | None) -> None:
        """Bytes of a file so far; total is None where the source does not tell."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A file on its way: `target` with .part added, and beside it what the bytes in it came from."""

    target: Path
    sha256: str
    report: Reporter

    @property
    def path(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self, url: str) -> str:
        """The ETag or Last-Modified that the bytes came with, "" where they can't be continued from there."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return ""
        same = isinstance(note, dict) and note.get("url") == url
        return str(note.get("validator", "")) if same else ""

    def start(self, url: str, validator: str) -> None:
        """Forgets the bytes that are there and notes where the next ones come from."""
        self.drop()
        self.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def append(self, pieces: Iterator[bytes], digest: "hashlib._Hash", total: int | None) -> str:
        """Writes and hashes the pieces; gives the sha256 of the whole file. digest: of what is there."""
        done = self.size()
        self.report.progress(self.target.name, done, total)
        with self.path.open("ab") as out:
            for piece in pieces:
                out.write(piece)
                digest.update(piece)
                done += len(piece)
                self.report.progress(self.target.name, done, total)
        return digest.hexdigest()

    def drop(self) -> None:
        """Deletes the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def fetch(
    uri: str, target: Path, sha256: str, report: Reporter | None = None, timeout_s: float = TIMEOUT_S
) -> None:
    """Puts the file behind a URI at `target`. What was fetched before an interruption is not fetched again.

    uri: as `locate` takes it. timeout_s: to connect, and between two pieces of the body.
    Raises AbsentError where the source has no such file, ConfigurationError where it can't be reached or
    gives other bytes than the checksum names, OSError where the disk refuses.
    """
    source = locate(uri)
    part = _Part(target, sha256, report or Reporter())
    target.parent.mkdir(parents=True, exist_ok=True)
    found = _copy(source, part) if isinstance(source, Path) else _download(source, part, timeout_s)
    if found != sha256:
        part.drop()
        raise ConfigurationError(
            f"{target.name}: wrong checksum: expected sha256 {sha256}, found {found} at {shown(uri)}; "
            "nothing of it was kept"
        )
    commit(part.path, target)
    part.note.unlink(missing_ok=True)


def locate(uri: str) -> str | Path:
    """The URL or the local path that a URI of the gallery means.

    http, https, file, and huggingface://owner/repository/path (hf:// for short), which means the file on
    the repository's main branch. Raises ConfigurationError for anything else.
    """
    scheme, _, rest = uri.partition("://")
    if scheme in ("http", "https") and urlsplit(uri).netloc:
        return uri
    if scheme == "file" and rest.startswith("/"):
        return Path(url2pathname(urlsplit(uri).path))
    if scheme in ("huggingface", "hf") and rest.count("/") >= 2:
        owner, repository, path = rest.split("/", 2)
        return f"https://huggingface.co/{owner}/{repository}/resolve/main/{path}"
    raise ConfigurationError(
        f"{shown(uri)}: not understood; give http://, https://, file:///path or huggingface://owner/repository/path"
    )


def shown(uri: str) -> str:
    """A URI as it may be told: without user, password, query and fragment, which can hold secrets."""
    bare = uri.partition("?")[0].partition("#")[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else bare


def commit(part: Path, target: Path) -> None:
    """Gives a written file its final name, so that after a power failure it is there whole or not at all."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def checksum(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, part: _Part) -> str:
    if not source.is_file():
        raise AbsentError(f"{source}: no such file")
    part.drop()
    with source.open("rb") as file:
        pieces = iter(lambda: file.read(CHUNK_BYTES), b"")
        return part.append(pieces, hashlib.sha256(), source.stat().st_size)


def _download(url: str, part: _Part, timeout_s: float) -> str:
    """Tries again for as long as each attempt gets further, which a broken connection does not prevent."""
    with httpx.Client(follow_redirects=True, max_redirects=MAX_REDIRECTS, timeout=timeout_s) as client:
        left = ATTEMPTS
        while True:
            before, left = part.size(), left - 1
            try:
                return _attempt(client, url, part)
            except httpx.TransportError as error:
                if not left or part.size() <= before:
                    raise _unreachable(url, part, error) from error
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise _unreachable(url, part, error) from error


def _unreachable(url: str, part: _Part, error: Exception) -> ConfigurationError:
    reason = str(error) or type(error).__name__
    resumable = part.size() and part.validator(url)
    kept = f"; {part.size()} bytes are kept, install again to go on from there" if resumable else ""
    return ConfigurationError(f"{part.target.name}: {shown(url)}: {reason}{kept}")


def _attempt(client: httpx.Client, url: str, part: _Part) -> str:
    """One request: the rest of the file where the source can tell that it is the same one, else all of it."""
    validator = part.validator(url)
    have = part.size() if validator else 0
    digest = hashlib.sha256()
    headers = {"Accept-Encoding": "identity"}
    if have:
        with part.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if digest.hexdigest() == part.sha256:
            return part.sha256
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with client.stream("GET", url, headers=headers) as response:
        if have and _continues(response, have, validator):
            return _receive(response, part, digest)
        if response.status_code == HTTPStatus.OK:
            part.start(url, _validator(response))
            return _receive(response, part, hashlib.sha256())
        starts_over = response.is_success or response.status_code == UNSATISFIABLE
        if not (have and starts_over):
            raise _refused(response, url, part.target.name)
    part.drop()
    return _attempt(client, url, part)


def _continues(response: httpx.Response, have: int, validator: str) -> bool:
    """Whether the body is what follows the bytes that are there, of the same version of the file."""
    return (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        and _validator(response) in ("", validator)
    )


def _validator(response: httpx.Response) -> str:
    """What names this version of the file: a strong ETag, else the time of its last change, else nothing."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _refused(response: httpx.Response, url: str, name: str) -> ConfigurationError:
    kind = AbsentError if response.status_code in ABSENT else ConfigurationError
    return kind(f"{name}: {shown(url)} answers {response.status_code} {response.reason_phrase}".rstrip())


def _receive(response: httpx.Response, part: _Part, digest: "hashlib._Hash") -> str:
    length = response.headers.get("Content-Length", "")
    total = part.size() + int(length) if length.isdecimal() else None
    return part.append(response.iter_raw(), digest, total)
