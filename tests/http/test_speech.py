"""The speech routes of the HTTP application with the fake engine in this process."""

import asyncio
import base64
import io
import json
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import tts
from deployments.messages import SpeakRequest
from engines.audio import decode
from engines.errors import DeadlineExceeded, PresenceError
from engines.tts import Voice
from engines.types import EngineOptions
from graphs.face import FaceFlow
from graphs.http.application import http_application
from graphs.media import MediaReader, MediaRules
from graphs.services import Services
from graphs.settings import Gateway, ModelFile
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow, SpeechNode
from graphs.voice import VoiceFlow
from graphs.voices import VoiceLibrary

TTS, SPEECH, PROFILES = "/tts", "/v1/audio/speech", "/api/voice-profiles"
ELEVEN, SOUND = "/v1/text-to-speech", "/v1/sound-generation"
TEXT = "Hello world. This is the second sentence. Here is the third!"


class Part:
    """A synthesizer of the fake engine; errors are raised, as by the remote adapter."""

    def __init__(self) -> None:
        self.replica = tts.Synthesizer(tts.TtsSpec("fake", "fake-tts", EngineOptions()))
        self.sentences = 0
        self.ended = asyncio.Event()
        self.breaks_after = 99
        self.asked: list[SpeakRequest] = []

    async def speak(self, request: SpeakRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        try:
            async for piece in self.replica.speak(request, deadline):
                if isinstance(piece, PresenceError):
                    raise piece
                yield piece
                self.sentences += 1
                if self.sentences >= self.breaks_after:
                    raise DeadlineExceeded("too late")
        finally:
            self.ended.set()

    async def voices(self, deadline: float) -> Sequence[Voice]:
        return await self.replica.voices(None, deadline)


class Ready:
    """A status in which everything is."""

    async def states(self) -> dict[str, str]:
        return {"fake": "ready"}


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def app(part: Part, local_store: Any) -> FastAPI:
    media = MediaReader(MediaRules())
    library = VoiceLibrary(local_store, most=5, max_seconds=5)
    nodes = {
        "fake": SpeechNode("fake", "fake-tts", part),
        "other": SpeechNode("other", "fake-tts", part),
        "choir": SpeechNode("choir", "fake-tts", part, clones=True),
    }
    kinds = {"fake": "tts", "other": "tts", "portrait": "face"}
    services = Services(
        settings=Gateway(),
        models=(ModelFile(name="fake", backend="fake-tts"),),
        status=Ready(),
        face=FaceFlow({}, media, kinds),
        voice=VoiceFlow({}, media, kinds),
        speech=SpeechFlow(nodes, library, kinds=kinds, max_characters=2000),
        library=library,
        media=media,
        people={kind: Registrations(kind, local_store) for kind in ("face", "voice")},
        stores=Stores(local_store),
        started_at=0,
    )
    return http_application(services)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


async def spoken(client: httpx.AsyncClient, path: str = TTS, **body: Any) -> httpx.Response:
    answer = await client.post(path, json={"input": TEXT, **body})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (TTS, {"input": "Hello world", "model": "tts"}, 200),
        (TTS, {"input": "Hello world", "model": None, "voice": None, "stream": None, "params": None}, 200),
        (TTS, {"input": "Hello", "unknown": 1, "response_format": "perhaps", "sample_rate": 0}, 200),
        (TTS, {"input": "Hello", "backend": "fake-tts", "language": "xx"}, 200),
        (TTS, {"model": "tts"}, 400),
        (TTS, {"input": ""}, 400),
        (TTS, {"input": " \n"}, 400),
        (TTS, {"input": "... !"}, 400),
        (TTS, {"input": None}, 400),
        (TTS, {"input": ["Hello"]}, 400),
        (TTS, {"input": "Hello", "speed": 0}, 400),
        (TTS, {"input": "Hello", "speed": 0.2}, 400),
        (TTS, {"input": "Hello", "speed": 4.1}, 400),
        (TTS, {"input": "Hello", "params": {"speed": "9"}}, 400),
        (TTS, {"input": "Hello", "voice": "nobody"}, 400),
        (TTS, {"input": "Hello", "voice": "localai://voice-profiles/x"}, 404),
        (TTS, {"input": "Hello", "sample_rate": 1}, 400),
        (TTS, {"input": "Hello", "sample_rate": 48_001}, 400),
        (TTS, {"input": "Hello", "sample_rate": 44_101, "response_format": "mp3"}, 400),
        (TTS, {"input": "Hello", "stream_format": "perhaps"}, 400),
        (TTS, {"input": "Hello", "model": "nobody"}, 404),
        (TTS, {"input": "Hello", "model": "portrait"}, 404),
        (TTS, {"input": "Hello", "backend": "piper"}, 404),
        (TTS, {"input": "a " * 1001}, 413),
        (SPEECH, {"input": "Hello", "model": "tts-1", "voice": "alloy"}, 200),
        (SPEECH, {"input": "Hello", "model": "tts-1", "voice": {"id": "low"}}, 200),
        (SPEECH, {"input": "Hello", "response_format": "perhaps"}, 400),
        (SPEECH, {"input": "Hello", "voice": {"name": 1}}, 400),
        (f"{ELEVEN}/low", {"text": "Hello", "voice_settings": {"stability": 1, "speed": 1.1}}, 200),
        (f"{ELEVEN}/21m00Tcm4TlvDq8ikWAM", {"text": "Hello", "model_id": "eleven_multilingual_v2"}, 200),
        (f"{ELEVEN}/fake", {"text": "Hello"}, 200),
        (f"{ELEVEN}/other:high", {"text": "Hello"}, 200),
        (f"{ELEVEN}/nobody", {"text": "Hello"}, 400),
        (f"{ELEVEN}/low", {"text": ""}, 400),
        (f"{ELEVEN}/low", {}, 400),
        (f"{ELEVEN}/low", {"text": "Hello", "model_id": "nobody"}, 404),
        (f"{ELEVEN}/00000000-0000-4000-8000-000000000000", {"text": "Hello"}, 404),
        (f"{ELEVEN}/low?output_format=mp3_1_1", {"text": "Hello"}, 400),
        (f"{ELEVEN}/low?output_format=pcm_96000", {"text": "Hello"}, 400),
        (f"{ELEVEN}/low?output_format=perhaps", {"text": "Hello"}, 400),
        (f"{ELEVEN}/low/stream", {"text": "Hello"}, 200),
        (f"{ELEVEN}/low/stream", {"text": "..."}, 400),
        (SOUND, {"text": "rain"}, 404),
        (SOUND, {"text": "rain", "duration_seconds": -1}, 400),
    ],
)
async def test_each_answer_is_one_that_its_route_documents(
    app: FastAPI, client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert str(status) in documented(app, path)
    if status == 200:
        assert answer.headers["content-type"].startswith("audio/")
    elif path.startswith((ELEVEN, SOUND)):
        assert set(answer.json()) == {"detail"}
        assert set(answer.json()["detail"]) == {"status", "message"}
    else:
        assert answer.json()["error"]["code"] == status


def documented(app: FastAPI, path: str) -> dict[str, Any]:
    path = path.partition("?")[0]
    if path.startswith(ELEVEN):
        path = f"{ELEVEN}/{{voice_id}}" + ("/stream" if path.endswith("/stream") else "")
    responses: dict[str, Any] = app.openapi()["paths"][path]["post"]["responses"]
    return responses


TYPES = {
    "wav": ("audio/wav", "speech.wav"),
    "mp3": ("audio/mpeg", "speech.mp3"),
    "aac": ("audio/aac", "speech.aac"),
    "flac": ("audio/flac", "speech.flac"),
    "opus": ("audio/ogg", "speech.ogg"),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_format_is_what_it_says(client: httpx.AsyncClient, name: str, stream: bool) -> None:
    answer = await spoken(client, response_format=name, stream=stream)
    kind, filename = TYPES[name]
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"] == f'attachment; filename="{filename}"'
    assert ("content-length" in answer.headers) is not stream
    usual = decode((await spoken(client)).content, 16_000, 60)
    assert decode(answer.content, 16_000, 60).seconds == pytest.approx(usual.seconds, abs=0.15)


async def test_the_defaults_are_those_of_each_api(client: httpx.AsyncClient) -> None:
    assert (await spoken(client)).headers["content-type"] == "audio/wav"
    assert (await spoken(client, response_format="perhaps")).headers["content-type"] == "audio/wav"
    assert (await spoken(client, response_format="")).headers["content-type"] == "audio/wav"
    for path in (SPEECH, "/audio/speech"):
        assert (await spoken(client, path)).headers["content-type"] == "audio/mpeg"
    answer = await client.post(f"{ELEVEN}/low", json={"text": TEXT})
    assert answer.headers["content-type"] == "audio/mpeg"


async def test_pcm_is_bare_samples_at_24_kilohertz(client: httpx.AsyncClient) -> None:
    seconds = decode((await spoken(client)).content, 16_000, 60).seconds
    for path in (TTS, SPEECH):
        answer = await spoken(client, path, response_format="pcm")
        assert answer.headers["content-type"] == "audio/pcm"
        assert len(answer.content) / 2 / 24_000 == pytest.approx(seconds, abs=0.01)
    answer = await client.post(f"{ELEVEN}/fake?output_format=pcm_16000", json={"text": TEXT})
    assert len(answer.content) / 2 / 16_000 == pytest.approx(seconds, abs=0.01)


async def test_the_sample_rate_is_the_one_asked_for(client: httpx.AsyncClient) -> None:
    for rate, stream in ((8_000, False), (48_000, True)):
        answer = await spoken(client, sample_rate=rate, stream=stream)
        with wave.open(io.BytesIO(answer.content)) as file:
            assert file.getframerate() == rate


async def test_speed_reaches_the_sound(client: httpx.AsyncClient) -> None:
    usual, twice, params = [
        decode((await spoken(client, **body)).content, 16_000, 60).seconds
        for body in ({}, {"speed": 2}, {"speed": 0.5, "params": {"speed": 2}})
    ]
    assert twice == pytest.approx(usual / 2, rel=0.1)
    assert params == twice
    body = {"text": TEXT, "voice_settings": {"speed": 2}}
    answer = await client.post(f"{ELEVEN}/fake?output_format=wav", json=body)
    assert decode(answer.content, 16_000, 60).seconds == twice


async def test_fields_reach_the_model(client: httpx.AsyncClient, part: Part) -> None:
    params = {"a": 1, "b": True, "c": "d"}
    await spoken(client, voice="high", language="it", instructions="softly", params=params)
    (asked,) = part.asked
    assert (asked.voice, asked.language, asked.instructions) == ("high", "it", "softly")
    assert asked.params == {"a": "1", "b": "true", "c": "d"}
    await client.post(f"{ELEVEN}/low", json={"text": "Hi", "language_code": "fr", "seed": 7})
    assert (part.asked[1].voice, part.asked[1].language, part.asked[1].params) == ("low", "fr", {"seed": "7"})


async def test_events_carry_the_same_sound(client: httpx.AsyncClient) -> None:
    whole = (await spoken(client, SPEECH, response_format="pcm")).content
    answer = await spoken(client, SPEECH, response_format="pcm", stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    *deltas, done = events
    assert len(deltas) == 3
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == whole
    assert done["type"] == "speech.audio.done"
    assert done["usage"] == {"input_tokens": len(TEXT), "output_tokens": 0, "total_tokens": len(TEXT)}


async def test_an_error_before_the_first_sound_has_its_status(client: httpx.AsyncClient) -> None:
    for more in ({"stream": True}, {"stream_format": "sse"}, {}):
        answer = await client.post(SPEECH, json={"input": "Hi", "voice": "nobody", **more})
        assert answer.status_code == 400
        assert "known: low, high" in answer.json()["error"]["message"]


async def test_an_error_after_the_first_sound_ends_the_body(app: FastAPI, part: Part) -> None:
    part.breaks_after = 1
    messages = await exchange(app, {"input": TEXT, "stream": True})
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    assert messages[-1]["more_body"]


async def test_an_error_after_the_first_event_is_an_event(client: httpx.AsyncClient, part: Part) -> None:
    part.breaks_after = 1
    answer = await spoken(client, stream_format="sse")
    first, last = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert first["type"] == "speech.audio.delta"
    assert (last["type"], last["error"]["code"]) == ("error", 504)


SCOPE = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
    "method": "POST", "path": TTS, "raw_path": TTS.encode(), "query_string": b"", "scheme": "http",
    "headers": [(b"content-type", b"application/json")], "server": ("test", 80), "client": ("c", 1),
}  # fmt: skip


async def exchange(app: FastAPI, body: dict[str, Any], leaves_after: int = 99) -> list[dict[str, Any]]:
    """What the application sends; the client leaves after so many pieces of the body."""
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()
    incoming = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if gone.is_set():
            raise OSError("the client has gone")
        sent.append(dict(message))
        if len(sent) > leaves_after:
            gone.set()

    with pytest.raises(BaseException):  # noqa: PT011, B017 - however the server sees a broken exchange
        await app(dict(SCOPE), receive, send)
    return sent


async def test_when_the_client_leaves_the_synthesis_ends(app: FastAPI, part: Part) -> None:
    text = " ".join(["This is a sentence."] * 40)
    await exchange(app, {"input": text, "stream": True}, leaves_after=2)
    async with asyncio.timeout(10):
        await part.ended.wait()
    assert part.sentences < 5


async def test_a_client_that_reads_nothing_is_left_at_the_deadline(app: FastAPI, part: Part) -> None:
    object.__setattr__(app.state.services, "speech_deadline_s", 1.0)
    held = asyncio.Event()

    async def send(_: Any) -> None:
        if part.asked:
            await held.wait()

    incoming = [{"type": "http.request", "body": json.dumps({"input": TEXT, "stream": True}).encode()}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await held.wait()
        return {"type": "http.disconnect"}

    with pytest.raises(RuntimeError, match="response already started"):
        await app(dict(SCOPE), receive, send)
    assert part.ended.is_set()


async def test_voices_are_listed_in_elevenlabs_shape(
    client: httpx.AsyncClient, tone: Callable[..., bytes]
) -> None:
    added = await client.post(PROFILES, json=profile(tone(330, 1.5)))
    for path in ("/v1/voices", "/v2/voices"):
        told = (await client.get(path)).json()
        ids = [voice["voice_id"] for voice in told["voices"]]
        assert ids[:4] == ["fake", "low", "high", "other"]
        assert ids[-1] == added.json()["id"]
        assert told["total_count"] == len(ids) == len(set(ids))
    by_id = {voice["voice_id"]: voice for voice in told["voices"]}
    assert by_id["low"]["labels"] == {"model": "fake", "language": "en", "gender": "male"}
    assert (by_id[ids[-1]]["name"], by_id[ids[-1]]["category"]) == ("Ada", "cloned")
    for voice_id in ids[:-1]:
        assert (await client.post(f"{ELEVEN}/{voice_id}", json={"text": "Hi"})).status_code == 200


async def test_the_models_have_the_shape_of_the_api_that_asks(client: httpx.AsyncClient) -> None:
    ours = (await client.get("/v1/models")).json()
    assert [model["id"] for model in ours["data"]] == ["fake"]
    theirs = (await client.get("/v1/models", headers={"xi-api-key": "k"})).json()
    assert [model["model_id"] for model in theirs] == ["fake", "other", "choir"]
    assert all(model["can_do_text_to_speech"] for model in theirs)
    assert theirs[0]["languages"] == [{"language_id": "en", "name": "en"}]


def profile(clip: bytes, **more: Any) -> dict[str, Any]:
    audio = base64.b64encode(clip).decode()
    return {"name": "Ada", "transcript": "hm", "audio_base64": audio, "consent_confirmed": True, **more}


async def test_a_profile_comes_as_json_and_is_heard_in_parts(
    client: httpx.AsyncClient, tone: Callable[..., bytes]
) -> None:
    added = await client.post(PROFILES, json=profile(tone(330, 1.5), description="calm", language="en"))
    assert added.status_code == 201
    card = added.json()
    assert card["voice"] == f"localai://voice-profiles/{card['id']}"
    assert (card["name"], card["description"], card["language"], card["transcript"]) == (
        "Ada",
        "calm",
        "en",
        "hm",
    )
    assert (await client.get(PROFILES)).json() == {"data": [card]}
    heard = await client.get(f"{PROFILES}/{card['id']}/audio")
    assert heard.headers["content-type"] == "audio/wav"
    assert heard.headers["cache-control"] == "private, no-store"
    assert len(heard.content) == card["audio"]["size_bytes"]
    samples = decode(heard.content, 24_000, 5)
    assert samples.seconds == pytest.approx(card["audio"]["duration_ms"] / 1000, abs=0.002)
    assert np.abs(samples.samples).max() == pytest.approx(0.3, abs=0.02)
    assert (await client.delete(f"{PROFILES}/{card['id']}")).status_code == 204
    assert (await client.get(f"{PROFILES}/{card['id']}/audio")).status_code == 404
    assert (await client.delete(f"{PROFILES}/{card['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=8-11", 206, slice(8, 12)),
        ("bytes=-10", 206, slice(-10, None)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=40-99999999999", 206, slice(40, None)),
        ("bytes=99999999-", 416, slice(0, 0)),
        ("bytes=9-3", 416, slice(0, 0)),
        ("bytes=-", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
async def test_a_recording_is_answered_in_parts(
    client: httpx.AsyncClient, tone: Callable[..., bytes], asked: str, status: int, part: slice
) -> None:
    path = f"{PROFILES}/{(await client.post(PROFILES, json=profile(tone(330, 1.0)))).json()['id']}/audio"
    whole = (await client.get(path)).content
    assert whole[:4] == b"RIFF"
    answer = await client.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, whole[part])


async def test_a_profile_comes_as_a_form(client: httpx.AsyncClient, tone: Callable[..., bytes]) -> None:
    told = {
        "name": "Documentary narrator",
        "language": "en-US",
        "transcript": "The words.",
        "consent_confirmed": "true",
    }
    files = {"audio": ("reference.wav", tone(330, 2.0), "audio/wav")}
    added = await client.post(PROFILES, data=told, files=files)
    assert added.status_code == 201, added.text
    assert added.json()["name"] == "Documentary narrator"
    assert added.json()["audio"]["duration_ms"] == 2000
    assert (
        await client.post(PROFILES, data={**told, "consent_confirmed": "false"}, files=files)
    ).status_code == 400
    assert (await client.post(PROFILES, files={"name": (None, "A")})).status_code == 400
    assert (await client.post(PROFILES, data=told, files={"audio": (None, "text")})).status_code == 400
    broken = {"Content-Type": "multipart/form-data"}
    assert (await client.post(PROFILES, content=b"--x", headers=broken)).status_code == 400


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"consent_confirmed": False}, 400),
        ({"name": ""}, 400),
        ({"name": None}, 400),
        ({"audio_base64": "%%%"}, 400),
        ({"audio_base64": ""}, 400),
        ({"audio_base64": "AAAA"}, 415),
    ],
)
async def test_a_profile_that_is_no_good_is_refused(
    client: httpx.AsyncClient, tone: Callable[..., bytes], more: dict[str, Any], status: int
) -> None:
    answer = await client.post(PROFILES, json=profile(tone(330, 1.0), **more))
    assert answer.status_code == status
    if more == {"consent_confirmed": False}:
        assert "consent" in answer.json()["error"]["message"]
    assert (await client.get(PROFILES)).json() == {"data": []}


async def test_profiles_are_bounded_in_length(client: httpx.AsyncClient, tone: Callable[..., bytes]) -> None:
    assert (await client.post(PROFILES, json=profile(tone(330, 0.5)))).status_code == 400
    assert (await client.post(PROFILES, json=profile(tone(330, 6.0)))).status_code == 413
    assert (await client.post(PROFILES, content=b"{")).status_code == 400


async def test_a_profile_asked_of_a_model_that_clones_nothing(
    client: httpx.AsyncClient, tone: Callable[..., bytes]
) -> None:
    added = (await client.post(PROFILES, json=profile(tone(330, 1.0)))).json()
    answer = await client.post(TTS, json={"input": "Hi", "voice": added["voice"]})
    assert answer.status_code == 400
    assert "library" in answer.json()["error"]["message"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = ["model", "voice", "backend", "language", "response_format", "stream", "sample_rate"]
FIELDS += ["speed", "instructions", "params", "stream_format", "model_id", "voice_settings", "name", "seed"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([TTS, SPEECH, f"{ELEVEN}/low", f"{ELEVEN}/low/stream", SOUND, PROFILES]),
    body=ANYTHING
    | st.fixed_dictionaries(
        {"input": st.text(max_size=30), "text": st.text(max_size=30)},
        optional=dict.fromkeys(FIELDS, ANYTHING),
    ),
)
async def test_no_body_is_answered_beyond_the_documents(
    app: FastAPI, client: httpx.AsyncClient, path: str, body: object
) -> None:
    answer = await client.post(path, content=json.dumps(body))
    assert str(answer.status_code) in documented(app, path), answer.text
