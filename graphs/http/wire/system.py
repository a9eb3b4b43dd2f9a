"""Responses of the system routes."""

from typing import Literal

from pydantic import BaseModel, Field


class ModelCard(BaseModel):
    """One model: OpenAI's fields, then ours."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when the service started, seconds since the epoch")
    owned_by: str = "presence"
    capability: str = Field(description='what the model is for, such as "face"')
    backend: str
    license: str = Field(description="licence of the weights; empty when the model file names none")
    state: Literal["ready", "loading", "failed"]


class ModelList(BaseModel):
    """Every model that requests can name, in the order in which a default is chosen."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """The gateway answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether every model answers, else what is still loading or has failed."""

    status: Literal["ready", "starting"]
    loading: list[str] = Field(default_factory=list)
    failed: list[str] = Field(default_factory=list)


class Version(BaseModel):
    """The version that runs."""

    version: str
    ray: str
