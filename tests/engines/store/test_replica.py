"""A replica sees every acknowledged write, forgets every deleted record, and starts from snapshots."""

import fcntl
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.embedding import unit_rows
from engines.errors import StoreCorrupt, StoreUnavailable
from engines.store import Answer, Change, Filter, NewRecord, Space, State, Stored
from engines.store.faiss_index import FaissIndex
from engines.store.fake import MemoryJournal
from engines.store.index_options import IndexOptions, Kind
from engines.store.journal import SqlJournal
from engines.store.replica import StoreReplica
from engines.store.segment import Segment
from engines.store.snapshot import LOCK
from engines.types import Embeddings

DIM = 16
FACES = Space("face/default", "arcface")
OTHERS = Space("face/default", "sface")


def vectors(count: int, dim: int = DIM, seed: int = 0) -> Embeddings:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32))


def records(rows: Embeddings, first: int = 1, space: Space = FACES) -> list[NewRecord]:
    return [
        NewRecord(f"id{number}", space, row, name=f"name{number % 5}", labels={"parity": str(number % 2)})
        for number, row in enumerate(rows, first)
    ]


def found(answer: Answer) -> list[list[str]]:
    return [[match.stored.id for match in each] for each in answer.matches]


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Between(MemoryJournal):
    """Does something once, after an index was asked and before names are read."""

    def __init__(self) -> None:
        super().__init__()
        self.before_names: list[Callable[[], object]] = []

    def stored(self, positions: Sequence[int]) -> dict[int, Stored]:
        if self.before_names:
            self.before_names.pop()()
        return super().stored(positions)


class Counting(MemoryJournal):
    """Tells where reading began, and whose names were read."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []
        self.named: list[int] = []

    def stored(self, positions: Sequence[int]) -> dict[int, Stored]:
        self.named += positions
        return super().stored(positions)

    def changes(self, after: int, limit: int) -> list[Change]:
        self.asked.append((after, limit))
        return super().changes(after, limit)


def test_the_journal_is_read_in_pieces() -> None:
    journal, rows = Counting(), vectors(25)
    journal.append(records(rows))
    journal.delete(FACES.namespace, ["id3", "id25"])
    replica = StoreReplica(journal)
    assert replica.catch_up(limit=10) == 27 == replica.position
    assert journal.asked == [(0, 10), (10, 10), (20, 10)]
    assert replica.catch_up() == 27
    assert len(journal.asked) == 3
    assert replica.sizes() == {FACES: 23}


def agrees(replica: StoreReplica, rows: Embeddings, living: dict[int, str]) -> None:
    """Finds all that live, in their spaces (by parity), each best by its own embedding."""
    for parity, space in enumerate((FACES, OTHERS)):
        expected = {f"id{one}": name for one, name in living.items() if one % 2 == parity}
        for which, matches in enumerate(replica.search(space, rows, 40).matches):
            assert {one.stored.id: one.stored.name for one in matches} == expected
            if f"id{which}" in expected:
                assert matches[0].stored.id == f"id{which}"


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "delete", "rename", "search", "snapshot"]), st.integers(0, 39)),
        max_size=60,
    ),
    limit=st.integers(1, 12),
)
def test_replicas_agree_with_the_journal(steps: list[tuple[str, int]], limit: int) -> None:
    journal, rows = MemoryJournal(), vectors(40)
    early, spaces = StoreReplica(journal), (FACES, OTHERS)
    living: dict[int, str] = {}
    for number, (step, which) in enumerate(steps):
        if step == "add" and which not in living:
            journal.append([NewRecord(f"id{which}", spaces[which % 2], rows[which], name="first")])
            living[which] = "first"
        elif step == "delete":
            journal.delete("face/default", [f"id{which}"])
            living.pop(which, None)
        elif step == "rename" and journal.update("face/default", f"id{which}", name=f"new{number}"):
            living[which] = f"new{number}"
        elif step == "search":
            agrees(early, rows, living)
        elif step == "snapshot":
            early.snapshot()
        if number % 7 == 0:
            early.catch_up(limit)
    late = StoreReplica(journal)
    late.catch_up(limit)
    for replica in (early, late):
        agrees(replica, rows, living)


def test_a_record_that_is_added_and_deleted_in_the_same_steps_is_never_found() -> None:
    rows = vectors(2)

    class Kept(MemoryJournal):
        """Its steps still hold the embedding: read before the deletion, answered after it."""

        def changes(self, after: int, limit: int) -> list[Change]:
            steps = super().changes(after, limit)
            return [replace(one, embedding=rows[0]) if one.position == 1 else one for one in steps]

    journal = Kept()
    journal.append(records(rows))
    journal.delete(FACES.namespace, ["id1"])
    replica = StoreReplica(journal)
    assert found(replica.search(FACES, rows[:1], 2)) == [["id2"]]
    assert replica.sizes() == {FACES: 1}


def test_names_are_read_once_and_again_after_a_change() -> None:
    journal, rows = Counting(), vectors(10)
    journal.append(records(rows))
    replica = StoreReplica(journal)
    for _ in range(2):
        assert found(replica.search(FACES, rows[:4], 1)) == [["id1"], ["id2"], ["id3"], ["id4"]]
    assert sorted(journal.named) == [1, 2, 3, 4]
    journal.named.clear()
    journal.update(FACES.namespace, "id2", name="Ada")
    journal.update(FACES.namespace, "id3", labels={"site": "north"})
    journal.update(FACES.namespace, "id3", value="v")
    journal.update(FACES.namespace, "id9", name="nobody asked")
    matches = [each[0].stored for each in replica.search(FACES, rows[:4], 1).matches]
    assert [one.name for one in matches] == ["name1", "Ada", "name3", "name4"]
    assert (matches[2].labels, matches[2].value) == ({"site": "north"}, "v")
    assert sorted(journal.named) == [2, 3]


def test_long_values_do_not_stay_in_memory() -> None:
    journal, rows = Counting(), vectors(2)
    journal.append([NewRecord(f"{n}", FACES, row, value="v" * 600 * n) for n, row in enumerate(rows, 1)])
    replica = StoreReplica(journal)
    for _ in range(3):
        assert len(replica.search(FACES, rows[:1], 2).matches[0]) == 2
    assert journal.named == [1, 2, 2, 2]


def test_nothing_of_a_deleted_record_stays_in_memory() -> None:
    for remember in (False, True):
        journal, rows = MemoryJournal(), vectors(4)
        journal.append(records(rows))
        replica = StoreReplica(journal, remember=remember)
        replica.search(FACES, rows, 4)
        journal.update(FACES.namespace, "id3", name="Rosalind", labels={})
        replica.search(FACES, rows, 4)
        assert "Rosalind" in repr(vars(replica))
        assert "name3" not in repr(vars(replica))
        journal.delete(FACES.namespace, ["id3"])
        replica.catch_up()
        assert "Rosalind" not in repr(vars(replica))
        assert "id3" not in repr(vars(replica))


def test_what_is_deleted_while_names_are_read_makes_room_for_the_next() -> None:
    journal, rows = Between(), vectors(1)
    near = unit_rows(rows + np.linspace(0, 0.1, 10, dtype=np.float32)[:, None] * vectors(10, seed=1))
    journal.append(records(near))
    journal.before_names = [
        lambda: journal.delete(FACES.namespace, ["id4"]),
        lambda: journal.delete(FACES.namespace, ["id1", "id3"]),
    ]
    assert found(StoreReplica(journal).search(FACES, rows, 3)) == [["id2", "id5", "id6"]]
    journal.before_names = [lambda: journal.delete(FACES.namespace, [f"id{one}" for one in range(1, 10)])]
    assert found(StoreReplica(journal).search(FACES, rows, 3)) == [["id10"]]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_searches_snapshots_and_writes_side_by_side(kind: Kind, tmp_path: Path) -> None:
    """Records that stay are always found while others come and go."""
    journal, rows, guests = MemoryJournal(), vectors(300), vectors(100, seed=1)
    journal.append(records(rows))
    options = IndexOptions(kind, approximate_from=100, nprobe=60)
    replica, stop = StoreReplica(journal, options, tmp_path), threading.Event()

    def come_and_go() -> None:
        try:
            for number in range(0, 100, 5):
                journal.append(records(guests[number : number + 5], 1000 + number))
                journal.delete(FACES.namespace, [f"id{1000 + one}" for one in range(number, number + 4)])
        finally:
            stop.set()

    def tidy() -> None:
        while not stop.is_set():
            replica.snapshot()
            replica.build()

    def ask(first: int) -> None:
        while not stop.is_set():
            expected = [[f"id{one}"] for one in range(first + 1, first + 11)]
            assert found(replica.search(FACES, rows[first : first + 10], 1)) == expected

    with ThreadPoolExecutor(4) as pool:
        for task in [pool.submit(come_and_go), pool.submit(tidy), pool.submit(ask, 0), pool.submit(ask, 200)]:
            task.result()
    replica.build()
    replica.snapshot()
    for one in (replica, StoreReplica(journal, options, tmp_path)):
        assert one.catch_up() == journal.head()
        assert one.sizes() == {FACES: 320}
        assert [segment.kind for segment in one._indexes[FACES]._segments] == [kind]
        assert found(one.search(FACES, rows, 1)) == [[f"id{number}"] for number in range(1, 301)]


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_searches_and_changes_do_not_wait_for_a_graph_or_lists(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take as long as it likes; what came and went meanwhile is known at the end."""
    begun, go_on = threading.Event(), threading.Event()
    rebuilt = FaissIndex.rebuilt

    def long(index: FaissIndex) -> Segment:
        made = rebuilt(index)
        begun.set()
        assert go_on.wait(20)
        return made

    monkeypatch.setattr(FaissIndex, "rebuilt", long)
    journal, rows = MemoryJournal(), vectors(200)
    journal.append(records(rows[:150]))
    replica = StoreReplica(journal, IndexOptions(kind, approximate_from=100, nprobe=60))
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(replica.build)
        assert begun.wait(20)
        for number in range(151, 201):
            journal.append(records(rows[number - 1 : number], number))
            assert found(replica.search(FACES, rows[number - 1 : number], 1)) == [[f"id{number}"]]
        journal.delete(FACES.namespace, ["id7", "id160"])
        assert found(replica.search(FACES, rows[5:8:2], 1)) == [["id6"], ["id8"]]
        go_on.set()
        building.result(20)
    index = replica._indexes[FACES]
    assert [segment.kind for segment in index._segments] == [kind]
    assert not index.due()
    expected = [f"id{number}" for number in range(1, 201) if number not in (7, 160)]
    asked = np.delete(rows, [6, 159], axis=0)
    assert found(replica.search(FACES, asked, 1)) == [[one] for one in expected]
    everything = found(replica.search(FACES, rows[6:7], 200))[0]
    assert sorted(everything) == sorted(expected)


def test_searches_come_between_the_records_that_a_graph_takes_in() -> None:
    """The lock is free between two steps; every search finds what has been moved and what has not."""
    journal, rows = MemoryJournal(), vectors(400)
    journal.append(records(rows[:200]))
    replica = StoreReplica(journal, IndexOptions("hnsw", approximate_from=100))
    replica.build()
    journal.append(records(rows[200:], 201))
    replica.catch_up()
    index = replica._indexes[FACES]
    sizes = {len(index._segments[0])}
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(replica.build)
        while not building.done():
            assert found(replica.search(FACES, rows[195:205], 1)) == [[f"id{one}"] for one in range(196, 206)]
            sizes.add(len(index._segments[0]))
        building.result()
    assert len(sizes) > 3, "the searches saw it grow"
    assert len(index._segments) == 1


def test_a_snapshot_that_waits_for_its_graph_is_replaced_once_that_is_built(tmp_path: Path) -> None:
    journal, options = MemoryJournal(), IndexOptions("hnsw", approximate_from=100)
    journal.append(records(vectors(150)))
    first, second = (StoreReplica(journal, options, tmp_path) for _ in range(2))

    def kinds() -> list[str]:
        again = StoreReplica(journal, options, tmp_path)
        again.catch_up()
        return [segment.kind for segment in again._indexes[FACES]._segments]

    first.snapshot()
    assert kinds() == ["flat"]
    first.build()
    first.snapshot()
    assert kinds() == ["hnsw"]
    second._started = True  # it has read the journal before there was a snapshot
    second.snapshot()
    assert kinds() == ["hnsw"]


def test_the_upkeep_writes_a_snapshot_when_its_time_has_come(tmp_path: Path) -> None:
    journal, clock = MemoryJournal(), Clock()
    journal.append(records(vectors(3)))
    replica = StoreReplica(journal, snapshots=tmp_path, snapshot_every_s=60, clock=clock)
    replica.keep_up()
    assert not list(tmp_path.glob("[0-9]*"))
    clock.now += 61
    replica.keep_up()
    first = list(tmp_path.glob("[0-9]*"))
    journal.append(records(vectors(1, seed=3), 4))
    replica.keep_up()
    assert list(tmp_path.glob("[0-9]*")) == first
    clock.now += 61
    replica.keep_up()
    assert len(first) == 1 == len(set(tmp_path.glob("[0-9]*")) - set(first))


def test_searches_and_changes_do_not_wait_for_a_snapshot(tmp_path: Path) -> None:
    """Its folder is locked, as by another replica that writes there for long."""
    journal, rows = MemoryJournal(), vectors(30)
    journal.append(records(rows[:20]))
    replica = StoreReplica(journal, snapshots=tmp_path)
    replica.snapshot()
    journal.append(records(rows[20:21], 21))
    with ThreadPoolExecutor(1) as pool:
        with (tmp_path / LOCK).open("w") as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            writing = pool.submit(replica.snapshot)
            for number in range(22, 31):
                journal.append(records(rows[number - 1 : number], number))
                journal.delete(FACES.namespace, [f"id{number - 21}"])
                assert found(replica.search(FACES, rows[number - 1 : number], 1)) == [[f"id{number}"]]
                assert found(replica.search(FACES, rows[:1], 30))[0].count(f"id{number - 21}") == 0
            assert not writing.done()
        written = writing.result()
    assert 21 <= written <= journal.head()
    for one in (replica, StoreReplica(journal, snapshots=tmp_path)):
        assert one.catch_up() == journal.head()
        assert one.sizes() == {FACES: 21}
        assert found(one.search(FACES, rows[9:], 1)) == [[f"id{number}"] for number in range(10, 31)]


def test_a_snapshot_of_a_journal_that_is_set_back_meanwhile_is_not_kept(tmp_path: Path) -> None:
    journal, rows = MemoryJournal(), vectors(20)
    identity = journal.identity()
    journal.append(records(rows))
    replica = StoreReplica(journal, snapshots=tmp_path)
    replica.catch_up()
    with ThreadPoolExecutor(2) as pool:
        with (tmp_path / LOCK).open("w") as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            writing = pool.submit(replica.snapshot)
            while not (index := replica._indexes[FACES]) or not index._held:
                assert not writing.done()
            journal.__init__()  # type: ignore[misc] # as a backup that was made before the records
            journal._identity = identity
            catching_up = pool.submit(replica.catch_up)
        assert writing.result() == 20
        assert catching_up.result() == 0
    assert list(tmp_path.glob("[0-9]*")) == []


def test_a_start_reads_the_snapshot_and_the_rest(tmp_path: Path) -> None:
    journal, rows = Counting(), vectors(30)
    journal.append(records(rows[:20]))
    assert StoreReplica(journal, snapshots=tmp_path).snapshot() == 20
    journal.append(records(rows[20:], 21))
    journal.delete(FACES.namespace, ["id5"])
    journal.asked.clear()
    again = StoreReplica(journal, snapshots=tmp_path)
    assert found(again.search(FACES, rows[24:25], 1)) == [["id25"]]
    assert "id5" not in found(again.search(FACES, rows[4:5], 40))[0]
    assert [after for after, _ in journal.asked] == [20]
    assert again.sizes() == {FACES: 29}


def test_a_snapshot_is_written_only_after_changes(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.append(records(vectors(3)))
    replica = StoreReplica(journal, snapshots=tmp_path)
    replica.snapshot()
    before = sorted(tmp_path.iterdir())
    replica.snapshot()
    StoreReplica(journal, snapshots=tmp_path).snapshot()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign"])
def test_without_a_good_snapshot_the_journal_is_read_from_its_beginning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, rows = Counting(), vectors(20)
    journal.append(records(rows))
    StoreReplica(journal, snapshots=tmp_path).snapshot()
    path = next(tmp_path.rglob("0.index"))
    content = bytearray(path.read_bytes())
    if damage == "torn":
        path.write_bytes(content[:-100])
    elif damage == "flipped":
        content[500] ^= 4
        path.write_bytes(content)
    else:
        journal = Counting()
        journal.append(records(rows[::-1].copy()))
    journal.asked.clear()
    with caplog.at_level(logging.WARNING, "presence.store"):
        again = StoreReplica(journal, snapshots=tmp_path)
        assert found(again.search(FACES, rows[:1], 1)) == [["id20" if damage == "foreign" else "id1"]]
    assert journal.asked[0][0] == 0
    assert "is not used" in caplog.text


def test_a_journal_that_was_set_back_is_read_anew(caplog: pytest.LogCaptureFixture) -> None:
    journal, rows = MemoryJournal(), vectors(20)
    journal.append(records(rows))
    replica = StoreReplica(journal)
    replica.catch_up()
    journal.__init__()  # type: ignore[misc] # as a backup that was made before the records
    journal.append(records(rows[10:12], 50))
    with caplog.at_level(logging.WARNING, "presence.store"):
        assert found(replica.search(FACES, rows[:1], 20))[0] in (["id50", "id51"], ["id51", "id50"])
    assert "built anew" in caplog.text


def test_a_snapshot_of_a_future_that_was_taken_back_is_not_used(tmp_path: Path) -> None:
    journal, before, rows = MemoryJournal(), MemoryJournal(), vectors(20)
    before._identity = journal.identity()
    journal.append(records(rows))
    StoreReplica(journal, snapshots=tmp_path).snapshot()
    before.append(records(rows[:5], 30))
    again = StoreReplica(before, snapshots=tmp_path)
    assert found(again.search(FACES, rows[2:3], 20))[0][0] == "id32"
    assert again.sizes() == {FACES: 5}
    assert list(tmp_path.glob("[0-9]*")) == [], "its positions will soon mean other records"
    again.snapshot()
    assert StoreReplica(before, snapshots=tmp_path).catch_up() == 5


def test_a_journal_that_contradicts_itself_is_told_of() -> None:
    class Gap(MemoryJournal):
        def head(self) -> int:
            return super().head() + 1

    journal = Gap()
    journal.append(records(vectors(2)))
    with pytest.raises(StoreCorrupt, match="nothing behind 2"):
        StoreReplica(journal).catch_up()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_deleted_embeddings_are_nowhere_after_a_snapshot(kind: str, tmp_path: Path) -> None:
    options = {
        "flat": IndexOptions(),
        "hnsw": IndexOptions(kind="hnsw", approximate_from=50),
        "ivf": IndexOptions(kind="ivf", approximate_from=50),
    }[kind]
    journal, rows = MemoryJournal(), vectors(200)
    journal.append(records(rows))
    replica = StoreReplica(journal, options, tmp_path)
    replica.build()
    replica.snapshot()

    def on_disk(row: int) -> bool:
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        return any(unit_rows(rows)[row].tobytes() in content for content in files)

    assert on_disk(41)
    journal.delete(FACES.namespace, ["id42"])
    replica.snapshot()
    assert not on_disk(41)
    assert on_disk(40)
    assert found(StoreReplica(journal, options, tmp_path).search(FACES, rows[40:41], 1)) == [["id41"]]


def test_a_journal_that_is_away_is_told_of_or_answered_from_memory() -> None:
    journal, rows, clock = MemoryJournal(), vectors(10), Clock()
    journal.append(records(rows))
    replica = StoreReplica(journal, remember=True, clock=clock)
    assert replica.age_s is None
    journal.available = False
    with pytest.raises(StoreUnavailable):
        replica.search(FACES, rows[:1], 1, allow_stale=True)
    journal.available = True
    replica.search(FACES, rows[:1], 1)
    journal.delete(FACES.namespace, ["id10"])
    journal.update(FACES.namespace, "id3", name="Ada")
    clock.now += 5
    replica.search(FACES, rows[:1], 1)
    journal.available = False
    clock.now += 12.5
    with pytest.raises(StoreUnavailable):
        replica.search(FACES, rows[:1], 1)
    answer = replica.search(FACES, rows[2:3], 10, allow_stale=True)
    assert answer.age_s == 12.5 == replica.age_s
    assert (answer.matches[0][0].stored.id, answer.matches[0][0].stored.name) == ("id3", "Ada")
    assert len(answer.matches[0]) == 9
    assert found(replica.search(FACES, rows[2:3], 10, Filter(), allow_stale=True)) == found(answer)
    chosen = replica.search(FACES, rows[2:3], 10, Filter("name2", {"parity": "1"}), allow_stale=True)
    assert found(chosen) == [["id7"]]
    journal.available = True
    assert replica.search(FACES, rows[2:3], 1, allow_stale=True).age_s == 0


def test_a_journal_that_takes_long_to_fail_is_not_asked_each_time() -> None:
    """As where its machine has vanished: memory answers at once, the journal is tried again in a while."""
    clock = Clock()

    class Vanished(MemoryJournal):
        asked = 0

        def state(self) -> State:
            if not self.available:
                self.asked += 1
                clock.now += 10
            return super().state()

    journal, rows = Vanished(), vectors(3)
    journal.append(records(rows))
    replica = StoreReplica(journal, remember=True, clock=clock)
    replica.catch_up()
    journal.available = False
    for _ in range(3):
        assert replica.search(FACES, rows[:1], 1, allow_stale=True).age_s == 10
    assert journal.asked == 1
    with pytest.raises(StoreUnavailable):
        replica.search(FACES, rows[:1], 1)
    clock.now += 6
    assert replica.search(FACES, rows[:1], 1, allow_stale=True).age_s == 36
    journal.available = True
    clock.now += 6
    assert replica.search(FACES, rows[:1], 1, allow_stale=True).age_s == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_keys_are_told_from_memory_as_they_were_written(restarted: bool, tmp_path: Path) -> None:
    """Of a space without a model; embeddings of a model are not kept twice."""
    journal, rows = MemoryJournal(), 3 * vectors(4)
    keys = Space("stores/default", "")
    for space in (keys, FACES):
        journal.append([NewRecord(f"id{one}", space, row) for one, row in enumerate(rows)])
    replica = StoreReplica(journal, snapshots=tmp_path, remember=True)
    replica.snapshot()
    if restarted:
        replica = StoreReplica(journal, snapshots=tmp_path, remember=True)
    journal.delete(keys.namespace, ["id1"])
    for available in (True, False):
        journal.available = available
        answer = replica.search(keys, rows[:1], 4, with_embeddings=True, allow_stale=True)
        assert found(answer)[0][0] == "id0"
        assert {one: row.tolist() for one, row in answer.embeddings.items()} == {
            position: rows[position - 1].tolist() for position in (1, 3, 4)
        }
    assert replica.search(keys, rows[:1], 4, allow_stale=True).embeddings == {}
    of_people = replica.search(FACES, rows[:1], 4, with_embeddings=True, allow_stale=True)
    assert (len(of_people.matches[0]), of_people.embeddings) == (4, {})


def test_a_replica_that_does_not_remember_gives_no_stale_answer() -> None:
    journal, rows = MemoryJournal(), vectors(3)
    journal.append(records(rows))
    replica = StoreReplica(journal)
    replica.catch_up()
    journal.available = False
    with pytest.raises(StoreUnavailable):
        replica.search(FACES, rows, 1, allow_stale=True)


def test_names_are_remembered_from_a_snapshot_too(tmp_path: Path) -> None:
    journal, rows = MemoryJournal(), vectors(10)
    journal.append(records(rows))
    StoreReplica(journal, snapshots=tmp_path).snapshot()
    journal.append(records(vectors(1, seed=9), 11))
    replica = StoreReplica(journal, snapshots=tmp_path, remember=True)
    replica.catch_up()
    journal.available = False
    assert len(replica.search(FACES, rows[:1], 20, allow_stale=True).matches[0]) == 11


def test_no_snapshot_of_a_journal_that_is_away(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.available = False
    replica = StoreReplica(journal, snapshots=tmp_path)
    for call in (replica.snapshot, replica.catch_up):
        with pytest.raises(StoreUnavailable):
            call()
    assert list(tmp_path.iterdir()) == []


def test_the_same_on_a_journal_in_sqlite(tmp_path: Path) -> None:
    url, rows = f"sqlite:///{tmp_path / 'journal.db'}", vectors(40)
    writing, reading = SqlJournal(url), SqlJournal(url)
    try:
        replica = StoreReplica(reading, snapshots=tmp_path / "snapshots")
        for number in range(40):
            writing.append(records(rows[number : number + 1], number))
            assert found(replica.search(FACES, rows[number : number + 1], 1)) == [[f"id{number}"]]
        replica.snapshot()
        writing.delete(FACES.namespace, ["id3", "id4"])
        again = StoreReplica(reading, snapshots=tmp_path / "snapshots")
        for one in (replica, again):
            assert len(found(one.search(FACES, rows[3:4], 40))[0]) == 38
            assert set(found(one.search(FACES, rows[3:4], 40, Filter("name2")))[0]) == {
                f"id{number}" for number in range(2, 40, 5)
            }
        again.snapshot()
        assert StoreReplica(reading, snapshots=tmp_path / "snapshots").catch_up() == 42 == reading.head()
    finally:
        writing.close()
        reading.close()
