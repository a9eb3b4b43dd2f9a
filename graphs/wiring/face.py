"""A face model: its parts, and the numbers that its answers depend on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.messages import Selection
from engines.errors import ConfigurationError
from engines.types import EngineOptions
from graphs.settings import Media, ModelFile, Role
from graphs.wiring.part import Part, refuse_unused

if TYPE_CHECKING:
    from engines.face.model import FaceModel

SELECTIONS: dict[str, Selection] = {"largest": "largest", "score": "score"}
SELECTION_OPTION = {"face_selection": "which face of several is meant, largest or score; largest"}
"""The option that chooses among them, with its description."""


@dataclass(frozen=True, slots=True)
class FaceWiring:
    """One face model. handles: role -> part, then its bound application, in the gateway its handle.

    recognizer_batch: crops that one run of the recognizer takes. The other fields are those of
    graphs.face.FaceNode.
    """

    name: str
    threshold: float
    handles: Mapping[str, Any]
    heads: tuple[str, ...]
    liveness_threshold: float
    select: Selection
    recognizer_batch: int


def describe(model: ModelFile, models_dir: Path, media: Media) -> FaceWiring:
    """The model as its file describes it. Raises ConfigurationError that names the key and the remedy."""
    # A model needs its libraries; importing this module must not load them.
    from engines.face.model import FaceModel  # noqa: PLC0415

    options = engine_options(model, models_dir)
    described = FaceModel(model.engine, options)
    described.require_weights()
    return FaceWiring(
        name=model.name,
        threshold=described.engine.verify_threshold,
        handles=_parts(model, described, options, media.max_pixels),
        heads=_heads(described),
        liveness_threshold=described.liveness.threshold,
        select=selection(model),
        recognizer_batch=model.replicas("recognizer").max_batch_size,
    )


def engine_options(model: ModelFile, models_dir: Path) -> EngineOptions:
    """What the engine reads of the model file."""
    ours = {key: value for key, value in model.options.items() if key not in {"engine", *SELECTION_OPTION}}
    return EngineOptions(model.parameters.model, ours, models_dir)


def _parts(
    model: ModelFile, described: "FaceModel", options: EngineOptions, max_pixels: int
) -> dict[str, Part]:
    """Part of each role; those of a fused model are one."""
    from deployments import face  # noqa: PLC0415 - see describe

    kinds: dict[Role, type] = {"detector": face.FaceDetector, "recognizer": face.FaceRecognizer}
    if _heads(described):
        kinds["attributes"] = face.FaceAttributes
    if described.liveness.available:
        kinds["liveness"] = face.FaceLiveness

    def part(role: Role, kind: type, suffix: str) -> Part:
        given = model.replicas(role)
        spec = face.FaceSpec(model.name, model.engine, options, given.threads, max_pixels)
        return Part(f"{model.name}.{suffix}", kind, spec, given)

    if model.fused:
        refuse_unused(model, ["detector"], "a fused model is sized by its detector")
        return dict.fromkeys(kinds, part("detector", face.FusedFace, "fused"))
    refuse_unused(model, kinds)
    return {role: part(role, kind, role) for role, kind in kinds.items()}


def _heads(model: "FaceModel") -> tuple[str, ...]:
    heads = {"genderage": model.engine.has_attributes, "expression": model.expression.available}
    return tuple(name for name, there in heads.items() if there)


def selection(model: ModelFile) -> Selection:
    """Which face of several is meant. Raises ConfigurationError for a value that is not known."""
    chosen = model.options.get("face_selection", "largest")
    if chosen not in SELECTIONS:
        raise ConfigurationError(f"option face_selection:{chosen} is unknown; use {' or '.join(SELECTIONS)}")
    return SELECTIONS[chosen]
