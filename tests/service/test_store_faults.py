"""The store when processes, clusters and disks fail, and when people are forgotten.

Services of their own on the fake face engine, one after another on the same directory: the first is killed in
whole, the second and the third share what it left behind. Root gives them a small disk, to fill it.
"""

import asyncio
import base64
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest
from PIL import Image

from engines.embedding import unit_rows

pytestmark = pytest.mark.service

CLIENTS = 16
PHASE = 500
"""Registrations that are acknowledged around each of the three kills."""
REPLICAS = 3
SNAPSHOT_EVERY_S = 2.0
WAIT_S = 90
"""Far more than it takes; what never comes fails the test."""

Replicas = Callable[[int], dict[int, str]]
Serve = Callable[[dict[str, Any]], AbstractContextManager["Service"]]
Record = Callable[[str, object], None]


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    pid: int

    def client(self, timeout_s: float = 60) -> httpx.Client: ...


def config(store: dict[str, Any], replicas: int) -> dict[str, Any]:
    arguments = {
        "models": [{"name": "fake", "backend": "fake"}],
        "store": {
            "snapshot_every_s": SNAPSHOT_EVERY_S,
            "replicas": {"min_replicas": replicas, "max_batch_size": 64},
            **store,
        },
    }
    application = {
        "name": "presence",
        "route_prefix": "/",
        "import_path": "graphs.app:app",
        "args": arguments,
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [application],
    }


def coloured(red: int, green: int, blue: int) -> str:
    encoded = BytesIO()
    Image.new("RGB", (16, 16), (red, green, blue)).save(encoded, "png")
    return base64.b64encode(encoded.getvalue()).decode()


PICTURES = [
    coloured(r, g, b) for r in range(60, 256, 15) for g in range(60, 256, 15) for b in range(60, 256, 15)
]
"""Of 2744 people who look different enough."""


class Enrolment:
    """CLIENTS clients that register one new name after another."""

    def __init__(self, url: str, numbers: Iterator[int]) -> None:
        self.acknowledged: dict[str, str] = {}
        self.times: list[float] = []
        self.refused: list[httpx.Response] = []
        self.cut: list[httpx.HTTPError] = []
        self._url = url
        self._numbers = numbers
        self._changed = asyncio.Condition()
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clients send while the block runs; at its end each gets its last answer."""
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, trust_env=False) as client,
            asyncio.timeout(WAIT_S),
            asyncio.TaskGroup() as clients,
        ):
            for _ in range(CLIENTS):
                clients.create_task(self._one_client(client))
            try:
                yield
            finally:
                self._over = True

    async def more(self, acknowledged: int) -> None:
        """Waits until that many more have been acknowledged."""
        target = len(self.acknowledged) + acknowledged
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.acknowledged) >= target)

    async def _one_client(self, client: httpx.AsyncClient) -> None:
        while not self._over:
            number = next(self._numbers)
            body = {"model": "fake", "img": PICTURES[number % len(PICTURES)], "name": f"person {number}"}
            try:
                answer = await client.post("/v1/face/register", json=body)
            except httpx.ConnectError:
                return  # nobody is there any more
            except httpx.HTTPError as error:
                self.cut.append(error)
                continue
            if answer.status_code != 200:
                self.refused.append(answer)
                continue
            async with self._changed:
                self.acknowledged[answer.json()["id"]] = body["name"]
                self.times.append(time.monotonic())
                self._changed.notify_all()


def assert_asks_to_come_back(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == 503


def all_registered(client: httpx.Client) -> tuple[dict[str, str], int]:
    """Name by id of every registration, page by page, and the total that the list tells."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page = client.get("/v1/face/registrations", params={"limit": 1000, "cursor": cursor}).json()
        found |= {one["id"]: one["name"] for one in page["data"]}
        if not (cursor := page.get("next_cursor") or ""):
            return found, page["total"]


def identify(client: httpx.Client, picture: str, top_k: int = 5) -> list[str]:
    answer = client.post("/v1/face/identify", json={"model": "fake", "img": picture, "top_k": top_k})
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["matches"]]


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


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Of people, each once."""
    return count()


@pytest.fixture(scope="module")
def acknowledged() -> dict[str, str]:
    """Name by id of all that the first service has acknowledged."""
    return {}


@pytest.fixture(scope="module")
def first(serve_with: Serve, directory: Path) -> Iterator[Service]:
    """The service that is killed in the end."""
    with serve_with(config({"directory": str(directory)}, REPLICAS)) as service:
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
    def of_store() -> set[int]:
        return {pid for pid, name in replicas(first.pid).items() if name == "store"}

    before = of_store()
    assert len(before) == REPLICAS
    enrolment = Enrolment(first.url, numbers)
    async with enrolment.running():
        await enrolment.more(PHASE // 2)
        for pid in sorted(before)[:victims]:
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await enrolment.more(PHASE // 2)
        while len(of_store() - before) < victims:
            await enrolment.more(1)
        record_property("replaced_after_s", round(time.monotonic() - killed_at, 1))
    acknowledged |= enrolment.acknowledged
    record_property("acknowledged", len(enrolment.acknowledged))
    record_property("longest_pause_s", round(float(np.diff(enrolment.times).max()), 1))
    record_property("refused", len(enrolment.refused))
    assert enrolment.cut == []
    for answer in enrolment.refused:
        assert_asks_to_come_back(answer)
    with first.client() as client:
        found, total = all_registered(client)
    assert acknowledged.items() <= found.items()
    assert total == len(found) == len(set(found.values())), "none is there twice"


def on_disk(directory: Path, *needles: bytes) -> dict[str, list[int]]:
    """Where in a store's files each of these bytes is: numbers of needles by file."""
    while True:
        try:
            contents = {path: path.read_bytes() for path in files(directory)}
            if set(contents) == set(files(directory)):
                break
        except FileNotFoundError:
            continue  # a snapshot that was just replaced: what replaced it was not looked at
    places = {
        str(path.relative_to(directory)): [i for i, one in enumerate(needles) if one in content]
        for path, content in contents.items()
    }
    return {path: found for path, found in places.items() if found}


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def until(said: Callable[[], bool]) -> float:
    """Seconds until it holds; upkeep announces nothing."""
    began = time.monotonic()
    while not said():
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.05)
    return time.monotonic() - began


def test_nothing_of_a_forgotten_person_stays_on_the_disk(
    first: Service, directory: Path, record_property: Record
) -> None:
    """Ten of them; their embeddings are looked for as they are and as an index normalises them."""
    with first.client() as client:
        people: dict[str, bytes] = {}
        needles: list[bytes] = []
        for number in range(10):
            name, picture = f"Person {uuid4()}", coloured(251 - 3 * number, 37 + 5 * number, 91)
            body = {"model": "fake", "img": picture, "name": name, "labels": {"badge": f"badge of {name}"}}
            answer = client.post("/v1/face/register", json=body)
            assert answer.status_code == 200, answer.text
            people[answer.json()["id"]] = name.encode()
            numbers = client.post("/v1/face/embed", json={"model": "fake", "img": picture}).json()
            embedding = np.array(numbers["embedding"], np.float32)
            needles += [embedding.tobytes(), unit_rows(embedding[None])[0].tobytes()]

        def snapshots() -> set[int]:
            found = on_disk(directory / "snapshots", *needles).values()
            return {number // 2 for each in found for number in each}

        record_property("in_a_snapshot_after_s", round(until(lambda: snapshots() == set(range(10))), 1))
        erased = [*people.values(), *needles]
        journal = {number for each in on_disk(directory, *people.values()).values() for number in each}
        assert journal == set(range(10)), "what is looked for can be found"
        for record_id in people:
            assert client.post("/v1/face/forget", json={"id": record_id}).status_code == 204
            assert client.get(f"/v1/face/registrations/{record_id}").status_code == 404
        record_property("erased_after_s", round(until(lambda: not on_disk(directory, *erased)), 1))


def kill_tree(pid: int) -> None:
    """SIGKILL to a command and all that it has started; its private directory is removed in its place."""
    command = psutil.Process(pid)
    processes = [*command.children(recursive=True), command]
    private = re.search(r"/\S+/presence-\w+(?=/r/)", " ".join(" ".join(one.cmdline()) for one in processes))
    assert private
    for process in processes:
        process.send_signal(signal.SIGSTOP)  # nobody sees the others go
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=WAIT_S)
    shutil.rmtree(private[0])


async def test_what_is_acknowledged_outlives_the_cluster(
    first: Service, numbers: Iterator[int], acknowledged: dict[str, str], record_property: Record
) -> None:
    enrolment = Enrolment(first.url, numbers)
    async with enrolment.running():
        await enrolment.more(PHASE)
        kill_tree(first.pid)
    acknowledged |= enrolment.acknowledged
    record_property("cut", len(enrolment.cut))
    assert enrolment.refused == []
    with pytest.raises(httpx.ConnectError), first.client() as client:
        client.get("/healthz")


@pytest.fixture(scope="module")
def second(serve_with: Serve, directory: Path) -> Iterator[Service]:
    """A service on the directory that the first one left behind."""
    assert list((directory / "snapshots").glob("[0-9]*")), "its start is warm"
    with serve_with(config({"directory": str(directory)}, 1)) as service:
        yield service


async def test_another_service_finds_all_that_the_killed_one_acknowledged(
    second: Service, acknowledged: dict[str, str], numbers: Iterator[int], record_property: Record
) -> None:
    assert len(acknowledged) >= 3 * PHASE
    record_property("acknowledged", len(acknowledged))
    with second.client() as client:
        found, total = all_registered(client)
        assert acknowledged.items() <= found.items()
        assert total == len(found) == len(set(found.values())), "none is there twice"
        assert total <= next(numbers)
        record_property("written_but_not_acknowledged", total - len(acknowledged))
        for name in list(acknowledged.values())[::50]:
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
        serve_with(config({"directory": str(directory)}, 1)) as third,
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


def fill(path: Path) -> None:
    """A file of all that is left."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_refuses_registrations_and_nothing_else(
    second: Service, disk: Path, record_property: Record
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

        assert register(0).status_code == 200
        ballast = disk / "ballast"
        fill(ballast)
        accepted = 1
        try:
            while (refused := register(accepted)).status_code == 200:
                accepted += 1
            assert refused.status_code == 507
            assert "the disk of presence.db is full; nothing was written" in refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert found(0)
            assert total() == accepted
            assert client.get("/readyz").status_code == 200
        finally:
            ballast.unlink()
        record_property("accepted_on_what_was_left", accepted - 1)
        assert register(accepted).status_code == 200
        assert found(accepted)
        assert total() == accepted + 1
