"""What only the store in Postgres has: vectors beside the journal, indexes of them, an extension."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from engines.embedding import unit_rows
from engines.errors import ConfigurationError, InvalidInput, StoreUnavailable
from engines.store import Filter, NewRecord, Space
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.nearest import MOST_NEAR
from engines.store.pgvector import PgVectorJournal, opened
from engines.store.pgvector_schema import MOST_NUMBERS
from engines.store.replica import StoreReplica
from engines.types import Embeddings

FACES = Space("face/default", "arcface")
HNSW = IndexOptions("hnsw", m=8, ef_construction=32, ef_search=40, approximate_from=100)
Execute = Callable[[str], list[tuple[Any, ...]]]


def vectors(count: int, dim: int = 16, seed: int = 0) -> Embeddings:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def records(rows: Embeddings, first: int = 0, space: Space = FACES) -> list[NewRecord]:
    return [NewRecord(f"id{number}", space, row) for number, row in enumerate(rows, first)]


@pytest.fixture
def url(postgres: Any) -> str:
    """Of an empty database."""
    return str(postgres.new_database())


@pytest.fixture
def execute(url: str) -> Iterator[Execute]:
    """A statement of somebody else."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    yield run
    engine.dispose()


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[..., PgVectorJournal]]:
    with ExitStack() as stores:
        yield lambda options=HNSW: stores.enter_context(closing(PgVectorJournal(url, options)))


@pytest.fixture
def store(open_store: Callable[..., PgVectorJournal]) -> PgVectorJournal:
    return open_store()


def ids(
    store: PgVectorJournal | StoreReplica, query: Embeddings, k: int, only: Filter | None = None
) -> list[str]:
    """Of the records nearest to one query."""
    return [match.stored.id for match in store.search(FACES, query[np.newaxis], k, only).matches[0]]


def indexes(execute: Execute) -> list[tuple[str, bool]]:
    """Names of the HNSW indexes, and whether they are valid."""
    return [
        (name, valid)
        for name, valid in execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw' ORDER BY relname"
        )
    ]


def test_what_a_plain_journal_wrote_is_found(
    url: str, open_store: Callable[..., PgVectorJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the vectors were there, and afterwards; in pieces."""
    monkeypatch.setattr("engines.store.pgvector.CHUNK", 7)
    rows = vectors(50)
    with closing(SqlJournal(url)) as plain:
        plain.append(records(rows[:30]))
        plain.delete(FACES.namespace, ["id3"])
        store = open_store()
        assert store.catch_up() == 31
        assert ids(store, rows[5], 1) == ["id5"]
        plain.append(records(rows[30:], 30))
        plain.delete(FACES.namespace, ["id5", "id40"])
        assert ids(store, rows[45], 1) == ["id45"]
        assert len(ids(store, rows[5], 50)) == 47
        assert store.verify() == []
        replica = StoreReplica(plain)
        assert ids(store, rows[40], 47) == ids(replica, rows[40], 47)


def test_a_journal_is_opened_as_it_is_kept(url: str, tmp_path: Path) -> None:
    for address in (url, f"sqlite:///{tmp_path}/people.db"):
        with closing(opened(address)) as journal:
            assert type(journal) is SqlJournal
    PgVectorJournal(url).close()
    with closing(opened(url)) as journal:
        assert type(journal) is PgVectorJournal


def test_an_index_is_built_when_a_space_has_grown_and_dropped_when_it_has_shrunk(
    store: PgVectorJournal, execute: Execute
) -> None:
    rows = vectors(120)
    store.append(records(rows[:99]))
    store.append(records(vectors(99), space=Space("face/other", "arcface")))
    store.keep_up()
    assert indexes(execute) == []
    store.append(records(rows[99:], 99))
    store.keep_up()
    assert indexes(execute) == [("vectors_1_16", True)]
    assert [ids(store, row, 1) for row in rows] == [[f"id{number}"] for number in range(120)]
    store.keep_up()
    store.delete(FACES.namespace, [f"id{number}" for number in range(65)])
    store.keep_up()
    assert indexes(execute) == [("vectors_1_16", True)]
    store.delete(FACES.namespace, ["id65", "id66", "id67", "id68", "id69", "id70"])
    store.keep_up()
    assert indexes(execute) == []
    assert ids(store, rows[90], 1) == ["id90"]


def test_searches_go_through_the_index(store: PgVectorJournal, execute: Execute) -> None:
    rows = vectors(3000)
    store.append(records(rows))
    store.keep_up()
    for row in rows[:5]:
        ids(store, row, 5)
    store.search(FACES, rows[:4], 5)
    store.close()
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'vectors_1_16'"
    until = time.monotonic() + 20
    while execute(scans) != [(9,)] and time.monotonic() < until:
        time.sleep(0.05)  # a server process tells its counts when it ends
    assert execute(scans) == [(9,)]


def test_an_index_finds_nearly_what_comparing_all_finds(open_store: Callable[..., PgVectorJournal]) -> None:
    rows, queries = vectors(2000), vectors(50, seed=1)
    store, exact = open_store(), open_store(IndexOptions("flat"))
    store.append(records(rows))
    store.keep_up()
    near, best = store.search(FACES, queries, 10).matches, exact.search(FACES, queries, 10).matches
    cosines = unit_rows(queries) @ unit_rows(rows).T
    for number, matches in enumerate(best):
        assert [match.position - 1 for match in matches] == np.argsort(-cosines[number])[:10].tolist()
    hits = [
        len({one.position for one in some} & {one.position for one in all_of_them})
        for some, all_of_them in zip(near, best, strict=True)
    ]
    assert np.mean(hits) > 9


def test_deleted_records_make_room_for_the_next(store: PgVectorJournal) -> None:
    """More of the nearest are deleted than an index looks at."""
    probe = vectors(1)
    near = probe + np.linspace(0.01, 1, 300, dtype=np.float32)[:, None] * vectors(300, seed=1)
    store.append(records(near))
    store.keep_up()
    order = ids(store, probe[0], 300)
    assert len(order) == 300
    store.delete(FACES.namespace, order[:150])
    assert ids(store, probe[0], 20) == order[150:170]
    assert ids(store, probe[0], 300) == order[150:]


def test_a_filter_hides_no_match(open_store: Callable[..., PgVectorJournal]) -> None:
    """Of few that pass all are compared; of many the index finds those that comparing finds."""
    rows, probe = vectors(400), vectors(1, seed=2)[0]
    store, exact = open_store(), open_store(IndexOptions("flat"))
    store.append(
        [
            replace(one, name=f"{number % 2}", labels={"n": str(number // 10)})
            for number, one in enumerate(records(rows))
        ]
    )
    store.keep_up()
    for chosen in (
        Filter("1"),
        Filter("0"),
        Filter(labels={"n": "7"}),
        Filter("1", {"n": "39"}),
        Filter("2"),
    ):
        expected = ids(exact, probe, 10, chosen)
        found = ids(store, probe, 10, chosen)
        assert len(found) == len(expected) == min(10, store.count(FACES.namespace, chosen))
        assert len(set(found) & set(expected)) >= 0.9 * len(expected)
        assert found[:3] == expected[:3]


def test_more_than_an_index_can_find_is_compared(store: PgVectorJournal) -> None:
    rows = vectors(MOST_NEAR + 50)
    store.append(records(rows))
    store.keep_up()
    cosines = unit_rows(rows[:1]) @ unit_rows(rows).T
    for k in (MOST_NEAR + 1, MOST_NEAR + 100):
        expected = [f"id{number}" for number in np.argsort(-cosines[0])[:k]]
        assert ids(store, rows[0], k) == expected
    assert len(ids(store, rows[0], MOST_NEAR)) == MOST_NEAR


def test_long_embeddings_have_no_index(store: PgVectorJournal, execute: Execute) -> None:
    rows = vectors(101, 2001)
    store.append(records(rows))
    store.keep_up()
    assert indexes(execute) == []
    assert ids(store, rows[7], 1) == ["id7"]
    assert store.verify() == []


def test_embeddings_longer_than_pgvector_holds(url: str, store: PgVectorJournal) -> None:
    longest = vectors(2, MOST_NUMBERS + 1)
    with pytest.raises(InvalidInput, match="at most 16000 numbers"):
        store.append(records(longest))
    store.append(records(longest[:, 1:]))
    assert ids(store, longest[1, 1:], 1) == ["id1"]
    with closing(SqlJournal(url)) as plain:
        plain.append(records(longest, space=Space("stores/long", "")))
    with pytest.raises(
        ConfigurationError, match=r"'stores/long' holds .* 16001 numbers, pgvector at most 16000"
    ):
        store.search(FACES, longest[:1, 1:], 1)


def test_another_length_takes_another_index(store: PgVectorJournal, execute: Execute) -> None:
    store.append(records(vectors(100)))
    store.keep_up()
    store.delete(FACES.namespace, [f"id{number}" for number in range(100)])
    shorter = vectors(100, 4)
    store.append(records(shorter))
    assert ids(store, shorter[3], 1) == ["id3"]
    store.keep_up()
    assert indexes(execute) == [("vectors_1_4", True)]
    assert ids(store, shorter[3], 1) == ["id3"]


def test_an_index_whose_building_failed_is_built_anew(store: PgVectorJournal, execute: Execute) -> None:
    rows = vectors(100)
    store.append(records(rows))
    store.keep_up()
    execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vectors_1_16'::regclass")
    assert ids(store, rows[3], 1) == ["id3"]
    store.keep_up()
    assert indexes(execute) == [("vectors_1_16", True)]


def test_one_process_builds_at_a_time(
    open_store: Callable[..., PgVectorJournal], url: str, execute: Execute
) -> None:
    """The first waits for a transaction that began before it; the second has nothing to do meanwhile."""
    first, second, rows = open_store(), open_store(), vectors(100)
    first.append(records(rows))
    engine = create_engine(url, isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        connection.execute(text("SELECT * FROM vectors LIMIT 1"))
        builder = threading.Thread(target=first.keep_up)
        builder.start()
        until = time.monotonic() + 20
        while indexes(execute) != [("vectors_1_16", False)] and time.monotonic() < until:
            time.sleep(0.02)  # nothing announces that a building has begun
        second.keep_up()
        assert indexes(execute) == [("vectors_1_16", False)]
        second.append(records(vectors(1, seed=9), 100))
        assert ids(second, vectors(1, seed=9)[0], 1) == ["id100"]
    builder.join(30)
    engine.dispose()
    assert indexes(execute) == [("vectors_1_16", True)]
    assert ids(second, vectors(1, seed=9)[0], 1) == ["id100"]


def test_flat_has_no_index(
    open_store: Callable[..., PgVectorJournal], store: PgVectorJournal, execute: Execute
) -> None:
    rows = vectors(100)
    store.append(records(rows))
    store.keep_up()
    flat = open_store(IndexOptions("flat"))
    assert ids(flat, rows[3], 1) == ["id3"]
    flat.keep_up()
    assert indexes(execute) == []


def test_text_that_no_record_can_have(store: PgVectorJournal) -> None:
    store.append(records(vectors(1)))
    for bad in ("a\0b", "\ud800"):
        for space, only in (
            (Space(bad, "arcface"), None),
            (Space("face/default", bad), None),
            (FACES, Filter(bad)),
            (FACES, Filter(labels={bad: ""})),
            (FACES, Filter(labels={"": bad})),
        ):
            with pytest.raises(InvalidInput):
                store.search(space, vectors(1), 1, only)


def test_a_server_that_is_away_and_back(postgres: Any, store: PgVectorJournal) -> None:
    rows = vectors(120)
    store.append(records(rows))
    store.keep_up()
    postgres.stop()
    try:
        for attempt in (lambda: ids(store, rows[0], 1), store.keep_up, store.catch_up):
            with pytest.raises(StoreUnavailable, match="cannot be read or written now"):
                attempt()
    finally:
        postgres.start()
    assert ids(store, rows[7], 1) == ["id7"]
    assert store.append(records(vectors(1, seed=3), 120)) == [121]
    assert ids(store, vectors(1, seed=3)[0], 1) == ["id120"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM vectors WHERE position = 2", "record 2 cannot be found"),
        ("UPDATE vectors SET space_id = 7 WHERE position = 2", "record 2 cannot be found"),
        ("UPDATE vectors SET unit = '[1,0,0]' WHERE position = 3", "record 3 is searched by a vector"),
        ("UPDATE embeddings SET checksum = 1 WHERE position = 2", "embedding of record 2 is damaged"),
    ],
)
def test_verifying_finds(store: PgVectorJournal, execute: Execute, statement: str, expected: str) -> None:
    store.append(records(vectors(4)))
    store.delete(FACES.namespace, ["id0"])
    assert store.verify() == []
    execute(statement)
    assert [expected in problem for problem in store.verify()] == [True]


def test_nothing_of_what_was_deleted_is_in_the_tables_after_compacting(
    postgres: Any, store: PgVectorJournal, execute: Execute
) -> None:
    rows = vectors(300)
    store.append(records(rows))
    store.keep_up()
    ((number,),) = execute("SELECT oid FROM pg_database WHERE datname = current_database()")
    folder = postgres.directory / "data" / "base" / str(number)

    def on_disk(vector: Embeddings) -> bool:
        execute("CHECKPOINT")
        return any(vector.astype("<f4").tobytes() in file.read_bytes() for file in folder.iterdir())

    kept, gone = unit_rows(rows[:2])
    assert on_disk(gone)
    assert on_disk(rows[1])
    store.delete(FACES.namespace, ["id1"])
    assert execute("SELECT position FROM vectors WHERE position = 2") == []
    store.compact()
    assert not on_disk(gone)
    assert not on_disk(rows[1])
    assert on_disk(kept)
    assert ids(store, rows[0], 1) == ["id0"]
    assert store.verify() == []


@pytest.mark.parametrize("bad", ["", "sqlite:///people.db", "mysql://user:pw@host/db"])
def test_a_url_that_is_not_of_postgres(bad: str) -> None:
    with pytest.raises(ConfigurationError, match=r"PRESENCE_STORE_URL to postgresql://") as caught:
        PgVectorJournal(bad)
    assert "pw" not in caught.value.message


def test_tables_of_a_newer_version_are_left_alone(store: PgVectorJournal, url: str, execute: Execute) -> None:
    assert store.head() == 0
    execute("UPDATE vectors_meta SET schema_version = schema_version + 1")
    with pytest.raises(ConfigurationError, match=r"version 3 .* up to 2"):
        PgVectorJournal(url)


def test_a_user_who_may_not_create_the_extension(url: str, execute: Execute) -> None:
    name = url.rpartition("presence_")[2].partition("?")[0]
    execute(f"CREATE ROLE plain_{name} LOGIN")
    execute(f"ALTER DATABASE presence_{name} OWNER TO plain_{name}")
    theirs = url.replace("postgres@", f"plain_{name}@")
    with pytest.raises(ConfigurationError, match="let a superuser run CREATE EXTENSION vector"):
        PgVectorJournal(theirs)
    execute("CREATE EXTENSION vector")
    with closing(PgVectorJournal(theirs, HNSW)) as store:
        rows = vectors(100)
        store.append(records(rows))
        store.keep_up()
        assert ids(store, rows[7], 1) == ["id7"]
        store.compact()
        assert store.verify() == []
    execute(f"REASSIGN OWNED BY plain_{name} TO postgres")
    execute(f"DROP ROLE plain_{name}")


def test_a_server_without_the_extension(postgres: Any) -> None:
    """A copy of the server's programs, less pgvector."""
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    package = postgres.programs.parents[1]
    for part in package.parent.glob(f"{package.name}*"):  # the package, and the libraries beside it
        shutil.copytree(part, directory / part.name)
    for file in (directory / package.name).rglob("vector*"):
        if file.is_file():
            file.unlink()
    plain = type(postgres)(directory / package.name / "pginstall" / "bin", directory)
    try:
        url = plain.new_database()
        with pytest.raises(ConfigurationError, match="install pgvector there"):
            PgVectorJournal(url)
        with closing(SqlJournal(url)) as journal:
            assert journal.append(records(vectors(1))) == [1]
    finally:
        plain.stop()
        shutil.rmtree(directory)
