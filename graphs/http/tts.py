"""The speech routes of LocalAI and OpenAI."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from engines.errors import InvalidInput
from engines.tts.formats import FORMATS, Target
from graphs.http.deadline import SpeechDeadline
from graphs.http.errors import documented
from graphs.http.sound import EventStream, SoundStream, file_response
from graphs.http.wire.tts import SpeechRequest
from graphs.services import Services
from graphs.tts import Order, SpeechFlow


async def _flow(request: Request) -> SpeechFlow:
    services: Services = request.app.state.services
    return services.speech


Flow = Annotated[SpeechFlow, Depends(_flow)]

COMMON = (400, 401, 403, 404, 408, 413, 503, 504)
SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the sound",
        "content": {
            one.content_type: {"schema": {"type": "string", "format": "binary"}} for one in FORMATS.values()
        }
        | {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
router = APIRouter(tags=["speech"])


@router.post("/tts", responses=documented(*COMMON) | SOUND, response_class=Response)
async def tts(body: SpeechRequest, flow: Flow, deadline: SpeechDeadline) -> Response:
    """Speaks a text; WAV unless a format that is known is named. LocalAI's route."""
    name = body.response_format if body.response_format in FORMATS else "wav"
    return await _answer(body, flow, name, deadline)


@router.post("/v1/audio/speech", responses=documented(*COMMON) | SOUND, response_class=Response)
@router.post("/audio/speech", response_class=Response, include_in_schema=False)
async def speech(body: SpeechRequest, flow: Flow, deadline: SpeechDeadline) -> Response:
    """Speaks a text; MP3 unless another format is named. OpenAI's route."""
    if body.response_format and body.response_format not in FORMATS:
        raise InvalidInput(f"response_format: one of {', '.join(FORMATS)}")
    return await _answer(body, flow, body.response_format or "mp3", deadline)


async def _answer(body: SpeechRequest, flow: SpeechFlow, name: str, deadline: float) -> Response:
    target = Target(name, body.sample_rate or None)
    streamed = bool(body.stream or body.stream_format)
    order = Order(
        text=body.input,
        target=target,
        model=body.model,
        backend=body.backend,
        voice=body.voice_name,
        language=body.language,
        speed=body.speed,
        instructions=body.instructions,
        params=body.text_params,
        whole=not streamed,
    )
    if not streamed:
        return file_response(await flow.whole(order, deadline), target)
    pieces = await flow.speak(order, deadline)
    if body.stream_format == "sse":
        return EventStream(pieces, len(body.input), deadline)
    return SoundStream(pieces, target, deadline)
