"""The face routes."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from graphs.demographics import dominant
from graphs.face import AnalyzedFace, FaceFlow
from graphs.http.deadline import Deadline
from graphs.http.errors import documented
from graphs.http.registrations import IdempotencyKey, enrol, search
from graphs.http.wire import face as wire
from graphs.http.wire.registrations import IdentifyResponse, Registered
from graphs.services import Services
from graphs.store import Registrations


async def _flow(request: Request) -> FaceFlow:
    services: Services = request.app.state.services
    return services.face


async def _people(request: Request) -> Registrations:
    services: Services = request.app.state.services
    return services.people["face"]


Flow = Annotated[FaceFlow, Depends(_flow)]
People = Annotated[Registrations, Depends(_people)]

COMMON = (400, 401, 403, 404, 408, 413, 415, 503, 504)
router = APIRouter(tags=["faces"])


@router.post("/v1/face/verify", responses=documented(*COMMON, 412), response_model_exclude_none=True)
async def verify(body: wire.VerifyRequest, flow: Flow, deadline: Deadline) -> wire.VerifyResponse:
    """Whether two pictures show the same person: the largest face of each is compared."""
    started = time.perf_counter()
    verdict = await flow.verify(
        body.model, (body.img1, body.img2), body.threshold, deadline, liveness=body.anti_spoofing
    )
    alive: dict[str, Any] = {}
    for number, one in enumerate(verdict.alive or (), start=1):
        alive |= {f"img{number}_is_real": one.is_real, f"img{number}_antispoof_score": one.score}
    return wire.VerifyResponse(
        verified=verdict.verified,
        distance=verdict.distance,
        threshold=verdict.threshold,
        confidence=verdict.confidence,
        model=verdict.model,
        img1_area=wire.Region.of(verdict.areas[0]),
        img2_area=wire.Region.of(verdict.areas[1]),
        processing_time_ms=(time.perf_counter() - started) * 1000,
        **alive,
    )


@router.post("/v1/face/analyze", responses=documented(*COMMON, 412), response_model_exclude_none=True)
async def analyze(body: wire.AnalyzeRequest, flow: Flow, deadline: Deadline) -> wire.AnalyzeResponse:
    """Age, gender, expression and liveness of every face, as far as the model tells them."""
    faces = await flow.analyze(body.model, body.img, body.actions, deadline, liveness=body.anti_spoofing)
    return wire.AnalyzeResponse(faces=[_report(face) for face in faces])


@router.post("/v1/face/embed", responses=documented(*COMMON))
async def embed(body: wire.EmbedRequest, flow: Flow, deadline: Deadline) -> wire.EmbedResponse:
    """The L2-normalised embedding of the largest face."""
    embedding, model = await flow.embed(body.model, body.img, deadline)
    return wire.EmbedResponse(embedding=embedding.tolist(), dim=len(embedding), model=model)


@router.post("/v1/face/register", responses=documented(*COMMON, 409, 507))
async def register(
    body: wire.RegisterRequest,
    flow: Flow,
    people: People,
    deadline: Deadline,
    idempotency_key: IdempotencyKey = None,
) -> Registered:
    """Enrols the largest face under a name; several pictures of a person may share one name."""
    return await enrol(flow, people, body, body.img, key=idempotency_key, deadline=deadline)


@router.post("/v1/face/identify", responses=documented(*COMMON), response_model_exclude_none=True)
async def identify(
    body: wire.IdentifyRequest, flow: Flow, people: People, deadline: Deadline, response: Response
) -> IdentifyResponse:
    """The registrations nearest to the largest face, nearest first; `match` tells which are near enough."""
    return await search(flow, people, body, body.img, deadline=deadline, response=response)


@router.post("/v1/detection", responses=documented(*COMMON))
@router.post("/v1/face/detect", responses=documented(*COMMON))
async def detect(body: wire.DetectionRequest, flow: Flow, deadline: Deadline) -> wire.DetectionResponse:
    """Where the faces are."""
    faces = await flow.detect(body.model, body.image, body.threshold or None, deadline)
    return wire.DetectionResponse(
        detections=[
            wire.Detection(
                x=face.box.x, y=face.box.y, width=face.box.w, height=face.box.h, confidence=face.score
            )
            for face in faces
        ]
    )


def _report(face: AnalyzedFace) -> wire.FaceReport:
    return wire.FaceReport(
        region=wire.Region.of(face.box),
        face_confidence=face.score,
        age=face.told.age,
        gender=face.told.gender,
        dominant_gender=dominant(face.told.gender),
        emotion=face.told.emotion,
        dominant_emotion=dominant(face.told.emotion),
        is_real=face.alive.is_real if face.alive else None,
        antispoof_score=face.alive.score if face.alive else None,
    )
