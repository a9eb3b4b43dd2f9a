"""Errors on the wire: one table from the error tree to HTTP, one body shape (LocalAI's, OpenAI's)."""

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from engines import errors
from graphs.http.requests import request_id

VERSION = version("presence")
logger = logging.getLogger("presence.errors")

STATUS: dict[type[errors.PresenceError], int] = {
    errors.InvalidInput: 400,
    errors.NotAuthorized: 401,
    errors.NotFound: 404,
    errors.ModelDisabled: 403,
    errors.Conflict: 409,
    errors.LivenessUnavailable: 412,
    errors.TooLarge: 413,
    errors.NotDecodable: 415,
    errors.NothingComputable: 501,
    errors.Busy: 503,
    errors.StoreUnavailable: 503,
    errors.StoreFull: 507,
    errors.StoreCorrupt: 500,
    errors.DeadlineExceeded: 504,
}
"""Status of each branch of the tree; a leaf has the status of its nearest listed ancestor."""


TYPES: dict[type[errors.PresenceError], str] = {errors.ModelDisabled: "model_disabled"}
"""LocalAI's types of errors whose status does not say enough."""


NO_OBJECT = ("model_attributes_type", "dict_type", "model_type")
"""What pydantic calls a body that is no JSON object."""

UNPARSED = "There was an error parsing the body"
"""What FastAPI says of a body that its JSON reader refuses without a place: bad UTF-8, too deep, too long."""


def status_of(error: errors.PresenceError) -> int:
    """The HTTP status of an error: its own entry of the table or its nearest ancestor's, else 500."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_body(
    code: int, message: str, param: str | None = None, type_: str = "invalid_request_error"
) -> dict[str, object]:
    """`{"error": {"code", "message", "type", "param"?}}`; param names the offending field."""
    body: dict[str, object] = {"code": code, "message": message, "type": type_}
    if param is not None:
        body["param"] = param
    return {"error": body}


def error_response(
    code: int,
    message: str,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    type_: str | None = None,
) -> JSONResponse:
    """An error as an ASGI response."""
    type_ = type_ or ("invalid_request_error" if code < 500 else "server_error")
    return JSONResponse(error_body(code, message, param, type_), status_code=code, headers=headers)


def _presence_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.PresenceError)  # noqa: S101 - registered for this type alone
    if isinstance(error, errors.ConfigurationError):  # its message is for the operator alone
        return _unexpected(request, error)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Busy | errors.StoreUnavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    return error_response(status_of(error), error.message, error.param, headers, TYPES.get(type(error)))


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type alone
    told = invalid(error.errors()[0], 1)
    return error_response(400, told.message, told.param)


def invalid(found: Mapping[str, Any], skipped: int = 0) -> errors.InvalidInput:
    """What pydantic found, as an error that names the field. skipped: parts of its place before the field."""
    if found["type"] == "json_invalid":
        return errors.InvalidInput("the request body is not valid JSON")
    param = ".".join(str(part) for part in found["loc"][skipped:]) or None
    if found["type"] == "missing" and param:
        return errors.InvalidInput(f"{param} is required", param)
    if param is None and found["type"] in NO_OBJECT:
        return errors.InvalidInput(
            "the request body is no JSON object; send one with Content-Type: application/json"
        )
    return errors.InvalidInput(f"{param or 'request body'}: {found['msg']}", param)


def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    told = "the request body is not valid JSON" if error.detail == UNPARSED else str(error.detail)
    return error_response(error.status_code, told, headers=dict(error.headers or {}))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected error on %s, request %s", request.url.path, request_id.get(), exc_info=error)
    return error_response(500, "internal error; the log of the service has the details")


def install(app: FastAPI) -> None:
    """Makes every error of the application leave in the one shape."""
    app.add_exception_handler(errors.PresenceError, _presence_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: int = Field(description="the HTTP status")
    message: str
    type: str
    param: str | None = Field(None, description="the offending field")


class ErrorResponse(BaseModel):
    """Body of every error."""

    error: ErrorDetail


MEANING = {
    400: "the request is malformed or a value is out of range",
    401: "no API key, or a wrong one",
    403: "the model is disabled",
    408: "the body did not come in time",
    404: "an unknown model or id, or no face in the picture; the message says which",
    409: "the Idempotency-Key was used for another registration",
    412: "liveness asked of a model that has no liveness weights",
    413: "the body, the picture or the clip is too large",
    415: "the bytes are no picture, or no sound, that can be read",
    501: "nothing of what was asked can be computed",
    503: "busy: try again after Retry-After seconds",
    504: "the deadline passed",
    507: "the disk of the store is full; nothing was written",
}


def documented(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in OpenAPI: each error that it may answer."""
    return {code: {"model": ErrorResponse, "description": MEANING[code]} for code in codes}
