"""The system routes: models, health, readiness, version, metrics."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse

from graphs.http import elevenlabs
from graphs.http.deadline import Deadline
from graphs.http.errors import documented
from graphs.http.wire import system as wire
from graphs.http.wire.elevenlabs import SpeechModelCard
from graphs.metrics import scrape
from graphs.services import Services


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Known = Annotated[Services, Depends(_services)]
router = APIRouter(tags=["system"])


@router.get("/v1/models", responses=documented(401, 503))
@router.get("/models", responses=documented(401, 503), include_in_schema=False)
async def models(
    services: Known, request: Request, deadline: Deadline
) -> wire.ModelList | list[SpeechModelCard]:
    """Every model with its capability, licence and state; asked with xi-api-key, ElevenLabs' list."""
    if "xi-api-key" in request.headers:
        return await elevenlabs.models(services.speech, deadline)
    states = await services.status.states()
    return wire.ModelList(
        data=[
            wire.ModelCard.model_validate(
                {
                    "id": model.name,
                    "created": services.started_at,
                    "capability": model.capability,
                    "backend": model.backend,
                    "license": model.license,
                    "state": states.get(model.name, "loading"),
                }
            )
            for model in services.models
        ]
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> wire.Health:
    """The gateway lives."""
    return wire.Health()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": wire.Readiness, "description": "still loading"}})
async def readyz(services: Known, response: Response) -> wire.Readiness:
    """200 when every model answers, else 503 with those that do not."""
    states = await services.status.states()
    loading = [name for name, state in states.items() if state == "loading"]
    failed = [name for name, state in states.items() if state == "failed"]
    if not loading and not failed:
        return wire.Readiness(status="ready")
    response.status_code = 503
    response.headers["Retry-After"] = "1"
    return wire.Readiness(status="starting", loading=loading, failed=failed)


@router.get("/version", responses=documented(401, 503))
async def release() -> wire.Version:
    """Versions of presence and Ray."""
    return wire.Version(version=version("presence"), ray=version("ray"))


@router.get("/metrics", response_class=PlainTextResponse, responses=documented(401, 503))
async def metrics() -> PlainTextResponse:
    """Metrics of every node, deployment and replica, in Prometheus' text format."""
    return PlainTextResponse(await scrape(), media_type="text/plain; version=0.0.4")
