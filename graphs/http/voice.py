"""The voice routes."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from graphs.demographics import dominant
from graphs.http.deadline import Deadline
from graphs.http.errors import documented
from graphs.http.registrations import IdempotencyKey, enrol, search
from graphs.http.wire import voice as wire
from graphs.http.wire.registrations import IdentifyResponse, Registered
from graphs.services import Services
from graphs.store import Registrations
from graphs.voice import VoiceFlow


async def _flow(request: Request) -> VoiceFlow:
    services: Services = request.app.state.services
    return services.voice


async def _people(request: Request) -> Registrations:
    services: Services = request.app.state.services
    return services.people["voice"]


Flow = Annotated[VoiceFlow, Depends(_flow)]
People = Annotated[Registrations, Depends(_people)]

COMMON = (400, 401, 403, 404, 408, 413, 415, 503, 504)
router = APIRouter(tags=["voices"])


@router.post("/v1/voice/verify", responses=documented(*COMMON), response_model_exclude_none=True)
async def verify(body: wire.VoiceVerifyRequest, flow: Flow, deadline: Deadline) -> wire.VoiceVerifyResponse:
    """Whether two clips are of the same speaker."""
    started = time.perf_counter()
    verdict = await flow.verify(body.model, (body.audio1, body.audio2), body.threshold, deadline)
    return wire.VoiceVerifyResponse(
        verified=verdict.verified,
        distance=verdict.distance,
        threshold=verdict.threshold,
        confidence=verdict.confidence,
        model=verdict.model,
        processing_time_ms=(time.perf_counter() - started) * 1000,
        unused=["anti_spoofing"] if body.anti_spoofing else None,
    )


@router.post("/v1/voice/analyze", responses=documented(*COMMON, 501), response_model_exclude_none=True)
async def analyze(
    body: wire.VoiceAnalyzeRequest, flow: Flow, deadline: Deadline
) -> wire.VoiceAnalyzeResponse:
    """Age, gender and emotion of the speaker, as far as the model tells them."""
    clip = await flow.analyze(body.model, body.audio, body.actions, deadline)
    segment = wire.VoiceSegment(
        start=0.0,
        end=clip.seconds,
        age=clip.told.age,
        gender=clip.told.gender,
        dominant_gender=dominant(clip.told.gender),
        emotion=clip.told.emotion,
        dominant_emotion=dominant(clip.told.emotion),
    )
    return wire.VoiceAnalyzeResponse(segments=[segment])


@router.post("/v1/voice/embed", responses=documented(*COMMON))
async def embed(body: wire.VoiceEmbedRequest, flow: Flow, deadline: Deadline) -> wire.VoiceEmbedResponse:
    """The L2-normalised embedding of the speaker."""
    embedding, model = await flow.embed(body.model, body.audio, deadline)
    return wire.VoiceEmbedResponse(embedding=embedding.tolist(), dim=len(embedding), model=model)


@router.post("/v1/voice/register", responses=documented(*COMMON, 409, 507))
async def register(
    body: wire.VoiceRegisterRequest,
    flow: Flow,
    people: People,
    deadline: Deadline,
    idempotency_key: IdempotencyKey = None,
) -> Registered:
    """Enrols a speaker under a name; several clips of a person may share one name."""
    return await enrol(flow, people, body, body.audio, key=idempotency_key, deadline=deadline)


@router.post("/v1/voice/identify", responses=documented(*COMMON), response_model_exclude_none=True)
async def identify(
    body: wire.VoiceIdentifyRequest, flow: Flow, people: People, deadline: Deadline, response: Response
) -> IdentifyResponse:
    """The registrations nearest to the speaker, nearest first; `match` tells which are near enough."""
    return await search(flow, people, body, body.audio, deadline=deadline, response=response)
