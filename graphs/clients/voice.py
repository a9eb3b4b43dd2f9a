"""The parts of a voice model, as flows see them."""

from typing import Any, Protocol, cast

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.messages import Described, DescribeRequest
from graphs.clients.remote import BY_VALUE_BYTES, RemoteMethod


class VoiceEncoder(Protocol):
    """Embeds the speaker of an encoded clip, to shape (dim,)."""

    async def embed(self, clip: bytes, deadline: float) -> np.ndarray: ...


class VoiceAttributes(Protocol):
    """Tells age, gender and emotion of the speaker of a clip."""

    async def describe(self, request: DescribeRequest, deadline: float) -> Described: ...


class RemoteVoiceEncoder:
    """The encoder of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._embed = RemoteMethod(handle, "embed")

    async def embed(self, clip: bytes, deadline: float) -> np.ndarray:
        """Embedding of the speaker."""
        return cast(np.ndarray, await self._embed.call(clip, deadline, large=len(clip) > BY_VALUE_BYTES))


class RemoteVoiceAttributes:
    """The attribute heads of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._describe = RemoteMethod(handle, "describe")

    async def describe(self, request: DescribeRequest, deadline: float) -> Described:
        """What the heads tell."""
        large = len(request.clip) > BY_VALUE_BYTES
        return cast(Described, await self._describe.call(request, deadline, large=large))
