"""What the routes answer from."""

from collections.abc import Mapping
from dataclasses import dataclass

from graphs.face import FaceFlow
from graphs.media import MediaReader
from graphs.settings import Gateway, ModelFile
from graphs.status import Status
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.voice import VoiceFlow


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the HTTP application needs, made once in a gateway replica.

    people: registrations by kind, "face" or "voice".
    started_at: seconds since the epoch.
    """

    settings: Gateway
    models: tuple[ModelFile, ...]
    status: Status
    face: FaceFlow
    voice: VoiceFlow
    media: MediaReader
    people: Mapping[str, Registrations]
    stores: Stores
    started_at: int
    api_keys: frozenset[str] = frozenset()
