"""The load generator against a small server on a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.load import BROKEN, BadAnswerError, Connection, Job, Load, closed_loop, encode

Answer = Callable[[int], bytes]
"""From the number of the request, counted from 1 over all connections, to the bytes that are sent back."""

REQUEST = encode("/v1/face/embed", {"model": "m", "img": "aGVsbG8="})


class Server:
    """Reads whole requests and answers them; counts what it sees. An empty answer closes the connection."""

    def __init__(self, answer: Answer, close_after: int | None) -> None:
        self._answer = answer
        self._close_after = close_after
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                answer = self._answer(len(self.heads))
                for _ in range(3):  # others get their turn while this one is in flight
                    await asyncio.sleep(0)
                self.in_flight -= 1
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
                if len(self.heads) == self._close_after:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, close_after: int | None = None) -> AsyncIterator[tuple[Server, int]]:
    server = Server(answer, close_after)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]


def ok(body: bytes = b'{"dim":128}', length: str = "content-length", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%b: %d\r\n%b\r\n%b" % (length.encode(), len(body), extra, body)


async def load(port: int, most: int, concurrency: int = 1, seconds: float = 60) -> Load:
    return await closed_loop(Job(port, (REQUEST,), concurrency, seconds, most))


async def test_a_request_arrives_as_http_with_its_json() -> None:
    async with serving(lambda _: ok()) as (server, port):
        made = await load(port, most=1)
    assert server.heads[0].startswith(b"POST /v1/face/embed HTTP/1.1\r\n")
    assert json.loads(server.bodies[0]) == {"model": "m", "img": "aGVsbG8="}
    assert len(made.took_ms) == 1
    assert made.errors == {}


async def test_connections_are_kept_and_the_count_bounds_the_loop() -> None:
    async with serving(lambda _: ok()) as (server, port):
        made = await load(port, most=50, concurrency=4)
    assert len(made.took_ms) == len(server.heads) == 50
    assert server.connections == 4
    assert server.most_in_flight == 4


async def test_no_request_begins_after_the_time() -> None:
    async with serving(lambda _: ok()) as (server, port):
        made = await load(port, most=50, seconds=0)
    assert made.took_ms == ()
    assert server.heads == []


async def test_requests_are_sent_in_turn() -> None:
    pictures = [encode("/", {"img": name}) for name in "abc"]
    async with serving(lambda _: ok()) as (server, port):
        await closed_loop(Job(port, tuple(pictures), 1, 60, 7))
    assert [json.loads(body)["img"] for body in server.bodies] == list("abcabca")


async def test_other_statuses_are_errors_and_have_no_latency() -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
    async with serving(lambda number: busy if number % 2 else ok()) as (_, port):
        made = await load(port, most=10)
    assert len(made.took_ms) == 5
    assert made.errors == {"503": 5}


async def test_a_broken_connection_is_an_error_and_the_loop_goes_on() -> None:
    async with serving(lambda number: b"" if number == 2 else ok()) as (server, port):
        made = await load(port, most=5)
    assert made.errors == {BROKEN: 1}
    assert len(made.took_ms) == 4
    assert server.connections == 2


async def test_an_answer_cut_short_is_no_answer() -> None:
    async with serving(lambda _: ok()[:-4], close_after=1) as (_, port):
        made = await load(port, most=1)
    assert made.errors == {BROKEN: 1}
    assert made.took_ms == ()


async def asked(answer: bytes) -> int:
    async with serving(lambda _: answer) as (_, port):
        connection = Connection("127.0.0.1", port)
        try:
            return await connection.ask(REQUEST)
        finally:
            await connection.close()


@pytest.mark.parametrize("name", ["content-length", "Content-Length", "CONTENT-LENGTH"])
async def test_the_length_is_found_however_it_is_spelled(name: str) -> None:
    assert await asked(ok(length=name)) == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**17 + b"\r\n\r\n",
    ],
)
async def test_what_cannot_be_measured_is_refused(answer: bytes) -> None:
    with pytest.raises(BadAnswerError):
        await asked(answer)


async def test_a_server_that_closes_is_connected_to_again() -> None:
    async with serving(lambda _: ok(extra=b"Connection: close\r\n")) as (server, port):
        made = await load(port, most=3)
    assert len(made.took_ms) == 3
    assert server.connections == 3


async def test_times_are_those_of_the_loop() -> None:
    async with serving(lambda _: ok()) as (_, port):
        made = await load(port, most=20)
    assert 0 < sum(made.took_ms) <= made.elapsed_s * 1000
    assert made.cpu_s > 0
