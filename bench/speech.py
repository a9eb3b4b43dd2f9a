"""Speech beside the bare engine: `python -m bench.speech`.

The text of some sentences is spoken by the engine alone in this process, then by the service, whole and as a
stream, to one client and to several. Real-time factor: seconds of speaking over seconds of sound, of all
clients together; first sound: until the first byte of it is there.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from bench.report import cores, machine, percentile
from bench.service import PROFILE, running
from deployments.messages import SpeakRequest
from deployments.speaking import Speaker, Speech
from engines.tts.formats import Target
from engines.types import EngineOptions, Runtime
from graphs.settings import ModelFile

CLIENTS = (1, 8)
TEXT = (
    "The harbour was quiet that morning. A single boat came in, with its lamps still lit. "
    "Nobody spoke of where it had been, and nobody asked. Only the gulls, which ask everybody, cried. "
    "By noon the nets were dry, the fish were sold, and the children had found the bell."
)
RATE = 22_050
"""Samples a second of what is asked for, so that seconds of sound are bytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of speaking. first_ms: to the first sound, medians and 95 %. text_ms: to the last byte."""

    way: str
    clients: int
    texts: int
    first_ms: float
    first_p95_ms: float
    text_ms: float
    factor: float


@dataclass(slots=True)
class Times:
    """Seconds to the first sound and to the last byte of each text, and seconds of sound of all."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    sound: float = 0.0

    def row(self, way: str, clients: int, elapsed_s: float) -> Row:
        """The figures of one measurement that took so long."""
        return Row(
            way,
            clients,
            len(self.whole),
            median(self.first) * 1000,
            percentile(self.first, 0.95) * 1000,
            median(self.whole) * 1000,
            elapsed_s / self.sound,
        )


def entry(model: str) -> dict[str, Any]:
    """The entry of the default profile, one replica a core."""
    entries = yaml.safe_load(PROFILE.read_text())["applications"][0]["args"]["models"]
    found: dict[str, Any] = next(one for one in entries if one["name"] == model)
    return found | {"deployment": {"synthesizer": {"min_replicas": cores()}}}


def bare(model: ModelFile, seconds: float) -> Row:
    """The engine, its sentences, shaping and encoding, without HTTP and Ray."""
    options = EngineOptions(model.parameters.model, dict(model.options))
    speaker = Speaker.load(model.engine, options, Runtime())
    times, began = Times(), 0.0
    while not times.whole or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        speech = Speech(speaker, SpeakRequest(TEXT, Target("pcm", RATE)), threading.Event())
        size, first = 0, 0.0
        while not speech.done:
            size += len(speech.step().data)
            first = first or time.perf_counter() - start
        if not began:  # the first text warms up
            began = time.perf_counter()
            continue
        times.first.append(first)
        times.whole.append(time.perf_counter() - start)
        times.sound += size / 2 / RATE
    return times.row("bare engine", 1, time.perf_counter() - began)


async def served(port: int, model: str, clients: int, seconds: float, *, stream: bool) -> Row:
    """The service, asked by so many clients, each again as soon as it has its answer."""
    body = {"model": model, "input": TEXT, "response_format": "pcm", "sample_rate": RATE, "stream": stream}
    times = Times()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        for _ in range(3):  # what has just started answers slowly
            await asyncio.gather(*(ask(client, body, Times()) for _ in range(clients)))
        began = time.perf_counter()

        async def loop() -> None:
            while time.perf_counter() - began < seconds:
                await ask(client, body, times)

        await asyncio.gather(*(loop() for _ in range(clients)))
        return times.row("stream" if stream else "whole", clients, time.perf_counter() - began)


async def ask(client: httpx.AsyncClient, body: dict[str, Any], times: Times) -> None:
    """Asks once and writes down how long it took. Raises httpx.HTTPError when it was not spoken."""
    start, first, size = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/tts", json=body) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_raw():
            first = first or time.perf_counter() - start
            size += len(piece)
    times.first.append(first)
    times.whole.append(time.perf_counter() - start)
    times.sound += size / 2 / RATE


def run(model: str, seconds: float, clients: Sequence[int]) -> list[Row]:
    """Every row: the bare engine, then the service."""
    chosen = entry(model)
    rows = [bare(ModelFile.model_validate(chosen), seconds)]
    with tempfile.TemporaryDirectory(prefix="bench-") as name, running([chosen], Path(name)) as service:
        rows += [
            asyncio.run(served(service.port, model, number, seconds, stream=stream))
            for number in clients
            for stream in (False, True)
        ]
    return rows


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    made = Table(title=f"{len(TEXT)} characters, 6 sentences")
    for heading in (
        "way",
        "clients",
        "texts",
        "first sound p50 (p95) ms",
        "whole text p50 ms",
        "real-time factor",
    ):
        made.add_column(heading, justify="right")
    for row in rows:
        first = f"{row.first_ms:.1f} ({row.first_p95_ms:.1f})"
        made.add_row(
            row.way, str(row.clients), str(row.texts), first, f"{row.text_ms:.1f}", f"{row.factor:.4f}"
        )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON where it is told to."""
    parser = argparse.ArgumentParser(prog="python -m bench.speech", description=__doc__)
    parser.add_argument("--model", default="espeak-ng", help="of the default profile; espeak-ng")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement; 10")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="1 8")
    parser.add_argument("--json", type=Path, help="where every figure is written")
    given = parser.parse_args(arguments)
    facts = machine()
    rows = run(given.model, given.seconds, given.clients)
    console = Console(width=120)
    console.print(table(rows))
    console.print(", ".join(f"{key} {value}" for key, value in facts.items() if not isinstance(value, dict)))
    if given.json:
        given.json.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
