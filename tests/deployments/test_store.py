"""The store's deployment class in this process: in memory on a journal in SQLite, and in Postgres."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from deployments.messages import Found, Page, SearchRequest
from deployments.store import StoreSpec, VectorStore
from engines.errors import DeadlineExceeded, InvalidInput, PresenceError, StoreUnavailable
from engines.store import Filter, NewRecord, Searcher, Space
from engines.store.database import Database
from engines.store.index_options import IndexOptions
from engines.store.pgvector import PgVectorJournal
from engines.store.replica import StoreReplica


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test in memory on SQLite, and in Postgres, unless it is one kind's own."""
    own = any(mark.args[0] == "store_spec" for mark in metafunc.definition.iter_markers("parametrize"))
    if "store_spec" in metafunc.fixturenames and not own:
        metafunc.parametrize("store_spec", ["faiss", "pgvector"], indirect=True)


T = TypeVar("T")

PEOPLE = Space("face/default", "one")
EAST, NORTH, WEST = (np.array(row, np.float32) for row in ([1, 0], [0, 1], [-1, 0]))


def later() -> float:
    return time.time() + 30


def value(answer: T | PresenceError) -> T:
    if isinstance(answer, PresenceError):
        raise answer
    return answer


def record(embedding: np.ndarray = EAST, space: Space = PEOPLE, **more: Any) -> NewRecord:
    return NewRecord(more.pop("id", uuid4().hex), space, embedding, **more)


async def names(store: VectorStore, query: np.ndarray = EAST, k: int = 10, **only: Any) -> list[str]:
    found = value(await store.search(SearchRequest(PEOPLE, query, k, Filter(**only)), later()))
    return [match.stored.name for match in found.matches]


Opened = Callable[..., VectorStore]


@pytest.fixture
async def store(opened: Opened) -> VectorStore:
    made = opened()
    await made.reconfigure({"max_batch_size": 64})
    return made


class Searches:
    """Every call of the searcher: space, queries, k, filter. The first waits until `go` is set."""

    def __init__(self) -> None:
        self.made: list[tuple[Space, tuple[int, ...], int, Filter | None]] = []
        self.entered, self.go = threading.Event(), threading.Event()

    async def begin(self, store: VectorStore, requests: list[SearchRequest]) -> list[Found | PresenceError]:
        """The answers of requests that all come while another search is under way."""
        first = asyncio.create_task(store.search(SearchRequest(Space("away", ""), EAST, 1), later()))
        await asyncio.to_thread(self.entered.wait, 10)
        waiting = [asyncio.create_task(store.search(request, later())) for request in requests]
        await asyncio.sleep(0)  # every task has queued its request
        self.go.set()
        await first
        self.made = self.made[1:]
        return list(await asyncio.gather(*waiting))


@pytest.fixture
def searches(store_spec: StoreSpec, monkeypatch: pytest.MonkeyPatch) -> Searches:
    seen = Searches()
    searcher: type[Searcher] = PgVectorJournal if store_spec.kind == "pgvector" else StoreReplica
    original = searcher.search

    def search(self: Searcher, space: Space, queries: Any, k: int, only: Filter | None, **more: Any) -> Any:
        seen.made.append((space, queries.shape, k, only))
        seen.entered.set()
        assert seen.go.wait(10)
        return original(self, space, queries, k, only, **more)

    monkeypatch.setattr(searcher, "search", search)
    return seen


async def test_what_was_registered_is_found_best_first(store: VectorStore) -> None:
    written = [record(NORTH, name="north"), record(EAST, name="east", labels={"team": "a"}), record(WEST)]
    positions = value(await store.register(written, later()))
    assert sorted(positions) == [1, 2, 3]
    found = value(await store.search(SearchRequest(PEOPLE, EAST, 2), later()))
    assert [match.stored.name for match in found.matches] == ["east", "north"]
    assert [match.similarity for match in found.matches] == pytest.approx([1, 0], abs=1e-6)
    assert found.matches[0].stored.labels == {"team": "a"}
    assert found.matches[0].stored.id == written[1].id
    assert found.age_s == 0


async def test_an_empty_space_finds_nothing(store: VectorStore) -> None:
    assert value(await store.search(SearchRequest(PEOPLE, EAST, 5), later())).matches == ()


async def test_what_was_deleted_is_not_found_again(store: VectorStore) -> None:
    value(await store.register([record(id="a", name="a"), record(id="b", name="b")], later()))
    assert value(await store.delete((PEOPLE.namespace, ["a", "unknown"]), later())) == ["a"]
    assert await names(store) == ["b"]
    assert value(await store.get((PEOPLE.namespace, "a"), later())) is None
    assert value(await store.delete((PEOPLE.namespace, ["a"]), later())) == []


async def test_update_changes_name_and_labels_apart(store: VectorStore) -> None:
    value(await store.register([record(id="a", name="old", labels={"x": "1"})], later()))
    assert value(await store.update((PEOPLE.namespace, "a", "new", None), later())) is True
    assert await names(store, labels={"x": "1"}) == ["new"]
    assert value(await store.update((PEOPLE.namespace, "a", None, {"y": "2"}), later())) is True
    assert await names(store, labels={"x": "1"}) == []
    stored = value(await store.get((PEOPLE.namespace, "a"), later()))
    assert stored is not None
    assert (stored.name, stored.labels) == ("new", {"y": "2"})
    assert value(await store.update((PEOPLE.namespace, "b", "new", None), later())) is False


async def test_pages_tell_the_total_of_their_filter(store: VectorStore) -> None:
    for number in range(5):
        parity = {"parity": "even" if number % 2 == 0 else "odd"}
        value(await store.register([record(id=str(number), labels=parity)], later()))
    even = Filter(labels={"parity": "even"})
    first = value(await store.listed((PEOPLE.namespace, even, 0, 2), later()))
    assert isinstance(first, Page)
    assert ([one.id for one in first.records], first.total) == (["0", "2"], 3)
    rest = value(await store.listed((PEOPLE.namespace, even, first.records[-1].position, 2), later()))
    assert ([one.id for one in rest.records], rest.total) == (["4"], 3)
    assert value(await store.listed(("face/other", Filter(), 0, 2), later())) == Page((), 0)


async def test_namespaces_by_prefix_that_hold_an_id(store: VectorStore) -> None:
    for namespace in ("face/b", "face/a", "voice/a", "facet/a"):
        for model in ("one", "two"):
            value(await store.register([record(space=Space(namespace, model), id=model)], later()))
    assert value(await store.holding(("face/", "one"), later())) == ["face/a", "face/b"]
    value(await store.delete(("face/b", ["one"]), later()))
    assert value(await store.holding(("face/", "one"), later())) == ["face/a"]
    assert value(await store.holding(("face/", "two"), later())) == ["face/a", "face/b"]


async def test_embeddings_are_those_that_were_written(store: VectorStore) -> None:
    raw = np.array([3, 4], np.float32)
    one, other = value(await store.register([record(raw), record(WEST)], later()))
    with_them = [SearchRequest(PEOPLE, EAST, k, with_embeddings=True) for k in (1, 2)]
    asked = [*with_them, SearchRequest(PEOPLE, EAST, 2)]
    found = [value(each) for each in await asyncio.gather(*(store.search(ask, later()) for ask in asked))]
    told = [each.embeddings and {one: row.tolist() for one, row in each.embeddings.items()} for each in found]
    assert told == [{one: [3, 4]}, {one: [3, 4], other: [-1, 0]}, None]


async def test_put_writes_and_replaces_values(store: VectorStore) -> None:
    assert value(await store.put([record(id="a", value="1"), record(NORTH, id="b", value="2")], later()))
    assert value(await store.put([record(id="a", value="3")], later()))
    stored = [value(await store.get((PEOPLE.namespace, one), later())) for one in "ab"]
    assert [one.value for one in stored if one] == ["3", "2"]
    assert value(await store.listed((PEOPLE.namespace, Filter(), 0, 9), later())).total == 2


async def test_put_is_refused_as_a_whole(store: VectorStore) -> None:
    wrong = await store.put([record(id="a"), record(np.ones(3, np.float32), id="b")], later())
    assert isinstance(wrong, InvalidInput)
    assert value(await store.get((PEOPLE.namespace, "a"), later())) is None


async def test_searches_that_share_space_and_filter_are_one_call(
    store: VectorStore, searches: Searches
) -> None:
    value(await store.register([record(EAST, name="east"), record(NORTH, name="north")], later()))
    requests = [SearchRequest(PEOPLE, query, k) for query in (EAST, NORTH) for k in (1, 2)]
    answers = [value(answer) for answer in await searches.begin(store, requests)]
    assert searches.made == [(PEOPLE, (4, 2), 2, Filter())]
    found = [[match.stored.name for match in answer.matches] for answer in answers]
    assert found == [["east"], ["east", "north"], ["north"], ["north", "east"]]


async def test_spaces_filters_and_dimensions_are_never_mixed(store: VectorStore, searches: Searches) -> None:
    other, voice = Space(PEOPLE.namespace, "two"), Space("voice/default", "one")
    cube = np.array([0, 0, 1], np.float32)
    value(await store.register([record(name="here", labels={"a": "1"})], later()))
    value(await store.register([record(name="other model", space=other)], later()))
    value(await store.register([record(cube, name="other namespace", space=voice)], later()))
    requests = [
        SearchRequest(PEOPLE, EAST, 3),
        SearchRequest(other, EAST, 3),
        SearchRequest(voice, cube, 3),
        SearchRequest(PEOPLE, EAST, 3, Filter(labels={"a": "1"})),
        SearchRequest(PEOPLE, EAST, 3, Filter(labels={"a": "2"})),
        SearchRequest(PEOPLE, EAST, 3, Filter(name="here")),
        SearchRequest(PEOPLE, cube, 3),
        SearchRequest(PEOPLE, WEST, 3),
    ]
    answers = await searches.begin(store, requests)
    assert len(searches.made) == 7
    assert sorted(shape for _, shape, _, _ in searches.made) == [(1, 2)] * 4 + [(1, 3)] * 2 + [(2, 2)]
    wrong = answers.pop(6)
    assert isinstance(wrong, InvalidInput)
    assert "2 dimensions, not 3" in wrong.message
    found = [[match.stored.name for match in value(answer).matches] for answer in answers]
    assert found == [["here"], ["other model"], ["other namespace"], ["here"], [], ["here"], ["here"]]


async def test_one_record_of_a_wrong_length_fails_alone(store: VectorStore) -> None:
    value(await store.register([record()], later()))
    batch = [record(name=str(number)) for number in range(20)]
    batch[7] = record(np.ones(3, np.float32), name="wrong")
    batch[13] = record(name="no\0name")
    answers = await asyncio.gather(*(store.register([one], later()) for one in batch))
    refused = {index: answer for index, answer in enumerate(answers) if isinstance(answer, PresenceError)}
    assert set(refused) == {7, 13}
    assert all(isinstance(answer, InvalidInput) for answer in refused.values())
    assert "holds embeddings of 2" in refused[7].message
    written = [number for answer in answers if isinstance(answer, list) for number in answer]
    assert sorted(written) == list(range(2, 20))
    assert len(await names(store, k=100)) == 19


async def test_errors_are_values(store: VectorStore) -> None:
    past = time.time() - 1
    assert isinstance(await store.search(SearchRequest(PEOPLE, EAST, 1), past), DeadlineExceeded)
    assert isinstance(await store.register([record()], past), DeadlineExceeded)
    assert isinstance(await store.search(SearchRequest(PEOPLE, EAST, 0), later()), InvalidInput)
    nul = "a\0b"
    answers = [
        await store.get((PEOPLE.namespace, nul), later()),
        await store.delete((PEOPLE.namespace, [nul]), later()),
        await store.update((PEOPLE.namespace, "a", nul, None), later()),
        await store.listed((PEOPLE.namespace, Filter(name=nul), 0, 1), later()),
        await store.search(SearchRequest(PEOPLE, EAST, 1, Filter(name=nul)), later()),
        await store.put([record(value=nul)], later()),
    ]
    for answer in answers:
        assert isinstance(answer, InvalidInput)
        assert "NUL" in answer.message
    assert value(await store.listed((PEOPLE.namespace, Filter(), 0, 9), later())).total == 0


async def test_a_journal_that_is_away_is_told_once_to_each_and_comes_back(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    value(await store.register([record(name="here")], later()))
    tried: list[Database] = []

    def away(self: Database) -> Any:
        tried.append(self)
        raise StoreUnavailable("the store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "writing", away)
        broken.setattr(Database, "reading", away)
        broken.setattr(Database, "snapshot", away)
        answers = await asyncio.gather(*(store.register([record()], later()) for _ in range(8)))
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 8
        assert len(tried) == 1
        assert isinstance(await store.search(SearchRequest(PEOPLE, EAST, 1), later()), StoreUnavailable)
        await store.check_health()
    assert await names(store) == ["here"]


async def test_a_replica_sees_what_another_acknowledged(store: VectorStore, opened: Opened) -> None:
    value(await store.register([record(id="a", name="before")], later()))
    other = opened()
    assert await names(other) == ["before"]
    value(await store.register([record(NORTH, name="after")], later()))
    assert await names(other) == ["before", "after"]
    value(await store.delete((PEOPLE.namespace, ["a"]), later()))
    assert await names(other) == ["after"]


@pytest.mark.parametrize("store_spec", ["faiss"], indirect=True)
async def test_snapshots_are_written_while_it_serves(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    store = opened(snapshots=folder, snapshot_every_s=0.01)
    value(await store.register([record(name="here")], later()))
    assert not folder.exists()
    await store.reconfigure({"max_batch_size": 8})
    async with asyncio.timeout(10):
        while not any(folder.glob("*")):  # noqa: ASYNC110 - nothing announces a snapshot but its file
            await asyncio.sleep(0.01)
    assert await names(store) == ["here"]
    assert await names(opened(snapshots=folder)) == ["here"]


async def test_the_upkeep_outlives_a_failure_that_nobody_expected(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("deployments.store.KEEP_UP_EVERY_S", 0.01)
    store = opened()
    calls: list[int] = []

    def keep_up() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise MemoryError("no room for an index")
        if len(calls) == 2:
            raise StoreUnavailable("away")

    monkeypatch.setattr(store._searcher, "keep_up", keep_up)
    await store.reconfigure({"max_batch_size": 8})
    async with asyncio.timeout(10):
        while len(calls) < 4:  # noqa: ASYNC110 - upkeep announces nothing
            await asyncio.sleep(0.01)
    assert caplog.messages[:2] == ["upkeep of the store failed", "upkeep of the store: away"]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("store_spec", ["pgvector"], indirect=True)
async def test_snapshots_of_the_other_kind_go(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    in_memory = opened(kind="faiss", snapshots=folder)
    value(await in_memory.register([record(name="here")], later()))
    in_memory._searcher.snapshot()  # type: ignore[attr-defined] # of a StoreReplica
    assert list(folder.glob("[0-9]*"))
    assert await names(opened(kind="pgvector", snapshots=folder)) == ["here"]
    assert not list(folder.glob("[0-9]*"))


@pytest.mark.parametrize("store_spec", ["pgvector"], indirect=True)
async def test_postgres_builds_an_index_while_it_serves(
    opened: Opened, store_spec: StoreSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.store.KEEP_UP_EVERY_S", 0.01)
    store = opened(index=IndexOptions("hnsw", m=8, ef_construction=32, approximate_from=100))
    around = [np.array([np.cos(angle), np.sin(angle)], np.float32) for angle in np.linspace(0, 3, 100)]
    value(await store.register([record(one, name=f"{n}") for n, one in enumerate(around)], later()))
    await store.reconfigure({"max_batch_size": 64})
    engine = create_engine(store_spec.url)
    with engine.connect() as connection:
        built = text("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
        async with asyncio.timeout(30):
            while connection.execute(built).scalar_one() == 0:  # noqa: ASYNC110 - nothing announces an index
                await asyncio.sleep(0.01)
    engine.dispose()
    assert await names(store, around[50], k=1) == ["50"]
