"""Errors on the wire: every error of the tree has a status, and nothing else leaks."""

import logging
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from engines import errors
from graphs.http.errors import MEANING, STATUS, ErrorResponse, documented, error_body, install, status_of
from graphs.http.requests import request_id

EXPECTED = {
    errors.InvalidInput: 400,
    errors.MediaUnavailable: 400,
    errors.NotAuthorized: 401,
    errors.NotFound: 404,
    errors.NoFace: 404,
    errors.UnknownModel: 404,
    errors.ModelDisabled: 403,
    errors.Conflict: 409,
    errors.LivenessUnavailable: 412,
    errors.TooLarge: 413,
    errors.NotDecodable: 415,
    errors.NothingComputable: 501,
    errors.Busy: 503,
    errors.DeadlineExceeded: 504,
    errors.UnknownRecord: 404,
    errors.StoreUnavailable: 503,
    errors.StoreFull: 507,
    errors.StoreCorrupt: 500,
    errors.ConfigurationError: 500,
}
DETAIL = "/srv/models/weights.onnx of tenant 7"
JSON = {"content-type": "application/json"}


def tree(kind: type[errors.PresenceError]) -> Iterator[type[errors.PresenceError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from tree(child)


def failing(error: Exception) -> FastAPI:
    """An application whose every route raises the error."""
    app = FastAPI()
    install(app)

    @app.get("/fail")
    async def fail() -> None:
        raise error

    return app


async def ask(app: FastAPI, method: str, path: str, content: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, content=content, headers=JSON)


def test_the_table_of_this_test_names_the_whole_tree() -> None:
    assert set(EXPECTED) == set(tree(errors.PresenceError))


@pytest.mark.parametrize(("kind", "status"), EXPECTED.items())
def test_every_error_has_its_status(kind: type[errors.PresenceError], status: int) -> None:
    assert status_of(kind("x")) == status


def test_every_status_can_be_documented() -> None:
    assert set(STATUS.values()) - {500} == set(MEANING) - {408}  # 408: of the body limit
    assert documented(404)[404] == {"model": ErrorResponse, "description": MEANING[404]}


@pytest.mark.parametrize("kind", [kind for kind in EXPECTED if kind is not errors.ConfigurationError])
async def test_an_error_of_the_tree_leaves_in_the_one_shape(kind: type[errors.PresenceError]) -> None:
    answer = await ask(failing(kind("what to do about it")), "GET", "/fail")
    assert answer.status_code == EXPECTED[kind]
    usual = "invalid_request_error" if answer.status_code < 500 else "server_error"
    assert answer.json() == {
        "error": {
            "code": EXPECTED[kind],
            "message": "what to do about it",
            "type": "model_disabled" if kind is errors.ModelDisabled else usual,
        }
    }
    assert ("retry-after" in answer.headers) is (answer.status_code in (503, 507))


@pytest.mark.parametrize(
    "error", [RuntimeError(DETAIL), KeyError(DETAIL), errors.ConfigurationError(DETAIL)], ids=repr
)
async def test_what_nobody_expected_is_logged_and_tells_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    token = request_id.set("id-7")
    with caplog.at_level(logging.ERROR, "presence.errors"):
        answer = await ask(failing(error), "GET", "/fail")
    request_id.reset(token)
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {
            "code": 500,
            "message": "internal error; the log of the service has the details",
            "type": "server_error",
        }
    }
    (record,) = caplog.records
    assert record.getMessage() == "unexpected error on /fail, request id-7"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_errors_of_the_framework_have_the_same_shape() -> None:
    app = failing(HTTPException(418, "tea", headers={"x-pot": "1"}))
    answer = await ask(app, "GET", "/fail")
    assert answer.status_code == 418
    assert answer.json()["error"] == {"code": 418, "message": "tea", "type": "invalid_request_error"}
    assert answer.headers["x-pot"] == "1"
    assert (await ask(app, "GET", "/nowhere")).json()["error"]["code"] == 404
    wrong = await ask(app, "DELETE", "/fail")
    assert wrong.json()["error"]["code"] == 405
    assert wrong.headers["allow"] == "GET"


class Inner(BaseModel):
    number: float = Field(ge=0)


class Body(BaseModel):
    inner: Inner


@pytest.mark.parametrize(
    ("content", "param", "told"),
    [
        ("{", None, "the request body is not valid JSON"),
        ("[]", None, "the request body is no JSON object; send one with Content-Type: application/json"),
        ("[" * 100_000, None, "the request body is not valid JSON"),
        ("{}", "inner", "inner is required"),
        ('{"inner": {"number": -1}}', "inner.number", "inner.number: "),
        ('{"inner": {"number": "secret"}}', "inner.number", "inner.number: "),
    ],
)
async def test_a_wrong_body_names_its_field(content: str, param: str | None, told: str) -> None:
    app = FastAPI()
    install(app)

    @app.post("/take")
    async def take(body: Body) -> Body:
        return body

    answer = await ask(app, "POST", "/take", content)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 400
    assert error.get("param") == param
    assert error["message"].startswith(told)
    assert "secret" not in answer.text


def test_the_body_names_a_field_only_when_there_is_one() -> None:
    assert "param" not in error_body(404, "x")["error"]  # type: ignore[operator] # a mapping
    assert error_body(400, "x", "img")["error"] == {
        "code": 400,
        "message": "x",
        "type": "invalid_request_error",
        "param": "img",
    }
