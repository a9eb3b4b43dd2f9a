"""ElevenLabs' routes; graphs/http/shapes.py gives their errors its shape."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from engines.tts import Voice
from engines.tts.formats import Target
from graphs.http.deadline import SpeechDeadline
from graphs.http.errors import MEANING
from graphs.http.sound import SoundStream, file_response
from graphs.http.tts import SOUND, Flow
from graphs.http.wire import elevenlabs as wire
from graphs.services import Services
from graphs.tts import Order
from graphs.voices import Profile, VoiceLibrary


async def _library(request: Request) -> VoiceLibrary:
    services: Services = request.app.state.services
    return services.library


Library = Annotated[VoiceLibrary, Depends(_library)]
OutputFormat = Annotated[
    str,
    Query(max_length=32, description="format, samples a second, kilobits a second: mp3_22050_32, pcm_16000"),
]
DEFAULT_FORMAT = "mp3_44100_128"
SHAPES: dict[int | str, dict[str, Any]] = {
    code: {"model": wire.DetailResponse, "description": MEANING[code]}
    for code in (400, 401, 403, 404, 408, 413, 503, 504)
}
router = APIRouter(tags=["ElevenLabs"])


@router.post("/v1/text-to-speech/{voice_id}", responses={**SHAPES, **SOUND}, response_class=Response)
async def convert(
    voice_id: str,
    body: wire.TextToSpeechRequest,
    flow: Flow,
    deadline: SpeechDeadline,
    output_format: OutputFormat = DEFAULT_FORMAT,
) -> Response:
    """Speaks a text with a voice of GET /v1/voices, a model's own voice, or one of the library."""
    order = await flow.by_voice(_order(body, output_format, whole=True), voice_id, deadline)
    return file_response(await flow.whole(order, deadline), order.target)


@router.post("/v1/text-to-speech/{voice_id}/stream", responses={**SHAPES, **SOUND}, response_class=Response)
async def stream(
    voice_id: str,
    body: wire.TextToSpeechRequest,
    flow: Flow,
    deadline: SpeechDeadline,
    output_format: OutputFormat = DEFAULT_FORMAT,
) -> Response:
    """The same, each sentence as soon as it is spoken."""
    order = await flow.by_voice(_order(body, output_format, whole=False), voice_id, deadline)
    return SoundStream(await flow.speak(order, deadline), order.target, deadline)


@router.post("/v1/sound-generation", responses={**SHAPES, **SOUND}, response_class=Response)
async def sound(
    body: wire.SoundRequest,
    flow: Flow,
    deadline: SpeechDeadline,
    output_format: OutputFormat = DEFAULT_FORMAT,
) -> Response:
    """Makes a sound or music that a text describes."""
    asked = {
        "duration_seconds": body.duration_seconds,
        "temperature": body.prompt_influence,
        "do_sample": None if body.do_sample is None else str(body.do_sample).lower(),
    }
    params = {key: str(value) for key, value in asked.items() if value is not None}
    target = Target.parse(output_format)
    order = flow.music(Order(text=body.text, target=target, model=body.model_id, params=params))
    return file_response(await flow.whole(order, deadline), target)


@router.get("/v1/voices", responses={code: SHAPES[code] for code in (401, 503)})
@router.get("/v2/voices", responses={code: SHAPES[code] for code in (401, 503)}, include_in_schema=False)
async def voices(flow: Flow, library: Library, deadline: SpeechDeadline) -> wire.VoiceList:
    """Every voice: those that models have by name, each model's own, and those of the library."""
    cards = []
    for position, (node, named) in enumerate(await flow.voices(deadline)):
        cards.append(
            wire.VoiceCard(
                voice_id=node.name, name=node.name, category="premade", labels={"model": node.name}
            )
        )
        prefix = f"{node.name}:" if position else ""
        cards += [_card(voice, prefix, node.name) for voice in named]
    cards += [_cloned(profile) for profile in await library.listed(deadline)]
    return wire.VoiceList(voices=cards, total_count=len(cards))


async def models(flow: Flow, deadline: float) -> list[wire.SpeechModelCard]:
    """ElevenLabs' answer to GET /v1/models."""
    return [
        wire.SpeechModelCard(
            model_id=node.name,
            name=node.name,
            languages=[
                wire.LanguageCard(language_id=code, name=code)
                for code in sorted({code for voice in named for code in voice.languages})
            ],
        )
        for node, named in await flow.voices(deadline)
    ]


def _order(body: wire.TextToSpeechRequest, output_format: str, *, whole: bool) -> Order:
    return Order(
        text=body.text,
        target=Target.parse(output_format),
        model=body.model_id,
        language=body.language_code,
        speed=body.voice_settings.speed if body.voice_settings else None,
        instructions=body.instructions,
        params={} if body.seed is None else {"seed": str(body.seed)},
        whole=whole,
    )


def _card(voice: Voice, prefix: str, model: str) -> wire.VoiceCard:
    labels = {"model": model, "language": ", ".join(voice.languages), "gender": voice.gender}
    return wire.VoiceCard(
        voice_id=prefix + voice.name,
        name=voice.name,
        category="premade",
        labels={key: value for key, value in labels.items() if value},
    )


def _cloned(profile: Profile) -> wire.VoiceCard:
    labels = {"language": profile.language} if profile.language else {}
    return wire.VoiceCard(
        voice_id=profile.id,
        name=profile.name,
        category="cloned",
        labels=labels,
        description=profile.description or None,
    )
