"""What the builder tells the gateway of each model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.messages import Selection


@dataclass(frozen=True, slots=True)
class FaceWiring:
    """One face model. handles: part -> deployment handle (a bound application before Serve resolves it)."""

    name: str
    threshold: float
    handles: Mapping[str, Any]
    heads: tuple[str, ...]
    liveness_threshold: float
    select: Selection
