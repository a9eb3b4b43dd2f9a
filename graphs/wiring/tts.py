"""Text-to-speech models: those of model files, piper voices that lie beside them, those loaded on demand."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import registry
from engines.errors import ConfigurationError
from engines.types import EngineOptions
from graphs.settings import ModelFile, OnDemand
from graphs.wiring.part import Part, refuse_unused

ON_DEMAND = "on-demand"
"""Name of the deployment that loads models by request."""


@dataclass(frozen=True, slots=True)
class TtsWiring:
    """One text-to-speech model. handles: "synthesizer" -> part, then its bound application, then its handle.

    A model without handles is loaded on demand. The other fields are those of graphs.tts.SpeechNode.
    """

    name: str
    backend: str
    weights: str
    language: str
    music: bool
    clones: bool
    handles: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnDemandWiring:
    """The deployment that loads models by request.

    backends: those that it loads any model of, with the language when a request names none.
    """

    backends: Mapping[str, str]
    handles: Mapping[str, Any]


def describe(model: ModelFile, models_dir: Path, languages: Mapping[str, str]) -> TtsWiring:
    """The model as its file describes it. languages: default of each backend.

    Raises ConfigurationError that names the key and the remedy.
    """
    # A model needs its libraries; importing this module must not load them.
    from deployments.tts import Synthesizer, TtsSpec  # noqa: PLC0415
    from engines.tts.model import TtsModel  # noqa: PLC0415

    options = EngineOptions(model.parameters.model, dict(model.options), models_dir)
    described = TtsModel(model.engine, options, model.tts.recording)
    described.require_files()
    if model.fused:
        raise ConfigurationError("fused: a text-to-speech model has one part; remove the key")
    refuse_unused(model, ["synthesizer"])
    given = model.replicas("synthesizer")
    spec = TtsSpec(model.name, model.engine, options, model.tts.voice, model.tts.recording, given.threads)
    return TtsWiring(
        name=model.name,
        backend=model.backend,
        weights=model.parameters.model,
        language=model.parameters.language or languages.get(model.backend, ""),
        music=not described.engine.splits_text,
        clones=described.engine.clones,
        handles={"synthesizer": Part(f"{model.name}.synthesizer", Synthesizer, spec, given)},
    )


def on_demand(
    settings: OnDemand, models_dir: Path, found: Iterable[ModelFile], languages: Mapping[str, str]
) -> OnDemandWiring | None:
    """The deployment for backends that need no model file, and for piper voices that were found.

    languages: default of each backend. None where there are no such models. Raises ConfigurationError for a
    backend that does not exist.
    """
    for backend in settings.backends:
        if registry.capability(backend) != "tts":
            raise ConfigurationError(f"speech.on_demand.backends: {backend} is no text-to-speech backend")
    if not settings.backends and not list(found):
        return None
    from deployments.tts import OnDemandSpec, OnDemandSynthesizer  # noqa: PLC0415 - see describe

    given = settings.replicas
    spec = OnDemandSpec(EngineOptions(models_dir=models_dir), settings.loaded, given.threads)
    part = Part(f"{ON_DEMAND}.synthesizer", OnDemandSynthesizer, spec, given)
    backends = {one: languages.get(one, "") for one in settings.backends}
    return OnDemandWiring(backends, {"synthesizer": part})


def found_voices(models_dir: Path, models: Iterable[ModelFile]) -> Iterator[ModelFile]:
    """Piper voices in the models directory that no model file has: models named by their file."""
    taken = {name for model in models for name in (model.name, model.parameters.model)}
    for path in sorted(models_dir.glob("*.onnx")):
        if path.name not in taken and _is_piper(path.with_name(f"{path.name}.json")):
            yield ModelFile.model_validate(
                {"name": path.name, "backend": "piper", "parameters": {"model": path.name}}
            )


def wiring_of(found: ModelFile) -> TtsWiring:
    """A piper voice that was found."""
    return TtsWiring(found.name, found.backend, found.parameters.model, "", music=False, clones=False)


def _is_piper(config: Path) -> bool:
    """Whether a file is the configuration that stands beside a voice of piper."""
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and {"audio", "phoneme_id_map"} <= set(said)
