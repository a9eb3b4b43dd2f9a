"""LocalAI's generic stores: set, get, delete, find; also under /v1."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from graphs.http.age import tell_age
from graphs.http.deadline import Deadline
from graphs.http.errors import documented
from graphs.http.wire import stores as wire
from graphs.services import Services
from graphs.stores import Stores

COMMON = (400, 401, 408, 413, 503, 504)
DEFAULT = "default"


async def _stores(request: Request) -> Stores:
    services: Services = request.app.state.services
    return services.stores


Flow = Annotated[Stores, Depends(_stores)]
router = APIRouter(tags=["stores"])


@router.post("/stores/set", responses=documented(*COMMON, 507))
@router.post("/v1/stores/set", responses=documented(*COMMON, 507), include_in_schema=False)
async def write(body: wire.SetRequest, flow: Flow, deadline: Deadline) -> Response:
    """Writes values under keys; a key that is there takes the new value."""
    await flow.set(body.store or DEFAULT, [tuple(key) for key in body.keys], body.values, deadline)
    return Response()


@router.post("/stores/get", responses=documented(*COMMON))
@router.post("/v1/stores/get", responses=documented(*COMMON), include_in_schema=False)
async def read(body: wire.KeysRequest, flow: Flow, deadline: Deadline) -> wire.GetResponse:
    """The entries of the keys that are there, in the order of the request."""
    found = await flow.get(body.store or DEFAULT, [tuple(key) for key in body.keys], deadline)
    return wire.GetResponse(keys=[list(key) for key in found.keys], values=list(found.values))


@router.post("/stores/delete", responses=documented(*COMMON, 507))
@router.post("/v1/stores/delete", responses=documented(*COMMON, 507), include_in_schema=False)
async def delete(body: wire.KeysRequest, flow: Flow, deadline: Deadline) -> Response:
    """Deletes the entries of the keys."""
    await flow.delete(body.store or DEFAULT, [tuple(key) for key in body.keys], deadline)
    return Response()


@router.post("/stores/find", responses=documented(*COMMON))
@router.post("/v1/stores/find", responses=documented(*COMMON), include_in_schema=False)
async def find(
    body: wire.FindRequest, flow: Flow, deadline: Deadline, response: Response
) -> wire.FindResponse:
    """The entries nearest to a key by cosine similarity, best first; from memory with its age in `Age`."""
    found = await flow.find(body.store or DEFAULT, tuple(body.key), body.topk, deadline)
    tell_age(response, found.age_s)
    return wire.FindResponse(
        keys=[list(key) for key in found.keys],
        values=list(found.values),
        similarities=list(found.similarities),
    )
