"""What Ray Serve takes where nothing is computed: `python -m bench.floor`.

An application with the routes and messages of a face embedding, on the same data plane as `presence serve`: a
gateway that reads the request, a first deployment that is sent the picture and answers with a crop, a second
that is sent the crop and answers with an embedding. The answers are constants. What presence adds to a model
cannot be less than this.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped] # it ships without types
from fastapi import FastAPI, Request
from rich.console import Console

from bench import load
from bench.report import cores, figures, machine, percentile
from bench.service import Service, free_port
from graphs import ray_runtime

AT_A_TIME = (1, 16)
CALLS = (0, 1, 2)
"""To deployments, one after the other, for each request."""
PICTURE_BYTES = 16_000
CROP = (112, 112, 3)
DIM = 512
MOST = 5_000
"""Requests of one measurement at most."""
SETTLE_S = 1.0
"""Load before each measurement that is not counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of asking. cpu_ms: of all processes but the client's, for each request."""

    calls: int
    at_a_time: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float


def application() -> Any:
    """A gateway and two deployments, each one replica, bound for Serve."""
    from ray import serve  # noqa: PLC0415 - Ray reads its environment when it is imported

    from graphs.clients.remote import PICKLED  # noqa: PLC0415 - it imports Ray

    options: dict[str, Any] = {"max_ongoing_requests": 100, "ray_actor_options": {"num_cpus": 0.1}}
    http = FastAPI()

    @serve.deployment(**options)
    class First:
        async def answer(self, picture: bytes) -> Any:  # noqa: ARG002 - it is sent, and nothing is made of it
            return np.zeros(CROP, np.uint8)

    @serve.deployment(**options)
    class Second:
        async def answer(self, crops: list[Any]) -> Any:
            return [np.zeros(DIM, np.float32) for _ in crops]

    @serve.deployment(**options)
    @serve.ingress(http)
    class Gateway:
        def __init__(self, first: Any, second: Any) -> None:
            self._first = first.options(method_name="answer", _by_reference=False, **PICKLED)
            self._second = second.options(method_name="answer", _by_reference=False, **PICKLED)

        @http.post("/{calls}")
        async def ask(self, calls: int, request: Request) -> dict[str, int]:
            picture = (await request.body())[:PICTURE_BYTES]
            crop = await self._first.remote(picture) if calls else None
            if calls > 1:
                await self._second.remote([crop])
            return {"calls": calls}

    return Gateway.bind(First.bind(), Second.bind())  # type: ignore[attr-defined] # Serve's decorators hide it


@contextmanager
def served() -> Iterator[Service]:
    """The application on a free loopback port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="presence-") as directory:
        ray_runtime.protect_token()
        os.environ.update(ray_runtime.environment(port=port, directory=Path(directory)))
        import ray  # noqa: PLC0415 - Ray reads its environment when it is imported
        from ray import serve  # noqa: PLC0415 - Ray reads its environment then

        ray.init(**ray_runtime.init_options(directory=Path(directory)))
        try:
            http = {"host": "127.0.0.1", "port": port, "request_timeout_s": None}
            log = {"enable_access_log": False}
            serve.start(proxy_location="HeadOnly", http_options=http, logging_config=log)
            serve.run(application(), name="floor", route_prefix="/", logging_config=log)
            yield Service(port, psutil.Process())
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call] # Ray leaves it without annotations
            ray.shutdown()


def measured(seconds: float, rounds: int = 1, calls: Sequence[int] = CALLS) -> list[Row]:
    """A row for each round, number of calls, and number of requests at a time."""
    rows: list[Row] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as client, served() as service:

        def asked(job: load.Job) -> load.Load:
            return client.submit(load.run, job).result()

        for number, together in [pair for _ in range(rounds) for pair in product(calls, AT_A_TIME)]:
            request = load.encode(f"/{number}", {"img": "x" * (PICTURE_BYTES * 4 // 3)})
            job = load.Job(service.port, (request,), together, seconds, MOST)
            asked(replace(job, seconds=SETTLE_S))
            before = service.cpu()
            made = asked(job)
            spent = sum(service.spent(before).values()) - made.cpu_s
            rows.append(row(number, together, made, spent))
    return rows


def row(calls: int, at_a_time: int, made: load.Load, cpu_s: float) -> Row:
    """What came of one load. Raises RuntimeError where a request failed."""
    if made.errors:
        raise RuntimeError(f"requests failed: {made.errors}")
    count = len(made.took_ms)
    return Row(
        calls=calls,
        at_a_time=at_a_time,
        requests_per_s=count / made.elapsed_s,
        p50_ms=median(made.took_ms),
        p95_ms=percentile(made.took_ms, 0.95),
        cpu_ms=1000 * cpu_s / count,
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement; 4")
    parser.add_argument("--rounds", type=int, default=3, help="of all of them; 3")
    given = parser.parse_args()
    rows = sorted(measured(given.seconds, given.rounds), key=lambda row: (row.calls, row.at_a_time))
    console = Console(width=150)
    console.print(figures("Ray Serve where nothing is computed", rows))
    console.print(f"load average of the machine: {machine()['load_average']} on {cores()} cores")


if __name__ == "__main__":
    main()
