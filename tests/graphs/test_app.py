"""The builder: which deployments it binds, with which options, and what it refuses."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

import graphs.app
from deployments import face, voice
from deployments.store import StoreSpec
from engines.errors import ConfigurationError
from graphs.app import app
from graphs.http.gateway import Gateway
from graphs.routing import FewestInFlight
from graphs.settings import AppArgs
from graphs.wiring.face import FaceWiring
from graphs.wiring.voice import VoiceWiring

ALIVE = {"antispoof_v2_onnx": "MiniFASNetV2.onnx"}


def args(models_dir: Path, *models: dict[str, Any], **more: Any) -> AppArgs:
    return AppArgs.model_validate({"models": models, "models_dir": models_dir, **more})


def bound(application: Application) -> Any:
    """The deployment inside: Ray keeps it, and its options, for itself."""
    return application._bound_deployment


def wirings(application: Application) -> dict[str, FaceWiring]:
    return {wiring.name: wiring for wiring in bound(application).init_args[2].faces}


def served(application: Application) -> list[str]:
    """Names of the models that the gateway is told to serve."""
    return [model.name for model in bound(application).init_args[1] if not model.disabled]


def options(application: Application) -> Any:
    return bound(application)._deployment_config


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRESENCE_API_KEYS", raising=False)
    monkeypatch.delenv("PRESENCE_MODELS_DIR", raising=False)


def test_every_part_of_every_model_is_its_own_deployment(tmp_path: Path) -> None:
    (tmp_path / "MiniFASNetV2.onnx").write_bytes(b"weights are not opened")
    built = app(
        args(
            tmp_path,
            {"name": "a", "backend": "fake"},
            {"name": "b.1", "backend": "fake", "options": ALIVE},
        )
    )
    wired = wirings(built)
    assert list(wired) == ["a", "b.1"]
    assert set(wired["a"].handles) == {"detector", "recognizer", "attributes"}
    assert set(wired["b.1"].handles) == {"detector", "recognizer", "attributes", "liveness"}
    for name, wiring in wired.items():
        for role, handle in wiring.handles.items():
            assert bound(handle).name == f"{name}.{role}"
    kinds = {role: bound(handle).func_or_class for role, handle in wired["b.1"].handles.items()}
    assert kinds == {
        "detector": face.FaceDetector,
        "recognizer": face.FaceRecognizer,
        "attributes": face.FaceAttributes,
        "liveness": face.FaceLiveness,
    }


def test_the_default_profile_binds_dlibs_two_parts(tmp_path: Path) -> None:
    wiring = wirings(app(args(tmp_path, {"name": "d", "backend": "dlib-resnet"})))["d"]
    assert set(wiring.handles) == {"detector", "recognizer"}
    assert wiring.heads == ()
    assert wiring.threshold == pytest.approx(0.08)
    assert wiring.select == "largest"


def test_an_expression_network_adds_the_attributes(tmp_path: Path) -> None:
    (tmp_path / "expression.onnx").write_bytes(b"weights are not opened")
    model = {"name": "d", "backend": "dlib-resnet", "options": {"expression_onnx": "expression.onnx"}}
    wiring = wirings(app(args(tmp_path, model)))["d"]
    assert set(wiring.handles) == {"detector", "recognizer", "attributes"}
    assert wiring.heads == ("expression",)


def test_the_wiring_carries_the_numbers_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "MiniFASNetV2.onnx").write_bytes(b"weights are not opened")
    chosen = {"verify_threshold": "0.25", "antispoof_threshold": "0.7", "face_selection": "score", **ALIVE}
    wiring = wirings(app(args(tmp_path, {"name": "a", "backend": "fake", "options": chosen})))["a"]
    assert wiring.threshold == 0.25
    assert wiring.liveness_threshold == 0.7
    assert wiring.select == "score"
    assert wiring.heads == ("genderage",)


def test_the_replica_is_told_what_to_load(tmp_path: Path) -> None:
    model = {
        "name": "a",
        "backend": "fake",
        "parameters": {"model": "weights"},
        "options": ["verify_threshold:0.2", "face_selection:largest"],
        "deployment": {"detector": {"num_cpus": 2.5}},
    }
    handles = wirings(app(args(tmp_path, model, media={"max_pixels": 1000})))["a"].handles
    (spec,) = bound(handles["detector"]).init_args
    assert (spec.name, spec.engine, spec.threads, spec.max_pixels) == ("a", "fake", 2, 1000)
    assert spec.options.model == "weights"
    assert spec.options.options == {"verify_threshold": "0.2"}
    assert spec.options.models_dir == tmp_path
    assert bound(handles["recognizer"]).init_args[0].threads == 1


def test_deployment_options_reach_ray(tmp_path: Path) -> None:
    given = {
        "num_cpus": 1.5,
        "num_gpus": 0.2,
        "min_replicas": 2,
        "max_replicas": 8,
        "target_ongoing_requests": 32,
        "max_batch_size": 64,
        "batch_wait_timeout_s": 0.004,
        "max_ongoing_requests": 256,
        "max_queued_requests": 512,
        "runtime_env": {"env_vars": {"A": "1"}},
    }
    model = {"name": "a", "backend": "fake", "deployment": {"recognizer": given}}
    wiring = wirings(app(args(tmp_path, model)))["a"]
    assert wiring.recognizer_batch == 64
    handles = wiring.handles
    deployment, config = bound(handles["recognizer"]), options(handles["recognizer"])
    assert deployment.ray_actor_options == {
        "num_cpus": 1.5,
        "num_gpus": 0.2,
        "runtime_env": {"env_vars": {"A": "1"}},
    }
    assert deployment.max_ongoing_requests == 256
    assert deployment.max_queued_requests == 512
    assert deployment.user_config == {"max_batch_size": 64, "batch_wait_timeout_s": 0.004}
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 8, 32)
    plain = handles["detector"]
    assert options(plain).autoscaling_config is None
    assert bound(plain).num_replicas == 1
    assert bound(plain).max_queued_requests == 128
    for part in handles.values():
        assert options(part).request_router_config.get_request_router_class() is FewestInFlight
    assert bound(plain).ray_actor_options == {"num_cpus": 0.1, "num_gpus": 0.0}


def test_a_replica_that_stops_has_the_longest_time_of_a_request_and_some(tmp_path: Path) -> None:
    silent = {"emotion_model": "", "age_gender_model": ""}
    models: tuple[dict[str, Any], ...] = (
        {"name": "face", "backend": "fake"},
        {"name": "voice", "backend": "fake-voice", "options": silent},
        {"name": "talk", "backend": "espeak-ng"},
    )
    speech = {"deadline_s": 90, "on_demand": {"backends": ["bark"]}}
    gateway = app(args(tmp_path, *models, gateway={"deadline_s": 40}, speech=speech))
    _, _, found, store, _ = bound(gateway).init_args
    parts = [
        handle for one in (*found.faces, *found.voices, *found.speech) for handle in one.handles.values()
    ]
    applications = [gateway, store, *parts, *found.on_demand.handles.values()]
    assert {bound(one).name: options(one).graceful_shutdown_timeout_s for one in applications} == {
        "Gateway": 95,
        "store": 45,
        "face.detector": 45,
        "face.recognizer": 45,
        "face.attributes": 45,
        "voice.encoder": 45,
        "talk.synthesizer": 95,
        "on-demand.synthesizer": 95,
    }


def test_replicas_without_a_maximum_are_fixed(tmp_path: Path) -> None:
    model = {"name": "a", "backend": "fake", "deployment": {"detector": {"min_replicas": 3}}}
    detector = wirings(app(args(tmp_path, model)))["a"].handles["detector"]
    assert bound(detector).num_replicas == 3
    assert options(detector).autoscaling_config is None


def test_the_gateway_is_the_ingress(tmp_path: Path) -> None:
    chosen = {"num_replicas": 2, "num_cpus": 0.5, "max_in_flight": 10}
    gateway = bound(app(args(tmp_path, {"name": "a", "backend": "fake"}, gateway=chosen)))
    assert gateway.name == "Gateway"
    assert issubclass(gateway.func_or_class, Gateway)
    assert gateway.num_replicas == 2
    assert gateway.max_ongoing_requests == 40
    assert gateway.ray_actor_options["num_cpus"] == 0.5
    given, models, wired, store, keys = gateway.init_args
    assert bound(store).name == "store"
    assert given.gateway.max_in_flight == 10
    assert [model.name for model in models] == [wiring.name for wiring in wired.faces] == ["a"]
    assert keys == frozenset()


def test_keys_come_from_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("one\n")
    monkeypatch.setenv("PRESENCE_API_KEYS", "two,three")
    built = app(args(tmp_path, gateway={"api_keys_file": tmp_path / "keys"}))
    assert bound(built).init_args[4] == {"one", "two", "three"}


def test_the_models_directory_comes_from_the_environment_when_the_config_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed.yaml").write_text("backend: fake")
    monkeypatch.setenv("PRESENCE_MODELS_DIR", str(tmp_path))
    assert list(wirings(app(AppArgs()))) == ["installed"]
    (tmp_path / "empty").mkdir()
    assert list(wirings(app(args(tmp_path / "empty")))) == []


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"backend": "magic"}, ["unknown backend 'magic'", "known backends", "dlib-resnet"]),
        ({"backend": "insightface", "options": ["engine:magic"]}, ["model m", "engine:magic"]),
        ({"backend": "fake", "options": ["banana:1"]}, ["model m", "'banana'", "verify_threshold"]),
        ({"backend": "fake", "options": ["verify_threshold:much"]}, ["model m", "verify_threshold", "much"]),
        ({"backend": "fake", "options": ["verify_threshold:3"]}, ["model m", "verify_threshold", "3"]),
        (
            {"backend": "fake", "options": ["face_selection:prettiest"]},
            ["model m", "face_selection:prettiest", "largest or score"],
        ),
        (
            {"backend": "fake", "options": ["antispoof_v2_onnx:nowhere.onnx"]},
            ["model m", "nowhere.onnx", "presence models install"],
        ),
        (
            {"backend": "fake", "deployment": {"liveness": {}}},
            ["model m", "deployment.liveness", "no such part"],
        ),
        (
            {"backend": "dlib-resnet", "deployment": {"attributes": {}}},
            ["model m", "deployment.attributes", "no such part"],
        ),
    ],
)
def test_a_wrong_model_is_refused_with_its_name_the_key_and_the_remedy(
    tmp_path: Path, model: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        app(args(tmp_path, {"name": "m", **model}))
    for word in told:
        assert word in caught.value.message


def test_every_missing_weight_file_is_named_at_once(tmp_path: Path) -> None:
    model = {
        "name": "m",
        "backend": "insightface",
        "options": ["engine:onnx_direct", "detector_onnx:d.onnx", "recognizer_onnx:r.onnx"],
    }
    with pytest.raises(ConfigurationError) as caught:
        app(args(tmp_path, model))
    assert f"{tmp_path / 'd.onnx'} (option detector_onnx)" in caught.value.message
    assert f"{tmp_path / 'r.onnx'} (option recognizer_onnx)" in caught.value.message
    assert "`presence models install`" in caught.value.message


def test_a_key_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent: the file of API keys is not readable"):
        app(args(tmp_path, gateway={"api_keys_file": tmp_path / "absent"}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"models_dir": "/nowhere"}, "models_dir: /nowhere is no directory; make it"),
        ({"models_dir": __file__}, "is no directory"),
        ({"media": {"allow_networks": ["10.0.0.0/99"]}}, "media.allow_networks: .*10.0.0.0/99"),
        ({"store": {"url": "foo://x"}}, "the store's URL names no SQLite file and no Postgres database: use"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        app(AppArgs.model_validate({"models_dir": tmp_path, **given}))


def test_disabled_models_are_not_served_whatever_their_backend(tmp_path: Path) -> None:
    for name, text in {
        "a.yaml": "{backend: llama-cpp, disabled: true}",
        "b.yaml": "{backend: fake}",
        "c.yaml": "{backend: fake, disabled: false}",
        "d.yaml": "{backend: piper, parameters: {model: voice.onnx}, disabled: true}",
        "voice.onnx": "weights are not opened",
        "voice.onnx.json": '{"audio": {"sample_rate": 22050}, "phoneme_id_map": {}}',
    }.items():
        (tmp_path / name).write_text(text)
    disabled = {"name": "b", "backend": "fake", "disabled": True}
    assert served(app(args(tmp_path, disabled))) == ["c"]
    (tmp_path / "d.yaml").unlink()
    assert served(app(args(tmp_path, disabled))) == ["c", "voice.onnx"]
    told = bound(app(args(tmp_path, disabled))).init_args[1]
    assert {model.name for model in told if model.disabled} == {"a", "b"}


def test_where_keys_are_required_nothing_starts_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = args(tmp_path, gateway={"require_keys": True})
    with pytest.raises(ConfigurationError, match=r"require_keys.*PRESENCE_API_KEYS"):
        app(required)
    monkeypatch.setenv("PRESENCE_API_KEYS", "one")
    assert bound(app(required)).init_args[4] == {"one"}


def test_serve_can_check_the_arguments() -> None:
    """Serve turns the `args` of a config into the annotated type, when the annotation is a real one."""
    (parameter,) = inspect.signature(app).parameters.values()
    assert parameter.annotation is AppArgs
    tree = ast.parse(Path(graphs.app.__file__).read_text(encoding="utf-8"))
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]


def store_spec(built: Application) -> StoreSpec:
    spec: StoreSpec = bound(bound(built).init_args[3]).init_args[0]
    return spec


def test_the_store_takes_its_settings(tmp_path: Path) -> None:
    chosen = {
        "url": "postgresql://db/people",
        "directory": str(tmp_path),
        "index": {"kind": "hnsw", "m": 16},
        "when_away": "stale",
        "replicas": {"min_replicas": 3},
    }
    built = app(args(tmp_path, store=chosen))
    spec = store_spec(built)
    assert spec.url == "postgresql://db/people"
    assert spec.snapshots == tmp_path / "snapshots"
    assert (spec.index.kind, spec.index.m, spec.allow_stale) == ("hnsw", 16, True)
    assert bound(bound(built).init_args[3]).num_replicas == 3


def test_the_store_is_a_file_in_its_directory_or_what_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_spec(app(args(tmp_path))).url == f"sqlite:///{tmp_path}/.presence/store/presence.db"
    monkeypatch.setenv("PRESENCE_STORE_URL", "postgresql://db/people")
    assert store_spec(app(args(tmp_path))).url == "postgresql://db/people"
    assert list(tmp_path.iterdir()) == []


def test_pgvector_needs_a_url_of_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PRESENCE_STORE_URL", raising=False)
    for store in ("pgvector", {"kind": "pgvector", "url": "sqlite:///people.db"}):
        with pytest.raises(
            ConfigurationError, match=r"set store\.url or PRESENCE_STORE_URL to postgresql://"
        ):
            app(args(tmp_path, store=store))
    monkeypatch.setenv("PRESENCE_STORE_URL", "postgresql://db/people")
    spec = store_spec(app(args(tmp_path, store="pgvector")))
    assert (spec.kind, spec.url, spec.index.kind) == ("pgvector", "postgresql://db/people", "hnsw")


def test_a_fused_model_is_one_deployment(tmp_path: Path) -> None:
    entry = {"name": "a", "backend": "fake", "fused": True, "deployment": {"detector": {"min_replicas": 2}}}
    (wiring,) = wirings(app(args(tmp_path, entry))).values()
    assert set(wiring.handles) == {"detector", "recognizer", "attributes"}
    assert len({id(handle) for handle in wiring.handles.values()}) == 1
    assert bound(wiring.handles["detector"]).name == "a.fused"
    assert bound(wiring.handles["detector"]).num_replicas == 2
    with pytest.raises(ConfigurationError, match="a fused model is sized by its detector"):
        app(args(tmp_path, {**entry, "deployment": {"recognizer": {}}}))


def voices(application: Application) -> dict[str, VoiceWiring]:
    return {wiring.name: wiring for wiring in bound(application).init_args[2].voices}


def test_a_voice_model_binds_its_encoder_and_the_heads_that_are_enabled(tmp_path: Path) -> None:
    silent = {"emotion_model": "", "age_gender_model": "", "verify_threshold": "0.4"}
    built = app(
        args(
            tmp_path,
            {"name": "a", "backend": "fake-voice", "options": silent},
            {"name": "b", "backend": "fake-voice", "options": {**silent, "age_gender_model": "owner/heads"}},
            {"name": "f", "backend": "fake"},
            media={"max_seconds": 20},
        )
    )
    wired = voices(built)
    assert list(wired) == ["a", "b"]
    assert list(wirings(built)) == ["f"]
    assert set(wired["a"].handles) == {"encoder"}
    assert (wired["a"].heads, wired["a"].threshold) == ((), 0.4)
    assert wired["b"].heads == ("age_gender",)
    kinds = {role: bound(handle).func_or_class for role, handle in wired["b"].handles.items()}
    assert kinds == {"encoder": voice.VoiceEncoder, "attributes": voice.VoiceAttributes}
    assert [bound(handle).name for handle in wired["b"].handles.values()] == ["b.encoder", "b.attributes"]
    (spec,) = bound(wired["a"].handles["encoder"]).init_args
    assert (spec.name, spec.engine, spec.max_seconds) == ("a", "fake-voice", 20)
    assert spec.options.options == silent


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"backend": "fake-voice", "deployment": {"detector": {}}}, "deployment.detector: the model has no"),
        (
            {"backend": "fake-voice", "options": ["emotion_model:"], "deployment": {"attributes": {}}},
            "deployment.attributes: the model has no",
        ),
        ({"backend": "fake-voice", "fused": True}, "fused: a voice model takes one hop without it"),
        ({"backend": "fake-voice", "options": ["face_selection:score"]}, "unknown option 'face_selection'"),
        ({"backend": "speaker-recognition", "options": ["engine:magic"]}, "option engine:magic is unknown"),
        ({"backend": "fake", "deployment": {"encoder": {}}}, "deployment.encoder: the model has no"),
    ],
)
def test_a_wrong_voice_model_is_refused(tmp_path: Path, model: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^model m: {told}"):
        app(args(tmp_path, {"name": "m", **model}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backend: magic", "unknown backend 'magic'; known backends: "),
        ("{backend: fake, options: ['banana:1']}", "unknown option 'banana'"),
        ("{backend: fake, deployment: {encoder: {}}}", "deployment.encoder: the model has no"),
    ],
)
def test_an_error_in_a_model_file_names_the_file(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(str(file))}: model m: {re.escape(told)}"):
        app(args(tmp_path))
