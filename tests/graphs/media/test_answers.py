"""What servers answer: bodies, limits of size and time, and all that is no picture."""

import asyncio
import gzip
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import pytest

from engines.errors import DeadlineExceeded, InvalidInput, MediaUnavailable, TooLarge
from graphs.media import MediaReader, MediaRules

MAX_BYTES = 1000
LOOPBACK = MediaRules(max_bytes=MAX_BYTES, fetch_timeout_s=5, allow_networks=("127.0.0.0/8",))

Serve = Callable[..., Awaitable[int]]
Read = Callable[..., Coroutine[None, None, bytes]]


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_fetches_and_says_little_of_itself(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    port = await serve(answer(b"picture"), seen=seen)
    assert await read(f" HTTP://127.0.0.1:{port}/a b/\u00e9%20c;v=1?q=\u00e9&r=%2F[0]#part ") == b"picture"
    (request,) = seen
    line, *headers = request.decode().strip().split("\r\n")
    assert line == "GET /a%20b/%C3%A9%20c;v=1?q=%C3%A9&r=%2F[0] HTTP/1.1"
    assert sorted(headers) == [
        "Accept-Encoding: identity",
        "Accept: */*",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: presence",
    ]


async def test_fetches_over_ipv6(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    try:
        port = await serve(answer(b"picture"), host="::1", seen=seen)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    rules = MediaRules(allow_networks=("::1",))
    assert await read(f"http://[::1]:{port}/", rules) == b"picture"
    assert f"Host: [::1]:{port}\r\n".encode() in seen[0]


async def test_chunks_and_bodies_without_a_length(serve: Serve, read: Read) -> None:
    chunked = answer(b"4\r\npict\r\n3\r\nure\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked")
    port = await serve(chunked, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npicture")
    assert await read(f"http://127.0.0.1:{port}/") == b"picture"
    assert await read(f"http://127.0.0.1:{port}/") == b"picture"


async def test_a_connection_is_used_again_for_the_same_origin(serve: Serve) -> None:
    port = await serve(answer(b"one"), answer(b"two"))
    resolved: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        resolved.append(f"{host}:{port}")
        return ["127.0.0.1"]

    reader = MediaReader(LOOPBACK, resolve)
    assert await reader.read(f"http://pictures.test:{port}/1", "img", math.inf) == b"one"
    assert await reader.read(f"http://pictures.test:{port}/2", "img", math.inf) == b"two"
    assert resolved == [f"pictures.test:{port}"]
    await reader.close()


@pytest.mark.parametrize(
    "status",
    ["404 Not Found", "500 Oops", "401 Unauthorized", "304 Not Modified", "302 Found"],
)
async def test_only_2xx_counts(serve: Serve, read: Read, status: str) -> None:
    port = await serve(answer(b"an error page", status))
    with pytest.raises(MediaUnavailable, match=f"answered with status {status[:3]}"):
        await read(f"http://127.0.0.1:{port}/")


async def test_an_empty_answer(serve: Serve, read: Read) -> None:
    port = await serve(b"HTTP/1.1 204 No Content\r\n\r\n")
    with pytest.raises(InvalidInput, match="img: empty"):
        await read(f"http://127.0.0.1:{port}/")


async def test_a_declared_length_over_the_limit_is_refused_unread(serve: Serve, read: Read) -> None:
    port = await serve(answer(b"", "200 OK", f"Content-Length: {MAX_BYTES + 1}"))
    with pytest.raises(TooLarge, match="img: more than 1000 bytes"):
        await read(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("head", [b"Connection: close\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
async def test_an_endless_body_is_cut_at_the_limit(serve: Serve, read: Read, head: bytes) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = b"x" * 400
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            writer.write(b"190\r\n" + piece + b"\r\n" if b"chunked" in head else piece)
            await writer.drain()

    port = await serve(flood)
    with pytest.raises(TooLarge):
        await read(f"http://127.0.0.1:{port}/")


async def test_a_body_at_the_limit_is_read(serve: Serve, read: Read) -> None:
    port = await serve(answer(b"x" * MAX_BYTES))
    assert len(await read(f"http://127.0.0.1:{port}/")) == MAX_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip"])
async def test_compressed_content_is_not_unpacked(serve: Serve, read: Read, encoding: str) -> None:
    bomb = gzip.compress(bytes(500_000))
    assert len(bomb) < MAX_BYTES
    port = await serve(answer(bomb, "200 OK", f"Content-Encoding: {encoding}"))
    with pytest.raises(MediaUnavailable, match="compressed"):
        await read(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"SSH-2.0-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        answer(b"half", "200 OK", "Content-Length: 8", "Connection: close"),
        answer(b"x", "200 OK", "Content-Length: 1", "Content-Length: 2"),
        answer(b"x", "200 OK", "Content-Length: -1"),
        answer(b"x", "200 OK", "Content-Length: " + "9" * 5000),
        answer(b"zz\r\npict\r\n", "200 OK", "Transfer-Encoding: chunked"),
        answer(b"4\r\npicture\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked"),
        answer(b"4\r\npict\r\n", "200 OK", "Transfer-Encoding: chunked", "Connection: close"),
        answer(b"x", "200 OK", "Transfer-Encoding: gzip"),
    ],
    ids=["nothing", "ssh", "endless-header", "upgrade", "bad-header", "early-end", "two-lengths",
         "negative-length", "huge-length", "chunk-garbage", "chunk-overrun", "chunks-cut-off",
         "unknown-coding"],
)  # fmt: skip
async def test_answers_that_are_no_http(serve: Serve, read: Read, script: bytes) -> None:
    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(script)
        await writer.drain()

    port = await serve(once)
    with pytest.raises(MediaUnavailable, match="no valid HTTP answer"):
        await read(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
async def test_a_slow_answer_ends_at_the_time_limit(serve: Serve, read: Read, start: bytes) -> None:
    gone = asyncio.Event()

    async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await writer.drain()
        await gone.wait()

    port = await serve(stall)
    rules = MediaRules(fetch_timeout_s=0.2, allow_networks=("127.0.0.1",))
    try:
        with pytest.raises(MediaUnavailable, match=r"no complete answer within 0\.2 s"):
            await read(f"http://127.0.0.1:{port}/", rules)
    finally:
        gone.set()


async def test_a_trickle_does_not_outlive_the_time_limit(serve: Serve, read: Read) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)  # the pace of the server, not a synchronisation

    port = await serve(trickle)
    rules = MediaRules(max_bytes=MAX_BYTES, fetch_timeout_s=0.3, allow_networks=("127.0.0.1",))
    with pytest.raises(MediaUnavailable, match="no complete answer"):
        await read(f"http://127.0.0.1:{port}/", rules)


async def test_a_name_server_that_does_not_answer_ends_at_the_time_limit(read: Read) -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        del host, port
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(MediaUnavailable, match="no complete answer"):
        await read("http://pictures.test/", MediaRules(fetch_timeout_s=0.1), never)


async def test_unknown_and_unreachable_hosts_are_told_the_same(serve: Serve, read: Read) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(f"no address for {host}:{port}")

    async def closed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port = await serve(closed, host="127.0.0.9")
    messages = set()
    for url, resolve in ((f"http://127.0.0.8:{port}/", None), ("http://pictures.test/", unknown)):
        with pytest.raises(MediaUnavailable) as caught:
            await read(url, LOOPBACK, resolve)
        messages.add(caught.value.message)
    assert messages == {"img: the host of the URL cannot be reached, or its certificate is not valid"}


async def test_cancelling_a_read_closes_its_connection(serve: Serve, read: Read) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.set()
        assert await reader.read() == b""
        closed.set()

    port = await serve(hold)
    reading = asyncio.create_task(read(f"http://127.0.0.1:{port}/"))
    await asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(10):
        await closed.wait()


async def test_a_deadline_before_the_time_limit_ends_a_fetch(serve: Serve, read: Read) -> None:
    gone = asyncio.Event()

    async def stall(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await gone.wait()

    port = await serve(stall)
    rules = MediaRules(fetch_timeout_s=60, allow_networks=("127.0.0.1",))
    try:
        for left in (0.2, -1):
            with pytest.raises(DeadlineExceeded, match="before the deadline"):
                await read(f"http://127.0.0.1:{port}/", rules, deadline=time.time() + left)
    finally:
        gone.set()
