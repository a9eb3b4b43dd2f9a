"""A store in SQLite whose files are damaged: a torn snapshot, a flipped byte."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.service.enrolling import PICTURES, WAIT_S, Serve, all_registered, arguments, identify

pytestmark = pytest.mark.service

FEW = 60

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a store in SQLite that outlives its services."""
    return tmp_path_factory.mktemp("damaged") / "store"


@pytest.fixture(scope="module")
def people(serve_with: Serve, directory: Path) -> dict[str, str]:
    """Name by id of those whom a service enrolled there; it wrote a snapshot and was stopped."""
    with serve_with(arguments({"directory": str(directory)}, 1)) as service, service.client() as client:
        for number in range(FEW):
            body = {"model": "fake", "img": PICTURES[number], "name": f"person {number}"}
            assert client.post("/v1/face/register", json=body).status_code == 200
        wait_for_snapshot(directory, FEW)
        return all_registered(client)[0]


def wait_for_snapshot(directory: Path, position: int) -> None:
    give_up = time.monotonic() + WAIT_S
    while [path.name.partition("-")[2] for path in directory.glob("snapshots/[0-9]*")] != [f"{position}"]:
        assert time.monotonic() < give_up
        time.sleep(0.1)  # upkeep announces nothing


def all_are_found(client: httpx.Client, people: dict[str, str]) -> bool:
    return all_registered(client) == (people, FEW) and all(
        identify(client, PICTURES[number], 1) == [f"person {number}"] for number in range(FEW)
    )


@pytest.mark.usefixtures("people")
def test_a_changed_embedding_ends_the_start(serve_with: Serve, directory: Path) -> None:
    """One bit of it; without snapshots it is read then. The next test starts on the file as it was."""
    file = directory / "presence.db"
    with closing(sqlite3.connect(file)) as database:  # its end leaves no log
        ((vector,),) = database.execute("SELECT vector FROM embeddings WHERE position = 8")
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[damaged.index(vector) + 5] ^= 4
    file.write_bytes(damaged)
    (directory / "snapshots").rename(directory / "aside")
    with (
        pytest.raises(pytest.fail.Exception, match="embedding of record 8 is damaged: restore a backup"),
        serve_with(arguments({"directory": str(directory)}, 1)),
    ):
        pass
    file.write_bytes(whole)
    shutil.rmtree(directory / "snapshots", ignore_errors=True)
    (directory / "aside").rename(directory / "snapshots")


def test_a_torn_snapshot_is_passed_over_and_a_changed_name_is_never_answered(
    serve_with: Serve, directory: Path, people: dict[str, str], record_property: Record
) -> None:
    (index,) = directory.glob("snapshots/[0-9]*/0.index")
    index.write_bytes(index.read_bytes()[:-100])
    change_name(directory / "presence.db", 9, "person X")
    with serve_with(arguments({"directory": str(directory)}, 1)) as service, service.client() as client:
        record_property("refused_and_others_found", refused_and_found(client))
        change_name(directory / "presence.db", 9, "person 8")
        assert all_are_found(client, people)
        record_property("found_without_the_snapshot", FEW)
        body = {"model": "fake", "img": PICTURES[FEW], "name": "one more"}
        made = client.post("/v1/face/register", json=body).json()["id"]
        assert client.post("/v1/face/forget", json={"id": made}).status_code == 204
        began = time.monotonic()
        wait_for_snapshot(directory, FEW + 2)
        record_property("replaced_after_s", round(time.monotonic() - began, 1))


def change_name(file: Path, position: int, name: str) -> None:
    """As a fault of the disk would: nothing else knows of it."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE records SET name = ? WHERE position = ?", (name, position))
        database.commit()


def refused_and_found(client: httpx.Client) -> tuple[int, int]:
    """How many of the people are refused, as their name was changed, and how many are found."""
    problem = "record 9 is damaged: restore a backup of the store"
    refused = found = 0
    for number in range(FEW):
        probe = {"model": "fake", "img": PICTURES[number], "top_k": 1}
        answer = client.post("/v1/face/identify", json=probe)
        if number == 8:
            assert (answer.status_code, problem in answer.text) == (500, True)
            refused += 1
        else:
            assert [match["name"] for match in answer.json()["matches"]] == [f"person {number}"]
            found += 1
    listed = client.get("/v1/face/registrations")
    assert (listed.status_code, problem in listed.text) == (500, True)
    return refused, found
