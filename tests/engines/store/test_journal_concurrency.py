"""Many threads and processes at once, on both databases."""

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import create_engine, text

from engines.errors import InvalidInput, StoreFull, StoreUnavailable
from engines.store import Change, Filter, NewRecord
from engines.store.group_commit import MOST_RECORDS, GroupCommit
from engines.store.journal import SqlJournal
from engines.store.schema import MIGRATIONS

New = Callable[..., NewRecord]
Open = type[SqlJournal]
Start = Callable[..., subprocess.Popen[str]]
FACES = "face/default"

WRITER = """
import importlib, json, sys, threading, time
import numpy as np
from engines.store import NewRecord, Space

module, kind, url, name = sys.argv[1:5]
threads, each = int(sys.argv[5]), int(sys.argv[6])
journal = getattr(importlib.import_module(module), kind)(url)
space = Space("face/default", "dlib")
lock = threading.Lock()

def say(fact):
    with lock:
        print(json.dumps(fact), flush=True)

def write(thread):
    for number in range(each):
        one = f"{name}-{thread}-{number}"
        begun = time.monotonic()
        positions = journal.append([NewRecord(one, space, np.full(8, number, np.float32), one)])
        say(["add", one, positions[0], begun, time.monotonic()])
        if number % 3 == 2:
            journal.delete("face/default", [one])
            say(["delete", one, positions[0], begun, time.monotonic()])

say("ready")
sys.stdin.readline()
workers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
journal.close()
"""


def named(kind: Open) -> tuple[str, str]:
    """A class for another process."""
    return kind.__module__, kind.__name__


def begin(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Lets processes run that wait for each other."""
    for process in processes:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def facts(process: subprocess.Popen[str]) -> list[tuple[str, str, int, float, float]]:
    out, _ = process.communicate()
    assert process.returncode == 0
    return [tuple(json.loads(line)) for line in out.splitlines()]


def follow(journal: SqlJournal, done: threading.Event) -> list[Change]:
    """All steps, read page by page while others write."""
    seen: list[Change] = []
    while True:
        is_last = done.is_set()
        head = journal.head()
        page = journal.changes(len(seen), 7)
        # The page begins right behind what was seen, has no gap, and reaches what was acknowledged.
        assert [change.position for change in page] == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
        assert len(page) == 7 or len(seen) + len(page) >= head
        seen += page
        if is_last and not page:
            return seen


def test_readers_see_every_step_once_in_the_order_of_commits(
    url: str, open_journal: Open, start_python: Start
) -> None:
    threads, each, done = 5, 9, threading.Event()
    writers = [
        start_python(WRITER, *named(open_journal), url, name, str(threads), str(each)) for name in "ab"
    ]
    with closing(open_journal(url)) as journal, ThreadPoolExecutor() as pool:
        begin(writers)
        readers = [pool.submit(follow, journal, done) for _ in range(2)]
        written = [fact for writer in writers for fact in facts(writer)]
        done.set()
        seen = readers[0].result()
        assert [change.position for change in readers[1].result()] == [change.position for change in seen]
        added = {one: position for kind, one, position, _, _ in written if kind == "add"}
        deleted = {position for kind, _, position, _, _ in written if kind == "delete"}
        assert len(added) == 2 * threads * each
        assert sorted(added.values()) == [
            change.record for change in seen if change.record == change.position
        ]
        assert {change.record for change in seen if change.record != change.position} == deleted
        living = journal.listed(FACES, Filter(), after=0, limit=1000)
        assert {one.id: one.position for one in living} == {
            one: position for one, position in added.items() if position not in deleted
        }
        assert journal.verify() == []
    # Whatever was acknowledged before a call began stands before what the call wrote.
    by_position = sorted(
        (position, begun, ended) for kind, _, position, begun, ended in written if kind == "add"
    )
    latest_begin = 0.0
    for _, begun, ended in by_position:
        assert ended > latest_begin
        latest_begin = max(latest_begin, begun)


OPENER = """
import importlib, json, sys
kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
print('"ready"', flush=True)
sys.stdin.readline()
journal = kind(sys.argv[3])
print(json.dumps(journal.head()))
journal.close()
"""


def test_processes_that_open_an_empty_database_at_once(
    url: str, open_journal: Open, start_python: Start, new: New
) -> None:
    processes = [start_python(OPENER, *named(open_journal), url) for _ in range(3)]
    begin(processes)
    for process in processes:
        out, _ = process.communicate()
        assert (process.returncode, out) == (0, "0\n")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT schema_version FROM meta")).all() == [(len(MIGRATIONS),)]
        assert connection.execute(text("SELECT position FROM head")).all() == [(0,)]
    engine.dispose()
    with closing(open_journal(url)) as journal:
        assert journal.append([new("a")]) == [1]


def test_threads_that_open_an_empty_database_at_once(url: str, open_journal: Open) -> None:
    with ThreadPoolExecutor(8) as pool:
        for journal in pool.map(lambda _: open_journal(url), range(8)):
            assert journal.head() == 0
            journal.close()


def test_a_killed_writer_loses_nothing_that_it_acknowledged(
    url: str, open_journal: Open, start_python: Start, new: New
) -> None:
    writer = start_python(WRITER, *named(open_journal), url, "w", "4", "100000")
    begin([writer])
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(150)]
    writer.kill()
    lines += [line for line in writer.stdout.read().split("\n") if line.endswith("]")]
    acknowledged = [json.loads(line) for line in lines]
    with closing(open_journal(url)) as journal:
        assert journal.verify() == []
        steps = journal.changes(0, 1_000_000)
        additions = {step.record for step in steps if step.record == step.position}
        deletions = {step.record for step in steps if step.record != step.position}
        assert len(acknowledged) >= 150
        for kind, one, position, _, _ in acknowledged:
            assert position in (additions if kind == "add" else deletions)
            if kind == "delete":
                assert journal.get(FACES, one) is None
            elif position not in deletions:
                stored = journal.get(FACES, one)
                assert stored is not None
                assert (stored.position, stored.name) == (position, one)
        assert journal.append([new("after")]) == [len(steps) + 1]


def test_the_same_request_from_many_threads_is_written_once(journal: SqlJournal, new: New) -> None:
    with ThreadPoolExecutor(16) as pool:
        positions = list(pool.map(lambda number: journal.append([new(f"{number % 4}")])[0], range(64)))
    groups = defaultdict(set)
    for number, position in enumerate(positions):
        groups[number % 4].add(position)
    assert sorted(position for group in groups.values() for position in group) == [1, 2, 3, 4]
    assert journal.head() == 4


def test_a_refused_call_does_not_fail_those_that_share_its_transaction(journal: SqlJournal, new: New) -> None:
    journal.append([new("first")])

    def append(number: int) -> int | str:
        try:
            return journal.append([new(f"{number}-a"), new(f"{number}-b", dim=8 if number % 2 else 5)])[0]
        except InvalidInput as error:
            return error.message

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(append, range(64)))
    assert all(isinstance(outcome, int) == bool(number % 2) for number, outcome in enumerate(outcomes))
    assert journal.spaces() == {journal.listed(FACES, Filter(), after=0, limit=1)[0].space: (8, 65)}
    assert journal.get(FACES, "2-a") is None
    assert journal.verify() == []


def test_calls_that_wait_share_a_transaction(new: New) -> None:
    """While the first group is being committed, the others arrive; each gets its own outcome."""
    groups: list[list[str]] = []
    first_began, may_end = threading.Event(), threading.Event()

    def commit(calls: list[Sequence[NewRecord]]) -> list[list[int] | InvalidInput]:
        groups.append([call[0].id for call in calls])
        first_began.set()
        assert may_end.wait(30)
        return [InvalidInput("3 is refused") if call[0].id == "3" else [int(call[0].id)] for call in calls]

    commits = GroupCommit(commit)
    arrived = threading.Barrier(5)

    def call(number: int) -> list[int]:
        arrived.wait(30)
        return commits.append([new(str(number))])

    with ThreadPoolExecutor() as pool:
        first = pool.submit(commits.append, [new("0")])
        assert first_began.wait(30)
        others = [pool.submit(call, number) for number in range(1, 5)]
        arrived.wait(30)
        may_end.set()
        assert first.result() == [0]
        assert [others[at].result() for at in (0, 1, 3)] == [[1], [2], [4]]
        with pytest.raises(InvalidInput, match="3 is refused"):
            others[2].result()
    assert groups[0] == ["0"]
    assert sorted(one for group in groups for one in group) == ["0", "1", "2", "3", "4"]


def test_a_group_is_bounded_and_its_failure_reaches_every_call(new: New) -> None:
    sizes: list[int] = []
    began, may_end = threading.Event(), threading.Event()
    large = [new("x")] * (MOST_RECORDS // 2)

    def commit(calls: list[Sequence[NewRecord]]) -> list[list[int] | InvalidInput]:
        sizes.append(sum(len(call) for call in calls))
        began.set()
        assert may_end.wait(30)
        raise StoreFull("no room")

    commits = GroupCommit(commit)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(commits.append, large) for _ in range(6)]
        assert began.wait(30)
        may_end.set()
        for call in calls:
            with pytest.raises(StoreFull, match="no room"):
                call.result()
    assert sum(sizes) == 6 * len(large)
    assert max(sizes) <= MOST_RECORDS


def test_an_error_of_the_program_leaves_nobody_waiting(new: New) -> None:
    began, may_end = threading.Event(), threading.Event()

    def commit(_: list[Sequence[NewRecord]]) -> list[list[int] | InvalidInput]:
        began.set()
        assert may_end.wait(30)
        raise KeyError("a mistake")

    commits = GroupCommit(commit)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(commits.append, [new("a")]) for _ in range(4)]
        assert began.wait(30)
        may_end.set()
        errors = [call.exception() for call in calls]
    assert any(isinstance(error, KeyError) for error in errors)
    assert all(isinstance(error, KeyError | StoreUnavailable) for error in errors)
