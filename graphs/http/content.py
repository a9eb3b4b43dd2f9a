"""Bodies without a content type."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

FORM = "application/x-www-form-urlencoded"


class JsonByDefault:
    """Reads a body as JSON when its content type is missing or the one that `curl -d` sends.

    No route takes such forms, and curl lines without a header are common.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            if headers.get("content-type", FORM).partition(";")[0].strip().lower() == FORM:
                headers["content-type"] = "application/json"
        await self._app(scope, receive, send)
