"""Requests of the speech routes: LocalAI's and OpenAI's fields together."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field


def _empty(value: object) -> object:
    """Optional text: null means none, as clients send it."""
    return "" if value is None else value


Text = Annotated[str, Field(max_length=4096), BeforeValidator(_empty)]
Word = Annotated[str, Field(max_length=256), BeforeValidator(_empty)]
Params = dict[Annotated[str, Field(max_length=64)], str | int | float | bool]


class CustomVoice(BaseModel):
    """OpenAI's way to name a voice that is not one of its own."""

    id: Word


class SpeechRequest(BaseModel):
    """A text to speak. Fields that the model cannot follow have no effect."""

    input: str = Field(description="what to speak")
    model: Word = Field("", description="a model, or the file name of its weights; absent: the first one")
    backend: Word = Field("", description="only models of this backend")
    voice: Annotated[str, Field(max_length=256)] | CustomVoice | None = Field(
        None,
        description="a voice of the model, localai://voice-profiles/ID, or one of OpenAI's names: the "
        "model's own voice where it has none of that name",
    )
    language: Word = Field("", description="BCP 47, or the engine's own code")
    response_format: Word = Field("", description="wav, mp3, aac, flac, opus, pcm, ulaw or alaw")
    sample_rate: int | None = Field(
        None, description="samples a second; absent or 0: the format's or model's"
    )
    speed: float | None = Field(None, description="0.25..4, 1 is the voice's own; `params.speed` wins")
    instructions: Text = Field("", description="how to speak, for models that follow it")
    params: Params | None = Field(None, max_length=32, description="further values for the engine")
    stream: bool | None = Field(None, description="send sound as soon as it is spoken")
    stream_format: Literal["audio", "sse"] | None = Field(
        None, description="the same: as bytes, or as server-sent events"
    )

    @property
    def voice_name(self) -> str:
        """The voice as text, "" for none."""
        return self.voice.id if isinstance(self.voice, CustomVoice) else self.voice or ""

    @property
    def text_params(self) -> dict[str, str]:
        """The params as engines take them."""
        return as_text(self.params or {})


def as_text(params: Params) -> dict[str, str]:
    """Each value as text, numbers and truth values as JSON writes them."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
