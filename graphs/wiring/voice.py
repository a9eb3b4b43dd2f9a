"""A voice model: its parts, and the numbers that its answers depend on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ConfigurationError
from engines.types import EngineOptions
from graphs.settings import Media, ModelFile, Role
from graphs.wiring.part import Part, refuse_unused


@dataclass(frozen=True, slots=True)
class VoiceWiring:
    """One voice model. handles: role -> part, then its bound application, in the gateway its handle.

    The other fields are those of graphs.voice.VoiceNode.
    """

    name: str
    threshold: float
    handles: Mapping[str, Any]
    heads: tuple[str, ...]


def describe(model: ModelFile, models_dir: Path, media: Media) -> VoiceWiring:
    """The model as its file describes it. Raises ConfigurationError that names the key and the remedy."""
    # A model needs its libraries; importing this module must not load them.
    from deployments import voice  # noqa: PLC0415
    from engines.voice.model import VoiceModel  # noqa: PLC0415

    options = engine_options(model, models_dir)
    described = VoiceModel(model.engine, options)
    described.require_weights()
    if model.fused:
        raise ConfigurationError("fused: a voice model takes one hop without it; remove the key")
    kinds: dict[Role, type] = {"encoder": voice.VoiceEncoder}
    if described.heads.names:
        kinds["attributes"] = voice.VoiceAttributes
    refuse_unused(model, kinds)

    def part(role: Role, kind: type) -> Part:
        given = model.replicas(role)
        spec = voice.VoiceSpec(model.name, model.engine, options, given.threads, media.max_seconds)
        return Part(f"{model.name}.{role}", kind, spec, given)

    return VoiceWiring(
        name=model.name,
        threshold=described.engine.verify_threshold,
        handles={role: part(role, kind) for role, kind in kinds.items()},
        heads=described.heads.names,
    )


def engine_options(model: ModelFile, models_dir: Path) -> EngineOptions:
    """What the engine reads of the model file."""
    ours = {key: value for key, value in model.options.items() if key != "engine"}
    return EngineOptions(model.parameters.model, ours, models_dir)
