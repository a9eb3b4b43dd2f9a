"""Many requests at a time, on real photographs: what is answered, what is not, and what it leaves behind."""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest

pytestmark = pytest.mark.service

MODELS = ("dlib-resnet", "mini")
REQUESTS = 200
ROUNDS = 2
GROWTH = 1.15
"""Private memory of all processes after the rounds, over that after the warm-up, at most."""

Picture = Callable[[Path], str]
Replicas = Callable[[int], dict[int, str]]
Alone = dict[tuple[str, str], dict[str, Any]]
"""The answer of /v1/face/embed by model and picture, each asked for alone."""


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    pid: int
    key: str

    def client(self, timeout_s: float = 60) -> httpx.Client: ...


def open_client(service: Service) -> httpx.AsyncClient:
    """As many connections as requests."""
    return httpx.AsyncClient(
        base_url=service.url,
        headers={"x-api-key": service.key},
        timeout=120,
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    )


@pytest.fixture(scope="module")
def alone(service: Service, shared: Path, picture: Picture) -> Alone:
    """Answers for photographs in which both models find a face."""
    answers: Alone = {}
    with service.client() as client:
        for path in sorted((shared / "media" / "faces" / "lfw").glob("*/*_0001.jpg"))[:16]:
            encoded = picture(path)
            both = [client.post("/v1/face/embed", json={"model": one, "img": encoded}) for one in MODELS]
            if all(response.status_code == 200 for response in both):
                answers |= {(one, encoded): got.json() for one, got in zip(MODELS, both, strict=True)}
    assert len(answers) >= 20
    return answers


async def one_round(service: Service, photographs: list[str]) -> list[httpx.Response]:
    """REQUESTS requests at once: half embed, half verify, over both models."""
    async with open_client(service) as client:

        async def ask(number: int) -> httpx.Response:
            model = MODELS[number % 2]
            first, second = (photographs[(number // 4 + step) % len(photographs)] for step in (0, 1))
            if number % 4 < 2:
                return await client.post("/v1/face/embed", json={"model": model, "img": first})
            body = {"model": model, "img1": first, "img2": second}
            return await client.post("/v1/face/verify", json=body)

        return await asyncio.gather(*(ask(number) for number in range(REQUESTS)))


def private_bytes(command: int) -> int:
    """Memory that the processes of the service share with no other, all together."""
    root = psutil.Process(command)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total


async def test_under_load_each_answer_is_good_or_asks_to_come_back(
    service: Service,
    alone: Alone,
    replicas: Replicas,
    record_property: Callable[[str, object], None],
) -> None:
    photographs = sorted({encoded for _, encoded in alone})
    before = replicas(service.pid)

    answers = await one_round(service, photographs)
    warm = private_bytes(service.pid)
    for _ in range(ROUNDS):
        answers += await one_round(service, photographs)
    after = private_bytes(service.pid)

    busy = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in busy} <= {503}
    for answer in busy:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == 503
    assert len(busy) < len(answers) / 4
    assert replicas(service.pid) == before
    record_property("busy", len(busy))
    record_property("private_mib_warm", warm // 2**20)
    record_property("private_mib_after", after // 2**20)
    assert after < warm * GROWTH


async def test_after_the_load_answers_are_the_same(service: Service, alone: Alone) -> None:
    model, photograph = next(iter(alone))
    async with open_client(service) as client:
        answer = await client.post("/v1/face/embed", json={"model": model, "img": photograph})
    assert answer.json() == alone[model, photograph]


@pytest.mark.parametrize("model", MODELS)
async def test_bad_pictures_fail_alone_and_leave_the_others_their_numbers(
    service: Service, alone: Alone, picture: Picture, shared: Path, model: str
) -> None:
    broken = shared / "media" / "images" / "broken"
    bad = {
        picture(broken / name): status
        for name, status in (
            ("truncated_half.jpg", 415),
            ("truncated_header.jpg", 415),
            ("text_as.jpg", 415),
            ("zero_bytes.jpg", 400),
            ("bomb_30000x30000.png", 413),
            ("tiny_12x12.png", 404),
        )
    }
    good = [encoded for name, encoded in alone if name == model]
    async with open_client(service) as client:

        async def ask(encoded: str) -> httpx.Response:
            return await client.post("/v1/face/embed", json={"model": model, "img": encoded})

        interleaved = [one for pair in zip(good, list(bad) * 3, strict=False) for one in pair]
        answers = await asyncio.gather(*(ask(encoded) for encoded in interleaved))

    for encoded, answer in zip(interleaved, answers, strict=True):
        if encoded in bad:
            assert answer.status_code == bad[encoded], answer.text
            assert answer.json()["error"]["code"] == bad[encoded]
        else:
            assert answer.json() == alone[model, encoded]


BATCHES = re.compile(r"^ray_presence_batch_size_(sum|count)\{.*deployment=\"mini\.detector\".* (\S+)$", re.M)


async def test_requests_that_come_together_share_runs_of_the_model(service: Service, alone: Alone) -> None:
    body = {"model": "mini", "img": next(encoded for name, encoded in alone if name == "mini")}
    async with open_client(service) as client:
        until = time.monotonic() + 60  # replicas report to their node every few seconds
        while time.monotonic() < until:
            await asyncio.gather(*(client.post("/v1/face/embed", json=body) for _ in range(64)))
            told = BATCHES.findall((await client.get("/metrics")).text)
            items, runs = (
                sum(float(number) for key, number in told if key == which) for which in ("sum", "count")
            )
            if items > runs > 0:
                return
    pytest.fail(f"{items} items in {runs} runs")
