"""What every kind of store with several replicas promises, over HTTP: used by the tests of each kind."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import numpy as np

from tests.service.enrolling import (
    PICTURES,
    WAIT_S,
    Enrolment,
    Service,
    all_registered,
    assert_asks_to_come_back,
    repeated,
)

REPLICAS = 3
ENROLLED_AND_FOUND = 1000
"""Registrations of which each is looked for at once by three clients."""

Replicas = Callable[[int], dict[int, str]]
Record = Callable[[str, object], None]


async def outlives_replicas(
    service: Service,
    replicas: Replicas,
    numbers: Iterator[int],
    acknowledged: dict[str, str],
    *,
    victims: int,
    enrolled: int,
    record_property: Record,
) -> None:
    """Kills replicas of the store in the middle of registrations; acknowledged: name by id, is added to."""

    def of_store() -> set[int]:
        return {pid for pid, name in replicas(service.pid).items() if name == "store"}

    before = of_store()
    assert len(before) == REPLICAS
    enrolment = Enrolment(service.url, numbers)
    async with enrolment.running():
        await enrolment.more(enrolled // 2)
        for pid in sorted(before)[:victims]:
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        while len(of_store() - before) < victims:
            await enrolment.more(1)
        record_property("replaced_after_s", round(time.monotonic() - killed_at, 1))
        await enrolment.more(enrolled // 2)
    acknowledged |= enrolment.acknowledged
    record_property("acknowledged", len(enrolment.acknowledged))
    pause = float(np.diff(enrolment.times).max())
    record_property("longest_pause_s", round(pause, 1))
    record_property("refused", len(enrolment.refused))
    assert enrolment.cut == []
    for answer in enrolment.refused:
        assert_asks_to_come_back(answer, waited_s=pause)
    with service.client() as client:
        found, total = all_registered(client)
    assert acknowledged.items() <= found.items()
    assert total == len(found) == len(set(found.values())), "none is there twice"
    record_property("written_but_not_acknowledged", total - len(acknowledged))
    acknowledged |= await repeated(service.url, enrolment.lost)
    with service.client() as client:
        assert all_registered(client) == (acknowledged, len(acknowledged))
    assert len(set(acknowledged.values())) == len(acknowledged), "nor after what was lost is repeated"


async def enrolled_and_found_at_once(service: Service, record_property: Record) -> None:
    """One client enrols eight at a time, three others look; each replica answers hundreds of the searches."""
    before = searches(service)
    numbers, missed = iter(range(ENROLLED_AND_FOUND)), []
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False)
            )
            for _ in range(4)
        ]

        async def rounds() -> None:
            for number in numbers:
                person = {"model": "fake", "img": PICTURES[number], "store": "at-once"}
                made = await clients[0].post("/v1/face/register", json={**person, "name": str(number)})
                asked = (one.post("/v1/face/identify", json={**person, "top_k": 1}) for one in clients[1:])
                for answer in await asyncio.gather(*asked):
                    (nearest,) = answer.json()["matches"]
                    if nearest["id"] != made.json()["id"]:
                        missed.append(number)

        began = time.monotonic()
        await asyncio.gather(*(rounds() for _ in range(8)))
        record_property("enrolled_and_found_s", round(time.monotonic() - began, 1))
    assert missed == []

    def answered() -> list[float]:
        return [count - before.get(replica, 0) for replica, count in searches(service).items()]

    until(lambda: sum(answered()) >= 3 * ENROLLED_AND_FOUND)
    shares = sorted(share for share in answered() if share)
    record_property("searches_by_replica", shares)
    assert sum(shares) == 3 * ENROLLED_AND_FOUND
    assert len(shares) == REPLICAS
    assert shares[0] >= ENROLLED_AND_FOUND / 10


def searches(service: Service) -> dict[str, float]:
    """How many searches each replica of the store has answered."""
    with service.client() as client:
        told = client.get("/metrics").text
    samples = re.findall(r"^ray_presence_items_total{(.*)} (\S+)$", told, re.MULTILINE)
    return {
        re.findall(r'replica="([^"]+)"', tags)[0]: float(count)
        for tags, count in samples
        if 'model="store"' in tags and 'role="search"' in tags
    }


def until(said: Callable[[], bool]) -> float:
    """Seconds until it holds; upkeep announces nothing."""
    began = time.monotonic()
    while not said():
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.05)
    return time.monotonic() - began
