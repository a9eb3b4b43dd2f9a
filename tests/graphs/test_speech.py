"""The flow of speech over the real deployment classes with the fake engine, all in this process."""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from deployments.messages import SpeakRequest
from engines.audio import decode
from engines.errors import (
    DeadlineExceeded,
    InvalidInput,
    PresenceError,
    TooLarge,
    UnknownModel,
    UnknownRecord,
)
from engines.tts import Voice
from engines.tts.formats import Target
from graphs.tts import MUSIC, Order, SpeechFlow, SpeechNode, speed_of
from graphs.voices import SCHEME, VoiceLibrary

KINDS = {"speaker": "tts", "portrait": "face"}


def later() -> float:
    return time.time() + 30


class Remembers:
    """A synthesizer that speaks two pieces, or fails, and remembers what it was asked."""

    def __init__(self, *errors: PresenceError) -> None:
        self.asked: list[SpeakRequest] = []
        self.deadlines: list[float] = []
        self.closed = 0
        self._errors = errors

    async def speak(self, request: SpeakRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        self.deadlines.append(deadline)
        try:
            for position, piece in enumerate((b"one ", b"two")):
                if len(self._errors) > position:
                    raise self._errors[position]
                yield piece
        finally:
            self.closed += 1

    async def voices(self, deadline: float) -> Sequence[Voice]:
        assert deadline
        return (Voice("anna", ("de",)),)


@pytest.fixture
def speaker() -> Remembers:
    return Remembers()


@pytest.fixture
def flow(speaker: Remembers, local_store: Any) -> SpeechFlow:
    nodes = [
        SpeechNode("band", MUSIC, speaker, "facebook/musicgen-small", music=True),
        SpeechNode("speaker", "espeak-ng", speaker, language="de"),
        SpeechNode("voice-riccardo", "piper", speaker, "voice-riccardo/it-riccardo.onnx"),
        SpeechNode("it-paola.onnx", "piper", speaker, "it-paola.onnx", on_demand=True),
        SpeechNode("cloned-voice", "vall-e-x", speaker, "cloned-voice", clones=True),
    ]
    ad_hoc = {name: SpeechNode(name, name, speaker, on_demand=True) for name in ("bark", "coqui")}
    library = VoiceLibrary(local_store)
    return SpeechFlow({node.name: node for node in nodes}, library, ad_hoc, KINDS, max_characters=100)


def order(text: str = "Hello.", **more: Any) -> Order:
    return Order(text, Target(), **more)


@pytest.mark.parametrize(
    ("asked", "name", "weights"),
    [
        ({}, "speaker", ""),
        ({"model": "tts"}, "speaker", ""),
        ({"model": "tts-1"}, "speaker", ""),
        ({"model": "tts-1-hd"}, "speaker", ""),
        ({"model": "gpt-4o-mini-tts-2025-12-15"}, "speaker", ""),
        ({"model": "eleven_multilingual_v2"}, "speaker", ""),
        ({"model": "cloned-voice"}, "cloned-voice", "cloned-voice"),
        ({"model": "it-riccardo.onnx"}, "voice-riccardo", "voice-riccardo/it-riccardo.onnx"),
        (
            {"model": "it-riccardo.onnx", "backend": "piper"},
            "voice-riccardo",
            "voice-riccardo/it-riccardo.onnx",
        ),
        ({"model": "it-paola.onnx", "backend": "piper"}, "it-paola.onnx", "it-paola.onnx"),
        ({"backend": "piper"}, "voice-riccardo", "voice-riccardo/it-riccardo.onnx"),
        ({"backend": "vall-e-x"}, "cloned-voice", "cloned-voice"),
        ({"backend": "bark"}, "bark", ""),
        ({"backend": "bark", "model": "suno/bark-small"}, "bark", "suno/bark-small"),
        (
            {"backend": "coqui", "model": "tts_models/en/ljspeech/glow-tts"},
            "coqui",
            "tts_models/en/ljspeech/glow-tts",
        ),
        ({"model": "facebook/musicgen-small"}, "band", "facebook/musicgen-small"),
        ({"backend": MUSIC}, "band", "facebook/musicgen-small"),
    ],
)
def test_a_request_means_the_model_that_it_would_mean_in_localai(
    flow: SpeechFlow, asked: dict[str, str], name: str, weights: str
) -> None:
    node, meant = flow.select(order(**asked))
    assert (node.name, meant.model) == (name, weights)


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "it-Riccardo.onnx"},
        {"model": "it-riccardo"},
        {"model": "it-riccardo.onnx", "backend": "espeak-ng"},
        {"model": "speaker", "backend": "piper"},
        {"backend": "parler-tts"},
        {"backend": MUSIC, "model": "facebook/musicgen-medium"},
        {"backend": "coqui", "model": "../../etc"},
        {"backend": "coqui", "model": "/etc"},
        {"backend": "coqui", "model": "a/../b"},
        {"model": "tts", "backend": "piper"},
        {"model": "nobody"},
    ],
)
def test_an_unknown_model_is_told_what_is_installed(flow: SpeechFlow, asked: dict[str, str]) -> None:
    with pytest.raises(UnknownModel) as told:
        flow.select(order(**asked))
    for name in ("speaker (espeak-ng)", "voice-riccardo (piper)", "any model of backend bark", "install"):
        assert name in told.value.message


def test_a_model_of_another_kind_is_told_apart(flow: SpeechFlow) -> None:
    with pytest.raises(UnknownModel, match="is a face model; this route needs a tts model"):
        flow.select(order(model="portrait"))


@pytest.mark.parametrize("preset", ["v2/en_speaker_4", "en_speaker_9", "v2/announcer", "announcer"])
def test_barks_model_is_its_voice(flow: SpeechFlow, preset: str) -> None:
    node, meant = flow.select(order(backend="bark", model=preset))
    assert (node.name, meant.model, meant.voice) == ("bark", "", preset)
    _, meant = flow.select(order(backend="bark", model=preset, voice="v2/de_speaker_1"))
    assert meant.voice == "v2/de_speaker_1"


async def test_the_default_of_nothing_is_unknown(local_store: Any) -> None:
    flow = SpeechFlow({}, VoiceLibrary(local_store))
    for asked in ({}, {"model": "tts"}, {"backend": "piper"}):
        with pytest.raises(UnknownModel, match="Installed: none"):
            flow.select(order(**asked))


async def test_the_request_goes_before_the_model_file(flow: SpeechFlow, speaker: Remembers) -> None:
    deadline = later()
    told = order(voice="anna", language="fr", instructions="whisper", params={"seed": "7"})
    assert await flow.whole(told, deadline) == b"one two"
    await flow.whole(order(), deadline)
    first, second = speaker.asked
    assert (first.voice, first.language, first.instructions) == ("anna", "fr", "whisper")
    assert first.params == {"seed": "7"}
    assert (second.voice, second.language, second.instructions, second.params) == ("", "de", "", {})
    assert first.whole
    assert speaker.deadlines == [deadline] * 2


@pytest.mark.parametrize(
    ("speed", "params", "meant"),
    [(None, {}, 1.0), (0.8, {}, 0.8), (0.8, {"speed": "1.5"}, 1.5), (0.25, {}, 0.25), (4.0, {}, 4.0)],
)
async def test_speed_is_forwarded_and_params_win(
    flow: SpeechFlow, speaker: Remembers, speed: float | None, params: dict[str, str], meant: float
) -> None:
    await flow.whole(order(speed=speed, params={"ref_text": "hello", **params}), later())
    assert speaker.asked[0].speed == meant
    assert speaker.asked[0].params == {"ref_text": "hello"}


@pytest.mark.parametrize("speed", [0.0, 0.1, 4.5, -1.0, float("nan"), float("inf"), "fast", "", "0"])
def test_a_speed_outside_the_bounds_is_refused(speed: float | str) -> None:
    with pytest.raises(InvalidInput, match=r"speed: a number from 0.25 to 4"):
        speed_of(speed)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
async def test_empty_text_is_refused(flow: SpeechFlow, speaker: Remembers, text: str) -> None:
    with pytest.raises(InvalidInput, match="input: the text is empty"):
        await flow.speak(order(text), later())
    assert speaker.asked == []


async def test_long_text_is_refused(flow: SpeechFlow, speaker: Remembers) -> None:
    await flow.whole(order("a" * 100), later())
    with pytest.raises(TooLarge, match="input: more than 100 characters"):
        await flow.speak(order("a" * 101), later())
    assert len(speaker.asked) == 1


async def test_foreign_voices_mean_the_models_own(flow: SpeechFlow, speaker: Remembers) -> None:
    for voice in ("alloy", "marin", "JBFqnCBsd6RMkjVDRZzb", "anna", "it_IT-paola-medium-x"):
        await flow.whole(order(voice=voice), later())
    assert [one.any_voice for one in speaker.asked] == [True, True, True, False, False]
    assert speaker.asked[0].voice == "alloy"


async def test_the_first_error_is_raised_before_anything_is_answered(local_store: Any) -> None:
    speaker = Remembers(InvalidInput("no such voice"))
    flow = SpeechFlow({"a": SpeechNode("a", "b", speaker)}, VoiceLibrary(local_store))
    with pytest.raises(InvalidInput, match="no such voice"):
        await flow.speak(order(whole=False), later())
    assert speaker.closed == 1


async def test_whoever_leaves_closes_the_synthesis(flow: SpeechFlow, speaker: Remembers) -> None:
    pieces = await flow.speak(order(whole=False), later())
    assert await anext(pieces) == b"one "
    await pieces.aclose()
    assert speaker.closed == 1


async def test_an_error_in_the_middle_fails_the_whole(local_store: Any) -> None:
    class Late(Remembers):
        async def speak(self, request: SpeakRequest, deadline: float) -> AsyncGenerator[bytes, None]:
            async for piece in super().speak(request, deadline):
                yield piece
                raise DeadlineExceeded("too late")

    flow = SpeechFlow({"a": SpeechNode("a", "b", Late())}, VoiceLibrary(local_store))
    with pytest.raises(DeadlineExceeded):
        await flow.whole(order(), later())


async def test_a_voice_of_the_library_speaks(
    flow: SpeechFlow, speaker: Remembers, local_store: Any, tone: Any
) -> None:
    profile = await VoiceLibrary(local_store).add(
        tone(330, 1.5), name="Ada", description="", language="", transcript="", deadline=later()
    )
    await flow.whole(order(model="cloned-voice", voice=profile.voice), later())
    (asked,) = speaker.asked
    assert asked.voice == ""
    assert asked.reference is not None
    assert decode(asked.reference, 24_000, 10).seconds == pytest.approx(1.5, abs=0.01)
    for unknown in (SCHEME, SCHEME + "nobody", SCHEME + "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(UnknownRecord):
            await flow.speak(order(model="cloned-voice", voice=unknown), later())
    found = await flow.by_voice(order(), profile.id, later())
    assert (found.model, found.voice) == ("cloned-voice", profile.voice)


@pytest.mark.parametrize(
    ("voice_id", "model", "meant"),
    [
        ("anna", "", ("", "anna")),
        ("anna", "eleven_turbo_v2", ("", "anna")),
        ("anna", "voice-riccardo", ("voice-riccardo", "anna")),
        ("voice-riccardo", "", ("voice-riccardo", "")),
        ("voice-riccardo", "eleven_turbo_v2", ("voice-riccardo", "")),
        ("voice-riccardo:anna", "", ("voice-riccardo", "anna")),
        ("voice-riccardo", "speaker", ("speaker", "voice-riccardo")),
        ("nobody:anna", "", ("", "nobody:anna")),
    ],
)
async def test_a_voice_id_names_a_voice_or_a_model(
    flow: SpeechFlow, voice_id: str, model: str, meant: tuple[str, str]
) -> None:
    found = await flow.by_voice(order(model=model), voice_id, later())
    assert (found.model, found.voice) == meant


async def test_a_voice_id_that_is_no_profiles_is_unknown(flow: SpeechFlow) -> None:
    with pytest.raises(UnknownRecord):
        await flow.by_voice(order(), "00000000-0000-4000-8000-000000000000", later())


async def test_models_that_load_on_demand_and_music_tell_no_voices(flow: SpeechFlow) -> None:
    told = {node.name: [voice.name for voice in named] for node, named in await flow.voices(later())}
    assert told == {
        "speaker": ["anna"],
        "voice-riccardo": ["anna"],
        "it-paola.onnx": [],
        "cloned-voice": ["anna"],
    }


def test_music_is_made_by_the_model_that_makes_music(flow: SpeechFlow, local_store: Any) -> None:
    for model in ("", "eleven_text_to_sound_v2", "band", "facebook/musicgen-small"):
        assert flow.select(flow.music(order(model=model)))[0].name == "band"
    ad_hoc = SpeechFlow({}, VoiceLibrary(local_store), {MUSIC: SpeechNode(MUSIC, MUSIC, Remembers())})
    for model, weights in (("", ""), ("facebook/musicgen-medium", "facebook/musicgen-medium")):
        assert ad_hoc.select(ad_hoc.music(order(model=model)))[1].model == weights
    nothing = SpeechFlow({}, VoiceLibrary(local_store))
    with pytest.raises(UnknownModel, match="write a model file with backend transformers-musicgen"):
        nothing.music(order())
