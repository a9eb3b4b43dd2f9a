"""What the routes answer from."""

from collections.abc import Mapping
from dataclasses import dataclass

from graphs.face import FaceFlow
from graphs.media import MediaReader
from graphs.settings import Gateway, ModelFile
from graphs.status import Status
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow
from graphs.voice import VoiceFlow
from graphs.voices import VoiceLibrary


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the HTTP application needs, made once in a gateway replica.

    people: registrations by kind, "face" or "voice".
    started_at: seconds since the epoch. speech_deadline_s: time to speak a text.
    """

    settings: Gateway
    models: tuple[ModelFile, ...]
    status: Status
    face: FaceFlow
    voice: VoiceFlow
    speech: SpeechFlow
    library: VoiceLibrary
    media: MediaReader
    people: Mapping[str, Registrations]
    stores: Stores
    started_at: int
    speech_deadline_s: float = 300.0
    api_keys: frozenset[str] = frozenset()
