"""Every kind of journal, for real: in a SQLite file, in Postgres, and in Postgres with pgvector."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engines.store import NewRecord, Space
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["sqlite", "postgres", "pgvector"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of journal."""
    return str(request.param)


@pytest.fixture
def open_journal(kind: str) -> type[SqlJournal]:
    """The class that opens the journal at a URL."""
    return PgVectorJournal if kind == "pgvector" else SqlJournal


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'presence.db'}"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def journal(url: str, open_journal: type[SqlJournal]) -> Iterator[SqlJournal]:
    with closing(open_journal(url)) as opened:
        yield opened


@pytest.fixture
def new() -> Callable[..., NewRecord]:
    """new(id, dim=8, namespace=..., model=..., name=..., ...): a record with an embedding of its own."""

    def make(
        record_id: str,
        dim: int = 8,
        namespace: str = "face/default",
        model: str = "dlib",
        name: str = "Ada",
        labels: dict[str, str] | None = None,
        value: str | None = None,
        created_at: float = 1.5,
    ) -> NewRecord:
        seed = np.frombuffer(record_id.encode(errors="surrogatepass") or b"-", dtype=np.uint8)
        vector = np.random.default_rng(list(seed)).standard_normal(dim).astype(np.float32)
        return NewRecord(record_id, Space(namespace, model), vector, name, labels or {}, value, created_at)

    return make


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start_python(script, *args): another process that can import the project."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *args],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
