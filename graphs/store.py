"""Registrations of people: enrol, find, forget, list. Faces and voices share all of it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from deployments.messages import SearchRequest
from engines.errors import Conflict, InvalidInput, UnknownRecord
from engines.store import Filter, NewRecord, Space, Stored
from graphs.clients.store import Store
from graphs.similarity import confidence

DEFAULT_STORE = "default"
LOCALAI_DEFAULT = "local-store"
"""LocalAI's name of its default store; it means ours."""

MOST_MATCHES = 1000

REPEATED = uuid.UUID("5a1f4f0e-6c1b-5d0f-9d57-3b0c7c1f7a52")
"""Ids of registrations with an Idempotency-Key are version 5 UUIDs (RFC 9562) in this name space."""


@dataclass(frozen=True, slots=True)
class Registration:
    """An enrolled sample of a person. store: where it lives; registered_at: with time zone."""

    id: str
    name: str
    labels: Mapping[str, str]
    model: str
    store: str
    registered_at: datetime
    position: int = 0


@dataclass(frozen=True, slots=True)
class Identified:
    """A registration near the probe. distance: cosine distance, 0..2; confidence: 0..100."""

    registration: Registration
    distance: float
    confidence: float
    match: bool


@dataclass(frozen=True, slots=True)
class Identification:
    """What identify found, nearest first. age_s: how old the answer may be, 0 unless the store is away."""

    found: tuple[Identified, ...]
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Registrations:
    """The people of one kind, "face" or "voice". Each store of a kind is a namespace of the journal."""

    kind: str
    store: Store = field(repr=False)

    async def register(
        self,
        embedding: np.ndarray,
        model: str,
        *,
        name: str,
        labels: Mapping[str, str],
        store: str | None,
        deadline: float,
        key: str | None = None,
    ) -> Registration:
        """Enrols a sample; it is durable when this returns.

        key: the same one in the same store answers with the registration that was made, as long as it lives.
        Raises InvalidInput for an empty name, Conflict when the key's registration has another name, other
        labels or another model.
        """
        require_name(name)
        now, namespace = datetime.now(UTC), self._namespace(store)
        record = NewRecord(
            id=str(uuid.uuid4() if key is None else uuid.uuid5(REPEATED, f"{namespace}\n{key}")),
            space=Space(namespace, model),
            embedding=np.asarray(embedding, np.float32),
            name=name,
            labels=dict(labels),
            created_at=now.timestamp(),
        )
        await self.store.register([record], deadline)
        made = Registration(record.id, name, record.labels, model, self._name(store), now)
        if key is None or not (stored := await self.store.get((namespace, record.id), deadline)):
            return made
        first = self._registration(stored)
        if (first.name, first.labels, first.model) != (name, made.labels, model):
            raise Conflict(
                "the Idempotency-Key was used for a registration with another name, labels or model"
            )
        return first

    async def identify(
        self,
        embedding: np.ndarray,
        model: str,
        *,
        threshold: float,
        deadline: float,
        top_k: int = 0,
        store: str | None = None,
        labels: Mapping[str, str] | None = None,
        best_per_name: bool = False,
    ) -> Identification:
        """The nearest registrations made with the same model.

        top_k: how many, 0 or less means 5. labels: only registrations that carry all of these.
        best_per_name: one match a name, its nearest sample.
        """
        wanted = min(top_k, MOST_MATCHES) if top_k > 0 else 5
        request = SearchRequest(
            Space(self._namespace(store), model),
            np.asarray(embedding, np.float32),
            wanted,
            Filter(labels=dict(labels or {})),
        )
        if not best_per_name:
            found = await self.store.search(request, deadline)
            return Identification(
                tuple(self._identified(match.stored, match.similarity, threshold) for match in found.matches),
                found.age_s,
            )
        return await self._best_per_name(request, threshold, deadline)

    async def forget(self, record_id: str, store: str | None, deadline: float) -> None:
        """Deletes a registration for good. Raises UnknownRecord, InvalidInput for an empty id."""
        if not record_id:
            raise InvalidInput("id is required")
        for namespace in await self._namespaces(record_id, store, deadline):
            if await self.store.delete((namespace, [record_id]), deadline):
                return
        raise UnknownRecord(f'no registration has the id "{record_id}"')

    async def get(self, record_id: str, store: str | None, deadline: float) -> Registration:
        """One registration. Raises UnknownRecord."""
        for namespace in await self._namespaces(record_id, store, deadline):
            if stored := await self.store.get((namespace, record_id), deadline):
                return self._registration(stored)
        raise UnknownRecord(f'no registration has the id "{record_id}"')

    async def update(
        self,
        record_id: str,
        *,
        name: str | None,
        labels: Mapping[str, str] | None,
        store: str | None,
        deadline: float,
    ) -> Registration:
        """Changes name, labels, or both. Raises UnknownRecord, InvalidInput for an empty name."""
        if name is not None:
            require_name(name)
        known = await self.get(record_id, store, deadline)
        namespace = self._namespace(known.store)
        if not await self.store.update((namespace, record_id, name, labels), deadline):
            raise UnknownRecord(f'no registration has the id "{record_id}"')
        return await self.get(record_id, known.store, deadline)

    async def listed(
        self, chosen: Filter, store: str | None, *, after: int, limit: int, deadline: float
    ) -> tuple[list[Registration], int]:
        """A page of registrations behind a position, oldest first, and how many match in all."""
        page = await self.store.listed((self._namespace(store), chosen, after, limit), deadline)
        return [self._registration(stored) for stored in page.records], page.total

    async def _best_per_name(
        self, request: SearchRequest, threshold: float, deadline: float
    ) -> Identification:
        """Searches deeper until enough names are found or nothing is left."""
        depth = request.k
        while True:
            depth = min(depth * 4, 64 * MOST_MATCHES)
            found = await self.store.search(replace(request, k=depth), deadline)
            nearest: dict[str, Identified] = {}
            for match in found.matches:
                nearest.setdefault(
                    match.stored.name, self._identified(match.stored, match.similarity, threshold)
                )
            if len(nearest) >= request.k or len(found.matches) < depth or depth == 64 * MOST_MATCHES:
                return Identification(tuple(nearest.values())[: request.k], found.age_s)

    async def _namespaces(self, record_id: str, store: str | None, deadline: float) -> Sequence[str]:
        """Where a record may be: in the store that is named, else in those of this kind that hold it."""
        if store:
            return [self._namespace(store)]
        return await self.store.holding((f"{self.kind}/", record_id), deadline)

    def _namespace(self, store: str | None) -> str:
        return f"{self.kind}/{self._name(store)}"

    def _name(self, store: str | None) -> str:
        return DEFAULT_STORE if not store or store == LOCALAI_DEFAULT else store

    def _registration(self, stored: Stored) -> Registration:
        return Registration(
            id=stored.id,
            name=stored.name,
            labels=stored.labels,
            model=stored.space.model,
            store=stored.space.namespace.partition("/")[2],
            registered_at=datetime.fromtimestamp(stored.created_at, UTC),
            position=stored.position,
        )

    def _identified(self, stored: Stored, similarity: float, threshold: float) -> Identified:
        distance = min(max(1.0 - similarity, 0.0), 2.0)
        return Identified(
            self._registration(stored), distance, confidence(distance, threshold), distance <= threshold
        )


def require_name(name: str) -> None:
    """Raises InvalidInput for a name without a visible character."""
    if not name.strip():
        raise InvalidInput("name is required")
