"""Request ids and the access log."""

import asyncio
import logging
import re
import time
import uuid
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("presence.access")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered; empty outside of requests."""

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_GONE = 499
"""Status in the log of a request whose client left before its answer began."""


class RequestIds:
    """ASGI middleware, the outermost: gives each request an id and logs one line for it.

    The client's `x-request-id` is taken when it has at most 128 characters of A-Z a-z 0-9 . _ -.
    The id is in `scope["state"]["request_id"]`, in `request_id` and in the answer's `x-request-id`.
    echo=False leaves the answer alone, for a server that adds the header itself, as Ray Serve does.
    The line tells method, path without query, status, milliseconds and id; nothing of the body.
    """

    def __init__(self, app: ASGIApp, *, echo: bool = True) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = _id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = own
        token = request_id.set(own)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._echo:
                    MutableHeaders(scope=message)["x-request-id"] = own
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            status = status or CLIENT_GONE
            raise
        finally:
            took_ms = (time.perf_counter() - started) * 1000
            logger.info(
                "%s %s %d %.1f ms %s", scope["method"], quote(scope["path"]), status or 500, took_ms, own
            )
            request_id.reset(token)


def _id(offered: str) -> str:
    return offered if SANE_ID.fullmatch(offered) else uuid.uuid4().hex
