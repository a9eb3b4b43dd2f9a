"""Errors in the shape that clients of one API expect."""

import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIXES = ("/v1/text-to-speech/", "/v1/sound-generation", "/v1/voices", "/v2/voices")
WORDS = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "model_disabled",
    404: "not_found",
    408: "request_timeout",
    413: "too_large",
    503: "system_busy",
    504: "deadline_exceeded",
}
"""ElevenLabs' `status` for each status of HTTP."""


class DetailErrors:
    """ASGI middleware: errors of ElevenLabs' routes as {"detail": {"status", "message"}}.

    Of the routes that others have too, those asked for with the header xi-api-key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_elevenlabs(scope):
            send = _Detailed(send)
        await self._app(scope, receive, send)


def _is_elevenlabs(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(PREFIXES) or (path == "/v1/models" and "xi-api-key" in Headers(scope=scope))


class _Detailed:
    """Sends what it is given; an error when its body is complete, in the other shape."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._answer(self._start)

    async def _answer(self, start: Message) -> None:
        body = _detail(start["status"], self._body)
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["content-length"] = str(len(body))
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _detail(status: int, body: bytes) -> bytes:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return body
    return json.dumps({"detail": {"status": WORDS.get(status, "error"), "message": message}}).encode()
