"""Null in a request: as if the field were left out, an error where it is needed."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from graphs.http.wire import elevenlabs, face, registrations, stores, tts, voice, voice_profiles

SAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    face.VerifyRequest: {"img1": "x", "img2": "x"},
    face.AnalyzeRequest: {"img": "x"},
    face.EmbedRequest: {"img": "x"},
    face.RegisterRequest: {"img": "x", "name": "x"},
    face.IdentifyRequest: {"img": "x"},
    face.DetectionRequest: {"image": "x"},
    voice.VoiceVerifyRequest: {"audio1": "x", "audio2": "x"},
    voice.VoiceAnalyzeRequest: {"audio": "x"},
    voice.VoiceEmbedRequest: {"audio": "x"},
    voice.VoiceRegisterRequest: {"audio": "x", "name": "x"},
    voice.VoiceIdentifyRequest: {"audio": "x"},
    voice_profiles.NewProfile: {"name": "x", "audio_base64": "x"},
    registrations.Change: {},
    registrations.ForgetRequest: {"id": "x"},
    stores.SetRequest: {"keys": [[1.0]], "values": ["x"]},
    stores.KeysRequest: {"keys": [[1.0]]},
    stores.FindRequest: {"key": [1.0], "topk": 1},
    tts.SpeechRequest: {"input": "x"},
    elevenlabs.TextToSpeechRequest: {"text": "x"},
    elevenlabs.SoundRequest: {"text": "x"},
}
"""Every request, with the fields that it needs and no other."""


def optional(kind: type[BaseModel]) -> list[str]:
    return [name for name, one in kind.model_fields.items() if not one.is_required()]


@pytest.mark.parametrize("kind", SAMPLES)
def test_null_is_the_default_of_a_field_that_may_be_left_out(kind: type[BaseModel]) -> None:
    sample = SAMPLES[kind]
    bare = kind.model_validate(sample)
    for name in optional(kind):
        assert kind.model_validate({**sample, name: None}) == bare, name
    assert kind.model_validate({**sample, **dict.fromkeys(optional(kind))}) == bare


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, sample in SAMPLES.items() for name in sample]
)
def test_null_is_no_value_of_a_field_that_is_needed(kind: type[BaseModel], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({**SAMPLES[kind], name: None})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


def test_every_request_of_faces_and_voices_is_here() -> None:
    told = {
        kind
        for module in (face, voice, stores, tts, elevenlabs)
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and kind.__name__.endswith("Request")
    }
    assert told - {stores.StoreRequest} <= SAMPLES.keys()
