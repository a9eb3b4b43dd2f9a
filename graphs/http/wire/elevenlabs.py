"""Requests and responses of ElevenLabs' routes.

Source: https://elevenlabs.io/docs/api-reference. Fields that mean nothing here are accepted.
"""

from pydantic import BaseModel, Field

from graphs.http.wire.tts import Text, Word


class VoiceSettings(BaseModel):
    """How the voice speaks. The others of ElevenLabs' settings belong to its own models."""

    speed: float | None = Field(None, description="0.25..4, 1 is the voice's own")


class TextToSpeechRequest(BaseModel):
    """A text to speak."""

    text: str
    model_id: Word = Field("", description="a model; absent, or one of ElevenLabs' own: that of the voice")
    language_code: Word = Field("", description="BCP 47, or the engine's own code")
    voice_settings: VoiceSettings | None = None
    instructions: Text = Field("", description="how to speak, for models that follow it")
    seed: int | None = Field(
        None,
        ge=0,
        le=2**32 - 1,
        description="the same seed, text and voice give the same sound, where the model can",
    )


class SoundRequest(BaseModel):
    """A sound, or music, to make."""

    text: str = Field(description="what it is like")
    model_id: Word = Field("", description="a model of backend transformers-musicgen; absent: the first one")
    duration_seconds: float | None = Field(None, gt=0, le=300, allow_inf_nan=False)
    prompt_influence: float | None = Field(
        None, ge=0, le=10, allow_inf_nan=False, description="passed on as `temperature`, as LocalAI does"
    )
    do_sample: bool | None = Field(None, description="draw at random")


class VoiceCard(BaseModel):
    """A voice that requests can name."""

    voice_id: str
    name: str
    category: str = Field(description="premade, or cloned for those of the library")
    labels: dict[str, str]
    description: str | None = None
    preview_url: str | None = None


class VoiceList(BaseModel):
    """Every voice."""

    voices: list[VoiceCard]
    has_more: bool = False
    total_count: int


class LanguageCard(BaseModel):
    """A language."""

    language_id: str
    name: str


class SpeechModelCard(BaseModel):
    """A text-to-speech model."""

    model_id: str
    name: str
    can_do_text_to_speech: bool = True
    can_do_voice_conversion: bool = False
    can_be_finetuned: bool = False
    languages: list[LanguageCard]


class Detail(BaseModel):
    """What went wrong."""

    status: str
    message: str


class DetailResponse(BaseModel):
    """Body of every error of ElevenLabs' routes."""

    detail: Detail
