"""The neural speech engines behind the routes, on small random models of their real classes."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from engines.audio import decode
from tests.service.test_docs import EXAMPLES, MUSIC, PRINTED, STRICT

pytestmark = pytest.mark.service

MODEL_FILES = """
- name: music
  backend: transformers-musicgen
  parameters: {model: musicgen}
  options: ["duration_seconds:0.5"]
- name: xtts_v2
  backend: coqui
  parameters:
    language: fr
    model: xtts
  tts:
    voice: Ana Florence
  deployment: {synthesizer: {runtime_env: {env_vars: {COQUI_TOS_AGREED: "1"}}}}
- name: cloned-voice
  backend: vall-e-x
  parameters:
    model: "cloned-voice"
  tts:
    vall-e:
      audio_path: "audio-sample.wav"
"""


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by a process of its own, so that this one need not hold torch."""
    pytest.importorskip("TTS", reason="install presence[coqui]", exc_type=ImportError)
    directory = tmp_path_factory.mktemp("speech-models")
    command = [sys.executable, "-m", "tests.service.neural_speech", str(directory)]
    root = Path(__file__).parents[2]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)
    return directory


@pytest.fixture(scope="module")
def speech(
    serve_with: Callable[..., AbstractContextManager[Any]], models_dir: Path
) -> Iterator[httpx.Client]:
    arguments = {
        "models": yaml.safe_load(MODEL_FILES),
        "store": {"directory": str(models_dir / "store")},
        "speech": {"on_demand": {"backends": ["bark", "coqui", "transformers-musicgen"], "loaded": 2}},
    }
    with serve_with(arguments, models_dir) as own, own.client(300) as client:
        yield client


def spoken(client: httpx.Client, body: dict[str, Any], **more: Any) -> np.ndarray:
    answer = client.post("/tts", json={"params": {"seed": "7"}, "sample_rate": 16_000, **body, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/wav"
    return decode(answer.content, 16_000, 60).samples


def test_bark_speaks_without_a_model_file(speech: httpx.Client) -> None:
    bark = {"backend": "bark", "model": "bark", "input": "hello world"}
    plain = spoken(speech, bark)
    assert plain.std() > 0.001
    np.testing.assert_array_equal(spoken(speech, bark), plain)
    assert not np.array_equal(spoken(speech, bark, voice="v2/en_speaker_4"), plain)


def test_musicgen_plays_what_is_described(speech: httpx.Client) -> None:
    music = {"backend": "transformers-musicgen", "model": "musicgen", "input": "Cello Rave"}
    sound = spoken(speech, music, params={"seed": "7", "duration_seconds": "2"})
    assert len(sound) == pytest.approx(2 * 16_000, abs=200)
    assert sound.std() > 0.001


def test_the_example_of_sound_generation_runs_as_printed(speech: httpx.Client, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    (example,) = (one for one in EXAMPLES if MUSIC in one.text)
    script = STRICT + example.text.replace(PRINTED, str(speech.base_url).rstrip("/"))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, timeout=120)
    assert decode((tmp_path / "rain.mp3").read_bytes(), 16_000, 60).seconds == pytest.approx(2, abs=0.1)


def test_coqui_speaks_with_the_voices_of_a_model(speech: httpx.Client) -> None:
    vits = {"backend": "coqui", "model": "vits", "input": "hello world", "language": "en"}
    ann, bob = (spoken(speech, vits, voice=voice) for voice in ("ann", "bob"))
    assert ann.std() > 0.001
    assert not np.array_equal(ann, bob)
    refused = speech.post("/tts", json={**vits, "voice": "eve"})
    assert (refused.status_code, "ann, bob" in refused.text) == (400, True)


def test_xtts_speaks_by_its_model_file_and_clones_a_voice_of_the_library(
    speech: httpx.Client, tone: Callable[..., bytes]
) -> None:
    xtts = {"model": "xtts_v2", "input": "bonjour"}
    usual = spoken(speech, xtts)
    assert usual.std() > 0.001
    np.testing.assert_array_equal(spoken(speech, xtts, voice="Ana Florence", language="fr"), usual)
    voices = speech.get("/v1/voices").json()["voices"]
    assert "Ana Florence" in {voice["voice_id"] for voice in voices}
    files = {"audio": ("me.wav", tone(330, 3.0), "audio/wav")}
    form = {"name": "Ada", "consent_confirmed": "true"}
    card = speech.post("/api/voice-profiles", data=form, files=files).json()
    clone = spoken(speech, xtts, voice=card["voice"])
    assert clone.std() > 0.001
    assert not np.array_equal(clone, usual)


def test_a_seed_repeats_the_sound_by_elevenlabs_route_too(speech: httpx.Client) -> None:
    def sound(seed: int) -> bytes:
        body = {"text": "bonjour", "seed": seed}
        answer = speech.post("/v1/text-to-speech/xtts_v2?output_format=wav_16000", json=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    one, again, other = sound(7), sound(7), sound(8)
    assert one == again
    assert one != other


def test_vall_e_x_clones_the_recording_of_its_model_file(speech: httpx.Client) -> None:
    """The stand-in for its checkout speaks at the level of what it clones."""
    hello = {"model": "cloned-voice", "input": "Hello!"}
    assert np.median(spoken(speech, hello)) == pytest.approx(0.5, abs=0.05)
    assert np.median(spoken(speech, hello, voice="alan")) == pytest.approx(0.3, abs=0.05)


def test_models_on_demand_make_room_for_each_other(speech: httpx.Client) -> None:
    """The replica keeps two of the three."""
    for _ in range(2):
        for backend, model in (("bark", "bark"), ("transformers-musicgen", "musicgen"), ("coqui", "vits")):
            short = {"seed": "7"} | ({"duration_seconds": "0.5"} if model == "musicgen" else {})
            body = {"backend": backend, "model": model, "input": "hello world"}
            assert spoken(speech, body, params=short).std() > 0.001


def test_what_is_no_checkpoint_is_told_without_its_place(speech: httpx.Client, models_dir: Path) -> None:
    missing = speech.post("/tts", json={"backend": "bark", "model": "vits", "input": "hello"})
    assert missing.status_code == 404
    assert str(models_dir) not in missing.text
