"""Requests and responses of registration, for faces and voices alike."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from graphs.nulls import NullsAbsent
from graphs.store import Identification, Registration

Name = Annotated[str, StringConstraints(max_length=256)]
Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=128)],
        Annotated[str, StringConstraints(max_length=256)],
    ],
    Field(max_length=32, description="any pairs of text"),
]
StoreText = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]
StoreName = Annotated[
    StoreText, Field(description="which one; made on first use; absent or empty: the default store")
]
AnyStore = Annotated[
    StoreText, Field(description="where to look for the id; absent or empty: in every store")
]
Threshold = Annotated[
    float, Field(ge=0, le=2, allow_inf_nan=False, description="cosine distance; 0 or absent: the model's own")
]
Model = Annotated[
    str | None, Field(description="model name; absent: the first model of the kind", max_length=128)
]

Age = Annotated[
    float | None, BeforeValidator(lambda years: years or None), Field(description="years; 0 is left out")
]


class ModelRequest(NullsAbsent):
    """A request to a model. Unknown fields are ignored, as by LocalAI; true is no number, "1" neither."""

    model_config = ConfigDict(strict=True)

    model: Model = None


class Enrolment(ModelRequest):
    """What is told of a sample that is to be enrolled."""

    name: Name = Field(description="label of the person; not empty")
    labels: Labels = Field(default_factory=dict)
    store: StoreName | None = None


class Probe(ModelRequest):
    """How a sample is looked for among the registrations made with the same model."""

    top_k: int = Field(5, le=1000, description="matches at most; 0 or less: 5")
    threshold: Threshold | None = None
    store: StoreName | None = None
    labels: Labels = Field(default_factory=dict, description="only registrations that carry all of these")
    best_per_name: bool = Field(False, description="one match a name: its nearest sample")


class Registered(BaseModel):
    """An enrolled sample."""

    id: str
    name: str
    registered_at: datetime


class RegistrationCard(Registered):
    """A registration as it is listed."""

    labels: dict[str, str]
    model: str
    store: str

    @classmethod
    def of(cls, one: Registration) -> "RegistrationCard":
        """From the flow's registration."""
        return cls(
            id=one.id,
            name=one.name,
            registered_at=one.registered_at,
            labels=dict(one.labels),
            model=one.model,
            store=one.store,
        )


class ListQuery(BaseModel):
    """Which registrations to list."""

    store: StoreName | None = None
    name: Name | None = Field(None, description="exactly this name")
    label: list[str] = Field(default_factory=list, description="key:value, any number of times")
    limit: int = Field(100, ge=1, le=1000, description="registrations a page")
    cursor: str = Field("", pattern=r"^\d{0,18}$", description="next_cursor of the page before")


class RegistrationPage(BaseModel):
    """A page of registrations, oldest first."""

    data: list[RegistrationCard]
    total: int = Field(description="how many registrations match in all")
    next_cursor: str | None = Field(None, description="where the next page begins; absent on the last one")


class Change(NullsAbsent):
    """What to change; what is absent stays."""

    name: Name | None = None
    labels: Labels | None = None


class ForgetRequest(NullsAbsent):
    """Which registration to delete. model is accepted and means nothing."""

    id: str = Field(max_length=128)
    store: AnyStore | None = None
    model: str | None = None


class MatchCard(BaseModel):
    """A registration near the probe; match tells whether its distance is within the threshold."""

    id: str
    name: str
    labels: dict[str, str] | None = Field(None, description="absent when there are none")
    distance: float = Field(description="cosine distance, 0..2")
    confidence: float = Field(description="0..100; 0 at the threshold and beyond")
    match: bool


class IdentifyResponse(BaseModel):
    """The nearest registrations, nearest first."""

    matches: list[MatchCard]

    @classmethod
    def of(cls, found: Identification) -> "IdentifyResponse":
        """From the flow's answer."""
        return cls(
            matches=[
                MatchCard(
                    id=one.registration.id,
                    name=one.registration.name,
                    labels=dict(one.registration.labels) or None,
                    distance=one.distance,
                    confidence=one.confidence,
                    match=one.match,
                )
                for one in found.found
            ]
        )
