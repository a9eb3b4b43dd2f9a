"""Snapshots of the indexes, so that a replica need not read the whole journal when it starts.

A snapshot is a directory `<nanoseconds of the clock>-<position>` with one file an index and a manifest.
It appears by one rename, when all of it is on the disk. The folder of snapshots belongs to one journal,
and may be shared by many replicas: whatever in it is not the newest snapshot of that journal is removed.
"""

import errno
import fcntl
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import StoreCorrupt, StoreFull, StoreUnavailable
from engines.store import Space
from engines.store.faiss_index import FaissIndex
from engines.store.index_options import IndexOptions
from engines.store.sealed_file import opened, sync_directory, written

logger = logging.getLogger("presence.store")

MANIFEST = "manifest"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All indexes as they were at a position of the journal."""

    position: int
    indexes: dict[Space, FaissIndex]


class SnapshotFolder:
    """Snapshots of the journal with this identity."""

    def __init__(self, path: Path, journal: str) -> None:
        self._path = path
        self._journal = journal

    def write(self, position: int, indexes: Mapping[Space, FaissIndex]) -> None:
        """Makes the folder hold one snapshot, of this position or a later one; another may have written it.

        One of the same position in which fewer indexes are as they should be is replaced.

        Raises StoreUnavailable, StoreFull when the disk is full: the older snapshot is then still there.
        """
        with self._writing():
            built = sum(not index.due() for index in indexes.values())
            if not self._holds_only(position, built):
                self._write(position, built, indexes)
                self._prune(keep=1)

    def clear(self) -> None:
        """Removes all snapshots. Raises StoreUnavailable."""
        with self._writing():
            self._prune(keep=0)

    def newest(self, options: IndexOptions) -> Snapshot | None:
        """The newest snapshot that is whole and of this journal; others are logged and passed over."""
        if not self._path.is_dir():
            return None
        with self._locked(fcntl.LOCK_SH):  # nobody removes what is read
            for path in self._ordered():
                try:
                    return self._read(path, options)
                except (StoreCorrupt, OSError) as problem:
                    logger.warning("snapshot %s is not used: %s", path.name, problem)
        return None

    def _holds_only(self, position: int, built: int) -> bool:
        there = [path for path in self._path.iterdir() if path.is_dir()]
        if len(there) != 1 or there != self._ordered():
            return False
        try:
            manifest = self._manifest(there[0])
            return (manifest["position"], manifest["built"]) >= (position, built)
        except (StoreCorrupt, OSError, KeyError):
            return False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among all writers and readers of this machine."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with self._locked(fcntl.LOCK_EX):
                yield
        except OSError as problem:
            kind = StoreFull if problem.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
            raise kind(f"no snapshot could be written: {problem.strerror}") from problem

    def _write(self, position: int, built: int, indexes: Mapping[Space, FaissIndex]) -> None:
        name = f"{time.time_ns():020d}-{position}"
        temporary = self._path / f".{name}"
        temporary.mkdir()
        try:
            spaces = []
            for number, (space, index) in enumerate(indexes.items()):
                count = index.save(temporary / f"{number}.index")
                spaces.append([space.namespace, space.model, index.dim, count])
            manifest = {"journal": self._journal, "position": position, "built": built, "spaces": spaces}
            with written(temporary / MANIFEST) as write:
                write(json.dumps(manifest).encode() + b"\n")
            temporary.rename(self._path / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(self._path)

    def _manifest(self, path: Path) -> dict[str, Any]:
        """Raises StoreCorrupt when it is torn or of another journal, OSError when it can't be read."""
        with opened(path / MANIFEST) as file:
            manifest: dict[str, Any] = json.loads(file.readline())
        if manifest.get("journal") != self._journal:
            raise StoreCorrupt("it was made of another journal")
        return manifest

    def _read(self, path: Path, options: IndexOptions) -> Snapshot:
        manifest = self._manifest(path)
        indexes: dict[Space, FaissIndex] = {}
        for number, (namespace, model, dim, count) in enumerate(manifest["spaces"]):
            index = FaissIndex.load(path / f"{number}.index", options)
            if (index.dim, len(index)) != (dim, count):
                raise StoreCorrupt(f"{number}.index is not the one that the manifest names")
            indexes[Space(namespace, model)] = index
        return Snapshot(manifest["position"], indexes)

    def _prune(self, keep: int) -> None:
        """Removes what replicas that died left unfinished, too: nobody else writes now."""
        kept = [path for path in self._ordered() if self._is_ours(path)][:keep]
        for path in self._path.iterdir():
            if path.is_dir() and path not in kept:
                shutil.rmtree(path)

    def _is_ours(self, path: Path) -> bool:
        try:
            self._manifest(path)
        except (StoreCorrupt, OSError):
            return False
        return True

    def _ordered(self) -> list[Path]:
        """Finished snapshots, newest first."""
        return sorted((path for path in self._path.glob("[0-9]*-*") if path.is_dir()), reverse=True)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """how: LOCK_SH or LOCK_EX, among all processes of this machine."""
        with (self._path / LOCK).open("w") as file:
            fcntl.flock(file, how)
            yield
