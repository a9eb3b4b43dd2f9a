"""`presence store`, as it is typed, on both databases."""

import base64
import io
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from engines.store import Filter, NewRecord, Space, Stored
from engines.store.fake import MemoryJournal
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal
from engines.store.replica import StoreReplica
from graphs import record_lines
from graphs.cli import main
from graphs.record_lines import exported, imported

ROOT = Path(__file__).resolve().parents[2]
DIM = 8
Run = Callable[..., Result]


@pytest.fixture(params=["sqlite", "postgres", "pgvector"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """The URL of an empty database, a new one at each call."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / uuid4().hex}.db"
    server = request.getfixturevalue("postgres")

    def made() -> str:
        url: str = server.new_database()
        if request.param == "pgvector":
            PgVectorJournal(url).close()
        return url

    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """run(*arguments): `presence store` in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRESENCE_STORE_URL", raising=False)
    return lambda *arguments, **more: CliRunner().invoke(main, ["store", *map(str, arguments)], **more)


@pytest.fixture
def store(new_url: Callable[[], str]) -> str:
    """The URL of a store with people of two namespaces, one of whom was deleted."""
    url = new_url()
    with closing(SqlJournal(url)) as journal:
        journal.append([record(f"id{n}", name=f"name {n % 3}", labels={"n": str(n)}) for n in range(25)])
        journal.append([record("key", dim=3, namespace="stores/default", model="-", value="text\n\u2028")])
        journal.delete("face/default", ["id7"])
    return url


def record(
    record_id: str, dim: int = DIM, namespace: str = "face/default", model: str = "dlib", **more: Any
) -> NewRecord:
    vector = np.random.default_rng(list(record_id.encode()) or [0]).standard_normal(dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    return NewRecord(record_id, Space(namespace, model), vector, **{"created_at": 1.5e9, **more})


Content = dict[tuple[str, str], tuple[Any, ...]]


def content(url: str) -> Content:
    """Everything but positions, by namespace and id; embeddings as bytes."""
    found: Content = {}
    with closing(SqlJournal(url)) as journal:
        for namespace in {space.namespace for space in journal.spaces()}:
            listed = journal.listed(namespace, Filter(), after=0, limit=10_000)
            vectors = journal.embeddings([one.position for one in listed])
            for one in listed:
                about = one.space.model, one.name, dict(one.labels), one.value, one.created_at
                found[namespace, one.id] = (*about, vectors[one.position].tobytes())
    return found


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result) -> str:
    """The message of a refusal: one line, without a traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def lines_of(url: str) -> list[bytes]:
    with closing(SqlJournal(url)) as journal:
        return list(exported(journal))


def test_an_export_is_json_lines_with_exact_embeddings(run: Run, store: str, tmp_path: Path) -> None:
    good(run("export", tmp_path / "backup.jsonl", "--url", store))
    header, *records, end = map(json.loads, (tmp_path / "backup.jsonl").read_bytes().splitlines())
    assert header == {"format": "presence-store", "version": 1}
    assert end == {"records": 25}
    assert len(records) == 25
    assert records[0] == {
        "id": "id0",
        "namespace": "face/default",
        "model": "dlib",
        "name": "name 0",
        "labels": {"n": "0"},
        "value": None,
        "created_at": "2017-07-14T02:40:00Z",
        "embedding": base64.b64encode(record("id0").embedding.astype("<f4").tobytes()).decode(),
    }
    assert "id7" not in {one["id"] for one in records}


def test_another_database_answers_the_same(
    run: Run, store: str, new_url: Callable[[], str], tmp_path: Path
) -> None:
    file, other = tmp_path / "backup.jsonl", new_url()
    good(run("export", file, "--url", store))
    assert good(run("import", file, "--url", other)) == "imported 25, skipped 0\n"
    assert content(other) == content(store)
    queries = np.stack([record(f"probe{n}").embedding for n in range(4)])
    assert searched(other, queries) == searched(store, queries)
    assert good(run("verify", "--url", other)) == "nothing is wrong\n"


def searched(url: str, queries: np.ndarray) -> list[list[tuple[str, float]]]:
    with closing(SqlJournal(url)) as journal:
        replica = StoreReplica(journal, IndexOptions(), None)
        replica.catch_up()
        answer = replica.search(Space("face/default", "dlib"), queries, 10, Filter())
    return [[(match.stored.id, match.similarity) for match in matches] for matches in answer.matches]


def test_from_one_kind_of_database_to_the_other_and_back(run: Run, postgres: Any, tmp_path: Path) -> None:
    small, large, back = f"sqlite:///{tmp_path}/a.db", postgres.new_database(), f"sqlite:///{tmp_path}/b.db"
    with closing(SqlJournal(small)) as journal:
        journal.append([record(f"ö{n}", name="\U0001f600", labels={"": "\r\n"}) for n in range(9)])
    for source, target in ((small, large), (large, back)):
        lines = run("export", "-", "--url", source).stdout_bytes
        good(run("import", "-", "--url", target, input=lines))
    assert content(back) == content(large) == content(small)
    assert lines_of(back) == lines_of(small)


def test_what_is_there_already_is_left_as_it_is(run: Run, store: str, tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    good(run("export", file, "--url", store))
    with closing(SqlJournal(store)) as journal:
        journal.update("face/default", "id0", name="married")
        journal.delete("face/default", ["id1", "id2"])
    assert good(run("import", file, "--url", store)) == "imported 2, skipped 23\n"
    assert good(run("import", file, "--url", store)) == "imported 0, skipped 25\n"
    assert content(store)["face/default", "id0"][1] == "married"


def test_one_namespace_alone(run: Run, store: str) -> None:
    header, one, end = good(run("export", "-", "--url", store, "--namespace", "stores/default")).split("\n")[
        :3
    ]
    assert (json.loads(one)["id"], json.loads(one)["value"]) == ("key", "text\n\u2028")
    nothing = good(run("export", "-", "--url", store, "--namespace", "stores/none"))
    assert nothing.splitlines() == [header, end.replace("1", "0")]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MOMENTS = st.datetimes().map(
    lambda moment: (moment - record_lines.EPOCH.replace(tzinfo=None)).total_seconds()
)
RECORDS = st.builds(
    NewRecord,
    id=TEXT,
    space=st.builds(Space, TEXT, TEXT),
    embedding=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
    ).map(lambda numbers: np.array(numbers, np.float32)),
    name=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    value=st.none() | TEXT,
    created_at=MOMENTS,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORDS, max_size=6))
def test_every_text_that_a_journal_holds_comes_back(
    records: list[NewRecord], new_url: Callable[[], str]
) -> None:
    first, second = new_url(), new_url()
    with closing(SqlJournal(first)) as journal:
        journal.append(records)
    lines = lines_of(first)
    with closing(SqlJournal(second)) as journal:
        written = sum(batch.imported for batch in imported(journal, io.BytesIO(b"".join(lines))))
    assert written == len({(one.space.namespace, one.id) for one in records}) == len(lines) - 2
    assert content(second) == content(first)
    assert lines_of(second) == lines


def test_labels_stand_in_one_order() -> None:
    """A database tells them in any: the same records make the same file."""
    journal = MemoryJournal()
    labels = {"b": "2", "": "0", "a": "1"}
    journal.append([NewRecord("one", Space("face", "m"), np.ones(3, np.float32), "Ada", labels)])
    _, line, _ = exported(journal)
    assert list(json.loads(line)["labels"]) == ["", "a", "b"]


def test_pages_and_transactions_fit_together(
    monkeypatch: pytest.MonkeyPatch, store: str, new_url: Callable[[], str]
) -> None:
    whole = lines_of(store)
    monkeypatch.setattr(record_lines, "PAGE", 4)
    assert lines_of(store) == whole
    with closing(SqlJournal(new_url())) as journal:
        batches = list(imported(journal, io.BytesIO(b"".join(whole))))
    assert [batch.imported for batch in batches] == [4] * 6 + [1]
    assert sum(batch.size for batch in batches) == sum(map(len, whole[1:-1]))
    monkeypatch.setattr(record_lines, "BATCH_BYTES", len(whole[1]) + 1)
    with closing(SqlJournal(new_url())) as journal:
        assert [batch.imported for batch in imported(journal, io.BytesIO(b"".join(whole)))][:3] == [2, 2, 2]


WRITER = """
import sys
import numpy as np
from engines.store import NewRecord, Space
from engines.store.journal import SqlJournal

journal, number = SqlJournal(sys.argv[1]), 0
while True:
    vector = np.ones(8, np.float32)
    journal.append([NewRecord(f"w{number}", Space("face/default", "dlib"), vector)])
    again = f"id{24 - number}"
    if journal.delete("face/default", [again]):
        journal.append([NewRecord(again, Space("face/default", "dlib"), vector, name="again")])
    number += 1
    print(number, flush=True)
"""


def test_an_export_while_another_process_writes(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_lines, "PAGE", 2)
    before = content(store)
    command = [sys.executable, "-c", WRITER, store]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
        closing(SqlJournal(store)) as journal,
    ):
        assert process.stdout
        lines = []
        for line in exported(journal):
            lines.append(line)
            assert process.stdout.readline(), "the writer ended"
        process.kill()
    records = [json.loads(line) for line in lines[1:-1]]
    ids = [(one["namespace"], one["id"]) for one in records]
    assert len(set(ids)) == len(ids) == json.loads(lines[-1])["records"]
    assert set(ids) < set(before)  # not what was added, nor what was deleted before it was read
    assert ("face/default", "id0") in ids
    assert ("face/default", "id24") not in ids
    assert "again" not in {one["name"] for one in records}


class Overtaken(SqlJournal):
    """Another deletes the first record of each page as soon as it was listed."""

    def listed(self, namespace: str, chosen: Filter, *, after: int, limit: int) -> list[Stored]:
        page = super().listed(namespace, chosen, after=after, limit=limit)
        self.delete(namespace, [one.id for one in page[:1]])
        return page


def test_what_is_deleted_between_two_reads_is_left_out(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_lines, "PAGE", 10)
    with closing(Overtaken(store)) as journal:
        lines = list(exported(journal, "face/default"))
    ids = [json.loads(line)["id"] for line in lines[1:-1]]
    assert ids == [f"id{number}" for number in range(25) if number not in (0, 7, 11, 21)]
    assert json.loads(lines[-1]) == {"records": 21}


Damage = Callable[[list[bytes]], list[bytes]]


def changed(number: int, **more: object) -> Damage:
    """Another line of that number, counted from 1."""

    def change(lines: list[bytes]) -> list[bytes]:
        data = {**json.loads(lines[number - 1]), **more}
        return [*lines[: number - 1], json.dumps(data).encode() + b"\n", *lines[number:]]

    return change


VECTOR = base64.b64encode(np.ones(DIM, np.float32).tobytes()).decode()
SHORT = base64.b64encode(np.ones(DIM - 1, np.float32).tobytes()).decode()
ENDLESS = base64.b64encode(np.full(DIM, np.inf, np.float32).tobytes()).decode()
DAMAGES: dict[str, tuple[Damage, str]] = {
    "torn": (lambda lines: [*lines[:11], lines[11][:50]], "line 12: Invalid JSON"),
    "cut off": (lambda lines: lines[:12], "line 13: the export is cut off here"),
    "no JSON": (lambda lines: [*lines[:11], b"\xff\xfe\n", *lines[12:]], "line 12: Invalid JSON"),
    "deep": (lambda lines: [*lines[:11], b"[" * 10**6 + b"\n", *lines[12:]], "line 12: "),
    "a list": (lambda lines: [*lines[:11], b"[]\n", *lines[12:]], "line 12: Input should be an object"),
    "half a letter": (lambda lines: [*lines[:11], b'{"id":"\\ud800"}\n', *lines[12:]], "line 12: "),
    "unknown key": (changed(12, colour="red"), "line 12: colour: Extra inputs are not permitted"),
    "number as name": (changed(12, name=3), "line 12: name: Input should be a valid string"),
    "number as label": (changed(12, labels={"a": 3}), "line 12: labels.a: Input should be a valid string"),
    "no time zone": (changed(12, created_at="2026-01-01T00:00:00"), "line 12: created_at: "),
    "no base64": (changed(12, embedding="?"), "line 12: embedding: this is not float32 in base64"),
    "half a number": (changed(12, embedding="AAA="), "line 12: embedding: this is not float32 in base64"),
    "no numbers": (changed(12, embedding=""), "line 12: an embedding is a list of finite numbers"),
    "infinite": (changed(12, embedding=ENDLESS), "line 12: an embedding is a list of finite numbers"),
    "NUL": (changed(12, name="\0"), "line 12: the name holds a NUL character"),
    "long": (changed(12, id="i" * 1001), "line 12: the id is longer than 1000 bytes"),
    "dimension": (changed(12, embedding=SHORT), "line 12: the embedding has 7 numbers"),
    "too few": (
        lambda lines: [*lines[:11], *lines[12:]],
        "line 26: the export tells of 25 records and has 24",
    ),
    "two exports": (lambda lines: lines * 2, "line 28: nothing may follow the last line"),
    "end of letters": (lambda lines: [*lines[:-1], b'{"records":"x"}\n'], "line 27: records: "),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_line_is_named_and_nothing_of_its_transaction_is_written(
    name: str,
    run: Run,
    store: str,
    new_url: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_lines, "PAGE", 8)
    damage, told = DAMAGES[name]
    file, other = tmp_path / "damaged.jsonl", new_url()
    file.write_bytes(b"".join(damage(lines_of(store))))
    result = run("import", file, "--url", other)
    message = refused(result)
    assert message.startswith(f"error {told}")
    done = 8 if told.startswith(("line 12", "line 13")) else 24
    assert f"nothing behind line {done + 1} was imported" in message
    assert result.stdout == f"imported {done}, skipped 0\n"
    assert len(content(other)) == done
    assert content(other).items() <= content(store).items()


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"", "this is no export of a store"),
        (b"\n", "this is no export of a store"),
        (b'{"format":"other","version":1}\n', "this is no export of a store"),
        (b'{"format":"presence-store","version":2}\n', "use a newer presence"),
    ],
)
def test_the_header_is_asked_for(run: Run, tmp_path: Path, header: bytes, told: str) -> None:
    (tmp_path / "x").write_bytes(header)
    message = refused(run("import", tmp_path / "x", "--directory", tmp_path / "store"))
    assert message.startswith("error line 1: ")
    assert told in message


def test_a_dimension_that_the_store_does_not_hold_is_named_by_its_line(run: Run, store: str) -> None:
    lines = lines_of(store)
    with closing(SqlJournal(store)) as journal:
        journal.delete("face/default", [f"id{number}" for number in range(3)])
    lines = changed(2, embedding=SHORT, id="id3")(lines)  # lives: it is skipped whatever it holds
    lines = changed(4, embedding=SHORT)(lines)
    result = run("import", "-", "--url", store, input=b"".join(lines))
    assert refused(result).startswith("error line 4: the embedding has 7 numbers; 'face/default' holds ")


def test_the_file_is_for_its_owner_alone_and_whole_or_not_there(
    run: Run, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "backup.jsonl"
    file.write_bytes(b"older")
    file.chmod(0o644)
    monkeypatch.setattr(record_lines, "PAGE", 4)
    damage(store, "id9")
    assert "is damaged" in refused(run("export", file, "--url", store))
    assert file.read_bytes() == b"older"
    good(run("export", file, "--url", store, "--namespace", "stores/default"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["backup.jsonl"]
    assert "is no file" in refused(run("export", os.devnull, "--url", store))
    assert "No such file or directory" in refused(run("export", tmp_path / "no/x", "--url", store))
    assert "No such file or directory" in refused(run("import", tmp_path / "no/x", "--url", store))


def damage(url: str, record_id: str) -> None:
    """Changes the embedding of a record behind the journal's back."""
    engine = create_engine(url)
    with engine.begin() as connection:
        chosen = "position = (SELECT position FROM records WHERE id = :id)"
        changing = text(f"UPDATE embeddings SET checksum = checksum - 1 WHERE {chosen}")  # noqa: S608 - constants
        assert connection.execute(changing, {"id": record_id}).rowcount == 1
    engine.dispose()


def test_verify_lists_what_is_wrong(run: Run, store: str) -> None:
    assert good(run("verify", "--url", store)) == "nothing is wrong\n"
    damage(store, "id9")
    damage(store, "id3")
    result = run("verify", "--url", store)
    assert result.exit_code == 1
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "the embedding of record 4 is damaged",
        "the embedding of record 10 is damaged",
    ]
    assert result.stderr == ""


def test_stats(run: Run, store: str) -> None:
    told = json.loads(good(run("stats", "--json", "--url", store)))
    assert (told["records"], told["position"]) == (25, 27)
    assert told["spaces"] == [
        {"namespace": "face/default", "model": "dlib", "records": 24, "dim": 8, "embedding_bytes": 768},
        {"namespace": "stores/default", "model": "-", "records": 1, "dim": 3, "embedding_bytes": 12},
    ]
    if store.startswith("sqlite"):
        assert told["file_bytes"] == Path(told["store"]).stat().st_size
    else:
        assert told["file_bytes"] is None
    header, first, second, last = good(run("stats", "--url", store)).splitlines()
    assert header.split() == ["namespace", "model", "records", "dim", "embedding_bytes"]
    assert first.split() == ["face/default", "dlib", "24", "8", "768"]
    assert second.split() == ["stores/default", "-", "1", "3", "12"]
    assert last.startswith(f"25 records at position 27 of {told['store']}")


def test_no_name_gives_orders_to_the_terminal(run: Run, new_url: Callable[[], str]) -> None:
    url = new_url()
    with closing(SqlJournal(url)) as journal:
        journal.append([record("a", namespace="face/\x1b[2J\n")])
    output = good(run("stats", "--url", url))
    assert "\x1b" not in output
    assert "face/\ufffd[2J\ufffd  dlib" in output


def test_compact_gives_space_back(run: Run, new_url: Callable[[], str]) -> None:
    url = new_url()
    with closing(SqlJournal(url)) as journal:
        journal.append([record(f"id{number}", dim=512) for number in range(200)])
        journal.delete("face/default", [f"id{number}" for number in range(1, 200)])
    before = content(url)
    said = good(run("compact", "--url", url))
    assert content(url) == before
    if url.startswith("postgres"):
        assert said == "done\n"
    else:
        numbers = [int(word) for word in said.split() if word.isdigit()]
        assert numbers[0] > 199 * 512 * 4 > numbers[1]


def test_the_store_is_found_as_the_service_finds_it(run: Run, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    for url in (f"sqlite:///{tmp_path}/home/.presence/store/presence.db", other):
        with closing(SqlJournal(url)) as journal:
            journal.append([record("only", namespace="face/other" if url == other else "face/home")])

    def namespaces(*arguments: object, **more: Any) -> list[str]:
        told = json.loads(good(run("stats", "--json", *arguments, **more)))
        return [space["namespace"] for space in told["spaces"]]

    assert namespaces() == ["face/home"]
    assert namespaces("--directory", tmp_path / "home/.presence/store") == ["face/home"]
    assert namespaces(env={"PRESENCE_STORE_URL": other}) == ["face/other"]
    assert namespaces(env={"PRESENCE_STORE_URL": ""}) == ["face/home"]
    elsewhere = {"PRESENCE_STORE_URL": f"sqlite:///{tmp_path}/nowhere.db"}
    assert namespaces("--url", other, env=elsewhere) == ["face/other"]


@pytest.mark.parametrize("command", ["stats", "verify", "compact", "export"])
def test_only_an_import_makes_a_store(run: Run, tmp_path: Path, command: str) -> None:
    file = ["-"] if command == "export" else []
    assert f"there is no store at {tmp_path}" in refused(run(command, *file, "--directory", tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    empty = b'{"format":"presence-store","version":1}\n{"records":0}\n'
    assert good(run("import", "-", "--directory", tmp_path / "s", input=empty)) == "imported 0, skipped 0\n"
    assert good(run(command, *file, "--directory", tmp_path / "s"))


@pytest.mark.parametrize("command", ["stats", "verify", "compact", "export"])
def test_a_database_without_a_store_is_told_and_left_as_it_is(run: Run, postgres: Any, command: str) -> None:
    file, url = ["-"] if command == "export" else [], postgres.new_database()
    for _ in range(2):
        assert "there is no store in the Postgres database" in refused(run(command, *file, "--url", url))
    empty = b'{"format":"presence-store","version":1}\n{"records":0}\n'
    assert good(run("import", "-", "--url", url, input=empty)) == "imported 0, skipped 0\n"
    assert good(run(command, *file, "--url", url))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret@127.0.0.1:9/people",
        "postgresql://ada:secret@127.0.0.1:9/people?colour=red",
        "postgresql://ada:secret@127.0.0.1:port/people",
        "mysql://ada:secret@host/people",
        "secret",
    ],
)
def test_no_message_tells_the_password(run: Run, url: str) -> None:
    for arguments in (("stats",), ("import", os.devnull), ("export", "-")):
        result = run(*arguments, "--url", url)
        refused(result)
        assert "secret" not in result.output


def test_a_file_that_is_no_database(run: Run, tmp_path: Path) -> None:
    (tmp_path / "presence.db").write_bytes(b"letters" * 1000)
    assert "damaged" in refused(run("stats", "--directory", tmp_path))


def test_through_a_pipe_as_processes(store: str, new_url: Callable[[], str], tmp_path: Path) -> None:
    """The real commands: `presence store export - | presence store import -`, and a reader that leaves."""
    presence = [sys.executable, "-m", "graphs.cli", "store"]
    other = new_url()
    environment = {**os.environ, "PRESENCE_STORE_URL": other, "HOME": str(tmp_path)}
    export = [*presence, "export", "-", "--url", store]
    with subprocess.Popen(export, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source:
        ended = subprocess.run(
            [*presence, "import", "-"],
            cwd=ROOT,
            env=environment,
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert source.stderr
        assert source.stderr.read() == b""
    assert (source.returncode, ended.returncode) == (0, 0)
    assert (ended.stdout, ended.stderr) == ("imported 25, skipped 0\n", "")
    assert content(other) == content(store)
    with subprocess.Popen(export, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source:
        assert source.stdout
        assert source.stderr
        source.stdout.close()
        assert source.stderr.read() == b""
    assert source.returncode == 1


def test_a_bar_on_a_terminal(store: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "graphs.cli_store", "export", str(tmp_path / "x"), "--url", store]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        output = bytearray()
        try:
            while piece := os.read(ours, 4096):
                output += piece
        except OSError:  # how Linux tells that the other end is closed
            os.close(ours)
    assert process.returncode == 0
    assert b"exporting" in output
    assert b"100%" in output
    assert (tmp_path / "x").read_bytes() == b"".join(lines_of(store))


def test_a_time_beyond_all_calendars_is_told(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/presence.db"
    with closing(SqlJournal(url)) as journal:
        journal.append([record("a", created_at=1e300)])
    assert "the time of record 1 lies beyond the year 9999" in refused(run("export", "-", "--url", url))


MEASURED = """
import resource, sys
from graphs.cli import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def test_export_and_import_need_little_memory(new_url: Callable[[], str], tmp_path: Path) -> None:
    """Of 10,000 records of 512 numbers: a file of 28 MB."""

    def mebibytes(*words: str) -> int:
        ended = subprocess.run(
            [sys.executable, "-c", MEASURED, "store", *words],
            cwd=ROOT,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(ended.stderr)

    needed = []
    rng = np.random.default_rng(3)
    for count in (100, 10_000):
        url, other, file = new_url(), new_url(), str(tmp_path / f"{count}.jsonl")
        with closing(SqlJournal(url)) as journal:
            for start in range(0, count, 1000):
                rows = rng.standard_normal((min(1000, count), 512)).astype(np.float32)
                journal.append([replace(record(f"{start + n}"), embedding=row) for n, row in enumerate(rows)])
        needed.append((mebibytes("export", file, "--url", url), mebibytes("import", file, "--url", other)))
        with closing(SqlJournal(other)) as journal:
            assert journal.count("face/default", Filter()) == count
    few, many = needed
    assert max(many[0] - few[0], many[1] - few[1]) < Path(file).stat().st_size / 2**21
