"""What happens to a journal in Postgres when the server, its disk or its neighbours fail."""

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import create_engine, make_url, text

from engines.errors import ConfigurationError, StoreFull, StoreUnavailable
from engines.store import Filter, NewRecord
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal
from tests.other_machine import OtherMachine, other_machine

New = Callable[..., NewRecord]
FACES = "face/default"


class Postgres(Protocol):
    """The server of the tests."""

    directory: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def execute(self, *statements: str, database: str = "postgres") -> None: ...
    def url(self, database: str) -> str: ...
    def new_database(self) -> str: ...


@pytest.fixture
def address(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture(params=[SqlJournal, PgVectorJournal])
def journal(request: pytest.FixtureRequest, address: str) -> Iterator[SqlJournal]:
    with closing(request.param(address)) as opened:
        yield opened


def test_a_server_that_comes_back_is_used_again(postgres: Postgres, journal: SqlJournal, new: New) -> None:
    journal.append([new("a"), new("b")])
    with ThreadPoolExecutor(8) as pool:  # several connections in the pool
        list(pool.map(lambda _: journal.head(), range(64)))
    postgres.stop()
    postgres.start()
    assert journal.head() == 2
    assert len(journal.changes(0, 10)) == 2
    assert journal.append([new("c")]) == [3]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: journal.head(), range(64))) == {3}


def test_while_the_server_is_away_every_call_says_so(
    postgres: Postgres, journal: SqlJournal, new: New
) -> None:
    journal.append([new("a")])
    url = postgres.new_database()
    postgres.stop()
    try:
        for attempt in (
            journal.head,
            journal.spaces,
            lambda: journal.append([new("b")]),
            lambda: journal.delete(FACES, ["a"]),
            lambda: journal.update(FACES, "a", name="b"),
            lambda: journal.listed(FACES, Filter(), after=0, limit=1),
            lambda: SqlJournal(url),
        ):
            with pytest.raises(StoreUnavailable, match="cannot be read or written now"):
                attempt()
    finally:
        postgres.start()
    assert journal.append([new("b")]) == [2]


TO_THE_SOCKET = """
import asyncio, sys

async def passed_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionResetError:
        pass
    finally:
        writer.close()

async def joined(reader, writer):
    inner = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(passed_on(reader, inner[1]), passed_on(inner[0], writer))

async def main():
    server = await asyncio.start_server(joined, sys.argv[1], 5432)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def elsewhere(postgres: Postgres, address: str) -> Iterator[tuple[OtherMachine, str]]:
    """Another machine, and the URL at which the database answers there."""
    with other_machine() as other:
        words = other.command(
            sys.executable, "-c", TO_THE_SOCKET, other.there, f"{postgres.directory}/.s.PGSQL.5432"
        )
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield other, f"postgresql://postgres@{other.there}/{make_url(address).database}"
            process.kill()


@pytest.mark.parametrize("opened", [SqlJournal, PgVectorJournal])
def test_a_machine_that_vanishes_without_a_word(
    elsewhere: tuple[OtherMachine, str],
    address: str,
    opened: type[SqlJournal],
    new: New,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections at rest, a call that waits for its answer, and connections that are to be made."""
    monkeypatch.setattr("engines.store.database.LOCK_TIMEOUT_S", 2)
    other, url = elsewhere
    engine = create_engine(address)
    with closing(opened(url)) as journal, ThreadPoolExecutor(1) as pool, engine.connect() as holder:
        assert journal.append([new("a")]) == [1]
        monkeypatch.setattr("engines.store.database.LOCK_TIMEOUT_S", 600)  # of the server: it says nothing
        holder.execute(text("SELECT position FROM head FOR UPDATE"))
        waiting = pool.submit(journal.append, [new("b")])
        while not stated(address, "SELECT pid::text FROM pg_locks WHERE NOT granted"):
            assert not waiting.done()
        with other.silent():
            for attempt in (
                waiting.result,
                journal.head,
                journal.spaces,
                lambda: journal.delete(FACES, ["a"]),
            ):
                with pytest.raises(StoreUnavailable, match="no connection"):
                    attempt()
        holder.rollback()
        assert journal.get(FACES, "a") is not None
        journal.append([new("b")])
        assert [one.id for one in journal.listed(FACES, Filter(), after=0, limit=9)] == ["a", "b"]
        assert journal.verify() == []
    engine.dispose()


def test_writes_that_a_crash_interrupts_can_be_repeated(
    postgres: Postgres, journal: SqlJournal, new: New
) -> None:
    """Whoever repeats until it is answered has its record once."""
    half, repeated = threading.Semaphore(0), []

    def enrol(name: str) -> int:
        while True:
            try:
                position = journal.append([new(name)])[0]
            except StoreUnavailable:
                repeated.append(name)
            else:
                half.release()
                return position

    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(enrol, f"{number}") for number in range(400)]
        for _ in range(150):
            half.acquire()
        postgres.stop()
        postgres.start()
        positions = [call.result() for call in calls]
    assert sorted(positions) == list(range(1, 401))
    assert {one.id: one.position for one in journal.listed(FACES, Filter(), after=0, limit=500)} == {
        f"{number}": position for number, position in enumerate(positions)
    }
    assert repeated
    assert journal.verify() == []


HNSW = IndexOptions("hnsw", m=8, ef_construction=32, approximate_from=10)


def test_a_database_of_an_older_version_loses_its_planners_samples(
    postgres: Postgres, address: str, new: New
) -> None:
    """Of the tables, and of an index that it had; the upkeep builds that again."""
    people = [new(f"id-{n}", 128, name=f"Rosalind {n}", labels={"k": f"secret {n}"}) for n in range(200)]
    with closing(PgVectorJournal(address, HNSW)) as journal:
        journal.append(people)
        journal.keep_up()
    (index,) = stated(address, "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
    texts = [f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1" for table, column in SAMPLED]
    postgres.execute(
        *texts,
        f"ALTER INDEX {index} ALTER COLUMN 1 SET STATISTICS -1",
        "UPDATE meta SET schema_version = 3",
        "UPDATE vectors_meta SET schema_version = 1",
        "ANALYZE",
        database=str(make_url(address).database),
    )
    every = [f"{table}.{column}" for table, column in sorted([*SAMPLED, (index, "unit")])]
    assert stated(address, SAMPLES) == every
    with closing(PgVectorJournal(address, HNSW)) as journal:
        assert stated(address, SAMPLES) == []
        journal.keep_up()
        postgres.execute("ANALYZE", database=str(make_url(address).database))
        assert stated(address, SAMPLES) == []
        assert journal.verify() == []
        assert [one.name for one in journal.stored([7]).values()] == ["Rosalind 6"]


SAMPLED = [
    ("embeddings", "vector"),
    ("labels", "key"),
    ("labels", "value"),
    ("records", "id"),
    ("records", "name"),
    ("vectors", "unit"),
]
SAMPLES = """SELECT tablename || '.' || attname FROM pg_stats WHERE schemaname = 'public'
AND (histogram_bounds IS NOT NULL OR most_common_vals IS NOT NULL)
AND attname IN ('id', 'name', 'value', 'key', 'vector', 'unit') ORDER BY 1"""


def stated(address: str, query: str) -> list[str]:
    engine = create_engine(address)
    with engine.connect() as connection:
        found = list(connection.execute(text(query)).scalars())
    engine.dispose()
    return found


def test_connections_that_the_server_ends(postgres: Postgres, journal: SqlJournal, new: New) -> None:
    journal.append([new("a")])
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    postgres.execute(f"{ended} AND datname LIKE 'presence%'")
    assert journal.get(FACES, "a") is not None
    postgres.execute(f"{ended} AND datname LIKE 'presence%'")
    assert journal.append([new("b")]) == [2]


def test_a_lock_that_another_holds(
    address: str, journal: SqlJournal, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.store.database.LOCK_TIMEOUT_S", 0.1)
    journal.append([new("a")])
    engine = create_engine(address)
    with engine.begin() as other:
        other.execute(text("SELECT position FROM head FOR UPDATE"))
        with pytest.raises(StoreUnavailable, match="55P03"):
            journal.append([new("b")])
        with pytest.raises(StoreUnavailable, match="55P03"):
            journal.delete(FACES, ["a"])
        assert journal.head() == 1
    engine.dispose()
    assert journal.append([new("b")]) == [2]


def test_the_planner_knows_the_size_of_the_tables(address: str, journal: SqlJournal, new: New) -> None:
    journal.append([new(f"{number}", labels={"n": f"{number}"}) for number in range(2000)])
    engine = create_engine(address)
    with engine.connect() as connection:
        sizes = connection.execute(
            text("SELECT reltuples FROM pg_class WHERE relname IN ('records', 'labels')")
        )
        assert sizes.scalars().all() == [2000, 2000]
    engine.dispose()


def test_a_database_that_cannot_hold_every_text(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="SQL_ASCII: create it as UTF8"):
        SqlJournal(postgres.url("ascii"))


def test_a_database_that_is_missing(postgres: Postgres) -> None:
    with pytest.raises(StoreUnavailable, match="the Postgres database 'nowhere'"):
        SqlJournal(postgres.url("nowhere"))


def test_no_error_tells_the_password() -> None:
    password = "-".join(["open", "sesame"])
    with pytest.raises(StoreUnavailable) as caught:
        SqlJournal(f"postgresql://user:{password}@127.0.0.1:1/faces")
    assert password not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def small_disk(postgres: Postgres) -> Iterator[Path]:
    """Twelve MiB that the server may use."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = postgres.directory / "small"
    disk.mkdir()
    options = f"size=12M,uid={postgres.directory.stat().st_uid},mode=700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a small disk")
    postgres.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
    yield disk
    postgres.execute("DROP DATABASE small", "DROP TABLESPACE small")
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_harms_nothing(postgres: Postgres, small_disk: Path, new: New) -> None:
    postgres.execute("CREATE DATABASE small TABLESPACE small")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with closing(SqlJournal(postgres.url("small"))) as journal:
        count = 0

        def fill() -> None:
            nonlocal count
            for number in range(count, 5000):
                assert journal.append([new(f"{number}", dim=1024)]) == [number + 1]
                count = number + 1

        with pytest.raises(StoreFull, match="the disk of the Postgres database 'small' is full"):
            fill()
        assert journal.head() == count
        assert journal.verify() == []
        ballast.unlink()
        assert journal.append([new(f"{count}", dim=1024)]) == [count + 1]
