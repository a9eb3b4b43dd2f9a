"""Requests and responses of the voice routes: LocalAI's fields and rules of presence."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from graphs.http.wire.registrations import Age, Enrolment, ModelRequest, Probe, Threshold

Clip = Annotated[str, Field(description="URL, data URI or base64 of a file of sound")]


class VoiceVerifyRequest(ModelRequest):
    """Two clips to compare."""

    audio1: Clip
    audio2: Clip
    threshold: Threshold | None = None
    anti_spoofing: bool = Field(False, description="accepted; no voice model checks it")


class VoiceVerifyResponse(BaseModel):
    """The verdict."""

    verified: bool
    distance: float = Field(description="cosine distance, 0..2")
    threshold: float = Field(description="the threshold that was used")
    confidence: float = Field(description="0..100; 0 at the threshold and beyond")
    model: str
    processing_time_ms: float
    unused: list[str] | None = Field(
        None, description="fields of the request that had no effect; absent when there are none"
    )


class VoiceAnalyzeRequest(ModelRequest):
    """A clip whose speaker is to be described."""

    audio: Clip
    actions: list[Literal["age", "gender", "emotion"]] = Field(
        default_factory=list, max_length=16, description="what to compute; empty: all that the model supports"
    )


class VoiceSegment(BaseModel):
    """The speaker of a stretch of the clip. What the model cannot tell, or was not asked for, is absent."""

    start: float = Field(description="seconds")
    end: float = Field(description="seconds")
    age: Age = None
    dominant_gender: str | None = None
    gender: dict[str, float] | None = Field(None, description="probability of each label")
    dominant_emotion: str | None = None
    emotion: dict[str, float] | None = Field(None, description="probability of each label")


class VoiceAnalyzeResponse(BaseModel):
    """One segment that spans the clip."""

    segments: list[VoiceSegment]


class VoiceEmbedRequest(ModelRequest):
    """A clip whose speaker is to be embedded."""

    audio: Clip


class VoiceEmbedResponse(BaseModel):
    """The L2-normalised embedding."""

    embedding: list[float]
    dim: int
    model: str


class VoiceRegisterRequest(Enrolment):
    """A speaker to enrol."""

    audio: Clip


class VoiceIdentifyRequest(Probe):
    """A speaker to look for among the registrations made with the same model."""

    audio: Clip
