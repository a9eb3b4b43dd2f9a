"""Model files and application settings: LocalAI's YAML unchanged, clear errors for the rest."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from engines.errors import ConfigurationError
from graphs.explain import explain
from graphs.settings import AppArgs, ModelFile, Replicas, all_models, read_model_file

LOCALAI = """
name: insightface-opencv
backend: insightface
description: YuNet and SFace
known_usecases: [face_recognition]
f16: true
threads: 4
license: apache-2.0
icon: https://example.com/icon.png
parameters:
  model: face_detection_yunet_2023mar.onnx
  temperature: 0.2
options:
  - engine:onnx_direct
  - detector_onnx:face_detection_yunet_2023mar.onnx
  - recognizer_onnx:face_recognition_sface_2021dec.onnx
  - antispoof_v2_onnx:MiniFASNetV2.onnx
files:
  - filename: MiniFASNetV2.onnx
    sha256: b32929adc2d9c34b9486f8c4c7bc97c1b69bc0ea9befefc380e4faae4e463907
    uri: https://example.com/MiniFASNetV2.onnx
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_localai_model_file_is_accepted_unchanged(tmp_path: Path) -> None:
    model = read_model_file(write(tmp_path, "m.yaml", LOCALAI))
    assert model.engine == "opencv-zoo"
    assert model.capability == "face"
    assert model.parameters.model == "face_detection_yunet_2023mar.onnx"
    assert model.options["recognizer_onnx"] == "face_recognition_sface_2021dec.onnx"
    assert model.files[0].filename == "MiniFASNetV2.onnx"


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        (["engine:speechbrain", "source:speechbrain/spkrec-ecapa-voxceleb"], "speechbrain"),
        (["engine:onnx", "model_path:wespeaker_voxceleb_resnet34.onnx", "sample_rate:16000"], "wespeaker"),
        (["model_path:wespeaker_voxceleb_resnet34.onnx"], "wespeaker"),
        (["onnx:wespeaker_voxceleb_resnet34.onnx"], "wespeaker"),
        (["verify_threshold:0.3"], "speechbrain"),
        ([], "speechbrain"),
    ],
)
def test_localais_speaker_recognition_names_an_engine(options: list[str], engine: str) -> None:
    model = ModelFile.model_validate(
        {
            "name": "voice",
            "backend": "speaker-recognition",
            "known_usecases": ["speaker_recognition"],
            "options": options,
        }
    )
    assert (model.engine, model.capability) == (engine, "voice")


TOLD_TO_OTHERS = """
flash_attention: true
mmproj: p.bin
rope_scaling: linear
step: 25
threads: 4
f16: true
mirostat_eta: 0.1
quantization: awq
tensor_parallel_size: 2
lora_adapters: [a, b]
mcp: {remote: ''}
reasoning: {disable: true}
"""


def test_what_localai_tells_other_backends_means_nothing(tmp_path: Path) -> None:
    model = read_model_file(write(tmp_path, "m.yaml", f"backend: fake\n{TOLD_TO_OTHERS}"))
    assert model == read_model_file(write(tmp_path, "m.yaml", "backend: fake"))


def test_a_disabled_model_may_say_what_nobody_here_knows(tmp_path: Path) -> None:
    text = "backend: llama-cpp\ndisabled: true\nbanana: 3"
    model = read_model_file(write(tmp_path, "m.yaml", text))
    assert (model.name, model.disabled) == ("m", True)
    with pytest.raises(ConfigurationError, match="banana: unknown key"):
        read_model_file(write(tmp_path, "m.yaml", text.replace("true", "false")))


def test_options_may_be_a_mapping_and_keep_colons_in_values(tmp_path: Path) -> None:
    model = read_model_file(
        write(tmp_path, "m.yaml", "backend: fake\noptions: {root: 'a:b', det_thresh: 0.5}")
    )
    assert model.options == {"root": "a:b", "det_thresh": "0.5"}
    assert model.name == "m"


def test_empty_keys_are_as_if_they_were_left_out(tmp_path: Path) -> None:
    bare = read_model_file(write(tmp_path, "m.yaml", "backend: fake"))
    optional = [name for name in ModelFile.model_fields if name != "backend"]
    for name in [*optional, "description"]:
        assert read_model_file(write(tmp_path, "m.yaml", f"backend: fake\n{name}:")) == bare
    every = "\n".join(f"{name}:" for name in optional)
    assert read_model_file(write(tmp_path, "m.yaml", f"backend: fake\n{every}")) == bare
    nested = "parameters: {model: , language: }\ntts: {voice: , vall-e: }\noptions: {root: }"
    assert read_model_file(write(tmp_path, "m.yaml", f"backend: fake\n{nested}")) == bare


def test_empty_keys_of_the_application_are_too() -> None:
    assert AppArgs.model_validate(dict.fromkeys(AppArgs.model_fields)) == AppArgs()
    empty = {"kind": "pgvector", "index": None}
    assert AppArgs.model_validate({"store": empty}) == AppArgs.model_validate({"store": "pgvector"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backend: fake\nbanana:", ["m.yaml", "banana", "unknown key"]),
        ("backend:", ["m.yaml", "backend"]),
        ("backend: fake\nfiles: [{filename: }]", ["files.0.filename"]),
        ("backend: fake\nbanana: 1", ["m.yaml", "banana", "unknown key", "remove it"]),
        ("name: x", ["m.yaml", "backend", "required", "add it"]),
        ("backend: 12", ["m.yaml", "backend", "put quotes"]),
        ("backend: fake\noptions: [nocolon]", ["options", "nocolon", "key:value"]),
        ("backend: fake\nname: ../etc", ["m.yaml", "name", "take letters, digits"]),
        ("backend: fake\ndeployment: {chef: {}}", ["deployment", "chef"]),
        (
            "backend: fake\ndeployment: {detector: {num_gpu: 1}}",
            ["deployment.detector.num_gpu", "unknown key"],
        ),
        ("backend: fake\ndeployment: {detector: {min_replicas: 3, max_replicas: 2}}", ["max_replicas"]),
        ("- a list", ["m.yaml", "mapping"]),
        ("a: [", ["m.yaml", "YAML"]),
    ],
)
def test_a_wrong_model_file_is_told_by_file_and_key(tmp_path: Path, text: str, told: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_model_file(write(tmp_path, "m.yaml", text))
    for word in told:
        assert word in caught.value.message


def test_an_unknown_backend_or_engine_names_what_is_known() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown backend 'magic'.*dlib-resnet"):
        _ = ModelFile(name="x", backend="magic").capability
    with pytest.raises(ConfigurationError, match="engine:magic is unknown"):
        _ = ModelFile(name="x", backend="insightface", options={"engine": "magic"}).engine


def test_models_keep_their_order_and_refuse_one_name_twice(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", "backend: fake")
    write(tmp_path, "a.yml", "backend: fake")
    args = AppArgs(models=(ModelFile(name="z", backend="fake"),))
    assert [model.name for model in all_models(args, tmp_path)] == ["z", "a", "b"]
    write(tmp_path, "c.yaml", "{name: a, backend: fake}")
    with pytest.raises(ConfigurationError, match=r"two models are named 'a'.*/a\.yml: .*/c\.yaml: "):
        all_models(args, tmp_path)


def test_a_model_of_the_config_replaces_the_installed_one_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "{backend: fake, license: installed}")
    args = AppArgs(models=(ModelFile(name="a", backend="fake", license="config"),))
    assert [model.license for model in all_models(args, tmp_path)] == ["config"]


def test_application_arguments_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError) as caught:
        AppArgs.model_validate({"gateway": {"replicas": 2}})
    assert "gateway.replicas: unknown key" in explain(caught.value)


def test_threads_are_bounded_by_cpus() -> None:
    assert Replicas(num_cpus=0.1).threads == 1
    assert Replicas(num_cpus=4).threads == 4


def test_a_word_chooses_the_kind_of_store() -> None:
    assert AppArgs().store.kind == "faiss"
    assert (AppArgs().store.index.kind, AppArgs().store.index.approximate_from) == ("flat", 200_000)
    assert AppArgs.model_validate({"store": "faiss"}) == AppArgs()
    store = AppArgs.model_validate({"store": "pgvector"}).store
    assert store == AppArgs.model_validate({"store": {"kind": "pgvector"}}).store
    index = store.index
    assert (index.kind, index.m, index.approximate_from) == ("hnsw", 16, 20_000)
    assert (index.ef_construction, index.ef_search) == (64, 100)
    exact = AppArgs.model_validate(
        {"store": {"kind": "pgvector", "index": {"kind": "flat", "m": 8}}}
    ).store.index
    assert (exact.kind, exact.m, exact.ef_construction) == ("flat", 8, 64)


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("chroma", "kind: Input should be 'faiss' or 'pgvector'"),
        ({"kind": "pgvector", "index": {"kind": "ivf"}}, "index.kind hnsw or flat"),
        ({"kind": "pgvector", "index": {"gpu": True}}, "without a GPU"),
        ({"kind": "pgvector", "index": {"m": 101, "ef_construction": 300}}, "index.m up to 100"),
        ({"kind": "pgvector", "index": {"m": 40}}, "from 2 \\* m to 1000"),
        ({"kind": "pgvector", "index": {"ef_search": 1001}}, "ef_search up to 1000"),
        ({"kind": "pgvector", "when_away": "stale"}, "when_away is fail"),
        ({"kind": "pgvector", "index": 3}, "index"),
    ],
)
def test_what_pgvector_has_not_is_refused(store: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AppArgs.model_validate({"store": store})
    assert re.search(told, explain(caught.value))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("foo: [1", "line 1, column 8: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("\1", "special characters are not allowed"),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"not readable as YAML: .*{re.escape(told)}") as caught:
        read_model_file(tmp_path / "m.yaml")
    assert "\n" not in caught.value.message


def test_the_remedy_for_names_is_not_told_of_other_patterns() -> None:
    with pytest.raises(ValidationError) as caught:
        Weights.model_validate({"name": "a b", "sha256": "0000"})
    name, digest = explain(caught.value).split("; sha256: ")
    assert name.startswith("name: ")
    assert name.endswith("take letters, digits, dot, dash and underscore, a letter or digit first")
    assert digest == "String should match pattern '^[0-9a-f]{64}$'"


class Weights(BaseModel):
    """A name as of a model, and a sum as of a file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
