"""What the models are doing, as Serve knows it."""

import asyncio
import time
from collections.abc import Iterable
from typing import Protocol

from ray import serve
from ray.serve.schema import ApplicationStatusOverview

ANSWERING = frozenset({"HEALTHY", "UPSCALING", "DOWNSCALING"})
"""States of a deployment whose replicas answer. One that scales has those that it had before."""

STALE_S = 1.0
"""How long an answer of the controller is used again."""


class Status(Protocol):
    """State of each model: "ready", "loading" or "failed"."""

    async def states(self) -> dict[str, str]: ...


class ServeStatus:
    """Reads the controller's view of the deployments of this application, at most once a second.

    A deployment is named `model.part`, or by one word like the store; a model is ready when all its
    parts are. on_demand: models without parts of their own, which are loaded when they are asked for.
    """

    def __init__(self, models: Iterable[str], application: str, on_demand: Iterable[str] = ()) -> None:
        self._models = tuple(models)
        self._on_demand = dict.fromkeys(on_demand, "ready")
        self._application = application
        self._states = dict.fromkeys(self._models, "loading")
        self._read_at = -STALE_S
        self._lock = asyncio.Lock()

    async def states(self) -> dict[str, str]:
        """State of each model."""
        async with self._lock:
            if time.monotonic() - self._read_at >= STALE_S:
                applications = (await asyncio.to_thread(serve.status)).applications
                self._states = model_states(self._models, applications.get(self._application))
                self._read_at = time.monotonic()
        return self._states | self._on_demand


def model_states(models: Iterable[str], overview: ApplicationStatusOverview | None) -> dict[str, str]:
    """State of each model from the states of its deployments."""
    parts: dict[str, set[str]] = {model: set() for model in models}
    for name, deployment in (overview.deployments if overview else {}).items():
        model = name.rpartition(".")[0] or name
        if model in parts:
            parts[model].add(str(deployment.status.value))
    return {model: _state(states) for model, states in parts.items()}


def _state(deployments: set[str]) -> str:
    if deployments & {"UNHEALTHY", "DEPLOY_FAILED"}:
        return "failed"
    return "ready" if deployments and deployments <= ANSWERING else "loading"
