"""The HTTP application and the deployment that serves it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.middleware.cors import CORSMiddleware

from graphs.clients import (
    RemoteFaceAttributes,
    RemoteFaceDetector,
    RemoteFaceLiveness,
    RemoteFaceRecognizer,
    RemoteStore,
)
from graphs.face import FaceFlow, FaceNode
from graphs.http import errors, face, registrations, stores, system
from graphs.http.auth import ApiKeys
from graphs.http.content import JsonByDefault
from graphs.http.limits import Admission, BodyLimit
from graphs.http.requests import RequestIds
from graphs.media import MediaReader, MediaRules
from graphs.services import Services
from graphs.settings import AppArgs, ModelFile
from graphs.status import ServeStatus
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.wiring import FaceWiring

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
    app.include_router(stores.router)
    app.include_router(system.router)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign] # the documented way to change it
    settings = services.settings
    app.add_middleware(JsonByDefault)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_s=settings.deadline_s)
    app.add_middleware(Admission, max_in_flight=settings.max_in_flight)
    if services.api_keys:
        app.add_middleware(ApiKeys, keys=services.api_keys)
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
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


STORE = "store"
"""Name of the store's deployment; /readyz waits for it too."""


class Gateway:
    """One replica of the HTTP ingress: flows live here, models behind their handles."""

    def __init__(
        self,
        args: AppArgs,
        models: tuple[ModelFile, ...],
        faces: tuple[FaceWiring, ...],
        store: DeploymentHandle[Any],
        api_keys: frozenset[str],
    ) -> None:
        media = MediaReader(media_rules(args))
        remote = RemoteStore(store)
        self._services = Services(
            settings=args.gateway,
            models=models,
            status=ServeStatus(
                [*(model.name for model in models), STORE], serve.get_replica_context().app_name
            ),
            face=FaceFlow({wiring.name: face_node(wiring) for wiring in faces}, media),
            media=media,
            people={"face": Registrations("face", remote)},
            stores=Stores(remote),
            started_at=int(time.time()),
            api_keys=api_keys,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return http_application(self._services, echo_request_ids=False)


def media_rules(args: AppArgs) -> MediaRules:
    """The rules of the media reader from the settings."""
    media = args.media
    return MediaRules(
        max_bytes=media.max_bytes,
        fetch_timeout_s=media.fetch_timeout_s,
        allow_networks=media.allow_networks,
        allow_urls=media.allow_urls,
    )


def face_node(wiring: FaceWiring) -> FaceNode:
    """A face model of the graph, its handles wrapped in typed adapters."""
    handles: dict[str, Any] = dict(wiring.handles)
    return FaceNode(
        name=wiring.name,
        threshold=wiring.threshold,
        detector=RemoteFaceDetector(handles["detector"]),
        recognizer=RemoteFaceRecognizer(handles["recognizer"]),
        attributes=RemoteFaceAttributes(handles["attributes"]) if "attributes" in handles else None,
        heads=wiring.heads,
        liveness=RemoteFaceLiveness(handles["liveness"]) if "liveness" in handles else None,
        liveness_threshold=wiring.liveness_threshold,
        select=wiring.select,
    )
