"""The HTTP application: the routes and everything around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from graphs.http import elevenlabs, errors, face, registrations, stores, system, tts, voice, voice_profiles
from graphs.http.auth import ApiKeys
from graphs.http.content import JsonByDefault
from graphs.http.limits import Admission, BodyLimit
from graphs.http.requests import RequestIds
from graphs.http.shapes import DetailErrors
from graphs.http.wire.voice_profiles import NewProfile
from graphs.services import Services

DESCRIPTION = "Who is in a picture, who is speaking, what is said. API of LocalAI, OpenAI and pyannoteAI."


def http_application(services: Services, *, echo_request_ids: bool = True) -> FastAPI:
    """The routes with everything around them. Needs no Ray.

    echo_request_ids: whether answers carry x-request-id; False inside Serve, which adds it itself.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.media.close()

    app = FastAPI(title="presence", description=DESCRIPTION, version=errors.VERSION, lifespan=lifespan)
    app.state.services = services
    errors.install(app)
    app.include_router(face.router)
    app.include_router(registrations.router("face"))
    app.include_router(voice.router)
    app.include_router(registrations.router("voice"))
    app.include_router(tts.router)
    app.include_router(voice_profiles.router)
    app.include_router(elevenlabs.router)
    app.include_router(stores.router)
    app.include_router(system.router)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign] # the documented way to change it
    settings = services.settings
    app.add_middleware(JsonByDefault)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_s=settings.deadline_s)
    app.add_middleware(Admission, max_in_flight=settings.max_in_flight)
    if services.api_keys:
        app.add_middleware(ApiKeys, keys=services.api_keys)
    app.add_middleware(DetailErrors)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(RequestIds, echo=echo_request_ids)
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description; without 422, which no route answers: bad input is 400 here."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schema["components"]["schemas"]["NewProfile"] = NewProfile.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
