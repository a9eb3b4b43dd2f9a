"""Limits of one gateway replica: how large a body may be, how many requests run at a time."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphs.http.errors import error_response

UNLIMITED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered however busy the replica is."""


DROPPED_BYTES = 64 * 2**20
DROPPING_S = 5.0
"""How much of a refused body is read and dropped at most, and for how long."""


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `max_bytes`, 408 for one that takes over `max_s` to come.

    A declared length is refused before anything is read; a body without one is counted as it comes.
    After the answer a little more of the body is read and dropped, so that a client that writes
    before it reads gets the answer rather than a broken connection.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_s = max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _CountedExchange(scope, receive, send, self._max_bytes, self._max_s)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > self._max_bytes):
            await exchange.refuse_size(more="expect" not in headers)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            if not exchange.refused:
                raise


class _CountedExchange:
    """One request. Once its body is too large or too late the application sees a client that has gone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int, max_s: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._until = asyncio.get_running_loop().time() + max_s
        self._complete = False
        self._received = 0
        self._started = False
        self.refused = False

    async def receive(self) -> Message:
        if self.refused or self._received > self._max_bytes:
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(None if self._complete else self._until):
                message = await self._receive()
        except TimeoutError:
            await self._refuse(408, "the request body did not come in time", more=False)
            return {"type": "http.disconnect"}
        self._complete = self._complete or not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received <= self._max_bytes:
            return message
        await self.refuse_size(more=message.get("more_body", False))
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._started = True
            await self._send(message)

    async def refuse_size(self, more: bool) -> None:
        """Answers 413, then drops what still comes if there is `more`."""
        await self._refuse(413, f"the request body has more than {self._max_bytes} bytes", more)

    async def _refuse(self, status: int, reason: str, more: bool) -> None:
        if self._started:
            return
        self.refused = True

        async def send(message: Message) -> None:
            if message["type"] != "http.response.body" or not more:
                await self._send(message)
                return
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            await self._send({"type": "http.response.body", "body": b""})

        response = error_response(status, reason, headers={"Connection": "close"})
        await response(self._scope, self._receive, send)

    async def _drop_rest(self) -> None:
        left = DROPPED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DROPPING_S):
                while left > 0:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))


class Admission:
    """ASGI middleware: 503 with Retry-After for requests beyond `max_in_flight` at a time."""

    def __init__(self, app: ASGIApp, max_in_flight: int) -> None:
        self._app = app
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._max_in_flight:
            response = error_response(503, "busy: too many requests at a time", headers={"Retry-After": "1"})
            await response(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
