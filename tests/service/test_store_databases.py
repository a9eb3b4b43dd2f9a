"""Services on one Postgres: what one writes the other finds, and what they do while it is away."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from tests.service.enrolling import (
    CLIENTS,
    PICTURES,
    WAIT_S,
    Enrolment,
    Serve,
    Service,
    all_registered,
    arguments,
    assert_asks_to_come_back,
    identify,
    repeated,
)
from tests.service.forgetting import leave_postgres
from tests.service.many_replicas import Record

pytestmark = pytest.mark.service

BEFORE = 300
"""Registrations that are acknowledged before Postgres is stopped, and again after it has come back."""
SHARED = 100
"""Registrations with each of two services on one database, looked for at once with the other."""

GRAPH = {"kind": "hnsw", "approximate_from": 60}
"""Built in the middle of the registrations."""
KEYS = [[3.0, 4.0], [5.0, -12.0]]


@pytest.fixture(scope="module")
def url(postgres: Any) -> str:
    """Of a database that nobody else uses."""
    return str(postgres.new_database())


@pytest.fixture(scope="module")
def one(serve_with: Serve, url: str) -> Iterator[Service]:
    """A service whose searches fail while the database is away."""
    with serve_with(arguments({"url": url, "index": GRAPH, "compact_every_s": 2}, 1)) as service:
        yield service


@pytest.fixture(scope="module")
def two(serve_with: Serve, url: str) -> Iterator[Service]:
    """Another application on the same database; its searches are answered from memory then."""
    with serve_with(arguments({"url": url, "when_away": "stale", "index": GRAPH}, 1)) as service:
        yield service


def test_two_applications_on_one_postgres_find_at_once_what_the_other_writes(
    one: Service, two: Service
) -> None:
    """Both write at the same time."""

    def rounds(writer: Service, reader: Service, first: int) -> list[int]:
        missed = []
        with writer.client() as writing, reader.client() as reading:
            for number in range(first, first + SHARED):
                person = {"model": "fake", "img": PICTURES[number], "store": "shared"}
                made = writing.post("/v1/face/register", json={**person, "name": str(number)}).json()
                found = reading.post("/v1/face/identify", json={**person, "top_k": 1}).json()["matches"]
                if [match["id"] for match in found] != [made["id"]]:
                    missed.append(number)
        return missed

    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(rounds, one, two, 0), pool.submit(rounds, two, one, SHARED)]
        assert [missed for half in halves for missed in half.result()] == []
    totals = set()
    for service in (one, two):
        with service.client() as client:
            totals.add(client.get("/v1/face/registrations", params={"store": "shared"}).json()["total"])
    assert totals == {2 * SHARED}


def while_away(one: Service, two: Service, enrolment: Enrolment) -> None:
    """Returns when each of the clients that enrol was refused, too."""
    probe = {"model": "fake", "img": PICTURES[0], "top_k": 1}
    with one.client() as failing, two.client() as remembering:
        assert_asks_to_come_back(failing.post("/v1/face/identify", json=probe))
        answer = remembering.post("/v1/face/identify", json=probe)
        assert answer.status_code == 200
        assert [match["name"] for match in answer.json()["matches"]] == ["person 0"]
        assert int(answer.headers["age"]) >= 1
        key = {"key": KEYS[1], "topk": 1}
        assert_asks_to_come_back(failing.post("/stores/find", json=key))
        answer = remembering.post("/stores/find", json=key)
        assert answer.json()["keys"] == [KEYS[1]]
        assert int(answer.headers["age"]) >= 1
        person = {"model": "fake", "img": PICTURES[0], "name": "nobody"}
        assert_asks_to_come_back(remembering.post("/v1/face/register", json=person))
    give_up = time.monotonic() + WAIT_S
    while len(enrolment.refused) < CLIENTS:
        assert time.monotonic() < give_up
        time.sleep(0.05)  # the clients announce what was acknowledged alone


async def test_postgres_restarts_under_load(
    one: Service, two: Service, postgres: Any, record_property: Record
) -> None:
    """It is stopped as if its machine had failed."""
    enrolment = Enrolment(one.url, count())
    with one.client() as client, two.client() as other:
        client.post("/stores/set", json={"keys": KEYS, "values": ["one", "two"]}).raise_for_status()
        assert "age" not in other.post("/stores/find", json={"key": KEYS[1], "topk": 1}).headers

    def outage() -> float:
        began = time.monotonic()
        postgres.stop()
        try:
            while_away(one, two, enrolment)
        finally:
            postgres.start()
        return time.monotonic() - began

    async with enrolment.running():
        await enrolment.more(BEFORE)
        with two.client() as remembering:
            identify(remembering, PICTURES[0])  # it has applied all until here
        record_property("away_s", round(await asyncio.to_thread(outage), 1))
        await enrolment.more(BEFORE)
    assert enrolment.cut == []
    for answer in enrolment.refused:
        assert_asks_to_come_back(answer)
    record_property("acknowledged", len(enrolment.acknowledged))
    record_property("refused", len(enrolment.refused))
    with two.client() as client:
        found, total = all_registered(client)
        assert enrolment.acknowledged.items() <= found.items()
        assert total == len(found) == len(set(found.values())), "none is there twice"
        record_property("written_but_not_acknowledged", total - len(enrolment.acknowledged))
        everyone = enrolment.acknowledged | await repeated(two.url, enrolment.lost)
        assert all_registered(client) == (everyone, len(everyone))
        assert len(set(everyone.values())) == len(everyone)
    for service in (one, two):
        with service.client() as client:
            answer = client.post("/v1/face/identify", json={"model": "fake", "img": PICTURES[0]})
            assert answer.status_code == 200
            assert "age" not in answer.headers


def test_nothing_of_a_forgotten_person_stays_in_the_tables(
    one: Service, postgres: Any, url: str, record_property: Record
) -> None:
    leave_postgres(one, postgres, url, record_property)
