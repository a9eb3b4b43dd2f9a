"""What the routes of faces and voices share: enrol, identify, forget, list, get, change, delete."""

from typing import Annotated, Protocol

import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response

from engines.errors import InvalidInput
from engines.store import Filter
from graphs.http.age import tell_age
from graphs.http.deadline import Deadline
from graphs.http.errors import documented
from graphs.http.wire import registrations as wire
from graphs.services import Services
from graphs.store import Registrations, require_name

COMMON = (400, 401, 404, 503, 504)
WRITING = (*COMMON, 408, 413, 507)

StoreQuery = Annotated[wire.AnyStore | None, Query()]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="any text that is unique to this registration in its store, such as a UUID: repeating the"
        " request with it answers with the registration that was made",
    ),
]


class Node(Protocol):
    """A model. threshold: its own cosine distance."""

    @property
    def threshold(self) -> float: ...


class Flow(Protocol):
    """What the flows of faces and voices have in common."""

    def node(self, name: str | None, /) -> Node:
        """The model of that name, the first one when no name is given. Raises UnknownModel."""
        ...

    async def embed(self, model: str | None, sample: str, deadline: float, /) -> tuple[np.ndarray, str]:
        """Embedding of a picture or clip, shape (dim,), L2 norm 1, and the model's name."""
        ...


async def enrol(
    flow: Flow,
    people: Registrations,
    body: wire.Enrolment,
    sample: str,
    *,
    key: str | None,
    deadline: float,
) -> wire.Registered:
    """Enrols a sample (URL, data URI or base64) under the name of the body. key: see `IdempotencyKey`."""
    require_name(body.name)
    embedding, model = await flow.embed(body.model, sample, deadline)
    made = await people.register(
        embedding, model, name=body.name, labels=body.labels, store=body.store, deadline=deadline, key=key
    )
    return wire.Registered(id=made.id, name=made.name, registered_at=made.registered_at)


async def search(
    flow: Flow,
    people: Registrations,
    body: wire.Probe,
    sample: str,
    *,
    deadline: float,
    response: Response,
) -> wire.IdentifyResponse:
    """The registrations nearest to a sample; an answer from memory carries its age in `Age`."""
    embedding, model = await flow.embed(body.model, sample, deadline)
    found = await people.identify(
        embedding,
        model,
        threshold=body.threshold or flow.node(model).threshold,
        deadline=deadline,
        top_k=body.top_k,
        store=body.store,
        labels=body.labels,
        best_per_name=body.best_per_name,
    )
    tell_age(response, found.age_s)
    return wire.IdentifyResponse.of(found)


def router(kind: str) -> APIRouter:
    """The routes under `/v1/{kind}/`."""
    routes = APIRouter(prefix=f"/v1/{kind}", tags=[f"{kind}s"])

    def people(request: Request) -> Registrations:
        services: Services = request.app.state.services
        return services.people[kind]

    @routes.post("/forget", status_code=204, responses=documented(*WRITING))
    async def forget(request: Request, body: wire.ForgetRequest, deadline: Deadline) -> Response:
        """Deletes a registration for good: embedding, name and labels."""
        await people(request).forget(body.id, body.store, deadline)
        return Response(status_code=204)

    @routes.get("/registrations", responses=documented(*COMMON), response_model_exclude_none=True)
    async def listed(
        request: Request, query: Annotated[wire.ListQuery, Query()], deadline: Deadline
    ) -> wire.RegistrationPage:
        """Registrations of a store, oldest first, page by page."""
        chosen = Filter(query.name, pairs(query.label))
        found, total = await people(request).listed(
            chosen, query.store, after=int(query.cursor or 0), limit=query.limit + 1, deadline=deadline
        )
        page = found[: query.limit]
        return wire.RegistrationPage(
            data=[wire.RegistrationCard.of(one) for one in page],
            total=total,
            next_cursor=str(page[-1].position) if len(found) > len(page) else None,
        )

    @routes.get("/registrations/{record_id}", responses=documented(*COMMON))
    async def get(
        request: Request, record_id: str, deadline: Deadline, store: StoreQuery = None
    ) -> wire.RegistrationCard:
        """One registration."""
        return wire.RegistrationCard.of(await people(request).get(record_id, store, deadline))

    @routes.patch("/registrations/{record_id}", responses=documented(*WRITING))
    async def change(
        request: Request, record_id: str, body: wire.Change, deadline: Deadline, store: StoreQuery = None
    ) -> wire.RegistrationCard:
        """Changes the name, the labels, or both."""
        changed = await people(request).update(
            record_id, name=body.name, labels=body.labels, store=store, deadline=deadline
        )
        return wire.RegistrationCard.of(changed)

    @routes.delete("/registrations/{record_id}", status_code=204, responses=documented(*WRITING))
    async def delete(
        request: Request, record_id: str, deadline: Deadline, store: StoreQuery = None
    ) -> Response:
        """Deletes a registration for good."""
        await people(request).forget(record_id, store, deadline)
        return Response(status_code=204)

    return routes


def pairs(labels: list[str]) -> dict[str, str]:
    """Labels of a query, each written key:value. Raises InvalidInput."""
    split = [label.partition(":") for label in labels]
    if not all(colon and key for key, colon, _ in split):
        raise InvalidInput("label: write key:value")
    return {key: value for key, _, value in split}
