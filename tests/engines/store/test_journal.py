"""What the journal promises, on both databases."""

import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from engines.errors import ConfigurationError, InvalidInput
from engines.store import Filter, NewRecord, Space, State, Stored
from engines.store.journal import SqlJournal
from engines.store.rows import MOST_BYTES
from engines.store.schema import MIGRATIONS

New = Callable[..., NewRecord]
Open = type[SqlJournal]
EVERYTHING = Filter()
FACES = "face/default"
DLIB = Space(FACES, "dlib")


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def test_a_record_comes_back_as_it_was_written(journal: SqlJournal, new: New) -> None:
    record = new(
        "a", name="Ada", labels={"team": "north", "": "x"}, value='{"n": 1}', created_at=1234567890.123456
    )
    plain = new("b")
    assert journal.append([record, plain]) == [1, 2]
    expected = Stored(1, "a", DLIB, 8, "Ada", {"team": "north", "": "x"}, '{"n": 1}', 1234567890.123456)
    assert journal.get(FACES, "a") == expected
    assert journal.stored([1, 2, 3]) == {1: expected, 2: journal.get(FACES, "b")}
    vectors = journal.embeddings([2, 1, 7])
    assert set(vectors) == {1, 2}
    np.testing.assert_array_equal(vectors[1], record.embedding)
    assert vectors[1].dtype == np.float32
    assert vectors[1].flags.writeable
    assert journal.spaces() == {DLIB: (8, 2)}
    assert journal.head() == 2


def test_an_empty_journal(journal: SqlJournal) -> None:
    assert journal.head() == 0
    assert journal.append([]) == []
    assert journal.changes(0, 10) == []
    assert journal.stored([]) == {}
    assert journal.stored([1]) == {}
    assert journal.embeddings([1]) == {}
    assert journal.get(FACES, "a") is None
    assert journal.delete(FACES, ["a"]) == []
    assert journal.delete(FACES, []) == []
    assert not journal.update(FACES, "a", name="b")
    assert journal.listed(FACES, EVERYTHING, after=0, limit=10) == []
    assert journal.count(FACES, EVERYTHING) == 0
    assert journal.matching(DLIB, EVERYTHING).shape == (0,)
    assert journal.matching(DLIB, EVERYTHING).dtype == np.int64
    assert journal.spaces() == {}
    assert journal.verify() == []
    assert journal.head() == 0


def test_an_id_that_lives_is_not_written_again(journal: SqlJournal, new: New) -> None:
    assert journal.append([new("a"), new("b"), new("a", name="Eve")]) == [1, 2, 1]
    assert journal.append([new("c"), new("a", dim=3, model="sface", name="Eve")]) == [3, 1]
    assert journal.append([new("a", namespace="voice/default", dim=5)]) == [4]
    stored = journal.get(FACES, "a")
    assert stored is not None
    assert (stored.position, stored.name, stored.dim) == (1, "Ada", 8)
    assert journal.head() == 4
    assert journal.spaces() == {DLIB: (8, 3), Space("voice/default", "dlib"): (5, 1)}


def test_all_records_of_a_call_are_written_or_none(journal: SqlJournal, new: New) -> None:
    journal.append([new("a")])
    with pytest.raises(InvalidInput, match=r"7 numbers.*8 by 'dlib'"):
        journal.append([new("b"), new("c", model="sface"), new("d", dim=7)])
    with pytest.raises(InvalidInput, match="4 numbers"):
        journal.append([new("e", dim=3, model="sface"), new("f", dim=4, model="sface")])
    assert journal.head() == 1
    assert journal.spaces() == {DLIB: (8, 1)}
    assert journal.append([new("g", dim=4, model="sface")]) == [2]


def test_the_dimension_is_free_again_when_nothing_lives(journal: SqlJournal, new: New) -> None:
    journal.append([new("a"), new("b")])
    journal.delete(FACES, ["a"])
    with pytest.raises(InvalidInput):
        journal.append([new("c", dim=3)])
    journal.delete(FACES, ["b"])
    assert journal.spaces() == {}
    assert journal.append([new("c", dim=3)]) == [5]
    assert journal.spaces() == {DLIB: (3, 1)}
    assert journal.verify() == []


def test_namespaces_that_hold_an_id(journal: SqlJournal, new: New) -> None:
    for namespace in ("face/b", "face/a", "face_/c", "voice/a"):
        journal.append([new("one", namespace=namespace), new(f"other of {namespace}", namespace=namespace)])
    assert journal.holding("face/", "one") == ["face/a", "face/b"]
    assert journal.holding("face_", "one") == ["face_/c"], "no sign stands for others"
    assert journal.holding("face/", "other of face/a") == ["face/a"]
    assert journal.holding("face/", "nobody") == []
    journal.delete("face/a", ["one"])
    assert journal.holding("face/", "one") == ["face/b"]


def test_what_is_deleted_is_erased(journal: SqlJournal, new: New, url: str) -> None:
    journal.append([new(one, labels={"k": one}, value="v") for one in "abc"])
    assert journal.delete(FACES, ["c", "x", "a", "c"]) == ["c", "a"]
    assert journal.head() == 5
    assert journal.delete(FACES, ["c", "a"]) == []
    assert journal.delete("voice/default", ["b"]) == []
    assert journal.head() == 5
    assert set(journal.stored([1, 2, 3])) == {2}
    assert set(journal.embeddings([1, 2, 3])) == {2}
    assert journal.get(FACES, "a") is None
    assert journal.count(FACES, EVERYTHING) == 1
    assert journal.matching(DLIB, Filter(labels={"k": "a"})).tolist() == []
    erased = execute(url, "SELECT id, name, value, deleted_position FROM records ORDER BY position")
    assert erased == [(None, "", None, 5), ("b", "Ada", "v", None), (None, "", None, 4)]
    assert execute(url, "SELECT position, value FROM labels") == [(2, "b")]
    assert execute(url, "SELECT position FROM embeddings") == [(2,)]
    assert journal.append([new("a", name="Bob")]) == [6]
    assert journal.verify() == []


def test_changes_are_the_steps_in_order(journal: SqlJournal, new: New) -> None:
    records = {position: new(str(position)) for position in (1, 2, 3)}
    journal.append(list(records.values()))
    journal.delete(FACES, ["2"])
    journal.append([new("5", dim=4, model="sface")])
    journal.delete(FACES, ["5", "1"])
    whole = journal.changes(0, 100)
    assert [(one.position, one.record) for one in whole] == [
        (1, 1), (2, 2), (3, 3), (4, 2), (5, 5), (6, 5), (7, 1)
    ]  # fmt: skip
    assert [one.position for one in whole if one.embedding is not None] == [3]
    np.testing.assert_array_equal(whole[2].embedding, records[3].embedding)
    assert [one.space.model for one in whole] == ["dlib"] * 4 + ["sface"] * 2 + ["dlib"]
    for size in (1, 2, 3):
        pages: list[int] = []
        while page := journal.changes(pages[-1] if pages else 0, size):
            assert len(page) <= size
            pages += [one.position for one in page]
        assert pages == list(range(1, 8))
    assert journal.changes(7, 10) == []
    assert len(journal.changes(-5, 3)) == 3


def test_filters_agree_with_reading_everything(journal: SqlJournal, new: New) -> None:
    people = [
        new(
            f"{number}",
            name=f"name {number % 5}",
            model=("dlib", "sface")[number % 2],
            labels={"floor": str(number % 3), "team": str(number % 4)},
            namespace=(FACES, "face/guests")[number % 7 == 0],
        )
        for number in range(60)
    ]
    journal.append(people)
    journal.delete(FACES, ["10", "11"])
    living = {
        position: record
        for position, record in enumerate(people, start=1)
        if record.space.namespace == FACES and record.id not in {"10", "11"}
    }
    for chosen in (
        EVERYTHING,
        Filter("name 3"),
        Filter(labels={"floor": "2"}),
        Filter("name 1", {"floor": "1", "team": "3"}),
        Filter(labels={"floor": "1", "team": "9"}),
        Filter(labels={"room": "1"}),
        Filter(""),
    ):
        expected = [
            position
            for position, record in living.items()
            if chosen.name in {None, record.name} and chosen.labels.items() <= record.labels.items()
        ]
        assert journal.count(FACES, chosen) == len(expected)
        assert [one.position for one in journal.listed(FACES, chosen, after=0, limit=100)] == expected
        after = [position for position in expected if position > 20]
        assert [one.position for one in journal.listed(FACES, chosen, after=20, limit=4)] == after[:4]
        of_space = [position for position in expected if living[position].space == DLIB]
        assert journal.matching(DLIB, chosen).tolist() == of_space
    first = journal.listed(FACES, EVERYTHING, after=0, limit=1)[0]
    assert first == journal.get(FACES, "1")
    assert journal.listed(FACES, EVERYTHING, after=0, limit=0) == []


def test_more_positions_than_one_statement_takes(journal: SqlJournal, new: New) -> None:
    records = [new(f"{number}", dim=2, labels={"n": str(number)}) for number in range(1300)]
    positions = journal.append(records)
    assert positions == list(range(1, 1301))
    assert list(journal.stored(positions)) == positions
    assert journal.stored(positions)[1300].labels == {"n": "1299"}
    vectors = journal.embeddings(positions)
    assert all(np.array_equal(vectors[at], records[at - 1].embedding) for at in positions)
    assert journal.append(records) == positions
    assert journal.delete(FACES, [record.id for record in records[:1100]]) == [str(n) for n in range(1100)]
    assert journal.spaces() == {DLIB: (2, 200)}
    assert journal.verify() == []


def test_an_update_replaces_what_it_names(journal: SqlJournal, new: New) -> None:
    journal.append([new("a", labels={"x": "1", "y": "2"}), new("b")])
    assert journal.update(FACES, "a", name="Eve")
    assert journal.update(FACES, "b", labels={"x": "3"}, value="v")
    first, second = journal.listed(FACES, EVERYTHING, after=0, limit=5)
    assert (first.name, first.labels) == ("Eve", {"x": "1", "y": "2"})
    assert (second.name, second.labels, second.value) == ("Ada", {"x": "3"}, "v")
    assert journal.update(FACES, "b", value="")
    assert replace(second, value="") == journal.get(FACES, "b")
    assert journal.update(FACES, "a", name="", labels={})
    assert replace(first, name="", labels={}) == journal.get(FACES, "a")
    assert journal.matching(DLIB, Filter(labels={"x": "1"})).tolist() == []
    assert journal.matching(DLIB, Filter("Ada", {"x": "3"})).tolist() == [2]
    assert not journal.update("voice/default", "a", name="Eve")
    assert journal.head() == 2
    journal.delete(FACES, ["a"])
    assert not journal.update(FACES, "a", name="Eve")
    assert journal.verify() == []


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "é" * (MOST_BYTES // 2) + "x"])
def test_text_that_no_database_holds_is_refused(journal: SqlJournal, new: New, bad: str) -> None:
    journal.append([new("a")])
    space = Space(bad, "dlib")
    for attempt in (
        lambda: journal.append([new("b"), new(bad)]),
        lambda: journal.append([new("b", name=bad)]),
        lambda: journal.append([new("b", namespace=bad)]),
        lambda: journal.append([new("b", model=bad)]),
        lambda: journal.append([new("b", labels={bad: ""})]),
        lambda: journal.append([new("b", labels={"": bad})]),
        lambda: journal.update(FACES, "a", name=bad),
        lambda: journal.update(FACES, "a", labels={"k": bad}),
        lambda: journal.update(FACES, bad, name="b"),
        lambda: journal.delete(FACES, ["a", bad]),
        lambda: journal.delete(bad, ["a"]),
        lambda: journal.get(FACES, bad),
        lambda: journal.get(bad, "a"),
        lambda: journal.count(bad, EVERYTHING),
        lambda: journal.count(FACES, Filter(bad)),
        lambda: journal.listed(FACES, Filter(labels={bad: ""}), after=0, limit=1),
        lambda: journal.matching(space, EVERYTHING),
        lambda: journal.matching(Space(FACES, bad), EVERYTHING),
    ):
        with pytest.raises(InvalidInput) as caught:
            attempt()
        assert bad not in caught.value.message
    assert journal.head() == 1
    assert journal.count(FACES, Filter("Ada")) == 1


def test_values_are_long_and_whole(journal: SqlJournal, new: New) -> None:
    long = "значение" * 50_000
    journal.append([new("a", value=long), new("b", value="")])
    assert [one.value for one in journal.listed(FACES, EVERYTHING, after=0, limit=2)] == [long, ""]
    for bad in ("a\0b", "\ud800"):
        with pytest.raises(InvalidInput):
            journal.append([new("c", value=bad)])
        with pytest.raises(InvalidInput):
            journal.update(FACES, "a", value=bad)


@pytest.mark.parametrize(
    "odd",
    ["", "'; DROP TABLE records; --", "%_\\", "😀🏽\u202e漢字", "e\u0301", "é", "\uffff\U0010ffff", " a "],
)
def test_any_unicode(journal: SqlJournal, new: New, odd: str) -> None:
    journal.append([new(odd, name=odd, namespace=odd, model=odd, labels={odd: odd}), new("é", namespace=odd)])
    stored = journal.get(odd, odd)
    assert stored is not None
    assert (stored.id, stored.name, stored.labels) == (odd, odd, {odd: odd})
    assert journal.matching(Space(odd, odd), Filter(odd, {odd: odd})).tolist() == [1]
    assert journal.delete(odd, [odd]) == [odd]


def test_the_longest_texts(journal: SqlJournal, new: New) -> None:
    """Random letters, so that no index can compress them."""
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(33, 127, MOST_BYTES))) for _ in range(6)]
    identity, name, namespace, model, key, value = texts
    journal.append([new(identity, name=name, namespace=namespace, model=model, labels={key: value})])
    assert journal.matching(Space(namespace, model), Filter(name, {key: value})).tolist() == [1]


@pytest.mark.parametrize(
    "embedding", [np.zeros((2, 2)), np.zeros(0), np.array([1, np.nan]), np.array([np.inf, 1])]
)
def test_an_embedding_is_a_list_of_finite_numbers(
    journal: SqlJournal, new: New, embedding: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    with pytest.raises(InvalidInput, match="embedding"):
        journal.append([replace(new("a"), embedding=embedding.astype(np.float32))])
    with pytest.raises(InvalidInput, match="time"):
        journal.append([new("a", created_at=float("nan"))])


def test_everything_is_there_after_opening_again(url: str, open_journal: Open, new: New) -> None:
    with closing(open_journal(url)) as journal:
        journal.append([new(one, labels={"k": "v"}) for one in "abc"])
        journal.delete(FACES, ["b"])
        before = journal.listed(FACES, EVERYTHING, after=0, limit=9)
    with closing(open_journal(url)) as journal:
        assert journal.listed(FACES, EVERYTHING, after=0, limit=9) == before
        assert journal.head() == 4
        assert journal.append([new("d")]) == [5]


def test_a_journal_keeps_its_identity(url: str, open_journal: Open, tmp_path: Path) -> None:
    identities = []
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for open_one, address in ((open_journal, url), (open_journal, url), (SqlJournal, other)):
        with closing(open_one(address)) as journal:
            identities.append(journal.identity())
    assert identities[0] == identities[1] != identities[2]
    assert len(identities[0]) >= 32


def test_compacting_keeps_what_lives(journal: SqlJournal, new: New) -> None:
    journal.append([new(f"{number}", dim=128) for number in range(300)])
    journal.delete(FACES, [f"{number}" for number in range(250)])
    journal.compact()
    assert journal.count(FACES, EVERYTHING) == 50
    assert journal.verify() == []
    assert journal.append([new("x", dim=128)]) == [551]


def test_putting_writes_or_replaces_values_in_one_transaction(journal: SqlJournal, new: New) -> None:
    journal.append([new("a", value="one"), new("b", value="one"), new("c")])
    journal.put([new("a", value="two"), new("b", value="one"), new("c", value="two"), new("d", value="two")])
    found = {one.id: one.value for one in journal.listed(FACES, EVERYTHING, after=0, limit=9)}
    assert found == {"a": "two", "b": "one", "c": "two", "d": "two"}
    assert journal.state() == State(4, 1)
    assert sorted(journal.revised(0)) == [1, 3]
    journal.put([new("a", value="two"), new("e", value="x")])
    assert journal.state() == State(5, 1)
    with pytest.raises(InvalidInput, match="3 numbers"):
        journal.put([new("a", value="three"), new("f", dim=3)])
    assert journal.get(FACES, "a") == journal.stored([1])[1]
    assert (journal.stored([1])[1].value, journal.head()) == ("two", 5)
    assert journal.verify() == []


def test_updates_are_counted(journal: SqlJournal, new: New) -> None:
    journal.append([new(one) for one in "abcd"])
    assert journal.state() == State(4, 0)
    assert journal.revised(0) == []
    assert journal.update(FACES, "b", name="Eve")
    assert journal.update(FACES, "c", labels={"k": "v"})
    assert journal.update(FACES, "d", value="v")
    assert not journal.update(FACES, "nobody", name="Eve")
    assert journal.state() == State(4, 3)
    assert journal.update(FACES, "b", name="Ada")
    assert [sorted(journal.revised(after)) for after in range(5)] == [[2, 3, 4], [2, 3, 4], [2, 4], [2], []]
    journal.delete(FACES, ["c"])
    assert sorted(journal.revised(0)) == [2, 4]
    assert journal.state() == State(5, 4)
    assert journal.verify() == []


def test_tables_of_the_first_version_become_those_of_this_one(url: str, open_journal: Open, new: New) -> None:
    with closing(open_journal(url)) as journal:
        journal.append([new("a"), new("b")])
    for statement in (
        "DROP INDEX records_revised",
        "ALTER TABLE records DROP COLUMN revision",
        "ALTER TABLE head DROP COLUMN revision",
        "UPDATE meta SET schema_version = 1",
    ):
        execute(url, statement)
    with closing(open_journal(url)) as journal:
        assert journal.state() == State(2, 0)
        assert journal.update(FACES, "a", name="Eve")
        assert journal.revised(0) == [1]
        assert journal.append([new("c")]) == [3]
        assert journal.verify() == []
    assert execute(url, "SELECT schema_version FROM meta") == [(len(MIGRATIONS),)]


def test_tables_of_a_newer_version_are_left_alone(url: str, open_journal: Open) -> None:
    open_journal(url).close()
    newer = len(MIGRATIONS) + 1
    execute(url, "UPDATE meta SET schema_version = schema_version + 1")
    with pytest.raises(ConfigurationError, match=rf"version {newer} .* up to {newer - 1}"):
        open_journal(url)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "presence.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://user:pw@host/db",
        "postgresql://host:x/db",
        "sqlite:////nowhere/presence.db?mode=memory",
    ],
)
def test_a_url_that_names_no_database(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:////directory") as caught:
        SqlJournal(bad)
    assert "pw" not in caught.value.message


def test_an_option_that_postgres_does_not_have() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigurationError, match='invalid connection option "colour"') as caught:
        SqlJournal("postgresql://user:pw@host/db?sslmode=disable&colour=red")
    assert "pw" not in caught.value.message


def test_a_new_file_belongs_to_its_owner_alone(tmp_path: Path, new: New) -> None:
    path = tmp_path / "new" / "presence.db"
    with closing(SqlJournal(f"sqlite:///{path}")) as journal:
        journal.append([new("a")])
        modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE head SET position = 9", "5 steps up to position 9"),
        ("DELETE FROM head", "0 newest positions"),
        ("UPDATE records SET deleted_position = 3 WHERE position = 1", "both an addition and a deletion"),
        ("UPDATE records SET deleted_position = 7 WHERE position = 1", "newest step is 7"),
        ("UPDATE spaces SET living = 7", "tells of 7 records and holds 3"),
        ("UPDATE spaces SET dim = 7", "has 8 numbers, its space 7"),
        ("DELETE FROM embeddings WHERE position = 2", "embedding of record 2 is damaged"),
        ("UPDATE embeddings SET checksum = 1 WHERE position = 2", "embedding of record 2 is damaged"),
        ("UPDATE embeddings SET position = 1 WHERE position = 2", "position 1 has an embedding"),
        ("INSERT INTO labels VALUES (1, 'k', 'v')", "position 1 has labels and no living record"),
        ("UPDATE records SET namespace = 'x' WHERE position = 2", "record 2 is in another namespace"),
        ("UPDATE records SET revision = 9 WHERE position = 2", "record 2 was updated by a revision"),
    ],
)
def test_verifying_finds(journal: SqlJournal, new: New, url: str, statement: str, expected: str) -> None:
    journal.append([new(one) for one in "abcd"])
    journal.delete(FACES, ["a"])
    assert journal.verify() == []
    execute(url, statement)
    assert any(expected in problem for problem in journal.verify())
