"""WeSpeaker's and 3D-Speaker's networks: their features, their options, any batch, any layout.

The networks are random ones of the same interface: convolution over time, mean and deviation, linear.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchaudio
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.audio import decode
from engines.errors import ConfigurationError
from engines.types import Audio, EngineOptions, Runtime
from engines.voice import RATE, VoiceEngine
from engines.voice.fbank import Fbank
from engines.voice.model import VoiceModel
from engines.voice.wespeaker import RECIPES, OnnxEncoder, WeSpeaker

NAME = "wespeaker_voxceleb_resnet34.onnx"


def network(
    path: Path,
    shape: tuple[int | str, ...] = ("B", "T", 80),
    bins: int = 80,
    dim: int = 256,
    metadata: dict[str, str] | None = None,
    more_inputs: int = 0,
) -> Path:
    """A network with that input. shape: rank 3 takes features, rank 2 samples."""
    random = np.random.default_rng(7)
    samples, transposed = len(shape) == 2, len(shape) == 3 and shape[1] == bins
    across, size = (1, 400) if samples else (bins, 5)
    weights = {
        "kernel": random.normal(0, 1 if samples else 0.1, (64, across, size)),
        "dense": random.normal(0, 0.2, (128, dim)),
    }
    prepared = [
        helper.make_node("Unsqueeze", ["feats", "one"], ["rows"])
        if samples
        else helper.make_node("Transpose", ["feats"], ["rows"], perm=[0, 1, 2] if transposed else [0, 2, 1])
    ]
    nodes = [
        *prepared,
        helper.make_node("Conv", ["rows", "kernel"], ["frames"], strides=[160 if samples else 1]),
        helper.make_node("Relu", ["frames"], ["active"]),
        helper.make_node("ReduceMean", ["active", "last"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["active", "active"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "last"], ["power"], keepdims=0),
        helper.make_node("Sqrt", ["power"], ["deviation"]),
        helper.make_node("Concat", ["mean", "deviation"], ["statistics"], axis=1),
        helper.make_node("MatMul", ["statistics", "dense"], ["embs"]),
    ]
    values = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    values += [
        numpy_helper.from_array(np.array([at], np.int64), name) for name, at in (("one", 1), ("last", 2))
    ]
    inputs = [helper.make_tensor_value_info("feats", TensorProto.FLOAT, shape)]
    inputs += [
        helper.make_tensor_value_info(f"more{at}", TensorProto.FLOAT, [1]) for at in range(more_inputs)
    ]
    outputs = [helper.make_tensor_value_info("embs", TensorProto.FLOAT, [shape[0], dim])]
    if more_inputs:
        nodes[-1].output[0] = "plain"
        nodes.append(helper.make_node("Mul", ["plain", "more0"], ["embs"]))
    graph = helper.make_graph(nodes, "speaker", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def engine(path: Path, **options: str) -> WeSpeaker:
    return WeSpeaker(EngineOptions(options={"model_path": path.name, **options}, models_dir=path.parent))


def encoder(path: Path, **options: str) -> OnnxEncoder:
    return engine(path, **options).load_encoder(Runtime(1))


def noise(seconds: float, seed: int = 0) -> Audio:
    """Coloured differently for each seed."""
    loud = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    return Audio(np.convolve(loud, np.ones(seed + 1) / (seed + 1), "same").astype(np.float32), RATE)


@pytest.fixture(scope="module")
def jfk(shared: Path) -> Audio:
    return decode((shared / "media/audio/edge_cases/jfk_pcm16_16k.wav").read_bytes(), RATE, 60)


def kaldi(clip: Audio, scale: float, window: str, **options: float) -> NDArray[np.float32]:
    """torchaudio's implementation, which is not ours nor kaldi-native-fbank's."""
    wave = torch.from_numpy(clip.samples * np.float32(scale))[None]
    features = torchaudio.compliance.kaldi.fbank(
        wave, window_type=window, dither=0.0, **{"num_mel_bins": 80, **options}
    )
    return np.asarray((features - features.mean(dim=0)).numpy(), np.float32)


def test_features_are_wespeakers(jfk: Audio) -> None:
    ours = RECIPES["wespeaker"].fbank.features(jfk)
    assert ours.shape == (1098, 80)
    assert ours.dtype == np.float32
    assert np.abs(ours - kaldi(jfk, 1 << 15, "hamming")).max() < 2e-3


def test_features_are_3d_speakers(jfk: Audio) -> None:
    ours = RECIPES["3d-speaker"].fbank.features(jfk)
    assert np.abs(ours - kaldi(jfk, 1, "povey")).max() < 2e-2  # silence lies at the floor of float32
    assert np.abs(ours - kaldi(jfk, 1, "povey")).mean() < 1e-4
    assert np.abs(ours - kaldi(jfk, 1 << 15, "hamming")).mean() > 1e-2


def test_features_by_options(jfk: Audio) -> None:
    ours = Fbank(32_768, "hamming", bins=40, length_ms=32, shift_ms=16).features(jfk)
    expected = kaldi(jfk, 1 << 15, "hamming", num_mel_bins=40, frame_length=32, frame_shift=16)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 2e-3
    raw = Fbank(32_768, "hamming", cmn=False).features(jfk)
    assert np.abs(raw - raw.mean(axis=0) - kaldi(jfk, 1 << 15, "hamming")).max() < 2e-3
    assert raw.mean() > 5


def test_the_model_file_of_localais_gallery(tmp_path: Path) -> None:
    network(tmp_path / NAME)
    options = {"model_path": NAME, "sample_rate": "16000", "providers": "CPUExecutionProvider"}
    made = VoiceModel("wespeaker", EngineOptions(model=NAME, options=options, models_dir=tmp_path))
    made.require_weights()
    ready: VoiceEngine = made.engine
    assert ready.weights() == [tmp_path / NAME]
    assert ready.verify_threshold == 0.30
    assert ready.dim is None
    rows = ready.load_encoder(Runtime(1)).embed([noise(1), noise(2, 1)])
    assert rows.shape == (2, 256)
    assert rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5


def test_the_file_may_be_named_in_three_ways(tmp_path: Path) -> None:
    for options in ({"model_path": NAME}, {"onnx": NAME}, {}):
        made = WeSpeaker(EngineOptions(model=NAME, options=options, models_dir=tmp_path))
        assert made.weights() == [tmp_path / NAME]
    with pytest.raises(ConfigurationError, match="model_path"):
        WeSpeaker(EngineOptions())


@pytest.mark.parametrize(
    ("name", "options", "threshold", "window"),
    [
        (NAME, {}, 0.30, "hamming"),
        ("3dspeaker_speech_eres2net_sv_en_voxceleb_16k.onnx", {}, 0.28, "povey"),
        ("CAMPPlus.onnx", {}, 0.28, "povey"),
        ("other.onnx", {"recipe": "3d-speaker"}, 0.28, "povey"),
        ("eres2net.onnx", {"recipe": "wespeaker"}, 0.30, "hamming"),
        (NAME, {"verify_threshold": "0.4", "threshold": "0.1"}, 0.4, "hamming"),
        (NAME, {"threshold": "0.1"}, 0.1, "hamming"),
    ],
)
def test_recipe_and_threshold_come_from_options_then_from_the_name(
    name: str, options: dict[str, str], threshold: float, window: str
) -> None:
    made = engine(Path(name), **options)
    assert made.verify_threshold == threshold
    assert made.fbank.window == window


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("recipe", "nemo"),
        ("sample_rate", "8000"),
        ("fbank_num_mel_bins", "80.5"),
        ("fbank_frame_length_ms", "nan"),
        ("fbank_frame_shift_ms", "0"),
        ("fbank_cmn", "maybe"),
        ("verify_threshold", "3"),
        ("threshold", "-1"),
    ],
)
def test_wrong_options_are_named(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}:{value}"):
        engine(Path(NAME), **{option: value})


def test_embeddings_are_the_networks_of_those_features(tmp_path: Path, jfk: Audio) -> None:
    """Once more by hand, in NumPy."""
    model = onnx.load(network(tmp_path / NAME))
    weights = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    features = kaldi(jfk, 1 << 15, "hamming")
    frames = np.lib.stride_tricks.sliding_window_view(features, 5, axis=0)  # (T - 4, 80, 5)
    active = np.maximum(0, np.einsum("tbk,obk->to", frames, weights["kernel"]))
    statistics = np.concatenate([active.mean(axis=0), np.sqrt((active**2).mean(axis=0))])
    expected = statistics @ weights["dense"]
    row = encoder(tmp_path / NAME).embed([jfk])[0]
    assert np.abs(row - expected / np.linalg.norm(expected)).max() < 1e-4


@pytest.mark.parametrize("shape", [("B", "T", 80), (1, "T", 80), ("B", 80, "T"), ("B", "N"), ("B", "T", "F")])
def test_any_batch_gives_the_embedding_that_a_clip_has_alone(
    tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    made = encoder(network(tmp_path / NAME, shape))
    clips = [noise(seconds, seed) for seed, seconds in enumerate((1, 2, 1, 0.5, 1.3, 2, 1, 1, 1, 1, 1, 1, 1))]
    alone = np.concatenate([made.embed([clip]) for clip in clips])
    assert np.abs(made.embed(clips) - alone).max() < 1e-4
    assert np.abs(made.embed(clips[::-1]) - alone[::-1]).max() < 1e-4
    distances = 1 - alone @ alone.T + np.eye(len(clips))
    assert distances.min() > 1e-4  # the clips differ, so that rows in a wrong order would be seen


def test_features_padded_to_one_length_would_give_other_embeddings(tmp_path: Path) -> None:
    """Why clips of unequal length do not run together."""
    made = encoder(network(tmp_path / NAME))
    clip = noise(1)
    padded = Audio(np.pad(clip.samples, (0, RATE)), RATE)
    assert np.abs(made.embed([padded]) - made.embed([clip])).max() > 1e-3


def test_a_long_clip_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    made = encoder(network(tmp_path / NAME))
    clip = noise(41, 1)
    third = len(clip.samples) // 3
    parts = made.embed([Audio(clip.samples[at * third : (at + 1) * third], RATE) for at in range(3)])
    mean = parts.mean(axis=0)
    assert np.abs(made.embed([clip])[0] - mean / np.linalg.norm(mean)).max() < 1e-5
    whole = noise(20, 1)
    assert np.abs(made.embed([whole, clip])[0] - made.embed([whole])[0]).max() < 1e-5


def test_an_empty_batch_is_empty(tmp_path: Path) -> None:
    assert encoder(network(tmp_path / NAME, dim=192)).embed([]).shape == (0, 192)


def test_other_bins_work_by_option(tmp_path: Path) -> None:
    path = network(tmp_path / NAME, ("B", "T", 40), bins=40)
    assert encoder(path, fbank_num_mel_bins="40").embed([noise(1)]).shape == (1, 256)
    with pytest.raises(ConfigurationError, match=r"features \[clip, frame, 80\]"):
        encoder(path)


@pytest.mark.parametrize(
    ("shape", "more"), [(("B", 200, 80), 0), (("B", "T", 80), 1), ((1, 1, "T", 80), 0)], ids=str
)
def test_a_network_of_another_interface_is_refused(
    tmp_path: Path, shape: tuple[int | str, ...], more: int
) -> None:
    if len(shape) == 4:
        input_ = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [input_], [output])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
            tmp_path / NAME,
        )
    else:
        network(tmp_path / NAME, shape, more_inputs=more)
    with pytest.raises(ConfigurationError, match="no speaker network"):
        encoder(tmp_path / NAME)


def test_metadata_that_contradicts_the_recipe_is_told(tmp_path: Path) -> None:
    """sherpa-onnx writes it into the files that it publishes."""
    path = network(tmp_path / "model.onnx", metadata={"framework": "3d-speaker"})
    with pytest.raises(ConfigurationError, match="set recipe:3d-speaker"):
        encoder(path)
    assert encoder(path, recipe="3d-speaker").embed([noise(1)]).shape == (1, 256)
    nemo = network(tmp_path / "nemo.onnx", metadata={"framework": "nemo"})
    with pytest.raises(ConfigurationError, match="not supported"):
        encoder(nemo)


def test_a_file_that_is_missing_or_no_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing weights"):
        VoiceModel("wespeaker", EngineOptions(model=NAME, models_dir=tmp_path)).require_weights()
    (tmp_path / NAME).write_bytes(b"no network")
    with pytest.raises(ConfigurationError, match="not a readable ONNX"):
        encoder(tmp_path / NAME)
