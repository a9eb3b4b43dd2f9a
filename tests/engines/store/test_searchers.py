"""What every searcher promises: in memory by every kind of index, and in Postgres with and without HNSW."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engines.embedding import unit_rows
from engines.errors import InvalidInput
from engines.store import Answer, Filter, Journal, NewRecord, Searcher, Space
from engines.store.fake import MemoryJournal
from engines.store.index_options import IndexOptions
from engines.store.pgvector import PgVectorJournal
from engines.store.replica import StoreReplica
from engines.types import Embeddings

DIM = 16
FACES = Space("face/default", "arcface")
OTHERS = Space("face/default", "sface")
EVEN, ODD = Filter(labels={"parity": "0"}), Filter(labels={"parity": "1"})


def vectors(count: int, dim: int = DIM, seed: int = 0) -> Embeddings:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32))


def records(rows: Embeddings, first: int = 1, space: Space = FACES) -> list[NewRecord]:
    return [
        NewRecord(f"id{number}", space, row, name=f"name{number % 5}", labels={"parity": str(number % 2)})
        for number, row in enumerate(rows, first)
    ]


def found(answer: Answer) -> list[list[str]]:
    return [[match.stored.id for match in each] for each in answer.matches]


@dataclass
class Store:
    """A journal, and a searcher of it. another: makes one more, as another process has."""

    journal: Journal
    searcher: Searcher
    another: Callable[[], Searcher]


@pytest.fixture(params=["flat", "hnsw", "ivf", "pgvector", "pgvector-hnsw"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if not request.param.startswith("pgvector"):
        journal = MemoryJournal()
        in_memory = IndexOptions(request.param, approximate_from=10, ef_search=64, nprobe=16)
        yield Store(journal, StoreReplica(journal, in_memory), lambda: StoreReplica(journal, in_memory))
        return
    kind: Any = "hnsw" if request.param.endswith("hnsw") else "flat"
    options = IndexOptions(kind, m=8, ef_construction=32, ef_search=64, approximate_from=10)
    url = request.getfixturevalue("postgres").new_database()
    with ExitStack() as opened:

        def another() -> PgVectorJournal:
            return opened.enter_context(closing(PgVectorJournal(url, options)))

        first = another()
        yield Store(first, first, another)


def test_best_first_with_names_and_labels(store: Store) -> None:
    rows = vectors(20)
    store.journal.append(records(rows))
    store.searcher.keep_up()
    answer = store.searcher.search(FACES, rows[:3], 4)
    assert [each[0] for each in found(answer)] == ["id1", "id2", "id3"]
    assert answer.age_s == 0
    first = answer.matches[1]
    assert first[0].similarity == pytest.approx(1)
    assert [one.similarity for one in first] == sorted((one.similarity for one in first), reverse=True)
    assert (first[0].position, first[0].stored.name, first[0].stored.labels) == (2, "name2", {"parity": "0"})
    assert first[0].stored == store.journal.get(FACES.namespace, "id2")


def test_similarities_are_cosines_of_what_was_written(store: Store) -> None:
    """Of any length; zeros are like nothing, and stand between what is like and what is unlike."""
    rows = np.array([[2, 0], [0, 0], [-3, 0], [1e-30, 1e-30], [1e30, -1e30]], np.float32)
    store.journal.append(records(rows))
    (matches,) = store.searcher.search(FACES, np.array([[7, 0]], np.float32), 5).matches
    assert [one.stored.id for one in matches] == ["id1", "id4", "id5", "id2", "id3"]
    expected = [1, 0.5**0.5, 0.5**0.5, 0, -1]
    assert [one.similarity for one in matches] == pytest.approx(expected, abs=1e-6)
    (matches,) = store.searcher.search(FACES, np.zeros((1, 2), np.float32), 5).matches
    assert [one.stored.id for one in matches] == [f"id{number}" for number in range(1, 6)]
    assert {one.similarity for one in matches} == {0}


def test_equal_ones_are_ordered_by_position(store: Store) -> None:
    store.journal.append(records(np.repeat(vectors(2), 6, axis=0)))
    expected = [f"id{number}" for number in range(1, 7)]
    assert found(store.searcher.search(FACES, vectors(1), 6)) == [expected]
    store.journal.delete(FACES.namespace, ["id3"])
    expected.remove("id3")
    assert found(store.searcher.search(FACES, vectors(1), 5)) == [expected]


def test_filters_by_name_and_labels(store: Store) -> None:
    rows = vectors(30)
    store.journal.append(records(rows))
    store.searcher.keep_up()
    assert found(store.searcher.search(FACES, rows[:1], 9, Filter(name="name2")))[0] != []
    for chosen in (Filter("name2"), ODD, Filter("name2", {"parity": "1"})):
        expected = {one.id for one in store.journal.listed(FACES.namespace, chosen, after=0, limit=99)}
        assert set(found(store.searcher.search(FACES, rows[:1], 30, chosen))[0]) == expected
    assert len(found(store.searcher.search(FACES, rows[:1], 30, Filter()))[0]) == 30
    assert found(store.searcher.search(FACES, rows[:2], 3, Filter("nobody"))) == [[], []]


def test_what_a_filter_leaves_is_found_however_far_it_is(store: Store) -> None:
    """Two hundred of another label are nearer."""
    probe, rows = vectors(1), vectors(402)
    nearer = unit_rows(probe + 0.1 * vectors(200, seed=1))
    store.journal.append(records(np.concatenate([nearer, rows])[::2], 0))
    store.searcher.keep_up()
    assert len(found(store.searcher.search(FACES, probe, 400, EVEN))[0]) == 151
    assert len(found(store.searcher.search(FACES, probe, 400))[0]) == 301


def test_updates_are_seen_at_once(store: Store) -> None:
    rows = vectors(3)
    store.journal.append(records(rows))
    store.searcher.catch_up()
    store.journal.update(FACES.namespace, "id2", name="Ada", labels={"site": "north"})
    match = store.searcher.search(FACES, rows[1:2], 1, Filter("Ada", {"site": "north"})).matches[0][0]
    assert (match.stored.id, match.stored.name) == ("id2", "Ada")


def test_an_unknown_space_has_no_matches_and_wrong_requests_are_refused(store: Store) -> None:
    rows = vectors(3)
    assert store.searcher.search(FACES, rows, 5).matches == [[], [], []]
    store.journal.append(records(rows))
    assert store.searcher.search(OTHERS, vectors(2, 4), 5).matches == [[], []]
    with pytest.raises(InvalidInput, match="16 dimensions, not 4"):
        store.searcher.search(FACES, vectors(1, 4), 5)
    with pytest.raises(InvalidInput, match="at least one match"):
        store.searcher.search(FACES, rows, 0)


def test_an_emptied_space_may_begin_again_with_another_dimension(store: Store) -> None:
    store.journal.append(records(vectors(30)))
    store.searcher.keep_up()
    store.journal.delete(FACES.namespace, [f"id{number}" for number in range(1, 31)])
    assert store.searcher.search(FACES, vectors(1), 5).matches == [[]]
    store.journal.append(records(vectors(30, 4), 50))
    for _ in range(2):
        assert found(store.searcher.search(FACES, vectors(1, 4), 5))[0][0] == "id50"
        store.searcher.keep_up()


def test_every_replica_finds_a_record_as_soon_as_it_is_written(store: Store) -> None:
    rows = vectors(60)
    replicas = [store.another() for _ in range(3)]

    def write_and_ask(number: int) -> bool:
        store.journal.append(records(rows[number : number + 1], number))
        answers = [one.search(FACES, rows[number : number + 1], 1) for one in replicas]
        seen = [found(answer) == [[f"id{number}"]] for answer in answers]
        if number % 3 == 0:
            store.journal.delete(FACES.namespace, [f"id{number}"])
            seen += [
                [f"id{number}"] not in found(one.search(FACES, rows[number : number + 1], 1))
                for one in replicas
            ]
        return all(seen)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_ask, range(60)))


def test_searches_upkeep_and_writes_side_by_side(store: Store) -> None:
    """Records that stay are always found while others come and go."""
    rows, guests = vectors(300), vectors(100, seed=1)
    store.journal.append(records(rows))
    stop = threading.Event()

    def come_and_go() -> None:
        try:
            for number in range(0, 100, 5):
                store.journal.append(records(guests[number : number + 5], 1000 + number))
                store.journal.delete(
                    FACES.namespace, [f"id{1000 + one}" for one in range(number, number + 4)]
                )
        finally:
            stop.set()

    def tidy() -> None:
        while not stop.is_set():
            store.searcher.keep_up()

    def ask(first: int) -> None:
        while not stop.is_set():
            expected = [[f"id{one}"] for one in range(first + 1, first + 11)]
            assert found(store.searcher.search(FACES, rows[first : first + 10], 1)) == expected

    with ThreadPoolExecutor(4) as pool:
        for task in [pool.submit(come_and_go), pool.submit(tidy), pool.submit(ask, 0), pool.submit(ask, 200)]:
            task.result()
    assert store.searcher.catch_up() == store.journal.head()
    assert len(found(store.searcher.search(FACES, rows[:1], 1000))[0]) == 320


def agrees(searcher: Searcher, rows: Embeddings, living: dict[int, str]) -> None:
    """Finds all that live, in their spaces (by parity), each best by its own embedding."""
    for parity, space in enumerate((FACES, OTHERS)):
        expected = {f"id{one}": name for one, name in living.items() if one % 2 == parity}
        for which, matches in enumerate(searcher.search(space, rows, 40).matches):
            assert {one.stored.id: one.stored.name for one in matches} == expected
            if f"id{which}" in expected:
                assert matches[0].stored.id == f"id{which}"


def test_any_course_of_events_leaves_what_lives(store: Store) -> None:
    """Records of two models come, go and are renamed; both find what lives."""
    rng, rows, other = np.random.default_rng(5), vectors(40), store.another()
    living: dict[int, str] = {}
    for step in range(150):
        which = int(rng.integers(40))
        space = (FACES, OTHERS)[which % 2]
        if which not in living:
            store.journal.append([NewRecord(f"id{which}", space, rows[which], name=f"name{step}")])
            living[which] = f"name{step}"
        elif rng.random() < 0.5:
            assert store.journal.update(FACES.namespace, f"id{which}", name=f"new{step}")
            living[which] = f"new{step}"
        else:
            assert store.journal.delete(FACES.namespace, [f"id{which}"]) == [f"id{which}"]
            del living[which]
        if step % 25 == 24:
            store.searcher.keep_up()
        if step % 5 == 0:
            agrees((store.searcher, other)[step % 2], rows, living)
