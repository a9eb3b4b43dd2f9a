"""A part of a model that becomes a deployment."""

from collections.abc import Iterable
from dataclasses import dataclass

from engines.errors import ConfigurationError
from graphs.settings import ModelFile, Replicas


@dataclass(frozen=True, slots=True)
class Part:
    """One deployment: its name, its class, what its constructor takes, what Ray gives it."""

    name: str
    kind: type
    spec: object
    given: Replicas


def refuse_unused(model: ModelFile, roles: Iterable[str], why: str = "the model has no such part") -> None:
    """Raises ConfigurationError where the model file sizes a part that will not be there."""
    if unused := set(model.deployment) - set(roles):
        raise ConfigurationError(f"deployment.{min(unused)}: {why}")
