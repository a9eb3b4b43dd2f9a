"""SpeechBrain's ECAPA-TDNN on a small random checkpoint in the layout of the published one."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import machinery, util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.utils.importutils import DeprecatedModuleRedirect

from engines.errors import ConfigurationError
from engines.types import Audio, EngineOptions, Runtime
from engines.voice import RATE
from engines.voice.model import VoiceModel
from engines.voice.speechbrain_ecapa import SpeechBrainEcapa

# Old names of modules, which warn or fail when they are looked at; Hypothesis looks at every module there is.
for old in [name for name, module in sys.modules.items() if type(module) is DeprecatedModuleRedirect]:
    del sys.modules[old]

HYPERPARAMETERS = """
pretrained_path: speechbrain/spkrec-ecapa-voxceleb
n_mels: 80
out_n_neurons: 5
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 16
    lin_neurons: 192
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: !ref <out_n_neurons>
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """`tmp_path / ecapa`: random weights under the published names."""
    torch.manual_seed(0)
    directory = tmp_path / "ecapa"
    directory.mkdir()
    (directory / "hyperparams.yaml").write_text(HYPERPARAMETERS)
    net = ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], attention_channels=16, lin_neurons=192)
    torch.save(net.state_dict(), directory / "embedding_model.ckpt")
    torch.save(Classifier(192, out_neurons=5).state_dict(), directory / "classifier.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable([f"id{number}" for number in range(5)], sequence_input=False)
    labels.save(directory / "label_encoder.txt")
    return directory


def engine(models_dir: Path, model: str = "", **options: str) -> SpeechBrainEcapa:
    return SpeechBrainEcapa(EngineOptions(model, {"source": "ecapa"} | options, models_dir))


def speechbrain(directory: Path) -> Any:
    """SpeechBrain's own model of that checkpoint."""
    return EncoderClassifier.from_hparams(
        str(directory), overrides={"pretrained_path": str(directory)}, run_opts={"device": "cpu"}
    )


def by_speechbrain(directory: Path, clips: list[Audio]) -> np.ndarray:
    """What SpeechBrain itself says of each clip alone, normalised."""
    model = speechbrain(directory)
    rows = [model.encode_batch(torch.from_numpy(clip.samples))[0, 0].numpy() for clip in clips]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def test_each_clip_of_a_batch_gets_what_it_gets_alone(checkpoint: Path, clips: list[Audio]) -> None:
    before = {path.name for path in checkpoint.iterdir()}
    encoder = engine(checkpoint.parent).load_encoder(Runtime())
    told = encoder.embed(clips)
    assert told.shape == (4, 192)
    assert told.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(told, axis=1), 1, atol=1e-6)
    expected = by_speechbrain(checkpoint, clips)
    assert (expected @ expected.T).min() < 0.999  # the clips are told apart at all
    np.testing.assert_allclose(told, expected, atol=1e-5)
    assert {path.name for path in checkpoint.iterdir()} == before


def test_padding_would_change_the_embedding(checkpoint: Path, clips: list[Audio]) -> None:
    model = speechbrain(checkpoint)
    short, long = clips[0].samples, clips[1].samples
    waves = torch.from_numpy(np.stack([np.pad(short, (0, len(long) - len(short))), long]))
    padded = model.encode_batch(waves, torch.tensor([len(short) / len(long), 1.0]))[0, 0].numpy()
    (alone,) = by_speechbrain(checkpoint, clips[:1])
    assert np.abs(padded / np.linalg.norm(padded) - alone).max() > 1e-3


def test_no_clips_no_rows(checkpoint: Path) -> None:
    assert engine(checkpoint.parent).load_encoder(Runtime()).embed([]).shape == (0, 192)


def test_many_threads_get_the_same_embeddings(checkpoint: Path, clips: list[Audio]) -> None:
    encoder = engine(checkpoint.parent).load_encoder(Runtime())
    with ThreadPoolExecutor(4) as pool:
        told = np.concatenate(list(pool.map(lambda clip: encoder.embed([clip]), clips * 4)))
    np.testing.assert_allclose(told, np.tile(encoder.embed(clips), (4, 1)), atol=1e-5)


def test_the_shortest_clip_that_is_promised(checkpoint: Path) -> None:
    made = engine(checkpoint.parent)
    clip = Audio(
        np.random.default_rng(0).normal(0, 0.1, int(made.least_seconds * RATE)).astype(np.float32), RATE
    )
    assert np.isfinite(made.load_encoder(Runtime()).embed([clip])).all()


def test_silence_is_no_accident(checkpoint: Path) -> None:
    encoder = engine(checkpoint.parent).load_encoder(Runtime())
    assert np.isfinite(encoder.embed([Audio(np.zeros(RATE, np.float32), RATE)])).all()


def test_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    made = SpeechBrainEcapa(EngineOptions(models_dir=tmp_path))
    assert (made.verify_threshold, made.dim, made.weights()) == (0.25, 192, [])


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({"threshold": "0.6"}, 0.6),
        ({"verify_threshold": "0.7"}, 0.7),
        ({"threshold": "1", "verify_threshold": "0.7"}, 0.7),
    ],
)
def test_the_threshold_has_two_names(checkpoint: Path, options: dict[str, str], threshold: float) -> None:
    assert engine(checkpoint.parent, **options).verify_threshold == threshold


def test_the_source_is_named_by_the_option_or_by_the_model(checkpoint: Path) -> None:
    by_model = SpeechBrainEcapa(EngineOptions("ecapa", {}, checkpoint.parent))
    assert by_model.weights() == [checkpoint / "hyperparams.yaml"]
    assert engine(checkpoint.parent, model="other/one").weights() == by_model.weights()
    assert by_model.dim is None


def test_the_registry_knows_the_engine(checkpoint: Path) -> None:
    options = {"source": "ecapa", "emotion_model": ""}
    model = VoiceModel("speechbrain", EngineOptions("", options, checkpoint.parent))
    model.require_weights()
    assert isinstance(model.engine, SpeechBrainEcapa)


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'ecapa' is neither a directory under the models directory"):
        engine(tmp_path)


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = SpeechBrainEcapa(EngineOptions(models_dir=tmp_path))
    with pytest.raises(
        ConfigurationError, match="spkrec-ecapa-voxceleb could not be downloaded: it is not at hand"
    ):
        made.load_encoder(Runtime())


@pytest.mark.parametrize("name", ["hyperparams.yaml", "embedding_model.ckpt", "classifier.ckpt"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"modules: {}\n", bytes(1000)])
def test_damaged_files_are_told_without_a_path(checkpoint: Path, name: str, content: bytes | None) -> None:
    made = engine(checkpoint.parent)
    (checkpoint / name).unlink()
    if content is not None:
        (checkpoint / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        made.load_encoder(Runtime())
    assert caught.value.message.startswith(
        "source:ecapa is no checkpoint for SpeechBrain's EncoderClassifier"
    )
    assert str(checkpoint) not in caught.value.message


def test_weights_that_speechbrain_would_leave_at_random_are_refused(checkpoint: Path) -> None:
    file = checkpoint / "embedding_model.ckpt"
    weights = torch.load(file)
    torch.save({name: value for name, value in weights.items() if not name.startswith("asp.")}, file)
    with pytest.raises(ConfigurationError, match="is no checkpoint"):
        engine(checkpoint.parent).load_encoder(Runtime())


def test_a_gpu_that_is_not_there_is_no_silent_fall_back(checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="torch finds none"):
        engine(checkpoint.parent).load_encoder(Runtime(cuda=True))


@pytest.mark.parametrize("package", ["speechbrain", "torchaudio"])
def test_a_package_that_is_not_installed(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = util.find_spec

    def without(name: str) -> machinery.ModuleSpec | None:
        return None if name == package else real(name)

    monkeypatch.setattr("engines.voice.speechbrain_ecapa.find_spec", without)
    with pytest.raises(
        ConfigurationError, match=rf"needs the package {package}: install presence\[speechbrain\]"
    ):
        engine(checkpoint.parent)


BROKEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engines import registry
from engines.errors import ConfigurationError
from engines.types import EngineOptions, Runtime
from engines.voice.model import VoiceModel
VoiceModel("resemblyzer-ge2e", EngineOptions()).engine.load_encoder(Runtime())
try:
    engine = registry.load("voice", "speechbrain")(EngineOptions("ecapa", {}, Path(sys.argv[2])))
    engine.load_encoder(Runtime())
except ConfigurationError as error:
    print(error.message)
"""


def test_a_torchaudio_that_does_not_fit_torch_breaks_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "torchaudio"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('undefined symbol')\n")
    command = [sys.executable, "-c", BROKEN, str(broken.parent), str(checkpoint.parent)]
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "speechbrain or torchaudio cannot be imported: install presence[speechbrain]" in ended.stdout, (
        ended.stderr
    )
