"""Bodies without a content type, or with the one that `curl -d` sends, are JSON."""

import httpx
import pytest
from fastapi import FastAPI, Request

from graphs.http.content import JsonByDefault


async def seen(headers: dict[str, str]) -> str:
    """The content type that the application sees."""
    app = FastAPI()
    app.add_middleware(JsonByDefault)

    @app.post("/")
    async def tell(request: Request) -> str:
        return request.headers.get("content-type", "none")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/", content=b"{}", headers=headers)
    return str(answer.json())


@pytest.mark.parametrize(
    "given",
    [
        None,
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        " application/x-www-form-urlencoded ",
        "application/json",
    ],
)
async def test_forms_and_nothing_become_json(given: str | None) -> None:
    assert await seen({} if given is None else {"content-type": given}) == "application/json"


@pytest.mark.parametrize("given", ["application/json; charset=utf-8", "text/plain", "multipart/form-data"])
async def test_other_types_stay(given: str) -> None:
    assert await seen({"content-type": given}) == given


async def test_other_scopes_pass() -> None:
    reached = []

    async def app(scope: object, receive: object, send: object) -> None:  # noqa: ARG001 - ASGI names them
        reached.append(scope)

    async def never() -> dict[str, object]:
        raise AssertionError("nothing is read")

    async def drop(message: object) -> None:
        raise AssertionError(f"nothing is sent: {message}")

    await JsonByDefault(app)({"type": "lifespan"}, never, drop)
    assert reached == [{"type": "lifespan"}]
