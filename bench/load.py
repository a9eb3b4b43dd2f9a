"""Load generator: a closed loop over keep-alive HTTP/1.1 connections, with requests encoded beforehand.

It shares the cores with the service that it measures, so it does as little as it can, in one process of
its own. An answer is read by its content-length and nothing of its body is looked at.
"""

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field

HANG_S = 120
"""How long after its end a loop may still wait for answers."""

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)
BROKEN = "connection"
"""Name, among the errors, of requests whose connection broke or whose answer was no HTTP."""


class BadAnswerError(Exception):
    """The answer is not HTTP/1.1 with a content-length."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to ask: the requests in turn, from `concurrency` connections, for `seconds`, at most `most` times.

    requests: whole HTTP requests, head and body.
    """

    port: int
    requests: tuple[bytes, ...] = field(repr=False)
    concurrency: int
    seconds: float
    most: int
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. Answers that were in flight at the end are waited for and counted.

    took_ms: milliseconds of each answer with status 200. errors: how many of each other status.
    elapsed_s: from the first request to the last answer. cpu_s: CPU time of the generator.
    """

    took_ms: tuple[float, ...] = field(repr=False)
    errors: dict[str, int]
    elapsed_s: float
    cpu_s: float


def encode(path: str, body: dict[str, str]) -> bytes:
    """A POST of JSON as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data


class Connection:
    """One client: sends a request, waits for its answer. Opens again what the server closed."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection, made if there is none. Raises OSError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        return self._streams

    async def close(self) -> None:
        """Closes the connection if there is one."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def ask(self, request: bytes) -> int:
        """The status. Raises OSError or EOFError when the connection breaks, BadAnswerError."""
        reader, writer = await self.open()
        writer.write(request)
        await writer.drain()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise BadAnswerError("the head of the answer is too long") from None
        length = LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 ") or length is None:
            raise BadAnswerError(head[:80])
        await reader.readexactly(int(length[1]))
        if CLOSE.search(head):
            await self.close()
        return int(head[9:12])


async def closed_loop(job: Job) -> Load:
    """Each connection sends its next request as soon as its last one was answered."""
    took: list[float] = []
    errors: Counter[str] = Counter()
    turns = itertools.islice(itertools.cycle(job.requests), job.most)
    connections = [Connection(job.host, job.port) for _ in range(job.concurrency)]
    for connection in connections:
        await connection.open()
    began, began_cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(job.seconds + HANG_S), asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(_client(connection, turns, began + job.seconds, took, errors))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    for connection in connections:
        await connection.close()
    return Load(tuple(took), dict(errors), elapsed, cpu)


async def _client(
    connection: Connection,
    turns: "itertools.islice[bytes]",
    end: float,
    took: list[float],
    errors: Counter[str],
) -> None:
    while (began := time.perf_counter()) < end and (request := next(turns, None)) is not None:
        try:
            status = str(await connection.ask(request))
        except (OSError, EOFError, BadAnswerError):
            await connection.close()
            status = BROKEN
        if status == "200":
            took.append((time.perf_counter() - began) * 1000)
        else:
            errors[status] += 1


def run(job: Job) -> Load:
    """The closed loop in an event loop of its own: what the generator's process is asked for."""
    return asyncio.run(closed_loop(job))
