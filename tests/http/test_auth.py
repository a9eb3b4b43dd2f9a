"""API keys: carriers, refusals, public paths, WebSockets, key files."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from engines.errors import ConfigurationError
from graphs.http.auth import ApiKeys, load_keys

KEYS = frozenset({"first-key", "second=key/+"})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await PlainTextResponse("in")(scope, receive, send)
    else:
        await send({"type": "reached", "scope": scope["type"]})


async def ask(
    headers: Mapping[str, str] | list[tuple[str, str]], path: str = "/v1/face/verify", method: str = "POST"
) -> httpx.Response:
    transport = httpx.ASGITransport(ApiKeys(application, KEYS))
    async with httpx.AsyncClient(transport=transport, base_url="http://presence") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer   second=key/+ "},
        {"Authorization": "first-key"},
        {"x-api-key": "second=key/+"},
        {"xi-api-key": "first-key"},
        [("x-api-key", "wrong"), ("x-api-key", "first-key")],
        [("Authorization", "Bearer wrong"), ("xi-api-key", "first-key")],
    ],
)
async def test_every_carrier_opens(headers: dict[str, str] | list[tuple[str, str]]) -> None:
    answer = await ask(headers)
    assert answer.status_code == 200
    assert answer.text == "in"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer first-ke"},
        {"Authorization": "Bearer first-keyy"},
        {"Authorization": "Bearer FIRST-KEY"},
        {"Authorization": "Basic first-key"},
        {"x-api-key": "Bearer first-key"},
        {"x-api-key": "first-key,second=key/+"},
        {"x-api-key": "caf\u00e9"},
        {"Cookie": "token=first-key"},
    ],
)
async def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    answer = await ask(
        [(name, value.encode("latin-1")) for name, value in headers.items()]  # type: ignore[misc] # bytes carry é
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {
        "error": {
            "code": 401,
            "message": "An authentication key is required",
            "type": "invalid_request_error",
        }
    }


async def test_a_key_in_the_query_is_no_key() -> None:
    assert (await ask({}, "/v1/models?api_key=first-key&x-api-key=first-key")).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
async def test_public_paths_need_no_key(path: str) -> None:
    assert (await ask({}, path, "GET")).status_code == 200


@pytest.mark.parametrize("path", ["/healthz/", "/healthzz", "//healthz", "/docs/../v1/models", "/metrics"])
async def test_only_the_very_paths_are_public(path: str) -> None:
    assert (await ask({}, path, "GET")).status_code == 401


async def test_preflight_passes() -> None:
    assert (await ask({"Origin": "http://site"}, method="OPTIONS")).status_code == 200


async def deliver(scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await ApiKeys(application, KEYS)(scope, receive, send)
    return sent


async def test_a_websocket_without_a_key_is_closed_before_it_opens() -> None:
    scope = {"type": "websocket", "path": "/healthz", "headers": [(b"x-api-key", b"wrong")]}
    (sent,) = await deliver(scope)
    assert (sent["type"], sent["code"]) == ("websocket.close", 1008)


async def test_a_websocket_with_a_key_opens() -> None:
    scope = {
        "type": "websocket",
        "path": "/v1/realtime",
        "headers": [(b"authorization", b"Bearer first-key")],
    }
    assert await deliver(scope) == [{"type": "reached", "scope": "websocket"}]


async def test_lifespan_passes() -> None:
    assert await deliver({"type": "lifespan"}) == [{"type": "reached", "scope": "lifespan"}]


def test_keys_of_a_file_and_of_text_are_united(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# team a\nalpha\n\n  beta  \n  # gamma\ndelta#1\n", encoding="utf-8")
    assert load_keys(path, "epsilon, zeta ,,") == {"alpha", "beta", "delta#1", "epsilon", "zeta"}


def test_nothing_configured_means_no_keys() -> None:
    assert load_keys(None, None) == frozenset()


@pytest.mark.parametrize("content", ["", "\n \n", "# only a comment\n"])
def test_a_file_without_keys_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"keys: holds no API key"):
        load_keys(path, "other")


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_text_without_keys_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no API key"):
        load_keys(None, text)


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent: the file of API keys is not readable"):
        load_keys(tmp_path / "absent", None)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="binary: the file of API keys is not readable"):
        load_keys(binary, None)


@pytest.mark.parametrize("key", ["two words", "schl\u00fcssel", "tab\tbed"])
def test_a_key_that_no_header_carries_is_named_by_its_line_alone(tmp_path: Path, key: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# head\ngood\n{key}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 3") as caught:
        load_keys(path, None)
    assert key not in str(caught.value)
