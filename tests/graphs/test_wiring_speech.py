"""What the builder binds for text to speech, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

from deployments.tts import OnDemandSynthesizer, Synthesizer
from engines import registry
from engines.errors import ConfigurationError
from engines.tts.fake import FakeTts
from graphs.app import app
from graphs.http.gateway import speech_nodes
from graphs.settings import AppArgs, ModelFile, OnDemand, all_models
from graphs.wiring import Wirings
from graphs.wiring.tts import TtsWiring, found_voices

CLONED = """
name: cloned-voice
backend: vall-e-x
parameters:
  model: "cloned-voice"
tts:
    vall-e:
      # The path to the audio file to be cloned
      # relative to the models directory
      # Max 15s
      audio_path: "audio-sample.wav"
"""
XTTS = """
name: xtts_v2
backend: coqui
parameters:
  language: fr
  model: tts_models/multilingual/multi-dataset/xtts_v2

tts:
  voice: Ana Florence
"""


def args(models_dir: Path, *models: dict[str, Any], **more: Any) -> AppArgs:
    return AppArgs.model_validate({"models": models, "models_dir": models_dir, **more})


def bound(application: Application | Any) -> Any:
    """The deployment inside: Ray keeps it, and its options, for itself."""
    return application._bound_deployment


def wirings(application: Application) -> Wirings:
    found: Wirings = bound(application).init_args[2]
    return found


def only(application: Application) -> TtsWiring:
    (wiring,) = wirings(application).speech
    return wiring


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESENCE_API_KEYS", "PRESENCE_MODELS_DIR", "COQUI_LANGUAGE"):
        monkeypatch.delenv(name, raising=False)


class Cloning(FakeTts):
    """Speaks with the voice of a recording."""

    clones = True


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backends of the examples, without their libraries."""
    monkeypatch.setattr("engines.tts.fake.Cloning", Cloning, raising=False)
    for name in ("coqui", "vall-e-x"):
        monkeypatch.setitem(registry.ENGINES["tts"], name, "engines.tts.fake:Cloning")
    monkeypatch.setitem(registry.ENGINES["tts"], "piper", "engines.tts.fake:FakeTts")


def voice(directory: Path, name: str, config: Any = None) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(b"weights are not opened")
    said = {"audio": {"sample_rate": 16_000}, "phoneme_id_map": {}} if config is None else config
    (directory / f"{name}.json").write_text(json.dumps(said))


def test_a_model_is_one_deployment(tmp_path: Path) -> None:
    given = {"synthesizer": {"num_cpus": 2, "min_replicas": 2, "max_ongoing_requests": 8}}
    built = app(args(tmp_path, {"name": "a", "backend": "fake-tts", "deployment": given}))
    wiring = only(built)
    deployment = bound(wiring.handles["synthesizer"])
    assert (deployment.name, deployment.func_or_class) == ("a.synthesizer", Synthesizer)
    assert (deployment.num_replicas, deployment.max_ongoing_requests) == (2, 8)
    (spec,) = deployment.init_args
    assert (spec.name, spec.engine, spec.voice, spec.recording, spec.threads) == ("a", "fake-tts", "", "", 2)
    assert wirings(built).on_demand is None


@pytest.mark.usefixtures("backends")
def test_the_examples_of_localai_are_taken_unchanged(tmp_path: Path) -> None:
    (tmp_path / "audio-sample.wav").write_bytes(b"opened by the replica alone")
    for name, text in (("a.yaml", CLONED), ("b.yaml", XTTS)):
        (tmp_path / name).write_text(text)
    cloned, xtts = wirings(app(args(tmp_path))).speech
    assert (cloned.name, cloned.backend, cloned.weights) == ("cloned-voice", "vall-e-x", "cloned-voice")
    assert cloned.clones
    assert bound(cloned.handles["synthesizer"]).init_args[0].recording == "audio-sample.wav"
    (spec,) = bound(xtts.handles["synthesizer"]).init_args
    assert (spec.voice, spec.options.model) == (
        "Ana Florence",
        "tts_models/multilingual/multi-dataset/xtts_v2",
    )
    assert (xtts.name, xtts.language) == ("xtts_v2", "fr")


@pytest.mark.usefixtures("backends")
def test_a_named_voice_goes_before_a_recording(tmp_path: Path) -> None:
    model = {"name": "a", "backend": "coqui", "tts": {"voice": "Ana", "audio_path": "not-there.wav"}}
    (spec,) = bound(only(app(args(tmp_path, model))).handles["synthesizer"]).init_args
    assert (spec.voice, spec.recording) == ("Ana", "")


@pytest.mark.usefixtures("backends")
def test_the_environment_names_coquis_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COQUI_LANGUAGE", "it")
    models: list[dict[str, Any]] = [
        {"name": "a", "backend": "coqui"},
        {"name": "b", "backend": "coqui", "parameters": {"language": "fr"}},
        {"name": "c", "backend": "fake-tts"},
    ]
    built = app(args(tmp_path, *models, speech={"on_demand": {"backends": ["coqui", "vall-e-x"]}}))
    assert [wiring.language for wiring in wirings(built).speech] == ["it", "fr", ""]
    shared = wirings(built).on_demand
    assert shared is not None
    assert shared.backends == {"coqui": "it", "vall-e-x": ""}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"tts": {"audio_path": "a.wav"}}, "tts.audio_path: this backend speaks with no recording's voice"),
        ({"tts": {"voices": "a"}}, "tts.voices: unknown key"),
        ({"options": {"banana": "1"}}, "unknown option 'banana'"),
        ({"fused": True}, "fused: a text-to-speech model has one part"),
        ({"deployment": {"encoder": {}}}, "deployment.encoder: the model has no such part"),
    ],
)
def test_a_model_file_that_is_wrong_names_the_key(tmp_path: Path, model: dict[str, Any], told: str) -> None:
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", "backend": "fake-tts", **model}))
    with pytest.raises(ConfigurationError) as raised:
        app(args(tmp_path))
    assert told in raised.value.message
    assert "m" in raised.value.message


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize("name", ["not-there.wav", "../audio.wav"])
def test_a_recording_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"audio.wav|not-there.wav"):
        app(args(tmp_path, {"name": "a", "backend": "coqui", "tts": {"audio_path": name}}))


@pytest.mark.usefixtures("backends")
def test_piper_voices_without_a_model_file_are_found(tmp_path: Path) -> None:
    voice(tmp_path, "it-riccardo_fasol-x-low.onnx")
    voice(tmp_path, "en-us-amy-low.onnx")
    voice(tmp_path, "other.onnx", {"name": "no voice"})
    voice(tmp_path, "list.onnx", [])
    voice(tmp_path / "folder", "de-thorsten-low.onnx")
    (tmp_path / "bare.onnx").write_bytes(b"no configuration beside it")
    (tmp_path / "amy.yaml").write_text("name: amy\nbackend: piper\nparameters: {model: en-us-amy-low.onnx}\n")
    built = app(args(tmp_path))
    amy, found = wirings(built).speech
    assert (amy.name, bool(amy.handles)) == ("amy", True)
    assert (found.name, found.backend) == ("it-riccardo_fasol-x-low.onnx", "piper")
    assert found.weights == found.name
    assert found.handles == {}
    assert [model.name for model in bound(built).init_args[1]] == ["amy", "it-riccardo_fasol-x-low.onnx"]


@pytest.mark.usefixtures("backends")
def test_models_on_demand_share_a_deployment_that_starts_with_the_first_request(tmp_path: Path) -> None:
    voice(tmp_path, "it-riccardo_fasol-x-low.onnx")
    chosen = {"loaded": 3, "replicas": {"num_cpus": 1, "max_replicas": 2}}
    shared = wirings(app(args(tmp_path, speech={"on_demand": chosen}))).on_demand
    assert shared is not None
    assert shared.backends == {}
    deployment = bound(shared.handles["synthesizer"])
    assert (deployment.name, deployment.func_or_class) == ("on-demand.synthesizer", OnDemandSynthesizer)
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (0, 2)
    (spec,) = deployment.init_args
    assert (spec.loaded, spec.options.models_dir) == (3, tmp_path)


@pytest.mark.parametrize(
    ("backend", "told"),
    [("nobody", "unknown backend 'nobody'"), ("fake", "fake is no text-to-speech backend")],
)
def test_a_backend_on_demand_must_be_one_that_speaks(tmp_path: Path, backend: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        app(args(tmp_path, speech={"on_demand": {"backends": [backend]}}))


def test_on_demand_says_how_many_replicas_may_run() -> None:
    with pytest.raises(ValueError, match=r"replicas.max_replicas"):
        OnDemand.model_validate({"replicas": {"min_replicas": 2}})


@pytest.mark.usefixtures("backends")
def test_the_gateway_makes_a_node_of_each(tmp_path: Path) -> None:
    class Handle:
        def options(self, **_: Any) -> "Handle":
            return self

    wired = Wirings(
        speech=(
            TtsWiring("a", "coqui", "w", "fr", music=False, clones=True, handles={"synthesizer": Handle()}),
            TtsWiring("b.onnx", "piper", "b.onnx", "", music=False, clones=False),
        )
    )
    nodes, ad_hoc = speech_nodes(wired)
    assert (list(nodes), ad_hoc) == (["a"], {})
    assert (nodes["a"].language, nodes["a"].clones, nodes["a"].on_demand) == ("fr", True, False)
    voice(tmp_path, "b.onnx")
    models = all_models(args(tmp_path), tmp_path)
    assert [found.name for found in found_voices(tmp_path, models)] == ["b.onnx"]
    assert ModelFile.model_validate({"name": "x", "backend": "fake-tts"}).capability == "tts"
