"""The store when processes, clusters and disks fail, and when people are forgotten.

Services of their own on the fake face engine, one after another on the same directory: the first is killed in
whole, the second and the third share what it left behind. Root gives them a small disk, to fill it.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest

from tests.service.conftest import process_title
from tests.service.enrolling import (
    CLIENTS,
    PICTURES,
    WAIT_S,
    Enrolment,
    Serve,
    Service,
    all_registered,
    arguments,
    coloured,
    identify,
    repeated,
)
from tests.service.forgetting import PEOPLE, enrolled, forget, on_disk
from tests.service.many_replicas import (
    REPLICAS,
    Record,
    Replicas,
    enrolled_and_found_at_once,
    outlives_replicas,
    until,
)
from tests.service.store_commands import commands_beside_a_service, store

pytestmark = pytest.mark.service

PHASE = 3334
"""Registrations that are acknowledged around each of the three kills: 10,000 in all."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of 32 MiB in memory where root may mount one, else a directory like any other."""
    path = tmp_path_factory.mktemp("disk")
    small = os.geteuid() == 0 and (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32M", "none", path], check=False).returncode == 0
    )
    yield path
    if small:
        subprocess.run(["umount", path], check=True)


@pytest.fixture(scope="module")
def directory(disk: Path) -> Path:
    """Of the store that outlives its service."""
    return disk / "store"


def store_in(directory: Path) -> dict[str, Any]:
    """Its searches are approximate from 500 people on: lists are built while clients enrol."""
    return {"directory": str(directory), "index": {"kind": "ivf", "approximate_from": 500}}


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Of people, each once."""
    return count()


@pytest.fixture(scope="module")
def acknowledged() -> dict[str, str]:
    """Name by id of all that the first service has acknowledged."""
    return {}


@pytest.fixture(scope="module")
def lost() -> list[int]:
    """People whose registration with the first service was not acknowledged, and not repeated yet."""
    return []


@pytest.fixture(scope="module")
def first(serve_with: Serve, directory: Path) -> Iterator[Service]:
    """The service that is killed in the end."""
    with serve_with(arguments(store_in(directory), REPLICAS)) as service:
        yield service


@pytest.mark.parametrize("victims", [1, REPLICAS], ids=["one replica", "every replica"])
async def test_what_is_acknowledged_outlives_store_replicas(
    first: Service,
    replicas: Replicas,
    numbers: Iterator[int],
    acknowledged: dict[str, str],
    victims: int,
    record_property: Record,
) -> None:
    await outlives_replicas(
        first,
        replicas,
        numbers,
        acknowledged,
        victims=victims,
        enrolled=PHASE,
        record_property=record_property,
    )


async def test_what_one_client_enrols_three_others_find_at_once(
    first: Service, record_property: Record
) -> None:
    await enrolled_and_found_at_once(first, record_property)


def test_nothing_of_a_forgotten_person_stays_on_the_disk(
    first: Service, directory: Path, record_property: Record
) -> None:
    """Their embeddings are looked for as they are and as an index normalises them."""
    with first.client() as client:
        people, needles = enrolled(client)

        def snapshots() -> set[int]:
            found = on_disk(directory / "snapshots", *needles).values()
            return {number // 2 for each in found for number in each}

        record_property("in_a_snapshot_after_s", round(until(lambda: snapshots() == set(range(PEOPLE))), 1))
        erased = [*people.values(), *needles]
        journal = {number for each in on_disk(directory, *people.values()).values() for number in each}
        assert journal == set(range(PEOPLE)), "what is looked for can be found"
        forget(client, people)
        record_property("erased_after_s", round(until(lambda: not on_disk(directory, *erased)), 1))


def kill_tree(pid: int) -> None:
    """SIGKILL to a command and all that it has started; its private directory is removed in its place."""
    command = psutil.Process(pid)
    processes = [*command.children(recursive=True), command]
    private = re.search(r"/\S+/presence-\w+(?=/r/)", " ".join(map(process_title, processes)))
    assert private
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, nobody sees the others go
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    psutil.wait_procs(processes, timeout=WAIT_S)
    shutil.rmtree(private[0])


async def test_what_is_acknowledged_outlives_the_cluster(
    first: Service,
    numbers: Iterator[int],
    acknowledged: dict[str, str],
    lost: list[int],
    record_property: Record,
) -> None:
    enrolment = Enrolment(first.url, numbers)
    async with enrolment.running():
        await enrolment.more(PHASE)
        kill_tree(first.pid)
    acknowledged |= enrolment.acknowledged
    lost += enrolment.lost
    record_property("cut", len(enrolment.cut))
    assert enrolment.refused == []
    with pytest.raises(httpx.ConnectError), first.client() as client:
        client.get("/healthz")


@pytest.fixture(scope="module")
def second(serve_with: Serve, directory: Path) -> Iterator[Service]:
    """A service on the directory that the first one left behind."""
    assert list((directory / "snapshots").glob("[0-9]*")), "its start is warm"
    with serve_with(arguments(store_in(directory), 1)) as service:
        yield service


async def test_another_service_finds_all_that_the_killed_one_acknowledged(
    second: Service, acknowledged: dict[str, str], lost: list[int], record_property: Record
) -> None:
    assert len(acknowledged) >= 3 * PHASE
    record_property("acknowledged", len(acknowledged))
    with second.client() as client:
        found, total = all_registered(client)
        assert acknowledged.items() <= found.items()
        assert total == len(found) == len(set(found.values())), "none is there twice"
        record_property("written_but_not_acknowledged", total - len(acknowledged))
        acknowledged |= await repeated(second.url, lost)
        assert all_registered(client) == (acknowledged, len(acknowledged))
        assert len(set(acknowledged.values())) == len(acknowledged), "nor after what was lost is repeated"
        for name in list(acknowledged.values())[::100]:
            assert name in identify(client, PICTURES[int(name.split()[1]) % len(PICTURES)], top_k=10)
    async with httpx.AsyncClient(base_url=second.url, timeout=60, trust_env=False) as asking:
        ids = iter(list(acknowledged)[::3])

        async def look_up() -> None:
            for record_id in ids:
                answer = await asking.get(f"/v1/face/registrations/{record_id}", params={"store": "default"})
                assert answer.status_code == 200, answer.text
                assert answer.json()["name"] == acknowledged[record_id]

        await asyncio.gather(*(look_up() for _ in range(CLIENTS)))


def test_services_that_share_a_journal_find_at_once_what_the_other_writes(
    second: Service, serve_with: Serve, directory: Path
) -> None:
    with (
        serve_with(arguments(store_in(directory), 1)) as third,
        second.client() as one,
        third.client() as two,
    ):
        for number in range(20):
            writer, reader = (one, two) if number % 2 else (two, one)
            picture = coloured(200, 11 + 9 * number, 23)
            body = {"model": "fake", "img": picture, "name": f"shared {number}", "store": "shared"}
            made = writer.post("/v1/face/register", json=body).json()
            answer = reader.post(
                "/v1/face/identify", json={"model": "fake", "img": picture, "store": "shared"}
            )
            nearest = answer.json()["matches"][0]
            assert (nearest["id"], nearest["name"]) == (made["id"], f"shared {number}")
            assert nearest["distance"] < 1e-5
            if number % 4 < 2:
                assert reader.delete(f"/v1/face/registrations/{made['id']}").status_code == 204
                assert f"shared {number}" not in identify(writer, picture)
                assert writer.get(f"/v1/face/registrations/{made['id']}").status_code == 404


async def test_every_command_works_beside_the_service(
    second: Service, directory: Path, numbers: Iterator[int], tmp_path: Path
) -> None:
    await commands_beside_a_service(second, ["--directory", str(directory)], numbers, tmp_path)


def fill(path: Path) -> None:
    """A file of all that is left."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_refuses_registrations_and_nothing_else(
    second: Service, disk: Path, directory: Path, record_property: Record
) -> None:
    if not disk.is_mount():
        pytest.skip("a small disk can be mounted by root alone")
    with second.client() as client:

        def register(number: int) -> httpx.Response:
            picture, name = PICTURES[number], f"person {number}" + " x" * 100
            body = {"model": "fake", "img": picture, "name": name, "store": "full"}
            return client.post("/v1/face/register", json=body)

        def found(number: int) -> bool:
            body = {"model": "fake", "img": PICTURES[number], "store": "full"}
            answer = client.post("/v1/face/identify", json=body)
            return str(answer.json()["matches"][0]["name"]).startswith(f"person {number} ")

        def total() -> int:
            answer = client.get("/v1/face/registrations", params={"store": "full"})
            return int(answer.json()["total"])

        first = register(0)
        assert first.status_code == 200
        forgotten = {"id": first.json()["id"], "store": "full"}
        ballast = disk / "ballast"
        fill(ballast)
        accepted = 1
        try:
            while (refused := register(accepted)).status_code == 200:
                accepted += 1
            assert refused.status_code == 507
            assert "the disk of presence.db is full; nothing was written" in refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert client.post("/v1/face/forget", json=forgotten).status_code == 507, "it needs room too"
            assert found(0)
            assert total() == accepted
            assert client.get("/readyz").status_code == 200
        finally:
            ballast.unlink()
        record_property("accepted_on_what_was_left", accepted - 1)
        assert register(accepted).status_code == 200
        assert found(accepted)
        assert total() == accepted + 1
        assert client.post("/v1/face/forget", json=forgotten).status_code == 204
        assert total() == accepted
    assert asyncio.run(store("verify", "--directory", directory)) == "nothing is wrong\n"
