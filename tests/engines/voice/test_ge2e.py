"""The GE2E encoder: Resemblyzer's numbers, real speakers, any batch."""

import math
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray

from engines.audio import decode, speech
from engines.errors import ConfigurationError, PresenceError
from engines.types import Audio, EngineOptions, Runtime
from engines.verification import accuracy, all_pairs
from engines.voice import RATE, SpeakerEncoder, VoiceEngine, ge2e, ge2e_encoder
from engines.voice.ge2e import Ge2e
from engines.voice.ge2e_encoder import louder, mel_filters, window_starts


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return Ge2e(EngineOptions()).load_encoder(Runtime(1))


@pytest.fixture(scope="module")
def speakers(shared: Path) -> list[tuple[str, Audio]]:
    """10 people x 6 utterances, of 4 seconds at most."""
    paths = sorted((shared / "media/audio/speakers").glob("*/*.flac"))
    return [(path.parent.name, start(read(path), 4)) for path in paths]


def read(path: Path) -> Audio:
    return speech(decode(path.read_bytes(), RATE, 60), Ge2e.least_seconds)


def start(audio: Audio, seconds: float) -> Audio:
    return Audio(audio.samples[: int(seconds * RATE)], RATE)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Audio:
    samples = np.random.default_rng(seed).normal(0, level, round(seconds * RATE))
    return Audio(samples.astype(np.float32), RATE)


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(1 - one @ other)


def test_the_engine_keeps_the_protocol() -> None:
    engine: VoiceEngine = Ge2e(EngineOptions(options={"verify_threshold": "0.3"}))
    assert engine.verify_threshold == 0.3
    assert engine.dim == 256
    assert [path.name for path in engine.weights()] == ["pretrained.pt"]
    with pytest.raises(ConfigurationError, match="verify_threshold"):
        Ge2e(EngineOptions(options={"verify_threshold": "near"}))


@pytest.mark.parametrize("spec", [None, "empty"])
def test_a_package_that_is_missing_is_told_with_its_remedy(
    spec: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ModuleSpec("resemblyzer", None, origin=str(tmp_path / "__init__.py")) if spec else None
    monkeypatch.setattr(ge2e, "find_spec", lambda _: found)
    with pytest.raises(ConfigurationError, match="pip install --no-deps resemblyzer"):
        Ge2e(EngineOptions()).weights()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_told(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pretrained.pt"
    if content is None:
        torch.save({"model_state": {"lstm.weight_ih_l0": torch.zeros(3)}}, path)
    else:
        path.write_bytes(content)
    package = ModuleSpec("resemblyzer", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(ge2e, "find_spec", lambda _: package)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Ge2e(EngineOptions()).load_encoder(Runtime())


def test_the_package_itself_is_never_imported() -> None:
    Ge2e(EngineOptions()).load_encoder(Runtime())
    assert "resemblyzer" not in sys.modules


def test_mel_filters_equal_torchaudios() -> None:
    expected = torchaudio.functional.melscale_fbanks(
        201, 0.0, RATE / 2, 40, RATE, norm="slaney", mel_scale="slaney"
    ).T.numpy()
    assert np.abs(mel_filters() - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(0.1, [0]), (1.6, [0]), (1.96, [0]), (1.98, [0, 77]), (2.73, [0, 77]), (2.75, [0, 77, 154])],
)
def test_windows_overlap_as_in_the_original(seconds: float, starts: list[int]) -> None:
    """The second starts at 0.77 s and must be filled to three quarters: to 0.77 + 1.2 s."""
    assert window_starts(round(seconds * RATE)) == starts


def test_quiet_clips_are_raised_and_loud_ones_kept() -> None:
    quiet, loud = noise(1, level=0.001).samples, noise(1, level=0.2).samples
    assert 20 * math.log10(np.sqrt(np.mean(louder(quiet) ** 2))) == pytest.approx(-30, abs=0.01)
    assert np.array_equal(louder(loud), loud)
    assert not louder(np.zeros(9, np.float32)).any()


def reference(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Resemblyzer's recipe once more, step by step in NumPy, for a clip of one window."""
    state = torch.load(Ge2e(EngineOptions()).weights()[0], map_location="cpu", weights_only=True)[
        "model_state"
    ]
    weights = {name: value.double().numpy() for name, value in state.items()}
    gain = max(1.0, 10 ** (-30 / 20) / np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
    wave = np.concatenate([np.zeros(200), samples * gain, np.zeros(160 * 160 - len(samples) + 200)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([wave[at * 160 : at * 160 + 400] * hann for at in range(160)])
    filters = (
        torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 40, RATE, norm="slaney", mel_scale="slaney")
        .double()
        .numpy()
    )
    layer = np.abs(np.fft.rfft(frames)) ** 2 @ filters
    for number in range(3):
        layer = recurrent(layer, [weights[f"lstm.{name}_l{number}"] for name in PARTS])
    row = np.maximum(0, weights["linear.weight"] @ layer[-1] + weights["linear.bias"])
    return np.asarray(row / np.linalg.norm(row))


PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def recurrent(inputs: NDArray[np.float64], weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One LSTM layer (Hochreiter and Schmidhuber, with a forget gate)."""
    into, across, bias, more = weights
    hidden, cell, outputs = np.zeros(256), np.zeros(256), []
    for row in inputs:
        gates = into @ row + across @ hidden + bias + more
        enter, forget, leave = (1 / (1 + np.exp(-gates[at : at + 256])) for at in (0, 256, 768))
        cell = forget * cell + enter * np.tanh(gates[512:768])
        hidden = leave * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs)


@pytest.mark.parametrize("level", [1.0, 0.01])
@pytest.mark.parametrize("seconds", [1.6, 1.1])
def test_embeddings_equal_an_independent_computation(
    encoder: SpeakerEncoder, speakers: list[tuple[str, Audio]], level: float, seconds: float
) -> None:
    samples = start(speakers[0][1], seconds).samples * np.float32(level)
    assert np.abs(encoder.embed([Audio(samples, RATE)])[0] - reference(samples)).max() < 1e-4


def test_any_batch_gives_the_embedding_that_a_clip_has_alone(
    encoder: SpeakerEncoder, speakers: list[tuple[str, Audio]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [start(speakers[at][1], seconds) for at, seconds in enumerate((4, 1, 2.3, 1, 3.9, 0.4))]
    alone = np.concatenate([encoder.embed([clip]) for clip in clips])
    assert np.abs(encoder.embed(clips) - alone).max() < 1e-5
    monkeypatch.setattr(ge2e_encoder, "MOST_WINDOWS", 3)
    assert np.abs(encoder.embed(clips[::-1]) - alone[::-1]).max() < 1e-5


def test_rows_are_unit_and_an_empty_batch_is_empty(encoder: SpeakerEncoder) -> None:
    rows = encoder.embed([noise(1), noise(7, 1), Audio(np.zeros(RATE, np.float32), RATE)])
    assert rows.shape == (3, 256)
    assert rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    assert encoder.embed([]).shape == (0, 256)


def test_the_replicas_threads_are_those_of_torch() -> None:
    before = torch.get_num_threads()
    Ge2e(EngineOptions()).load_encoder(Runtime(1))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_real_speakers_are_told_apart(encoder: SpeakerEncoder, speakers: list[tuple[str, Audio]]) -> None:
    """On 4 seconds of each utterance; the figures of docs/accuracy.md are on all of it."""
    names = [name for name, _ in speakers]
    assert len(names) == 60
    rows = encoder.embed([clip for _, clip in speakers])
    found = accuracy(all_pairs(rows, names), Ge2e(EngineOptions()).verify_threshold)
    assert found.eer < 0.02
    assert found.tar > 0.9
    assert found.far < 0.01
    distances = 1 - rows @ rows.T + 3 * np.eye(60)
    nearest = [names[int(at)] for at in distances.argmin(axis=1)]
    assert np.mean([one == other for one, other in zip(names, nearest, strict=True)]) > 0.98


def test_the_same_recording_in_any_format_is_the_same_speaker(encoder: SpeakerEncoder, shared: Path) -> None:
    folder = shared / "media/audio/edge_cases"
    clean = encoder.embed([read(folder / "jfk_pcm16_16k.wav")])[0]
    limits = {"jfk_snr5.wav": 0.45, "clipped.wav": 0.25, "truncated.wav": 0.1, "jfk_u8_16k.wav": 0.05}
    seen = 0
    for path in sorted(folder.iterdir()):
        try:
            clip = read(path)
        except PresenceError:
            continue
        if "jfk" in path.name or path.name in limits:
            seen += 1
            row = encoder.embed([clip])[0]
            assert distance(clean, row) <= limits.get(path.name, 0.01), path.name
    assert seen >= 16


def test_other_sentences_of_two_speakers(encoder: SpeakerEncoder, shared: Path) -> None:
    paths = sorted((shared / "media/audio/short_sentences").glob("*.wav"))
    rows = encoder.embed([read(path) for path in paths])
    found = accuracy(all_pairs(rows, [path.name[:4] for path in paths]), 0.25)
    assert found.eer < 0.1
