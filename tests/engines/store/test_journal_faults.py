"""What happens to a SQLite journal when its disk, its file or its neighbours fail."""

import os
import shutil
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engines.errors import PresenceError, StoreCorrupt, StoreFull, StoreUnavailable
from engines.store import Filter, NewRecord, State
from engines.store.journal import SqlJournal

New = Callable[..., NewRecord]
FACES = "face/default"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "presence.db"


def opened(path: Path) -> "closing[SqlJournal]":
    return closing(SqlJournal(f"sqlite:///{path}"))


def files(path: Path) -> bytes:
    """All that is on the disk: the database, its log and the log's index."""
    return b"".join(one.read_bytes() for one in path.parent.glob(path.name + "*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two MiB, of which a file named ballast holds a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "none", disk], check=False)
    if mount.returncode != 0:
        pytest.skip("this machine does not let root mount a small disk")
    (disk / "ballast").write_bytes(bytes(1 << 20))
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_harms_nothing(small_disk: Path, new: New) -> None:
    with opened(small_disk / "presence.db") as journal:
        count = 0

        def fill() -> None:
            nonlocal count
            for number in range(count, 5000):
                assert journal.append([new(f"{number}", dim=512)]) == [number + 1]
                count = number + 1

        for _ in range(3):
            with pytest.raises(StoreFull, match=r"disk of presence\.db is full"):
                fill()
        assert 10 < count < 5000
        assert journal.head() == count
        assert journal.verify() == []
        (small_disk / "ballast").unlink()
        before = count
        with pytest.raises(StoreFull):
            fill()
        assert count > before + 10
        assert journal.verify() == []
    with opened(small_disk / "presence.db") as journal:
        assert journal.count(FACES, Filter()) == count
        vectors = journal.embeddings(range(1, count + 1))
        assert all(np.array_equal(vectors[n + 1], new(f"{n}", dim=512).embedding) for n in range(count))


def test_opening_on_a_full_disk(small_disk: Path, new: New) -> None:
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(4 << 20))
    with pytest.raises(StoreFull):
        opened(small_disk / "presence.db")
    filler.unlink()
    with opened(small_disk / "presence.db") as journal:
        assert journal.append([new("a")]) == [1]


def test_a_changed_byte_of_an_embedding_is_found(path: Path, new: New) -> None:
    records = [new(f"{number}", dim=64) for number in range(30)]
    with opened(path) as journal:
        journal.append(records)
    content = bytearray(path.read_bytes())
    content[content.index(records[16].embedding.tobytes()) + 100] ^= 4
    path.write_bytes(content)
    with opened(path) as journal:
        assert journal.verify() == ["the embedding of record 17 is damaged: restore a backup of the store"]
        with pytest.raises(StoreCorrupt, match="record 17"):
            journal.embeddings([16, 17])
        with pytest.raises(StoreCorrupt, match="record 17"):
            journal.changes(0, 100)
        assert len(journal.changes(17, 100)) == 13
        journal.delete(FACES, ["16"])
        assert len(journal.changes(0, 100)) == 31
        assert journal.verify() == []


@pytest.mark.parametrize("text", [b"Rosalind", b"secret", b"private", b"person-5"])
def test_a_changed_byte_of_a_record_is_found(path: Path, new: New, text: bytes) -> None:
    """Of its name, a label, its value, its id."""
    with opened(path) as journal:
        journal.append([new(f"id-{number}") for number in range(4)])
        journal.append([new("person-5", name="Rosalind", labels={"k": "secret"}, value="private")])
    content = path.read_bytes()
    path.write_bytes(content.replace(text, text[:-1] + b"~"))
    with opened(path) as journal:
        problem = "record 5 is damaged: restore a backup of the store"
        assert problem in journal.verify()
        for attempt in (
            lambda: journal.stored([5]),
            lambda: journal.listed(FACES, Filter(), after=0, limit=9),
        ):
            with pytest.raises(StoreCorrupt, match=problem):
                attempt()
        assert len(journal.stored([1, 2, 3, 4])) == 4


def test_records_of_a_version_without_checksums_are_read(path: Path, new: New) -> None:
    with opened(path) as journal:
        journal.append([new("a", name="Ada"), new("b", name="Bob")])
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE records DROP COLUMN checksum")
        other.execute("UPDATE meta SET schema_version = 2")
        other.commit()
    with opened(path) as journal:
        assert journal.verify() == []
        assert [one.name for one in journal.stored([1, 2]).values()] == ["Ada", "Bob"]
        journal.update(FACES, "a", name="Eve")
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE records SET name = 'Ann'")
        other.commit()
    with opened(path) as journal:
        assert journal.verify() == ["record 1 is damaged: restore a backup of the store"]


def test_no_changed_bit_makes_a_wrong_record(path: Path, new: New) -> None:
    """Bits anywhere in the file: what is read is right, or an error of the store says that it is not."""
    records = {n + 1: new(f"{n}", dim=32, labels={"n": str(n)}) for n in range(120)}
    with opened(path) as journal:
        journal.append(list(records.values()))
        journal.delete(FACES, ["7", "70"])
    content, rng, noticed = path.read_bytes(), np.random.default_rng(11), 0
    used = np.flatnonzero(np.frombuffer(content, dtype=np.uint8))
    for at in rng.choice(used, 150, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        for leftover in ("-wal", "-shm"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        try:
            with opened(path) as journal:
                noticed += bool(journal.verify())
                vectors = journal.embeddings(list(records))
                vectors |= {
                    step.record: step.embedding
                    for step in journal.changes(0, 500)
                    if step.embedding is not None
                }
                listed = journal.listed(FACES, Filter(), after=0, limit=500)
        except PresenceError:
            noticed += 1
            continue
        for position, vector in vectors.items():
            np.testing.assert_array_equal(vector, records[position].embedding)
        for one in listed:
            was = records[one.position]
            told = one.id, one.space, one.name, dict(one.labels), one.value, one.created_at
            assert told == (was.id, was.space, was.name, was.labels, was.value, was.created_at)
    assert noticed > 100


def test_a_step_that_is_missing_is_noticed(path: Path, new: New) -> None:
    with opened(path) as journal:
        journal.append([new(one) for one in "abc"])
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA foreign_keys = OFF")
            other.execute("DELETE FROM records WHERE position = 2")
            other.commit()
        with pytest.raises(StoreCorrupt, match="step 2"):
            journal.changes(0, 10)
        assert any("2 steps up to position 3" in problem for problem in journal.verify())


@pytest.mark.parametrize("content", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"presence\.db is damaged") as caught:
        opened(path)
    assert str(path.parent) not in caught.value.message
    assert path.read_bytes() == content


def test_tables_that_are_missing(path: Path, new: New) -> None:
    with opened(path) as journal:
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE labels")
        for attempt in (
            lambda: journal.append([new("a", labels={"a": "b"})]),
            lambda: journal.get(FACES, "a"),
        ):
            with pytest.raises(StoreCorrupt, match="restore a backup"):
                attempt()
        assert journal.head() == 0


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"presence\.db cannot be opened") as caught:
        SqlJournal(f"sqlite:///{tmp_path / 'file' / 'presence.db'}")
    assert str(tmp_path) not in caught.value.message


def test_errors_quote_nothing_that_was_written(path: Path, new: New) -> None:
    name = "-".join(["Rosalind", "Franklin"])
    with opened(path) as journal:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreCorrupt) as caught:
            journal.append([new("a", name=name)])
        assert name not in "".join(traceback.format_exception(caught.value))


def test_a_lock_that_another_holds(path: Path, new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.store.database.LOCK_TIMEOUT_S", 0.1)
    with opened(path) as journal:
        journal.append([new("a")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for attempt in (
                lambda: journal.append([new("b")]),
                lambda: journal.delete(FACES, ["a"]),
                lambda: journal.update(FACES, "a", name="Eve"),
            ):
                with pytest.raises(StoreUnavailable, match="SQLITE_BUSY") as caught:
                    attempt()
                assert type(caught.value) is StoreUnavailable
            assert journal.head() == 1
            assert journal.count(FACES, Filter("Ada")) == 1
        assert journal.append([new("b")]) == [2]


def test_what_is_deleted_leaves_the_files(path: Path, new: New) -> None:
    """Names, ids, labels, values and embeddings: gone from all files when the deletion returns."""
    gone = [
        new(f"gone-{n}", 128, name=f"Rosalind {n}", labels={"k": f"secret {n}"}, value="private")
        for n in range(80)
    ]
    kept = [new(f"kept-{n}", 128, name=f"Dorothy {n}") for n in range(80)]
    with opened(path) as journal:
        for pair in zip(gone, kept, strict=True):
            journal.append(pair)
        before = files(path)
        for text in (b"Rosalind 3", b"gone-3", b"secret 3", b"private", gone[3].embedding.tobytes()):
            assert text in before
        for record in gone[:20]:
            journal.delete(FACES, [record.id])
        journal.delete(FACES, [record.id for record in gone])
        for step in ("deleted", "compacted"):
            after = files(path)
            for text in (b"Rosalind", b"gone-", b"secret", b"private"):
                assert text not in after, step
            assert not any(record.embedding.tobytes()[:64] in after for record in gone)
            assert not any(record.embedding.tobytes()[-64:] in after for record in gone)
            assert all(record.embedding.tobytes() in after for record in kept)
            journal.compact()
        assert len(files(path)) < len(before)
        assert journal.verify() == []


def test_a_name_that_is_replaced_leaves_the_files(path: Path, new: New) -> None:
    with opened(path) as journal:
        journal.append([new("a", name="Rosalind", labels={"lab": "King's"})])
        journal.update(FACES, "a", name="Dorothy", labels={})
        assert b"Rosalind" not in files(path)
        assert b"King's" not in files(path)


def test_a_reader_of_an_old_state_delays_the_erasure_only(
    path: Path, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.store.journal.ERASE_WAIT_S", 0.05)
    monkeypatch.setattr("engines.store.journal.ERASE_EVERY_S", 0.01)
    monkeypatch.setattr("engines.store.database.LOCK_TIMEOUT_S", 0.1)
    with opened(path) as journal:
        journal.append([new("a", name="Rosalind"), new("b", name="Dorothy")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM records").fetchone() == (2,)
            assert journal.delete(FACES, ["a"]) == ["a"]
            assert journal.head() == 3
            assert b"Rosalind" in files(path)
            with pytest.raises(StoreUnavailable, match="log still holds"):
                journal.compact()
            assert reader.execute("SELECT count(*) FROM embeddings").fetchone() == (2,)
        give_up = time.monotonic() + 30
        while b"Rosalind" in files(path):  # nothing announces the end
            assert time.monotonic() < give_up
            time.sleep(0.01)
        assert journal.count(FACES, Filter()) == 1


def test_a_log_that_was_left_is_emptied_at_the_next_opening(path: Path, new: New, tmp_path: Path) -> None:
    """A copy of the files taken between commit and erasure stands for a process that died there."""
    with opened(path) as journal:
        journal.append([new("a", name="Rosalind")])
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA secure_delete = ON")
            other.execute("UPDATE records SET name = ''")
            other.commit()
            crashed = tmp_path / "crashed"
            crashed.mkdir()
            for one in (path, path.with_name("presence.db-wal")):
                shutil.copy(one, crashed)
    assert b"Rosalind" in files(crashed / path.name)
    with opened(crashed / path.name):
        assert b"Rosalind" not in files(crashed / path.name)


def test_the_head_is_read_again_once_a_fault_has_gone(path: Path, new: New) -> None:
    with opened(path) as journal, closing(sqlite3.connect(path, isolation_level=None)) as other:
        journal.append([new("a")])
        assert journal.state() == State(1, 0)
        other.execute("ALTER TABLE head RENAME TO tail")
        with pytest.raises(StoreCorrupt, match=r"^presence\.db is damaged \(SQLITE_ERROR\)"):
            journal.state()
        other.execute("ALTER TABLE tail RENAME TO head")
        assert journal.state() == State(1, 0)
