"""What tests of the store share: a service on the fake face engine, people, clients that enrol them."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import httpx
from PIL import Image

CLIENTS = 16
SNAPSHOT_EVERY_S = 2.0
DEADLINE_S = 30
"""Of a request to the gateway."""
WAIT_S = 300
"""Far more than it takes; what never comes fails the test."""


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    pid: int
    log: Path

    def client(self, timeout_s: float = 60) -> httpx.Client: ...


Serve = Callable[[dict[str, Any]], AbstractContextManager[Service]]


def arguments(store: dict[str, Any], replicas: int) -> dict[str, Any]:
    """Of a service on the fake face engine, in one replica."""
    return {
        "models": [{"name": "fake", "backend": "fake", "fused": True}],
        "store": {
            "snapshot_every_s": SNAPSHOT_EVERY_S,
            "replicas": {"min_replicas": replicas, "max_batch_size": 64},
            **store,
        },
    }


def coloured(red: int, green: int, blue: int) -> str:
    encoded = BytesIO()
    Image.new("RGB", (16, 16), (red, green, blue)).save(encoded, "png")
    return base64.b64encode(encoded.getvalue()).decode()


PICTURES = [
    coloured(r, g, b) for r in range(60, 256, 15) for g in range(60, 256, 15) for b in range(60, 256, 15)
]
"""Of 2744 people who look different enough."""


async def register(client: httpx.AsyncClient, number: int) -> httpx.Response:
    """Registers a person by number; the same registration however often it is repeated."""
    body = {"model": "fake", "img": PICTURES[number % len(PICTURES)], "name": f"person {number}"}
    headers = {"Idempotency-Key": f"of person {number}"}
    return await client.post("/v1/face/register", json=body, headers=headers)


class Enrolment:
    """Clients that register one new name after another, each with an Idempotency-Key of its own.

    lost: people whose registration was not acknowledged; it may have been written all the same.
    """

    def __init__(self, url: str, numbers: Iterator[int], clients: int = CLIENTS) -> None:
        self.acknowledged: dict[str, str] = {}
        self.lost: list[int] = []
        self.times: list[float] = []
        self.refused: list[httpx.Response] = []
        self.cut: list[httpx.HTTPError] = []
        self._url = url
        self._numbers = numbers
        self._clients = clients
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
            for _ in range(self._clients):
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
            try:
                answer = await register(client, number)
            except httpx.ConnectError:
                self.lost.append(number)
                return  # nobody is there any more
            except httpx.HTTPError as error:
                self.lost.append(number)
                self.cut.append(error)
                continue
            if answer.status_code != 200:
                self.lost.append(number)
                self.refused.append(answer)
                continue
            async with self._changed:
                self.acknowledged[answer.json()["id"]] = answer.json()["name"]
                self.times.append(time.monotonic())
                self._changed.notify_all()


async def repeated(url: str, numbers: Sequence[int]) -> dict[str, str]:
    """Name by id of people whose registration is repeated with the same key; every one is acknowledged."""
    found: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        for number in numbers:
            answer = await register(client, number)
            assert answer.status_code == 200, answer.text
            found[answer.json()["id"]] = answer.json()["name"]
    return found


def assert_asks_to_come_back(answer: httpx.Response, waited_s: float = 0) -> None:
    """Says when to try again; or that the deadline passed, where replicas were away for longer than that."""
    if answer.status_code == 504 and waited_s >= DEADLINE_S:
        return
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
