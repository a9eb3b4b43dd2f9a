"""What all tests share."""

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.store import StoreSpec, VectorStore
from engines.errors import PresenceError
from engines.store.database import Database

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VectorStore]]:
    """Makes replicas of the store on one file; closes their connections at the end."""
    databases: list[Database] = []
    original = Database.__init__

    def remembered(self: Database, url: str) -> None:
        original(self, url)
        databases.append(self)

    monkeypatch.setattr(Database, "__init__", remembered)
    yield lambda **more: VectorStore(StoreSpec(f"sqlite:///{tmp_path / 'presence.db'}", **more))
    for database in databases:
        database.close()


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
