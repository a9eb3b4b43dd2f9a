"""Snapshots: whole or not used, of this journal alone, and without anything that was deleted."""

import logging
import resource
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from engines.embedding import unit_rows
from engines.errors import StoreUnavailable
from engines.store import Space
from engines.store.faiss_index import FaissIndex
from engines.store.index_options import IndexOptions
from engines.store.snapshot import SnapshotFolder
from engines.types import Embeddings

FACES = Space("face/default", "arcface")
VOICES = Space("voice/default", "ecapa")


def vectors(count: int, dim: int = 8) -> Embeddings:
    return unit_rows(np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32))


def indexes(count: int) -> dict[Space, FaissIndex]:
    found = {FACES: FaissIndex(8), VOICES: FaissIndex(4)}
    for index in found.values():
        index.add(np.arange(1, count + 1), vectors(count, index.dim))
    return found


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir() if one.is_dir())


def newest(path: Path, journal: str = "mine") -> int | None:
    found = SnapshotFolder(path, journal).newest(IndexOptions())
    return None if found is None else found.position


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = indexes(20)
    SnapshotFolder(tmp_path / "deep" / "down", "mine").write(20, written)
    found = SnapshotFolder(tmp_path / "deep" / "down", "mine").newest(IndexOptions())
    assert found is not None
    assert found.position == 20
    assert list(found.indexes) == [FACES, VOICES]
    for space, index in found.indexes.items():
        assert index.dim == written[space].dim
        assert index.positions.tolist() == list(range(1, 21))
        assert index.search(vectors(20, index.dim), 1)[1].ravel().tolist() == list(range(1, 21))


def test_an_empty_store_has_a_snapshot_too(tmp_path: Path) -> None:
    SnapshotFolder(tmp_path, "mine").write(0, {})
    assert newest(tmp_path) == 0


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def write_and_keep(path: Path, *counts: int) -> None:
    """A snapshot of each count, as a writer leaves them that dies before it removes the older ones."""
    for count in counts:
        with TemporaryDirectory() as aside:
            older = [Path(shutil.copytree(path / name, Path(aside) / name)) for name in names(path)]
            SnapshotFolder(path, "mine").write(count, indexes(count))
            for one in older:
                shutil.copytree(one, path / one.name)


def test_one_is_kept(tmp_path: Path) -> None:
    write_and_keep(tmp_path, 1, 2, 3)
    assert [one.split("-")[1] for one in names(tmp_path)] == ["1", "2", "3"]
    SnapshotFolder(tmp_path, "mine").write(3, indexes(3))
    assert [one.split("-")[1] for one in names(tmp_path)] == ["3"]


def test_what_another_replica_has_written_is_not_written_again(tmp_path: Path) -> None:
    SnapshotFolder(tmp_path, "mine").write(5, indexes(5))
    before = names(tmp_path)
    for position in (4, 5):
        SnapshotFolder(tmp_path, "mine").write(position, indexes(position))
    assert names(tmp_path) == before
    SnapshotFolder(tmp_path, "mine").write(6, indexes(6))
    assert newest(tmp_path) == 6


def test_nothing_is_left_when_it_is_cleared(tmp_path: Path) -> None:
    write_and_keep(tmp_path, 5, 9)
    SnapshotFolder(tmp_path, "mine").clear()
    assert names(tmp_path) == []
    assert newest(tmp_path) is None


@pytest.mark.parametrize("file", ["manifest", "0.index", "1.index"])
@pytest.mark.parametrize("damage", ["torn", "flipped", "absent", "swapped"])
def test_a_damaged_snapshot_is_passed_over(
    file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_and_keep(tmp_path, 10, 20)
    path = tmp_path / names(tmp_path)[1] / file
    content = path.read_bytes()
    if damage == "torn":
        path.write_bytes(content[:-7])
    elif damage == "flipped":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif damage == "absent":
        path.unlink()
    else:
        path.write_bytes((path.parent / ("0.index" if file != "0.index" else "1.index")).read_bytes())
    with caplog.at_level(logging.WARNING, "presence.store"):
        assert newest(tmp_path) == 10
    assert path.parent.name in caplog.text
    SnapshotFolder(tmp_path, "mine").write(21, indexes(21))
    assert newest(tmp_path) == 21


def test_a_snapshot_of_another_journal_is_passed_over_and_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SnapshotFolder(tmp_path, "other").write(50, indexes(50))
    with caplog.at_level(logging.WARNING, "presence.store"):
        assert newest(tmp_path) is None
    assert "another journal" in caplog.text
    SnapshotFolder(tmp_path, "mine").write(3, indexes(3))
    assert [one.split("-")[1] for one in names(tmp_path)] == ["3"]


def test_what_a_dead_writer_left_is_not_used_and_removed(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, "mine")
    folder.write(1, indexes(1))
    shutil.copytree(tmp_path / names(tmp_path)[0], tmp_path / ".99999999999999999999-7")
    assert newest(tmp_path) == 1
    folder.write(2, indexes(2))
    assert [one.split("-")[1] for one in names(tmp_path)] == ["2"]
    assert newest(tmp_path) == 2


def test_a_disk_that_takes_no_more_leaves_the_older_snapshot(tmp_path: Path) -> None:
    folder, limits = SnapshotFolder(tmp_path, "mine"), resource.getrlimit(resource.RLIMIT_FSIZE)
    folder.write(10, indexes(10))
    big = FaissIndex(64)
    big.add(np.arange(1000), vectors(1000, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match="no snapshot could be written"):
            folder.write(11, {FACES: big})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(names(tmp_path)) == 1
    assert newest(tmp_path) == 10


def test_nothing_removed_is_in_a_snapshot(tmp_path: Path) -> None:
    written, rows = indexes(30), vectors(30)
    written[FACES].remove(np.array([12]))
    SnapshotFolder(tmp_path, "mine").write(31, written)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert rows[11].tobytes() not in content
    assert rows[12].tobytes() in content
