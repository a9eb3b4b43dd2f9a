"""Request ids and the access log."""

import asyncio
import logging
import re

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from graphs.http.requests import RequestIds, request_id


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the id as the application sees it."""
    seen = {"state": scope["state"]["request_id"], "context": request_id.get()}
    await JSONResponse(seen, status_code=202)(scope, receive, send)


async def ask(app: ASGIApp, path: str = "/v1/models", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(RequestIds(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://presence") as client:
        return await client.post(path, headers=headers, content=b"biometric-body")


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "presence.access")
    return caplog


@pytest.mark.parametrize("offered", ["a", "Trace-1_2.3", "z" * 128])
async def test_a_sane_id_of_the_client_is_taken(offered: str) -> None:
    answer = await ask(tell, **{"x-request-id": offered})
    assert answer.json() == {"state": offered, "context": offered}
    assert answer.headers["x-request-id"] == offered
    assert request_id.get() == ""


@pytest.mark.parametrize("offered", ["", "z" * 129, "a b", "a\tb", "<script>", "a/b", "id%0aforged"])
async def test_any_other_id_is_replaced(offered: str) -> None:
    answer = await ask(tell, **{"x-request-id": offered})
    made = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert answer.json() == {"state": made, "context": made}


async def test_each_request_has_its_own_id() -> None:
    answers = await asyncio.gather(*(ask(tell) for _ in range(20)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20
    assert all(answer.json()["context"] == answer.headers["x-request-id"] for answer in answers)


async def test_an_id_of_the_application_does_not_stay_beside_ours() -> None:
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({}, headers={"X-Request-ID": "other"})(scope, receive, send)

    answer = await ask(other, **{"x-request-id": "ours"})
    assert answer.headers.get_list("x-request-id") == ["ours"]


async def test_the_answer_is_left_to_a_server_that_adds_the_id_itself(
    access: pytest.LogCaptureFixture,
) -> None:
    transport = httpx.ASGITransport(RequestIds(tell, echo=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://presence") as client:
        answer = await client.get("/", headers={"x-request-id": "id-2"})
    assert "x-request-id" not in answer.headers
    assert answer.json() == {"state": "id-2", "context": "id-2"}
    assert re.fullmatch(r"GET / 202 \d+\.\d ms id-2", access.messages[0])


async def test_one_line_without_query_body_and_key(access: pytest.LogCaptureFixture) -> None:
    await ask(tell, "/v1/models?name=private", Authorization="Bearer secret", **{"x-request-id": "id-1"})
    (record,) = access.records
    assert record.levelno == logging.INFO
    assert re.fullmatch(r"POST /v1/models 202 \d+\.\d ms id-1", record.getMessage())


async def test_a_path_cannot_forge_a_line(access: pytest.LogCaptureFixture) -> None:
    await ask(tell, "/v1/%0aPOST%20/admin%1b[2J")
    (record,) = access.records
    assert record.getMessage().startswith("POST /v1/%0APOST%20/admin%1B%5B2J 202 ")


async def test_a_crash_is_logged_as_500(access: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the ASGI signature
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await ask(broken)
    (record,) = access.records
    assert " 500 " in record.getMessage()
    assert request_id.get() == ""


async def test_a_client_that_leaves_is_logged_as_499(access: pytest.LogCaptureFixture) -> None:
    entered = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the ASGI signature
        entered.set()
        await asyncio.Event().wait()

    leaving = asyncio.create_task(ask(endless))
    await entered.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    (record,) = access.records
    assert " 499 " in record.getMessage()


async def test_other_scopes_pass_untouched(access: pytest.LogCaptureFixture) -> None:
    seen: list[Scope] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the ASGI signature
        seen.append(scope)

    async def unused() -> dict[str, str]:
        raise AssertionError

    async def drop(_: object) -> None:
        raise AssertionError

    await RequestIds(note)({"type": "lifespan"}, unused, drop)
    assert seen == [{"type": "lifespan"}]
    assert not access.records
