"""Replicas killed under load: what clients see, and that the service mends itself.

The time to recover is a property of each test in pytest's JUnit report (`--junitxml`).
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.service.enrolling import assert_asks_to_come_back

pytestmark = pytest.mark.service

CLIENTS = 8
RECOVERY_S = 180
"""Far more than it takes; a service that stays broken fails the test."""

Picture = Callable[[Path], str]
Replicas = Callable[[int], dict[int, str]]
Record = Callable[[str, object], None]


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    pid: int
    key: str


Requests = list[tuple[str, dict[str, Any]]]
"""Route and body of each kind of request."""


@pytest.fixture(scope="module")
def requests(shared: Path, picture: Picture) -> dict[str, Requests]:
    """By model, requests that together use every part of it."""
    faces, audio = shared / "media" / "faces", shared / "media" / "audio"
    one, two = (picture(path) for path in sorted((faces / "lfw" / "John_Kerry").glob("*.jpg"))[:2])
    group = picture(faces / "groups" / "t1.jpg")
    voice, other = (picture(path) for path in sorted((audio / "speakers" / "1998").glob("*.flac"))[:2])
    return {
        "mini": [
            ("/v1/face/verify", {"model": "mini", "img1": one, "img2": two, "anti_spoofing": True}),
            ("/v1/face/analyze", {"model": "mini", "img": group, "anti_spoofing": True}),
            ("/v1/face/embed", {"model": "mini", "img": two}),
        ],
        "mini-fused": [
            ("/v1/face/verify", {"model": "mini-fused", "img1": one, "img2": two, "anti_spoofing": True}),
            ("/v1/face/analyze", {"model": "mini-fused", "img": group}),
        ],
        "opencv": [
            ("/v1/face/verify", {"model": "opencv", "img1": one, "img2": two}),
            ("/v1/face/embed", {"model": "opencv", "img": two}),
            ("/v1/detection", {"model": "opencv", "image": group}),
        ],
        "dlib-resnet": [
            ("/v1/face/verify", {"model": "dlib-resnet", "img1": one, "img2": two}),
            ("/v1/face/embed", {"model": "dlib-resnet", "img": one}),
        ],
        "resemblyzer-ge2e": [
            ("/v1/voice/verify", {"model": "resemblyzer-ge2e", "audio1": voice, "audio2": other}),
            ("/v1/voice/embed", {"model": "resemblyzer-ge2e", "audio": voice}),
            ("/v1/voice/identify", {"model": "resemblyzer-ge2e", "audio": other}),
        ],
        "talker": [
            ("/v1/voice/analyze", {"model": "talker", "audio": voice, "actions": ["emotion"]}),
            ("/v1/voice/embed", {"model": "talker", "audio": other}),
        ],
        "espeak-ng": [
            ("/tts", {"model": "espeak-ng", "input": "It is spoken again and again. " * 20}),
            ("/v1/audio/speech", {"model": "espeak-ng", "voice": "en-us", "input": "Once."}),
        ],
    }


class Load:
    """CLIENTS clients that send one request after another; `outcomes` is an answer or an error each."""

    def __init__(self, client: httpx.AsyncClient, requests: Requests) -> None:
        self.outcomes: list[httpx.Response | httpx.HTTPError] = []
        self._client = client
        self._requests = requests
        self._numbers = count()
        self._changed = asyncio.Condition()
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clients send while the block runs; at its end each gets its last answer."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._one_client())
            try:
                yield
            finally:
                self._over = True

    async def more(self, outcomes: int) -> None:
        """Waits until that many more requests have ended."""
        target = len(self.outcomes) + outcomes
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.outcomes) >= target)

    async def _one_client(self) -> None:
        while not self._over:
            path, body = self._requests[next(self._numbers) % len(self._requests)]
            outcome: httpx.Response | httpx.HTTPError
            try:
                outcome = await self._client.post(path, json=body)
            except httpx.HTTPError as error:
                outcome = error
            async with self._changed:
                self.outcomes.append(outcome)
                self._changed.notify_all()


async def killed_under_load(
    service: Service, replicas: Replicas, requests: Requests, deployments: Sequence[str]
) -> tuple[list[httpx.Response | httpx.HTTPError], float]:
    """Outcomes of the load, and the seconds from the kill until all is good again with new replicas.

    Of each deployment one replica is killed, all at once.
    """

    def replaced(before: dict[int, str]) -> set[str]:
        return {name for pid, name in replicas(service.pid).items() if pid not in before}

    headers = {"x-api-key": service.key}
    async with httpx.AsyncClient(
        base_url=service.url, headers=headers, timeout=120, trust_env=False
    ) as client:
        load = Load(client, requests)
        async with asyncio.timeout(RECOVERY_S), load.running():
            await load.more(2 * CLIENTS)
            before = replicas(service.pid)
            for deployment in deployments:
                os.kill(min(pid for pid, name in before.items() if name == deployment), signal.SIGKILL)
            killed_at = time.monotonic()
            while not (replaced(before) >= set(deployments) and await all_good(client, requests)):
                await load.more(1)
            recovered_after = time.monotonic() - killed_at
        return load.outcomes, recovered_after


async def all_good(client: httpx.AsyncClient, requests: Requests) -> bool:
    """Ready, and each kind of request answered."""
    try:
        if (await client.get("/readyz")).status_code != 200:
            return False
        return all([(await client.post(path, json=body)).status_code == 200 for path, body in requests])
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    "deployments",
    [
        ["mini.detector", "opencv.detector", "dlib-resnet.detector"],
        ["mini.recognizer", "opencv.recognizer", "dlib-resnet.recognizer"],
        ["mini.attributes", "talker.attributes", "espeak-ng.synthesizer"],
        ["mini.liveness", "mini-fused.fused", "resemblyzer-ge2e.encoder"],
    ],
    ids=", ".join,
)
async def test_killed_model_replicas_cost_a_503_at_most(
    service: Service,
    replicas: Replicas,
    requests: dict[str, Requests],
    deployments: list[str],
    record_property: Record,
) -> None:
    before = replicas(service.pid)

    asked = [one for name in deployments for one in requests[name.partition(".")[0]]]
    outcomes, recovered_after = await killed_under_load(service, replicas, asked, deployments)

    record_property("recovered_after_s", round(recovered_after, 1))
    answers = [outcome for outcome in outcomes if isinstance(outcome, httpx.Response)]
    refused = [answer for answer in answers if answer.status_code != 200]
    record_property("refused", len(refused))
    assert len(answers) == len(outcomes), [error for error in outcomes if error not in answers]
    for answer in refused:
        assert_asks_to_come_back(answer, waited_s=recovered_after)
    after = replicas(service.pid)
    assert sorted(after.values()) == sorted(before.values())
    gone = [before[pid] for pid in set(before) - set(after)]
    assert sorted(gone) == sorted(deployments), "only those that were killed are replaced"


def test_a_service_is_not_ready_while_the_replica_of_a_model_is_away(
    service: Service, replicas: Replicas
) -> None:
    (victim,) = [pid for pid, name in replicas(service.pid).items() if name == "mini.liveness"]
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        os.kill(victim, signal.SIGKILL)
        away = readiness(client, 503).json()
        assert (away["status"], away["loading"] + away["failed"]) == ("starting", ["mini"])
        assert readiness(client, 200).json()["status"] == "ready"


def readiness(client: httpx.Client, status: int) -> httpx.Response:
    """The first answer of that status, or the last one within RECOVERY_S."""
    until = time.monotonic() + RECOVERY_S
    while (answer := client.get("/readyz")).status_code != status and time.monotonic() < until:
        time.sleep(0.1)  # nothing announces that Serve has noticed
    assert answer.status_code == status
    return answer


async def test_a_killed_gateway_costs_the_requests_that_it_held(
    service: Service,
    replicas: Replicas,
    requests: dict[str, Requests],
    record_property: Record,
) -> None:
    outcomes, recovered_after = await killed_under_load(service, replicas, requests["mini"], ["Gateway"])

    record_property("recovered_after_s", round(recovered_after, 1))
    cut = [outcome for outcome in outcomes if isinstance(outcome, httpx.HTTPError)]
    record_property("cut", len(cut))
    assert all(isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) for error in cut), cut
    assert len(cut) <= CLIENTS, "one for each connection: what comes after the kill waits and is answered"
    for outcome in outcomes:
        if isinstance(outcome, httpx.Response) and outcome.status_code != 200:
            assert_asks_to_come_back(outcome, waited_s=recovered_after)
