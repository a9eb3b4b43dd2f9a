"""The library of voices: recordings that cloning models speak with, kept in the store of people.

A profile is a record of the journal, its recording the records that follow it, so that every gateway of a
cluster sees the same library, and a backup of the store holds it.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from deployments.together import together
from engines.audio import decode
from engines.errors import InvalidInput, TooLarge, UnknownRecord
from engines.store import Filter, NewRecord, Space, Stored
from engines.tts.encoding import Encoder
from engines.tts.formats import Target
from engines.types import Audio
from graphs.clients.store import Store
from graphs.media import naming

NAMESPACE = "voice-profiles"
PROFILES, RECORDINGS = Space(NAMESPACE, "profile"), Space(NAMESPACE, "recording")
PROFILE = {"is": "profile"}
"""The label by which profiles are listed without their recordings."""

SCHEME = "localai://voice-profiles/"
RATE = 24_000
LEAST_SECONDS = 1.0
PART_BYTES = 480_000
"""Of a recording in one record: 640 KB as base64, so that no message comes near gRPC's limit of 4 MiB."""
PAGE = 200
SAID = ("description", "language", "transcript", "seconds", "size")
"""What the value of a profile's record tells, as JSON."""
LENGTHS = {"name": 80, "description": 500, "language": 35, "transcript": 4000}
"""Characters at most, as in LocalAI."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A voice of the library. seconds: of its recording, which has RATE samples a second and `size` bytes."""

    id: str
    name: str
    description: str
    language: str
    transcript: str
    seconds: float
    size: int
    created_at: datetime

    @property
    def voice(self) -> str:
        """What requests call `voice`."""
        return SCHEME + self.id


@dataclass(frozen=True, slots=True)
class VoiceLibrary:
    """Keeps, lists and deletes recordings of voices. most: how many; max_seconds: longest recording."""

    store: Store = field(repr=False)
    most: int = 1000
    max_seconds: float = 120.0

    async def add(
        self,
        clip: bytes,
        *,
        name: str,
        description: str,
        language: str,
        transcript: str,
        deadline: float,
        source: str = "audio",
    ) -> Profile:
        """Keeps a recording as FLAC; it is durable when this returns.

        clip: a file of sound, LEAST_SECONDS to max_seconds long. source: the field that held it, for errors.
        Raises InvalidInput, NotDecodable, TooLarge.
        """
        words = {"name": name, "description": description, "language": language, "transcript": transcript}
        words = {key: _checked(key, value.strip()) for key, value in words.items()}
        if not words["name"]:
            raise InvalidInput("name is required", "name")
        with naming(source):
            audio = await asyncio.to_thread(self._heard, clip)
        if (await self._page(0, 1, deadline))[1] >= self.most:
            raise TooLarge(f"the library holds {self.most} voices already; delete one")
        recording = await asyncio.to_thread(_encoded, audio)
        now = datetime.now(UTC)
        profile = Profile(
            str(uuid.uuid4()), **words, seconds=audio.seconds, size=len(recording), created_at=now
        )
        await self.store.put(_records(profile, recording), deadline)
        return profile

    async def listed(self, deadline: float) -> list[Profile]:
        """Every profile, newest first."""
        found: list[Profile] = []
        after, total = 0, 1
        while total and (page := await self._page(after, PAGE, deadline))[0]:
            records, total = page
            found += [_profile(stored) for stored in records]
            after = records[-1].position
        return found[::-1]

    async def get(self, profile_id: str, deadline: float) -> Profile:
        """One profile. Raises UnknownRecord."""
        stored = await self.store.get((NAMESPACE, profile_id), deadline) if is_id(profile_id) else None
        if stored is None:
            raise UnknownRecord(f'no voice profile has the id "{profile_id[:64]}"')
        return _profile(stored)

    async def recording(self, profile_id: str, deadline: float) -> bytes:
        """Its recording: FLAC, one channel. Raises UnknownRecord."""
        profile = await self.get(profile_id, deadline)
        ids = _part_ids(profile)
        parts = await together(*(self.store.get((NAMESPACE, one), deadline) for one in ids))
        if not all(parts):
            raise UnknownRecord(f'the voice profile "{profile_id}" was deleted')
        return b"".join(base64.b64decode(part.value or "") for part in parts if part)

    async def delete(self, profile_id: str, deadline: float) -> None:
        """Deletes a profile with its recording for good. Raises UnknownRecord."""
        profile = await self.get(profile_id, deadline)
        if not await self.store.delete((NAMESPACE, [*_part_ids(profile), profile_id]), deadline):
            raise UnknownRecord(f'no voice profile has the id "{profile_id}"')

    def _heard(self, clip: bytes) -> Audio:
        audio = decode(clip, RATE, self.max_seconds)
        if audio.seconds < LEAST_SECONDS:
            raise InvalidInput(f"{audio.seconds:.2f} seconds; at least {LEAST_SECONDS:g} are needed")
        return audio

    async def _page(self, after: int, limit: int, deadline: float) -> tuple[Sequence[Stored], int]:
        page = await self.store.listed((NAMESPACE, Filter(labels=PROFILE), after, limit), deadline)
        return page.records, page.total


def profile_id(voice: str) -> str | None:
    """The id that a voice names; None for a voice of another kind."""
    return voice.removeprefix(SCHEME) if voice.startswith(SCHEME) else None


def _checked(key: str, value: str) -> str:
    if len(value) > LENGTHS[key]:
        raise InvalidInput(f"{key}: at most {LENGTHS[key]} characters", key)
    return value


def is_id(text: str) -> bool:
    """Whether a text could be the id of a profile."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _encoded(audio: Audio) -> bytes:
    encoder = Encoder(Target("flac"), audio.rate, whole=True)
    return encoder.feed(audio.samples) + encoder.finish()


def _part_ids(profile: Profile) -> list[str]:
    return [f"{profile.id}.{number}" for number in range(-(-profile.size // PART_BYTES))]


def _records(profile: Profile, recording: bytes) -> list[NewRecord]:
    """One transaction: the recording in parts, then the profile."""
    nothing = np.ones(1, np.float32)
    now = profile.created_at.timestamp()
    parts = [
        NewRecord(
            one,
            RECORDINGS,
            nothing,
            value=base64.b64encode(recording[index * PART_BYTES : (index + 1) * PART_BYTES]).decode(),
            created_at=now,
        )
        for index, one in enumerate(_part_ids(profile))
    ]
    value = json.dumps({key: getattr(profile, key) for key in SAID})
    return [*parts, NewRecord(profile.id, PROFILES, nothing, profile.name, PROFILE, value, now)]


def _profile(stored: Stored) -> Profile:
    said = json.loads(stored.value or "{}")
    return Profile(stored.id, stored.name, **said, created_at=datetime.fromtimestamp(stored.created_at, UTC))
