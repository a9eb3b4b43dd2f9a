"""What all tests share."""

import importlib.util
import io
import os
import pwd
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from xdist.scheduler.loadscope import (  # type: ignore[import-untyped] # it ships without types
    LoadScopeScheduling,
)

from deployments.store import StoreSpec, VectorStore
from engines.errors import PresenceError

ROOT = Path(__file__).resolve().parents[1]


SERVICES = "tests/service/"
STARTS = {
    f"{SERVICES}test_{name}.py"
    for name in (
        "command",
        "neural_speech",
        "parler_environment",
        "pgvector",
        "serve_deploy",
        "serve_run",
        "store_damage",
        "store_databases",
        "store_faults",
    )
}
"""Each starts services of its own, whatever else the machine does."""


class ServicesTogether(LoadScopeScheduling):  # type: ignore[misc] # of no known type
    """Where processes share the tests: one has all of running services but STARTS, and modules stay whole."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return SERVICES if module.startswith(SERVICES) and module not in STARTS else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return ServicesTogether(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights and media beside the project; tests that need them skip where they are absent."""
    path = ROOT.parent / "shared"
    if not (path / "media").is_dir():
        pytest.skip("no shared test data beside the project")
    return path


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """A WAV file of 16 kHz: hertz, seconds, and how loud, 0..1."""

    def made(hertz: float, seconds: float = 0.5, level: float = 0.3) -> bytes:
        samples = level * 32767 * np.sin(2 * np.pi * hertz / 16_000 * np.arange(int(16_000 * seconds)))
        with io.BytesIO() as file:
            with wave.open(file, "wb") as out:
                out.setparams((1, 2, 16_000, len(samples), "NONE", ""))
                out.writeframes(samples.astype("<i2").tobytes())
            return file.getvalue()

    return made


class Postgres:
    """A server on a socket in its own directory, run by an unprivileged user when the tests are root's."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.directory = directory
        self.programs = programs
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            os.chown(directory, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync")
        self.start()

    def _run(self, program: str, *args: str) -> None:
        command = [str(self.programs / program), "-D", str(self.directory / "data"), *args]
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


@pytest.fixture
def store_spec(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSpec:
    """What replicas of the store share: an empty database in SQLite, or in Postgres if asked for."""
    if getattr(request, "param", "faiss") == "faiss":
        return StoreSpec(f"sqlite:///{tmp_path / 'presence.db'}")
    return StoreSpec(request.getfixturevalue("postgres").new_database(), "pgvector")


@pytest.fixture
def opened(store_spec: StoreSpec) -> Iterator[Callable[..., VectorStore]]:
    """Makes replicas of the store on one database; closes them at the end."""
    with ExitStack() as stores:
        yield lambda **more: stores.enter_context(closing(VectorStore(replace(store_spec, **more))))


class Local:
    """A store deployment without Ray: errors that come as values are raised, as by the remote adapter."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.searched: list[int] = []

    def __getattr__(self, method: str) -> Callable[[Any, float], Any]:
        async def call(argument: Any, deadline: float) -> Any:
            if method == "search":
                self.searched.append(argument.k)
            answer = await getattr(self._store, method)(argument, deadline)
            if isinstance(answer, PresenceError):
                raise answer
            return answer

        return call


@pytest.fixture
async def local_store(opened: Callable[..., VectorStore]) -> Any:
    """A store in this process, for flows: typed as Any, as it answers every method of their Protocol."""
    deployment = opened()
    await deployment.reconfigure({"max_batch_size": 64})
    return Local(deployment)
