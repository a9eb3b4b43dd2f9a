"""Requests and responses of LocalAI's generic stores."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from graphs.http.wire.registrations import StoreName
from graphs.nulls import NullsAbsent

Key = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=16_384)]
Keys = Annotated[list[Key], Field(min_length=1, max_length=10_000)]


class StoreRequest(NullsAbsent):
    """store: which one, made on first use. backend: LocalAI's names, all of them mean this store."""

    model_config = ConfigDict(strict=True)

    store: StoreName = ""
    backend: str = ""


class SetRequest(StoreRequest):
    """Values to write under keys, as many of one as of the other."""

    keys: Keys
    values: list[str]


class KeysRequest(StoreRequest):
    """Keys to read or to delete."""

    keys: Keys


class FindRequest(StoreRequest):
    """A key whose neighbours are wanted."""

    key: Key
    topk: int = Field(ge=1, le=1000)


class GetResponse(BaseModel):
    """The entries that are there."""

    keys: list[list[float]]
    values: list[str]


class FindResponse(GetResponse):
    """The nearest entries, best first; similarities are cosines, -1..1."""

    similarities: list[float]
