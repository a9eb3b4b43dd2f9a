"""Requests and responses of LocalAI's library of voices."""

from datetime import datetime

from pydantic import BaseModel, Field

from graphs.nulls import NullsAbsent
from graphs.voices import RATE, Profile


class NewProfile(NullsAbsent):
    """A recording of a voice, sent as JSON; a form has the file in the field `audio` instead."""

    name: str = Field(description="at most 80 characters")
    audio_base64: str = Field(description="base64 of a file of sound, 1 to 120 seconds long")
    transcript: str = Field("", description="what is said in it")
    description: str = ""
    language: str = ""
    consent_confirmed: bool = Field(False, description="must be true: the speaker agrees to be imitated")


class ProfileAudio(BaseModel):
    """What is kept of the recording, and answered by its route."""

    duration_ms: int
    sample_rate: int = Field(RATE, description="samples a second")
    channels: int = 1
    bit_depth: int = 16
    size_bytes: int
    mime_type: str = "audio/wav"


class ProfileCard(BaseModel):
    """A voice of the library."""

    id: str
    name: str
    description: str | None = None
    language: str | None = None
    transcript: str
    voice: str = Field(description="what speech requests call `voice`")
    consent_confirmed_at: datetime
    created_at: datetime
    updated_at: datetime
    audio: ProfileAudio

    @classmethod
    def of(cls, profile: Profile) -> "ProfileCard":
        """From the library's own."""
        size = 44 + 2 * round(profile.seconds * RATE)
        return cls(
            id=profile.id,
            name=profile.name,
            description=profile.description or None,
            language=profile.language or None,
            transcript=profile.transcript,
            voice=profile.voice,
            consent_confirmed_at=profile.created_at,
            created_at=profile.created_at,
            updated_at=profile.created_at,
            audio=ProfileAudio(duration_ms=round(profile.seconds * 1000), size_bytes=size),
        )


class ProfileList(BaseModel):
    """The library, newest first."""

    data: list[ProfileCard]
