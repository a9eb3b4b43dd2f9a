"""The parts of a face model, as flows see them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.messages import Crops, DetectRequest, FoundFaces
from deployments.together import together
from engines.types import Aliveness, Demographics, Image
from graphs.clients.remote import BY_VALUE_BYTES, RemoteMethod

REPLY_BYTES = 3_000_000
"""Crops that an answer by value may carry; Serve's gRPC refuses messages above 4 MiB."""


class FaceDetector(Protocol):
    """Finds and crops the faces of one picture."""

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces: ...


class FaceRecognizer(Protocol):
    """Embeds aligned crops, each to shape (dim,)."""

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]: ...


class FaceAttributes(Protocol):
    """Tells age, gender and expression from crops."""

    async def analyze(self, faces: Sequence[Crops], deadline: float) -> list[Demographics]: ...


class FaceLiveness(Protocol):
    """Tells whether each face is alive."""

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[Aliveness]: ...


class RemoteFaceDetector:
    """The detector of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._detect = RemoteMethod(handle, "detect")

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces:
        """Faces of one picture; asked again by reference when the crops are too many for one message."""
        large = len(request.image) > BY_VALUE_BYTES
        if not large:
            request = replace(request, reply_limit=REPLY_BYTES)
        found = cast(FoundFaces, await self._detect.call(request, deadline, large=large))
        if found.complete:
            return found
        whole = replace(request, reply_limit=None)
        return cast(FoundFaces, await self._detect.call(whole, deadline, large=True))


class RemoteFaceRecognizer:
    """The recognizer of one model. batch: crops that one run of it takes."""

    def __init__(self, handle: DeploymentHandle[Any], batch: int) -> None:
        self._embed = RemoteMethod(handle, "embed")
        self._batch = batch

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]:
        """One embedding a crop. Those of different runs go in calls of their own, which replicas share.

        Raises what the first of them that fails raises; the others are cancelled.
        """
        runs = [crops[start : start + self._batch] for start in range(0, len(crops), self._batch)]
        if len(runs) == 1:
            return await self._run(crops, deadline)
        return [row for rows in await together(*(self._run(run, deadline) for run in runs)) for row in rows]

    async def _run(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]:
        large = sum(crop.nbytes for crop in crops) > BY_VALUE_BYTES
        return cast(list[np.ndarray], await self._embed.call(crops, deadline, large=large))


class RemoteFaceAttributes:
    """The attribute heads of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._analyze = RemoteMethod(handle, "analyze")

    async def analyze(self, faces: Sequence[Crops], deadline: float) -> list[Demographics]:
        """What is told of each face."""
        large = (
            sum(crop.nbytes for face in faces for crops in face.values() for crop in crops) > BY_VALUE_BYTES
        )
        return cast(list[Demographics], await self._analyze.call(faces, deadline, large=large))


class RemoteFaceLiveness:
    """The liveness ensemble of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._score = RemoteMethod(handle, "score")

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[Aliveness]:
        """One answer for each face."""
        large = sum(crop.nbytes for crops in faces for crop in crops) > BY_VALUE_BYTES
        return cast(list[Aliveness], await self._score.call(faces, deadline, large=large))
