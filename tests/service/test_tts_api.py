"""Speech of the default service over real HTTP, by its own clients and by those of OpenAI and ElevenLabs."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from elevenlabs import ElevenLabs, VoiceSettings
from elevenlabs.core.api_error import ApiError

from bench.speech import served
from engines.audio import decode

pytestmark = pytest.mark.service

TEXT = "Good morning. This is a sentence of the test. And here is another one, which is the last."
LONG = "This sentence is spoken again and again, and nobody listens to it. " * 140
LOST_S = 60


@pytest.fixture(scope="module")
def client(default_service: Any) -> Iterator[httpx.Client]:
    with default_service.client(120) as opened:
        yield opened


def tts(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/tts", json={"input": TEXT, **body})


def seconds(sound: bytes) -> float:
    return decode(sound, 16_000, 3600).seconds


@pytest.fixture(scope="module")
def usual_s(client: httpx.Client) -> float:
    """How long the text lasts."""
    answer = tts(client)
    assert answer.status_code == 200, answer.text
    return seconds(answer.content)


def counter(client: httpx.Client, name: str) -> float:
    """Sum of a counter over all replicas."""
    samples = re.findall(rf"^ray_presence_tts_{name}_total{{.*}} (\S+)$", client.get("/metrics").text, re.M)
    return sum(map(float, samples))


def test_the_first_line_of_localais_page_works(client: httpx.Client) -> None:
    answer = client.post("/tts", json={"input": "Hello world", "model": "tts"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.headers["content-disposition"] == 'attachment; filename="speech.wav"'
    sound = decode(answer.content, 16_000, 10)
    assert 0.5 < sound.seconds < 3
    assert np.abs(sound.samples).max() > 0.1


@pytest.mark.parametrize("name", ["wav", "mp3", "aac", "flac", "opus"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_format_decodes_to_the_whole_text(
    client: httpx.Client, usual_s: float, name: str, stream: bool
) -> None:
    answer = tts(client, response_format=name, stream=stream)
    assert answer.status_code == 200
    assert seconds(answer.content) == pytest.approx(usual_s, abs=0.2)


def test_pcm_has_24_000_samples_a_second(client: httpx.Client, usual_s: float) -> None:
    assert len(tts(client, response_format="pcm").content) / 48_000 == pytest.approx(usual_s, abs=0.05)


def test_speed_changes_how_long_it_takes(client: httpx.Client, usual_s: float) -> None:
    for speed in (0.25, 0.5, 2.0, 4.0):
        spoken = seconds(tts(client, speed=speed).content)
        assert spoken == pytest.approx(usual_s / speed, rel=0.3)
    assert tts(client, speed=0).status_code == 400


def test_voices_and_languages_differ(client: httpx.Client) -> None:
    sounds = {tts(client, voice=voice).content for voice in ("en-us", "en-us+f3", "de", "it")}
    sounds.add(tts(client, language="fr").content)
    assert len(sounds) == 5
    assert tts(client, voice="nobody").status_code == 400


def test_what_is_not_installed_is_told(client: httpx.Client) -> None:
    body = {"model": "it-riccardo_fasol-x-low.onnx", "backend": "piper", "input": "Ciao, sono Ettore"}
    answer = client.post("/tts", json=body)
    assert answer.status_code == 404
    assert "espeak-ng" in answer.json()["error"]["message"]


def test_a_stream_begins_before_the_text_is_spoken_and_ends_with_its_client(client: httpx.Client) -> None:
    before, abandoned = counter(client, "characters"), counter(client, "abandoned")
    body = {"input": LONG, "stream": True, "sample_rate": 48_000}
    with client.stream("POST", "/tts", json=body) as answer:
        assert answer.status_code == 200
        first = next(answer.iter_raw())
    assert first[:4] == b"RIFF"
    deadline = time.monotonic() + LOST_S
    while counter(client, "abandoned") == abandoned and time.monotonic() < deadline:
        time.sleep(0.2)  # exporters are asked, they do not tell
    assert counter(client, "abandoned") == abandoned + 1
    assert counter(client, "characters") - before < len(LONG) / 2


def test_events_carry_the_sound(client: httpx.Client, usual_s: float) -> None:
    body = {
        "input": TEXT,
        "model": "tts-1",
        "voice": "alloy",
        "response_format": "mp3",
        "stream_format": "sse",
    }
    answer = client.post("/v1/audio/speech", json=body)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event["type"] for event in events[-1:]] == ["speech.audio.done"]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert len(events) > 3
    sound = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert seconds(sound) == pytest.approx(usual_s, abs=0.2)


HOSTILE = [
    "\0\1\2 hello \x7f",
    "\u202eolleh \u200b\ufeff world\u0301\u0301\u0301\u0301",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 hello",
    "<speak><break time='9999s'/><audio src='file:///etc/passwd'/>hello</speak>",
    "[[h@l'oU]] {{}} %s%n%x $(id) `id` \\n",
    "a" * 9_999,
    "9" * 9_999,
    "hello " + "!?.," * 2_000,
    "שלום مرحبا 你好 こんにちは สวัสดี नमस्ते Привет",
    "\n\n\n".join(["word"] * 500),
    "ﷺ" * 500,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_spoken_or_refused(client: httpx.Client, text: str) -> None:
    for stream in (False, True):
        answer = client.post("/tts", json={"input": text, "stream": stream, "response_format": "mp3"})
        assert answer.status_code in (200, 400, 413), answer.text
        assert answer.headers["content-type"] == "audio/mpeg" or "error" in answer.json()
    assert client.post("/tts", json={"input": "Still here."}).status_code == 200


@pytest.mark.parametrize("text", ["", " ", "...", "\u200b", "\U0001f600"])
def test_text_of_which_nothing_can_be_spoken_is_refused(client: httpx.Client, text: str) -> None:
    assert client.post("/tts", json={"input": text}).status_code == 400


def test_text_that_is_too_long_is_refused(client: httpx.Client) -> None:
    assert client.post("/tts", json={"input": "word " * 2_001}).status_code == 413


def test_eight_at_a_time_each_get_their_own(client: httpx.Client) -> None:
    def spoken(number: int) -> bytes:
        text = " ".join([f"This is number {number}."] * (number + 1))
        return client.post("/tts", json={"input": text, "stream": number % 2 == 0}).content

    alone = [seconds(spoken(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = [seconds(sound) for sound in pool.map(spoken, range(8))]
    assert together == pytest.approx(alone, abs=0.05)
    assert together == sorted(together)


@pytest.fixture(scope="module")
def theirs(default_service: Any) -> Iterator[openai.OpenAI]:
    with openai.DefaultHttpxClient(trust_env=False, timeout=120) as http:
        yield openai.OpenAI(
            base_url=f"{default_service.url}/v1", api_key="none", http_client=http, max_retries=0
        )


def test_openais_client_speaks(theirs: openai.OpenAI, usual_s: float) -> None:
    for name in ("mp3", "opus", "aac", "flac", "wav"):
        answer = theirs.audio.speech.create(
            input=TEXT, model="gpt-4o-mini-tts", voice="nova", response_format=name, instructions="Be kind."
        )
        assert seconds(answer.content) == pytest.approx(usual_s, abs=0.2)
    with theirs.audio.speech.with_streaming_response.create(
        input=TEXT, model="tts-1", voice={"id": "en-us"}, stream_format="audio", speed=2.0
    ) as stream:
        assert seconds(b"".join(stream.iter_bytes())) == pytest.approx(usual_s / 2, rel=0.3)


def test_openais_client_reads_the_errors(theirs: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        theirs.audio.speech.create(input=TEXT, model="nobody", voice="nova")
    with pytest.raises(openai.BadRequestError, match="voice"):
        theirs.audio.speech.create(input=TEXT, model="tts-1", voice="nobody")
    assert "espeak-ng" in {model.id for model in theirs.models.list()}


@pytest.fixture(scope="module")
def eleven(default_service: Any) -> Iterator[ElevenLabs]:
    with httpx.Client(trust_env=False, timeout=120) as http:
        yield ElevenLabs(base_url=default_service.url, api_key="none", httpx_client=http)


def test_elevenlabs_client_speaks(eleven: ElevenLabs, usual_s: float) -> None:
    voices = eleven.voices.get_all().voices
    assert {"espeak-ng", "en-us", "de"} <= {voice.voice_id for voice in voices}
    assert len(eleven.voices.search().voices) == len(voices)
    assert [model.model_id for model in eleven.models.list()] == ["espeak-ng"]
    for voice_id in ("en-us", "espeak-ng", "JBFqnCBsd6RMkjVDRZzb"):
        sound = eleven.text_to_speech.convert(voice_id, text=TEXT, model_id="eleven_multilingual_v2")
        assert seconds(b"".join(sound)) == pytest.approx(usual_s, rel=0.2)
    settings = VoiceSettings(stability=0.5, similarity_boost=0.75, speed=2.0)
    sound = eleven.text_to_speech.stream(
        "en-us", text=TEXT, voice_settings=settings, output_format="mp3_22050_32", seed=1
    )
    assert seconds(b"".join(sound)) == pytest.approx(usual_s / 2, rel=0.3)
    bare = b"".join(eleven.text_to_speech.convert("en-us", text=TEXT, output_format="pcm_16000"))
    assert len(bare) / 32_000 == pytest.approx(usual_s, rel=0.2)


def test_elevenlabs_client_reads_the_errors(eleven: ElevenLabs) -> None:
    calls: list[tuple[int, Callable[[], Any]]] = [
        (400, lambda: eleven.text_to_speech.convert("nobody", text=TEXT)),
        (404, lambda: eleven.text_to_speech.convert("en-us", text=TEXT, model_id="nobody")),
        (400, lambda: eleven.text_to_speech.convert("en-us", text="")),
    ]
    for status, call in calls:
        with pytest.raises(ApiError) as told:
            b"".join(call())
        assert told.value.status_code == status
        assert set(told.value.body["detail"]) == {"status", "message"}


def test_a_voice_of_the_library_is_kept(client: httpx.Client, tone: Callable[..., bytes]) -> None:
    files = {"audio": ("me.wav", tone(330, 2.0), "audio/wav")}
    added = client.post("/api/voice-profiles", data={"name": "Ada", "consent_confirmed": "true"}, files=files)
    assert added.status_code == 201, added.text
    card = added.json()
    assert card in client.get("/api/voice-profiles").json()["data"]
    path = f"/api/voice-profiles/{card['id']}"
    assert seconds(client.get(f"{path}/audio").content) == pytest.approx(2.0, abs=0.01)
    assert client.get(f"{path}/audio", headers={"Range": "bytes=0-3"}).content == b"RIFF"
    refused = tts(client, voice=card["voice"])
    assert (refused.status_code, "library" in refused.text) == (400, True)
    assert client.delete(path).status_code == 204
    assert client.get(f"{path}/audio").status_code == 404


@pytest.mark.parametrize(
    ("told", "length_s", "status", "param"),
    [
        ({}, 2.0, 400, "consent_confirmed"),
        ({"consent_confirmed": "true", "name": " "}, 2.0, 400, "name"),
        ({"consent_confirmed": "true"}, 0.2, 400, "audio"),
        ({"consent_confirmed": "true"}, 0.0, 415, "audio"),
    ],
)
def test_a_refused_voice_names_the_field(
    client: httpx.Client,
    tone: Callable[..., bytes],
    told: dict[str, str],
    length_s: float,
    status: int,
    param: str,
) -> None:
    clip = tone(330, length_s)
    told = {"name": "Ada"} | told
    body = told | {"audio_base64": base64.b64encode(clip).decode()}
    by_form = client.post("/api/voice-profiles", data=told, files={"audio": ("me.wav", clip)})
    by_json = client.post("/api/voice-profiles", json=body)
    for answer, field in ((by_form, param), (by_json, param.replace("audio", "audio_base64"))):
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, field)
        assert field in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        (b'{"name": "Ada"', None, "JSON"),
        (b'{"name": 1}', "name", "string"),
        (b'{"name": "Ada"}', "audio_base64", ""),
    ],
)
def test_a_body_that_is_no_voice_names_the_field(
    client: httpx.Client, body: bytes, param: str | None, word: str
) -> None:
    refused = client.post("/api/voice-profiles", content=body)
    error = refused.json()["error"]
    assert (refused.status_code, error.get("param")) == (400, param)
    assert word in error["message"]
    assert "file" not in error["message"]


def test_the_metrics_tell_what_was_spoken(client: httpx.Client, usual_s: float) -> None:
    for _ in range(100):
        if counter(client, "audio_seconds") >= usual_s:
            break
        time.sleep(0.2)  # exporters are asked, they do not tell
    assert counter(client, "audio_seconds") >= usual_s
    assert counter(client, "characters") > 0
    exposed = client.get("/metrics").text
    assert "ray_presence_tts_real_time_factor_bucket{" in exposed
    assert "ray_presence_tts_first_piece_ms_bucket{" in exposed


def test_the_description_names_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {
        "/tts",
        "/v1/audio/speech",
        "/v1/text-to-speech/{voice_id}",
        "/v1/voices",
        "/v1/sound-generation",
    }
    wanted |= {
        "/v1/text-to-speech/{voice_id}/stream",
        "/api/voice-profiles",
        "/api/voice-profiles/{profile_id}/audio",
    }
    assert wanted <= set(paths)


async def test_the_bench_measures_the_service(default_service: Any) -> None:
    rows = [
        await served(default_service.port, "espeak-ng", 2, 0.5, stream=stream) for stream in (False, True)
    ]
    assert [(row.way, row.clients) for row in rows] == [("whole", 2), ("stream", 2)]
    for row in rows:
        assert row.texts >= 2
        assert 0 < row.first_ms <= row.first_p95_ms
        assert row.first_ms <= row.text_ms


def test_models_on_demand_start_with_the_first_request_and_keys_are_elevenlabs_too(
    serve_with: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    arguments = {
        "models": [{"name": "fake", "backend": "fake-tts", "tts": {"voice": "high"}}],
        "gateway": {"api_keys_file": str(keys)},
        "store": {"directory": str(tmp_path / "store")},
        "speech": {"on_demand": {"backends": ["fake-tts", "vall-e-x"]}},
    }
    with serve_with(arguments) as own, own.client(120) as client:
        refused = client.get("/v1/voices", headers={"xi-api-key": "wrong"})
        assert (refused.status_code, set(refused.json())) == (401, {"detail"})
        client.headers["xi-api-key"] = "secret"
        assert [model["model_id"] for model in client.get("/v1/models").json()] == ["fake"]
        usual = client.post("/tts", json={"input": "Hello."})
        assert usual.status_code == 200
        other = client.post("/tts", json={"input": "Hello.", "backend": "fake-tts", "model": "any/weights"})
        assert other.status_code == 200, other.text
        assert other.content != usual.content
        missing = client.post("/tts", json={"input": "Hello.", "backend": "vall-e-x"})
        assert missing.status_code == 404
        assert "vall-e-x" in missing.json()["error"]["message"]
        assert client.get("/readyz").status_code == 200
    assert own.log.read_text().endswith("stopping ...\n"), "it ends without a complaint"
