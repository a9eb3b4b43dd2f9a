"""Body size and requests in flight."""

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from fastapi import Body, FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphs.http import errors
from graphs.http.limits import DROPPED_BYTES, Admission, BodyLimit

LIMIT = 100


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://presence")


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes of the body."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def fastapi_length() -> FastAPI:
    app = FastAPI()
    errors.install(app)

    @app.post("/")
    async def post(body: bytes = Body()) -> int:
        return len(body)

    return app


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


def is_too_large(answer: httpx.Response) -> bool:
    assert answer.json() == {
        "error": {
            "code": 413,
            "message": f"the request body has more than {LIMIT} bytes",
            "type": "invalid_request_error",
        }
    }
    return answer.status_code == 413 and answer.headers["connection"] == "close"


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_declared_body_up_to_the_limit_arrives_whole(size: int) -> None:
    async with client(BodyLimit(length, LIMIT, 5)) as http:
        assert (await http.post("/", content=b"x" * size)).text == str(size)


async def test_a_counted_body_up_to_the_limit_arrives_whole() -> None:
    async with client(BodyLimit(length, LIMIT, 5)) as http:
        assert (await http.post("/", content=chunks(60, 0, 40))).text == "100"


async def scripted(app: ASGIApp, headers: list[tuple[bytes, bytes]], *messages: Message) -> list[str | int]:
    """What happens, in order: the status and the end of the answer, and sizes of what was received."""
    incoming = list(messages)
    happened: list[str | int] = []

    async def receive() -> Message:
        message = incoming.pop(0)
        happened.append(len(message.get("body", b"")))
        return message

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            happened.append(f"status {message['status']}")
        elif not message.get("more_body", False):
            happened.append("end")

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return happened


def part(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise AssertionError


@pytest.mark.parametrize("declared", [b"101", b"9" * 5000])
async def test_a_declared_body_over_the_limit_is_refused_before_it_is_read(declared: bytes) -> None:
    headers = [(b"content-length", declared)]
    assert await scripted(BodyLimit(never, LIMIT, 5), headers, part(60), part(41, more=False)) == [
        "status 413", 60, 41, "end",
    ]  # fmt: skip


async def test_a_client_that_asks_first_is_not_asked_to_send() -> None:
    headers = [(b"content-length", b"101"), (b"expect", b"100-continue")]
    assert await scripted(BodyLimit(never, LIMIT, 5), headers, part(101)) == ["status 413", "end"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")], [(b"content-length", b"\xb2")]])
async def test_a_body_that_grows_over_the_limit_is_refused_at_once(
    headers: list[tuple[bytes, bytes]],
) -> None:
    limited = BodyLimit(length, LIMIT, 5)
    parts = part(60), part(41), part(1), part(2, more=False), part(3)
    assert await scripted(limited, headers, *parts) == [60, 41, "status 413", 1, 2, "end"]
    assert await scripted(limited, headers, part(101, more=False), part(3)) == [101, "status 413", "end"]
    gone: Message = {"type": "http.disconnect"}
    assert await scripted(limited, headers, part(101), gone, part(3)) == [101, "status 413", 0, "end"]


async def test_only_so_much_of_a_refused_body_is_dropped() -> None:
    half = part(DROPPED_BYTES // 2)
    happened = await scripted(BodyLimit(length, LIMIT, 5), [], part(101), half, half, part(1))
    assert happened == [101, "status 413", DROPPED_BYTES // 2, DROPPED_BYTES // 2, "end"]


async def test_a_client_that_writes_before_it_reads_gets_the_answer() -> None:
    config = uvicorn.Config(BodyLimit(length, 1000, 5), port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with httpx.AsyncClient() as http:
            declared = await http.post(url, content=b"x" * (16 * 2**20))
            counted = await http.post(url, content=chunks(*[2**20] * 16))
        server.should_exit = True
        await serving
    assert [declared.status_code, counted.status_code] == [413, 413]


@pytest.mark.parametrize("app", [length, fastapi_length()], ids=["asgi", "fastapi"])
async def test_one_error_body_whoever_reads(app: ASGIApp) -> None:
    async with client(BodyLimit(app, LIMIT, 5)) as http:
        assert is_too_large(await http.post("/", content=b"x" * 101))
        assert is_too_large(await http.post("/", content=chunks(60, 41)))


async def test_an_answer_that_has_begun_is_left_alone() -> None:
    async def early(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"end"})

    happened = await scripted(BodyLimit(early, LIMIT, 5), [], part(100), part(1), part(1))
    assert happened == ["status 200", 100, 1, "end"]


async def test_a_client_that_really_leaves_is_not_hidden() -> None:
    with pytest.raises(ClientDisconnect):
        await scripted(BodyLimit(length, LIMIT, 5), [], part(1), {"type": "http.disconnect"})


class Held:
    """An application whose requests stay until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.release()
        await self.go.wait()
        await PlainTextResponse("done")(scope, receive, send)


async def test_requests_beyond_the_limit_are_told_to_come_back() -> None:
    held = Held()
    async with client(Admission(held, max_in_flight=2)) as http:
        running = [asyncio.create_task(http.get("/v1/models")) for _ in range(2)]
        for _ in running:
            await held.entered.acquire()
        refused = await http.get("/v1/models")
        held.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
        assert (await http.get("/v1/models")).status_code == 200
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["code"] == 503


async def test_a_cancelled_request_gives_its_place_back() -> None:
    held = Held()
    async with client(Admission(held, max_in_flight=1)) as http:
        leaving = asyncio.create_task(http.get("/v1/models"))
        await held.entered.acquire()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        held.go.set()
        assert (await http.get("/v1/models")).status_code == 200


async def test_a_request_that_fails_gives_its_place_back() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the ASGI signature
        raise RuntimeError("broken")

    async with client(Admission(broken, max_in_flight=1)) as http:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="broken"):
                await http.get("/v1/models")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_are_answered_however_busy(path: str) -> None:
    held = Held()
    async with client(Admission(held, max_in_flight=1)) as http:
        running = asyncio.create_task(http.get("/v1/models"))
        await held.entered.acquire()
        probe = asyncio.create_task(http.get(path))
        await held.entered.acquire()
        held.go.set()
        assert (await probe).status_code == 200
        assert (await running).status_code == 200


async def test_other_scopes_pass_untouched() -> None:
    seen: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError(message)

    for app in (BodyLimit(note, 0, 5), Admission(note, 0)):
        for kind in ("lifespan", "websocket"):
            await app({"type": kind, "headers": []}, receive, send)
    assert seen == ["lifespan", "websocket"] * 2


async def test_a_body_that_does_not_come_is_answered_408() -> None:
    sent: list[Message] = []

    async def stalled() -> Message:
        if sent or asked:
            await asyncio.Event().wait()
        asked.append(1)
        return {"type": "http.request", "body": b"half", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    asked: list[int] = []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    async with asyncio.timeout(10):
        await BodyLimit(length, 100, 0.05)(scope, stalled, send)
    assert sent[0]["status"] == 408


async def test_a_complete_body_may_wait_for_its_answer() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await length(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": b"all", "more_body": False}]
    statuses: list[int] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.get_running_loop().call_later(0.2, gone.set)
    async with asyncio.timeout(10):
        await BodyLimit(slow, 100, 0.05)(scope, receive, send)
    assert statuses[0] == 200
