"""API keys: who may call at all."""

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engines.errors import ConfigurationError
from graphs.http.errors import error_response

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Answered without a key: probes, and the description of the API."""

CARRIED = re.compile(r"[!-~]*")
"""What a header can carry as a key: ASCII without spaces and control characters."""

MESSAGE = "An authentication key is required"


class ApiKeys:
    """ASGI middleware that lets through requests with one of the keys; others get 401.

    A key comes as `Authorization: Bearer <key>`, `Authorization: <key>`, `x-api-key: <key>` or
    `xi-api-key: <key>`. Browsers' preflight requests (OPTIONS) carry none and pass. A WebSocket
    without a key is closed with 1008 before it opens.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._passes(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": MESSAGE})
        else:
            response = error_response(401, MESSAGE, headers={"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        if scope["type"] not in ("http", "websocket"):
            return True
        if scope["type"] == "http" and (scope["method"] == "OPTIONS" or scope["path"] in PUBLIC_PATHS):
            return True
        return any(self._is_key(candidate) for candidate in _candidates(Headers(scope=scope)))

    def _is_key(self, candidate: str) -> bool:
        """Takes the same time for every candidate: all digests are compared, each in full."""
        digest = _digest(candidate.encode("latin-1"))
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _candidates(headers: Headers) -> list[str]:
    found = [*headers.getlist("x-api-key"), *headers.getlist("xi-api-key")]
    for value in headers.getlist("authorization"):
        scheme, _, rest = value.partition(" ")
        found.append(rest.strip() if scheme.lower() == "bearer" else value)
    return found


def load_keys(path: Path | None, text: str | None) -> frozenset[str]:
    """Keys of a file (one a line, lines that begin with # are comments) and of comma-separated text.

    Raises ConfigurationError when the file or the text is there but holds no key, when the file
    cannot be read, and for a key that no header can carry. No message holds a key.
    """
    keys: set[str] = set()
    if path is not None:
        keys |= _file_keys(path)
    if text is not None:
        keys |= _checked(text.split(","), "the list of API keys", "entry")
    return frozenset(keys)


def _file_keys(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the file of API keys is not readable: {error}") from None
    return _checked(["" if line.lstrip().startswith("#") else line for line in lines], str(path), "line")


def _checked(entries: list[str], source: str, unit: str) -> set[str]:
    stripped = [entry.strip() for entry in entries]
    for number, key in enumerate(stripped, start=1):
        if not CARRIED.fullmatch(key):
            raise ConfigurationError(
                f"{source}: {unit} {number}: a key consists of ASCII characters without spaces"
            )
    keys = {key for key in stripped if key}
    if not keys:
        raise ConfigurationError(f"{source}: holds no API key; add one, or leave the setting out")
    return keys
