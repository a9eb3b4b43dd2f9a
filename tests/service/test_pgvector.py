"""People and generic stores in Postgres: three replicas of the store, searched by pgvector, over HTTP."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.service.enrolling import PICTURES, WAIT_S, Serve, Service, all_registered, arguments
from tests.service.forgetting import leave_postgres
from tests.service.many_replicas import (
    REPLICAS,
    Record,
    Replicas,
    enrolled_and_found_at_once,
    outlives_replicas,
)
from tests.service.store_commands import commands_beside_a_service

pytestmark = pytest.mark.service

GROWN = 60
"""Records from which a space is searched through an index."""


@pytest.fixture(scope="module")
def url(postgres: Any) -> str:
    """Of a database that nobody else uses."""
    return str(postgres.new_database())


@pytest.fixture(scope="module")
def running(serve_with: Serve, url: str) -> Iterator[Service]:
    index = {"approximate_from": GROWN}
    store = {"kind": "pgvector", "url": url, "index": index, "compact_every_s": 2}
    with serve_with(arguments(store, REPLICAS)) as service:
        yield service


@pytest.fixture
def client(running: Service) -> Iterator[httpx.Client]:
    with running.client() as opened:
        yield opened


def ask(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return client.post(path, json=body)


def register(client: httpx.Client, picture: str, name: str, **more: Any) -> str:
    answer = ask(client, "/v1/face/register", model="fake", img=picture, name=name, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def identify(client: httpx.Client, picture: str, **more: Any) -> list[str]:
    answer = ask(client, "/v1/face/identify", model="fake", img=picture, **more)
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["matches"]]


def wait_for_an_index(url: str) -> None:
    valid = """SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw' AND indisvalid"""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            until = time.monotonic() + WAIT_S
            while connection.execute(text(valid)).scalar_one() == 0:
                assert time.monotonic() < until
                time.sleep(0.1)  # nothing announces an index
    finally:
        engine.dispose()


async def test_what_one_client_enrols_three_others_find_at_once(
    running: Service, record_property: Record
) -> None:
    """The first of all, as metrics tell of searches some seconds later."""
    await enrolled_and_found_at_once(running, record_property)


def test_what_one_enrols_all_find_at_once(running: Service, url: str) -> None:
    """Eight writers; each asks over connections of its own, before an index is there and afterwards."""

    def write_and_look(number: int) -> None:
        with running.client() as here:
            register(here, PICTURES[number], f"person {number}", labels={"parity": str(number % 2)})
        for _ in range(2):
            with running.client() as there:
                assert identify(there, PICTURES[number], top_k=1) == [f"person {number}"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_look, range(80)))
    wait_for_an_index(url)
    with running.client() as client:
        for number in range(0, 80, 7):
            assert identify(client, PICTURES[number], top_k=1) == [f"person {number}"]
            even = identify(client, PICTURES[number], top_k=50, labels={"parity": "0"})
            assert len(even) == 40
            assert {int(name.split()[1]) % 2 for name in even} == {0}


def test_identify_list_change_and_forget(client: httpx.Client) -> None:
    where = {"store": "guests"}
    ada = register(client, PICTURES[90], "Ada", labels={"team": "ops"}, **where)
    bob = register(client, PICTURES[91], "Bob", **where)
    assert identify(client, PICTURES[90], top_k=2, **where) == ["Ada", "Bob"]
    assert identify(client, PICTURES[90], labels={"team": "ops"}, **where) == ["Ada"]
    assert client.patch(f"/v1/face/registrations/{bob}", json={"name": "Eve", **where}).status_code == 200
    assert identify(client, PICTURES[91], top_k=1, **where) == ["Eve"]
    page = client.get("/v1/face/registrations", params={"limit": 1, **where}).json()
    assert (page["total"], [one["name"] for one in page["data"]]) == (2, ["Ada"])
    rest = client.get("/v1/face/registrations", params={"cursor": page["next_cursor"], **where}).json()
    assert [one["name"] for one in rest["data"]] == ["Eve"]
    assert ask(client, "/v1/face/forget", id=ada, **where).status_code == 204
    assert identify(client, PICTURES[90], **where) == ["Eve"]
    assert ask(client, "/v1/face/forget", id=ada, **where).status_code == 404


def test_generic_stores(client: httpx.Client) -> None:
    keys, values = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], ["e", "n", "w", "0"]
    assert ask(client, "/stores/set", store="s", keys=keys, values=values).status_code == 200
    found = ask(client, "/stores/find", store="s", key=[2.0, 0.5, 0.0], topk=4).json()
    assert found["values"] == ["e", "n", "0", "w"]
    assert found["keys"] == [keys[0], keys[1], keys[3], keys[2]]
    assert found["similarities"] == pytest.approx([0.970143, 0.242536, 0, -0.970143], abs=1e-5)
    assert ask(client, "/stores/set", store="s", keys=keys[:1], values=["new"]).status_code == 200
    assert ask(client, "/stores/get", store="s", keys=keys[:1]).json()["values"] == ["new"]
    assert ask(client, "/stores/set", store="s", keys=[[1.0]], values=["a"]).status_code == 400
    assert ask(client, "/stores/find", store="s", key=[1.0], topk=1).status_code == 400
    assert ask(client, "/stores/set", store="long", keys=[[1.0] * 16_001], values=["a"]).status_code == 400
    assert ask(client, "/stores/delete", store="s", keys=keys).status_code == 200
    assert ask(client, "/stores/find", store="s", key=keys[0], topk=9).json()["values"] == []


@pytest.mark.parametrize("victims", [1, REPLICAS], ids=["one replica", "every replica"])
async def test_what_is_acknowledged_outlives_store_replicas(
    running: Service, replicas: Replicas, victims: int, record_property: Record
) -> None:
    with running.client() as client:
        there = all_registered(client)[0]
    await outlives_replicas(
        running,
        replicas,
        count(1000 * victims),
        there,
        victims=victims,
        enrolled=500,
        record_property=record_property,
    )


async def test_every_command_works_beside_the_service(running: Service, url: str, tmp_path: Path) -> None:
    await commands_beside_a_service(running, ["--url", url], count(9000), tmp_path)


def test_nothing_of_a_forgotten_person_stays_in_the_tables(
    running: Service, postgres: Any, url: str, record_property: Record
) -> None:
    """Whichever of the replicas compacts."""
    leave_postgres(running, postgres, url, record_property)


def test_postgres_goes_and_comes_back(client: httpx.Client, postgres: Any) -> None:
    there = register(client, PICTURES[95], "before", store="away")
    postgres.stop()
    try:
        for answer in (
            ask(client, "/v1/face/identify", model="fake", img=PICTURES[95], store="away"),
            ask(client, "/v1/face/register", model="fake", img=PICTURES[96], name="lost", store="away"),
            ask(client, "/v1/face/forget", id=there, store="away"),
            client.get("/v1/face/registrations", params={"store": "away"}),
            ask(client, "/stores/find", store="away", key=[1.0], topk=1),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert "cannot be read or written now" in answer.json()["error"]["message"]
        assert ask(client, "/v1/face/embed", model="fake", img=PICTURES[95]).status_code == 200
    finally:
        postgres.start()
    for _ in range(8):
        assert identify(client, PICTURES[95], store="away") == ["before"]
    register(client, PICTURES[96], "after", store="away")
    assert identify(client, PICTURES[96], top_k=1, store="away") == ["after"]
