"""Both databases of the journal, for real: a SQLite file and a Postgres server of its own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from engines.store import NewRecord, Space
from engines.store.journal import SqlJournal

ROOT = Path(__file__).resolve().parents[3]


class Postgres:
    """A server on a socket in its own directory, run by an unprivileged user when the tests are root's."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.directory = directory
        self._programs = programs
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            os.chown(directory, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync")
        self.start()

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._programs / program), "-D", str(self.directory / "data"), *args]
        nowhere = subprocess.DEVNULL
        subprocess.run(
            command,
            check=True,
            cwd=self.directory,
            user=self._user,
            stdin=nowhere,
            stdout=nowhere,
            stderr=nowhere,
        )

    def start(self) -> None:
        options = f"-h '' -k {self.directory} -c shared_buffers=16MB -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-w", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As if the machine had failed: nothing is finished, nobody is told."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def execute(self, *statements: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"presence_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("no Postgres here: install the dev extra")
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = Postgres(Path(found.origin).parent / "pginstall" / "bin", directory)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        shutil.rmtree(directory)
        pytest.skip(f"Postgres cannot run as an unprivileged user here: {error}")
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'presence.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def journal(url: str) -> Iterator[SqlJournal]:
    with closing(SqlJournal(url)) as opened:
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
