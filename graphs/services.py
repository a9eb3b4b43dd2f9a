"""What the routes answer from."""

from dataclasses import dataclass

from graphs.face import FaceFlow
from graphs.media import MediaReader
from graphs.settings import Gateway, ModelFile
from graphs.status import Status


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the HTTP application needs, made once in a gateway replica.

    started_at: seconds since the epoch.
    """

    settings: Gateway
    models: tuple[ModelFile, ...]
    status: Status
    face: FaceFlow
    media: MediaReader
    started_at: int
    api_keys: frozenset[str] = frozenset()
