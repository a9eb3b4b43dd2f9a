"""The synthesizer of a text-to-speech model, as flows see it."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol, cast

from ray.serve.handle import DeploymentHandle

from deployments.messages import SpeakRequest
from engines.tts import Voice
from graphs.clients.remote import BY_VALUE_BYTES, RemoteMethod, RemoteStream


class Synthesizer(Protocol):
    """Speaks texts, encoded, piece by piece; tells its voices."""

    def speak(self, request: SpeakRequest, deadline: float) -> AsyncGenerator[bytes, None]: ...

    async def voices(self, deadline: float) -> Sequence[Voice]: ...


class RemoteSynthesizer:
    """The synthesizer of one model, or of all that are loaded on demand."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._speak = RemoteStream(handle, "speak")
        self._voices = RemoteMethod(handle, "voices")

    def speak(self, request: SpeakRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        """Pieces of the encoded sound; closing it stops the synthesis."""
        large = len(request.reference or b"") > BY_VALUE_BYTES
        return cast(AsyncGenerator[bytes, None], self._speak.call(request, deadline, large=large))

    async def voices(self, deadline: float) -> Sequence[Voice]:
        """The voices that it has by name."""
        return cast(Sequence[Voice], await self._voices.call(None, deadline))
