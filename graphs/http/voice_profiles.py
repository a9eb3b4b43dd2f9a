"""LocalAI's library of voices."""

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from engines.audio import decode
from engines.errors import InvalidInput
from engines.tts.encoding import Encoder
from engines.tts.formats import Target
from graphs.http.deadline import Deadline
from graphs.http.errors import documented, invalid
from graphs.http.wire.voice_profiles import NewProfile, ProfileCard, ProfileList
from graphs.media import MediaReader
from graphs.services import Services
from graphs.voices import RATE, VoiceLibrary


async def _library(request: Request) -> VoiceLibrary:
    services: Services = request.app.state.services
    return services.library


async def _media(request: Request) -> MediaReader:
    services: Services = request.app.state.services
    return services.media


Library = Annotated[VoiceLibrary, Depends(_library)]
Media = Annotated[MediaReader, Depends(_media)]
COMMON = (400, 401, 408, 503, 504)
RANGE = re.compile(r"bytes=(\d{0,12})-(\d{0,12})")
FIELDS = ("name", "description", "language", "transcript", "consent_confirmed")
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewProfile"}}},
    }
}
router = APIRouter(tags=["voice profiles"], prefix="/api/voice-profiles")


@router.get("", responses=documented(401, 503, 504), response_model_exclude_none=True)
async def listed(library: Library, deadline: Deadline) -> ProfileList:
    """Every voice of the library, newest first."""
    return ProfileList(data=[ProfileCard.of(one) for one in await library.listed(deadline)])


@router.post(
    "",
    status_code=201,
    responses=documented(*COMMON, 413, 415, 507),
    response_model_exclude_none=True,
    openapi_extra=FORM,
)
async def add(request: Request, library: Library, media: Media, deadline: Deadline) -> ProfileCard:
    """Keeps a recording, from JSON or from a form (multipart/form-data) with the file in `audio`."""
    told, clip, source = await _received(request, media, deadline)
    if not told.consent_confirmed:
        raise InvalidInput(
            "consent_confirmed: the speaker's consent to be imitated must be confirmed", "consent_confirmed"
        )
    profile = await library.add(
        clip,
        name=told.name,
        description=told.description,
        language=told.language,
        transcript=told.transcript,
        deadline=deadline,
        source=source,
    )
    return ProfileCard.of(profile)


@router.get(
    "/{profile_id}/audio",
    responses=documented(401, 404, 503, 504)
    | {
        200: {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "the part that the header Range asks for"},
        416: {"description": "the header Range asks for a part that is not there"},
    },
    response_class=Response,
)
async def audio(profile_id: str, request: Request, library: Library, deadline: Deadline) -> Response:
    """The recording as WAV, or a part of it."""
    recording = await library.recording(profile_id, deadline)
    data = await asyncio.to_thread(_wav, recording, library.max_seconds)
    headers = {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": 'inline; filename="reference.wav"',
        "Accept-Ranges": "bytes",
    }
    return _part(data, request.headers.get("range", ""), headers)


@router.delete("/{profile_id}", status_code=204, responses=documented(401, 404, 503, 504))
async def delete(profile_id: str, library: Library, deadline: Deadline) -> None:
    """Deletes a voice with its recording, for good."""
    await library.delete(profile_id, deadline)


async def _received(request: Request, media: MediaReader, deadline: float) -> tuple[NewProfile, bytes, str]:
    """What is told of the voice, its recording, and the field that held it."""
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return *await _form(request), "audio"
        told = NewProfile.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error.errors()[0]) from None
    clip = await media.read(f"data:;base64,{told.audio_base64}", "audio_base64", deadline)
    return told, clip, "audio_base64"


async def _form(request: Request) -> tuple[NewProfile, bytes]:
    async with request.form(max_files=1, max_fields=len(FIELDS) + 3) as form:
        file = form.get("audio")
        if not isinstance(file, UploadFile):
            raise InvalidInput("audio: a file is required", "audio")
        fields = {key: form[key] for key in FIELDS if isinstance(form.get(key), str)}
        return NewProfile.model_validate({**fields, "audio_base64": ""}), await file.read()


def _wav(recording: bytes, max_seconds: float) -> bytes:
    samples = decode(recording, RATE, max_seconds + 1).samples
    encoder = Encoder(Target("wav"), RATE, whole=True)
    return encoder.feed(samples) + encoder.finish()


def _part(data: bytes, asked: str, headers: dict[str, str]) -> Response:
    """The bytes of one range (RFC 9110, 14.2); other ranges are ignored."""
    found = RANGE.fullmatch(asked.strip())
    if not found or not any(found.groups()):
        return Response(data, media_type="audio/wav", headers=headers)
    first, last = found.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers |= {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return Response(data[start:end], 206, headers, "audio/wav")
