"""Typed adapters over deployment handles: deadlines, cancellation and errors of a remote call."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from grpc.aio import AioRpcError
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from deployments.messages import Crops, DetectRequest, Found, FoundFaces, Page, SearchRequest
from engines.errors import Busy, DeadlineExceeded, PresenceError
from engines.store import Filter, NewRecord, Stored
from engines.types import Demographics, Image

T = TypeVar("T")

BY_VALUE_BYTES = 1_000_000
"""Above this a request goes through shared memory: gRPC by value is faster below, slower above."""

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
    """Tells the probability that each face is alive."""

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[float]: ...


class Store(Protocol):
    """Journal and indexes behind one front. Each method takes one argument and the deadline."""

    async def register(self, records: Sequence[NewRecord], deadline: float) -> list[int]: ...

    async def put(self, records: Sequence[NewRecord], deadline: float) -> bool: ...

    async def search(self, request: SearchRequest, deadline: float) -> Found: ...

    async def delete(self, request: tuple[str, Sequence[str]], deadline: float) -> list[str]: ...

    async def update(
        self, request: tuple[str, str, str | None, Mapping[str, str] | None], deadline: float
    ) -> bool: ...

    async def get(self, request: tuple[str, str], deadline: float) -> Stored | None: ...

    async def listed(self, request: tuple[str, Filter, int, int], deadline: float) -> Page: ...

    async def namespaces(self, prefix: str, deadline: float) -> list[str]: ...

    async def embeddings(
        self, positions: Sequence[int], deadline: float
    ) -> dict[int, NDArray[np.float32]]: ...


class RemoteMethod:
    """One method of a deployment, called by value (gRPC) or by reference (shared memory)."""

    def __init__(self, handle: DeploymentHandle[Any], method: str) -> None:
        self._by_value = handle.options(method_name=method, _by_reference=False)
        self._by_reference = handle.options(method_name=method, _by_reference=True)

    async def call(self, argument: object, deadline: float, *, large: bool = False) -> Any:
        """The method's answer.

        Raises the PresenceError that the deployment answered, Busy when its queue is full or its
        replica died, DeadlineExceeded when `deadline` (seconds since the epoch) passes.
        """
        remaining = deadline - time.time()
        if remaining <= 0:
            raise DeadlineExceeded("the deadline of the request has passed")
        response = (self._by_reference if large else self._by_value).remote(argument, deadline)
        try:
            async with asyncio.timeout(remaining):
                answer = await response
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call] # Ray leaves it without annotations
            raise DeadlineExceeded("the model did not answer before the deadline") from None
        except (BackPressureError, DeploymentUnavailableError):
            raise Busy("the model is busy; try again") from None
        except (RayActorError, ObjectLostError, RequestCancelledError, AioRpcError):
            raise Busy("a replica of the model was lost; try again") from None
        if isinstance(answer, PresenceError):
            raise answer
        return answer


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
    """The recognizer of one model."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._embed = RemoteMethod(handle, "embed")

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]:
        """One embedding a crop."""
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

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[float]:
        """Probability of a living face, 0..1, for each face."""
        large = sum(crop.nbytes for crops in faces for crop in crops) > BY_VALUE_BYTES
        return cast(list[float], await self._score.call(faces, deadline, large=large))


class RemoteStore:
    """The vector store."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._register = RemoteMethod(handle, "register")
        self._put = RemoteMethod(handle, "put")
        self._search = RemoteMethod(handle, "search")
        self._delete = RemoteMethod(handle, "delete")
        self._update = RemoteMethod(handle, "update")
        self._get = RemoteMethod(handle, "get")
        self._listed = RemoteMethod(handle, "listed")
        self._namespaces = RemoteMethod(handle, "namespaces")
        self._embeddings = RemoteMethod(handle, "embeddings")

    async def register(self, records: Sequence[NewRecord], deadline: float) -> list[int]:
        """Positions of the records, once they are durable."""
        large = sum(record.embedding.nbytes for record in records) > BY_VALUE_BYTES
        return cast(list[int], await self._register.call(records, deadline, large=large))

    async def put(self, records: Sequence[NewRecord], deadline: float) -> bool:
        """Writes records; one whose id lives keeps its embedding and takes the new value."""
        large = sum(record.embedding.nbytes for record in records) > BY_VALUE_BYTES
        return cast(bool, await self._put.call(records, deadline, large=large))

    async def search(self, request: SearchRequest, deadline: float) -> Found:
        """The nearest records, best first."""
        return cast(Found, await self._search.call(request, deadline))

    async def delete(self, request: tuple[str, Sequence[str]], deadline: float) -> list[str]:
        """Deletes ids of a namespace; the ids that lived."""
        return cast(list[str], await self._delete.call(request, deadline))

    async def update(
        self, request: tuple[str, str, str | None, Mapping[str, str] | None], deadline: float
    ) -> bool:
        """Namespace, id, new name, new labels. False when no such record lives."""
        return cast(bool, await self._update.call(request, deadline))

    async def get(self, request: tuple[str, str], deadline: float) -> Stored | None:
        """The living record of a namespace and id."""
        return cast(Stored | None, await self._get.call(request, deadline))

    async def listed(self, request: tuple[str, Filter, int, int], deadline: float) -> Page:
        """Namespace, filter, position to start behind, limit."""
        return cast(Page, await self._listed.call(request, deadline, large=True))

    async def namespaces(self, prefix: str, deadline: float) -> list[str]:
        """Namespaces that hold records and start with a prefix."""
        return cast(list[str], await self._namespaces.call(prefix, deadline))

    async def embeddings(self, positions: Sequence[int], deadline: float) -> dict[int, NDArray[np.float32]]:
        """Embeddings of living records by position."""
        return cast(
            dict[int, NDArray[np.float32]], await self._embeddings.call(positions, deadline, large=True)
        )
