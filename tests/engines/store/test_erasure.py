"""Postgres: what was deleted or replaced leaves the tables when they are compacted, and only then."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text

from engines.embedding import unit_rows
from engines.errors import ConfigurationError, StoreUnavailable
from engines.store import NewRecord, Space
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal

New = Callable[..., NewRecord]
Open = Callable[[str], SqlJournal]
FACES = "face/default"
HNSW = IndexOptions("hnsw", m=8, ef_construction=32, approximate_from=10)
TABLES = "SELECT relname || relfilenode FROM pg_class WHERE relname IN ('records', 'embeddings', 'vectors')"


class Postgres(Protocol):
    """The server of the tests."""

    directory: Path

    def execute(self, *statements: str, database: str = "postgres") -> None: ...
    def new_database(self) -> str: ...


@pytest.fixture
def address(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture(params=[SqlJournal, partial(PgVectorJournal, options=HNSW)], ids=["sql", "hnsw"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens a journal at an address."""
    kind: Open = request.param
    return kind


@pytest.fixture
def journal(opened: Open, address: str) -> Iterator[SqlJournal]:
    with closing(opened(address)) as one:
        yield one


@pytest.fixture
def files(postgres: Postgres, address: str) -> Callable[[], bytes]:
    """All of the database that is on the disk, once its planner has looked at the tables."""

    def read() -> bytes:
        postgres.execute("ANALYZE", "CHECKPOINT", database=str(make_url(address).database))
        (number,) = stated(address, "SELECT oid::text FROM pg_database WHERE datname = current_database()")
        folder = postgres.directory / "data" / "base" / number
        return b"".join(path.read_bytes() for path in folder.iterdir())

    return read


def stated(address: str, query: str) -> list[str]:
    engine = create_engine(address)
    with engine.connect() as connection:
        found = [str(one) for one in connection.execute(text(query)).scalars()]
    engine.dispose()
    return found


def people(new: New, kind: str, count: int) -> list[NewRecord]:
    """Whose every word begins with their kind."""
    return [
        new(f"{kind}-{n}", 128, name=f"{kind} {n}", labels={f"{kind}s": f"{kind}: {n}"}, value=f"{kind}? {n}")
        for n in range(count)
    ]


def rows(records: list[NewRecord], *, with_units: bool) -> list[bytes]:
    """Embeddings as they lie in the tables."""
    written = [record.embedding for record in records]
    return [row.tobytes() for row in written + (list(unit_rows(np.stack(written))) if with_units else [])]


def by_command(journal: SqlJournal) -> None:
    journal.compact()


def by_upkeep(journal: SqlJournal) -> None:
    journal.compact_when_due(0.0)


@pytest.mark.parametrize("compact", [by_command, by_upkeep])
def test_what_is_deleted_leaves_the_tables(
    journal: SqlJournal, new: New, files: Callable[[], bytes], compact: Callable[[SqlJournal], None]
) -> None:
    """Ids, names, labels, values and embeddings: of all files of the database, its planner's samples too.

    The server's log is not looked at.
    """
    searched = isinstance(journal, PgVectorJournal)
    gone, kept = people(new, "gone", 80), people(new, "kept", 80)
    journal.append([one for pair in zip(gone, kept, strict=True) for one in pair])
    if isinstance(journal, PgVectorJournal):
        journal.keep_up()
    before = files()
    words = (b"gone-3", b"gone 3", b"gones", b"gone: 3", b"gone? 3")
    assert [word in before for word in words] == [True] * len(words)
    assert all(row in before for row in rows(gone, with_units=searched))
    journal.delete(FACES, [record.id for record in gone])
    compact(journal)
    if isinstance(journal, PgVectorJournal):
        journal.keep_up()
        found = journal.search(Space(FACES, "dlib"), kept[7].embedding[None], 1)
        assert [match.stored.id for match in found.matches[0]] == ["kept-7"]
    after = files()
    assert b"gone" not in after
    assert not any(row in after for row in rows(gone, with_units=searched))
    assert all(row in after for row in rows(kept, with_units=searched))
    assert journal.verify() == []


def test_what_is_replaced_leaves_the_tables(
    journal: SqlJournal, new: New, files: Callable[[], bytes]
) -> None:
    journal.append([new("a", name="Rosalind", labels={"team": "secret"}, value="private"), new("b")])
    journal.update(FACES, "a", name="Dorothy", labels={"team": "open"}, value="public")
    before = files()
    journal.compact_when_due(0.0)
    after = files()
    for old, replacement in ((b"Rosalind", b"Dorothy"), (b"secret", b"open"), (b"private", b"public")):
        assert (old in before, old in after) == (True, False)
        assert replacement in after


def test_a_database_that_pgvector_searched_before(address: str, new: New, files: Callable[[], bytes]) -> None:
    """The vectors are erased by a journal that does not use them, too."""
    gone, kept = people(new, "gone", 20), people(new, "kept", 20)
    with closing(PgVectorJournal(address, HNSW)) as before:
        before.append([*gone, *kept])
        before.keep_up()
    with closing(SqlJournal(address)) as journal:
        journal.delete(FACES, [record.id for record in gone])
        assert rows(gone, with_units=True)[-1] in files()
        journal.compact_when_due(0.0)
        assert not any(row in files() for row in rows(gone, with_units=True))
    with closing(PgVectorJournal(address, HNSW)) as journal:
        assert journal.verify() == []


def test_the_upkeep_compacts_after_a_while_and_where_something_was_erased(
    journal: SqlJournal, opened: Open, address: str, new: New
) -> None:
    """Whichever process did it last."""

    def compacts(every_s: float) -> bool:
        before = stated(address, TABLES)
        with closing(opened(address)) as other:
            for one in (journal, other):
                one.compact_when_due(every_s)
        return stated(address, TABLES) != before

    journal.append([new("a"), new("b"), new("c")])
    assert not compacts(0.0)
    journal.delete(FACES, ["nobody"])
    assert not compacts(0.0)
    journal.delete(FACES, ["a"])
    assert not compacts(3600.0)
    assert compacts(0.0)
    assert not compacts(0.0)
    journal.update(FACES, "b", name="Dorothy")
    assert not compacts(3600.0)
    assert compacts(0.0)
    journal.put([new("b", value="x")])
    assert compacts(0.0)
    journal.delete(FACES, ["c"])
    journal.compact()
    assert not compacts(0.0)
    assert journal.verify() == []


def test_a_reader_of_what_was_deleted_is_waited_for(
    address: str, journal: SqlJournal, new: New, files: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres itself would rewrite the tables and keep the rows for it."""
    monkeypatch.setattr("engines.store.compaction.LOCK_TIMEOUT_S", 0.3)
    journal.append([new("a", name="Rosalind"), new("b")])
    engine = create_engine(address)
    reading = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    reading.execute(text("SELECT count(*) FROM pg_class"))  # no lock of a table of ours
    journal.delete(FACES, ["a"])
    before = stated(address, TABLES)
    with pytest.raises(StoreUnavailable, match="is being read; its tables still hold what was erased"):
        journal.compact()
    with pytest.raises(StoreUnavailable, match="is being read"):
        journal.compact_when_due(0.0)
    journal.compact_when_due(0.0)  # it is left alone for a while
    assert stated(address, TABLES) == before
    assert b"Rosalind" in files()
    monkeypatch.setattr("engines.store.compaction.LOCK_TIMEOUT_S", 20)
    ending = threading.Timer(0.5, reading.close)
    ending.start()
    journal.compact()
    ending.join()
    assert b"Rosalind" not in files()
    engine.dispose()


def test_a_writer_in_another_database_is_waited_for(
    postgres: Postgres, address: str, journal: SqlJournal, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs anywhere on the server bounds what a snapshot may see."""
    monkeypatch.setattr("engines.store.compaction.LOCK_TIMEOUT_S", 0.3)
    journal.append([new("a"), new("b")])
    engine = create_engine(postgres.new_database())
    with engine.connect() as other:
        other.execute(text("SELECT pg_current_xact_id()"))
        journal.delete(FACES, ["a"])
        before = stated(address, TABLES)
        with pytest.raises(StoreUnavailable, match="is being read"):
            journal.compact()
        assert stated(address, TABLES) == before
    engine.dispose()
    journal.compact()
    assert not set(before) & set(stated(address, TABLES))


def test_a_table_of_others_that_is_named_as_pgvectors_is_left_alone(
    postgres: Postgres, address: str, new: New
) -> None:
    database = str(make_url(address).database)
    postgres.execute("CREATE TABLE vectors (id INTEGER)", database=database)
    theirs = "SELECT relfilenode FROM pg_class WHERE relname = 'vectors'"
    before = stated(address, theirs)
    with closing(SqlJournal(address)) as journal:
        journal.append([new("a")])
        journal.delete(FACES, ["a"])
        journal.compact()
    assert stated(address, theirs) == before


def test_a_compaction_that_failed_is_tried_again(
    address: str, journal: SqlJournal, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.store.compaction.LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("engines.store.compaction.AGAIN_S", 0.0)
    journal.append([new("a"), new("b")])
    journal.delete(FACES, ["a"])
    engine = create_engine(address)
    with engine.connect() as other:
        other.execute(text("SELECT * FROM embeddings"))
        with pytest.raises(StoreUnavailable, match="55P03"):
            journal.compact_when_due(0.0)
        assert journal.append([new("c")]) == [4]  # no lock stays
        assert journal.get(FACES, "b") is not None
    engine.dispose()
    before = stated(address, TABLES)
    journal.compact_when_due(0.0)
    assert not set(before) & set(stated(address, TABLES))
    assert journal.verify() == []


def test_one_process_compacts_at_a_time(
    address: str, journal: SqlJournal, opened: Open, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([new("a"), new("b")])
    journal.delete(FACES, ["a"])
    before = stated(address, TABLES)
    with closing(opened(address)) as other:
        with other._database.taking_turns() as connection:
            assert connection is not None
            monkeypatch.setattr("engines.store.compaction.LOCK_TIMEOUT_S", 0.3)
            with pytest.raises(StoreUnavailable, match="is being compacted, or an index built"):
                journal.compact()
            journal.compact_when_due(0.0)
            assert stated(address, TABLES) == before
        journal.compact_when_due(0.0)
    assert stated(address, TABLES) != before


def test_only_the_owner_of_the_tables_compacts_them(
    postgres: Postgres, address: str, journal: SqlJournal, opened: Open, new: New
) -> None:
    """Postgres itself would pass over them with a warning, and erase nothing."""
    journal.append([new("a")])
    database = make_url(address).database
    role = f"guest_{database}"
    postgres.execute(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        database=str(database),
    )
    guest = make_url(address).set(username=role).render_as_string(hide_password=False)
    with closing(opened(guest)) as other:
        assert other.delete(FACES, ["a"]) == ["a"]
        for attempt in (other.compact, lambda: other.compact_when_due(0.0)):
            with pytest.raises(ConfigurationError, match="only the owner of its tables can compact"):
                attempt()
    journal.compact()


def test_writes_and_reads_beside_compactions(
    journal: SqlJournal, opened: Open, address: str, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    """They wait for it, and nothing is lost."""
    caplog.set_level(logging.WARNING)
    done = threading.Event()

    def keep() -> None:
        with closing(opened(address)) as other:
            while not done.is_set():
                other.compact_when_due(0.0)

    keeper = threading.Thread(target=keep)
    before = stated(address, TABLES)
    keeper.start()
    try:
        for number in range(60):
            journal.append([new(f"{number}"), new(f"gone {number}")])
            assert journal.delete(FACES, [f"gone {number}"]) == [f"gone {number}"]
            assert journal.update(FACES, f"{number}", name=f"Ada {number}")
            assert [one.name for one in journal.stored([3 * number + 1]).values()] == [f"Ada {number}"]
    finally:
        done.set()
        keeper.join()
    assert stated(address, TABLES) != before
    assert journal.spaces() == {Space(FACES, "dlib"): (8, 60)}
    assert journal.verify() == []
