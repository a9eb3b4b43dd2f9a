"""The store, as flows see it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from ray.serve.handle import DeploymentHandle

from deployments.messages import Found, Page, SearchRequest
from engines.store import Filter, NewRecord, Stored
from graphs.clients.remote import BY_VALUE_BYTES, RemoteMethod


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

    async def holding(self, request: tuple[str, str], deadline: float) -> list[str]: ...


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
        self._holding = RemoteMethod(handle, "holding")

    async def register(self, records: Sequence[NewRecord], deadline: float) -> list[int]:
        """Positions of the records, once they are durable."""
        large = _nbytes(records) > BY_VALUE_BYTES
        return cast(list[int], await self._register.call(records, deadline, large=large))

    async def put(self, records: Sequence[NewRecord], deadline: float) -> bool:
        """Writes records; one whose id lives keeps its embedding and takes the new value."""
        large = _nbytes(records) > BY_VALUE_BYTES
        return cast(bool, await self._put.call(records, deadline, large=large))

    async def search(self, request: SearchRequest, deadline: float) -> Found:
        """The nearest records, best first."""
        return cast(Found, await self._search.call(request, deadline, large=request.with_embeddings))

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

    async def holding(self, request: tuple[str, str], deadline: float) -> list[str]:
        """Prefix and id: the namespaces that start so and hold it, sorted."""
        return cast(list[str], await self._holding.call(request, deadline))


def _nbytes(records: Sequence[NewRecord]) -> int:
    return sum(record.embedding.nbytes + len(record.value or "") for record in records)
