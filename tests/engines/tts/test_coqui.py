"""Coqui's package on small random models of its real classes: VITS, XTTS."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.coqui import Coqui, CoquiSynthesizer
from engines.types import Audio, EngineOptions, Runtime
from tests.engines.tts.coqui_checkpoints import package, save_vits, save_xtts

pytest.importorskip("TTS", reason="install presence[coqui]", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # the package and what it imports warn about themselves

SEED = {"seed": "7"}
RATE = 22_050
PAUSE = 10_000
"""Samples of silence that the package adds to a sentence."""


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    save_vits(path / "plain")
    save_vits(path / "many", ("ann", "bob"), ("en", "fr-fr"))
    save_xtts(path / "xtts")
    return path


def loaded(models_dir: Path, model: str, **options: str) -> CoquiSynthesizer:
    return Coqui(EngineOptions(model, options, models_dir)).load(Runtime(threads=1))


@pytest.fixture(scope="module")
def plain(models_dir: Path) -> CoquiSynthesizer:
    return loaded(models_dir, "plain")


@pytest.fixture(scope="module")
def many(models_dir: Path) -> CoquiSynthesizer:
    return loaded(models_dir, "many")


@pytest.fixture(scope="module")
def xtts(models_dir: Path) -> CoquiSynthesizer:
    return loaded(models_dir, "xtts", language="fr")


def spoken(synthesizer: CoquiSynthesizer, text: str = "hello world", **more: Any) -> np.ndarray:
    [piece] = synthesizer.speak(Utterance(text, params=SEED, **more))
    return piece


def test_one_voice_and_one_language(models_dir: Path, plain: CoquiSynthesizer) -> None:
    assert (plain.rate, plain.voices) == (RATE, ())
    sound = spoken(plain)
    assert sound[:-PAUSE].std() > 0.01
    directory = models_dir / "plain"
    tts = package("api").TTS(
        model_path=str(directory / "model.pth"),
        config_path=str(directory / "config.json"),
        progress_bar=False,
    )
    torch.manual_seed(7)
    expected = tts.tts("hello world", split_sentences=False)
    np.testing.assert_allclose(sound, np.clip(expected, -1, 1), atol=1e-5)
    np.testing.assert_array_equal(spoken(plain, language="fr"), sound)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "?!"}, "holds nothing that can be spoken"),
        ({"text": "日本"}, "the model cannot speak this text"),
        ({"text": "hello", "voice": "ann"}, 'voice "ann" is unknown; known: none'),
        (
            {"text": "hello", "reference": Audio(np.zeros(RATE * 3, np.float32), RATE)},
            "does not clone voices",
        ),
    ],
)
def test_what_a_plain_model_cannot_speak(
    plain: CoquiSynthesizer, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        spoken(plain, **given)
    assert len(spoken(plain, "hello")) > PAUSE


def test_several_voices_and_languages(many: CoquiSynthesizer) -> None:
    assert [(voice.name, voice.languages) for voice in many.voices] == [
        ("ann", ("en", "fr-fr")),
        ("bob", ("en", "fr-fr")),
    ]
    first = spoken(many, language="en")
    np.testing.assert_array_equal(spoken(many, language="en", voice="ann"), first)
    for other in ({"language": "en", "voice": "bob"}, {"language": "fr"}):
        assert not np.array_equal(spoken(many, **other), first)
    np.testing.assert_array_equal(spoken(many), first)
    with pytest.raises(InvalidInput, match='language "de" is unknown; known: en, fr-fr'):
        spoken(many, language="de")
    with pytest.raises(InvalidInput, match='voice "eve" is unknown; known: ann, bob'):
        spoken(many, language="en", voice="eve")


def test_the_language_of_the_request_counts_before_the_option(
    models_dir: Path, many: CoquiSynthesizer
) -> None:
    french = loaded(models_dir, "many", language="fr")
    np.testing.assert_array_equal(spoken(french), spoken(many, language="fr-fr"))
    np.testing.assert_array_equal(spoken(french, language="en"), spoken(many, language="en"))
    with pytest.raises(ConfigurationError, match=r"many: it does not speak de; its languages: en, fr-fr"):
        loaded(models_dir, "many", language="de")


def test_xtts_speaks_with_its_own_voices(xtts: CoquiSynthesizer) -> None:
    assert [(voice.name, voice.languages) for voice in xtts.voices] == [("Ana Florence", ("en", "fr"))]
    assert xtts.rate == 24_000
    french = spoken(xtts, "bonjour", voice="Ana Florence")
    assert french[:-PAUSE].std() > 0.001
    np.testing.assert_array_equal(spoken(xtts, "bonjour", language="fr"), french)


def test_xtts_clones_the_voice_of_a_recording(xtts: CoquiSynthesizer) -> None:
    def noise(seed: int, seconds: float = 3) -> Audio:
        samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000))
        return Audio(samples.astype(np.float32), 16_000)

    clone = spoken(xtts, reference=noise(0))
    assert clone.std() > 0.001
    np.testing.assert_array_equal(spoken(xtts, reference=noise(0)), clone)
    assert not np.array_equal(spoken(xtts, reference=noise(1)), clone)
    named = spoken(xtts, voice="Ana Florence", reference=noise(0))
    np.testing.assert_array_equal(named, spoken(xtts, voice="Ana Florence"))
    with pytest.raises(InvalidInput, match="at least 1 s of a voice"):
        spoken(xtts, reference=noise(0, 0.5))


def test_xtts_refuses_what_is_too_long(xtts: CoquiSynthesizer) -> None:
    with pytest.raises(InvalidInput, match="a shorter sentence may help"):
        spoken(xtts, "hello " * 20)


def test_xtts_waits_for_its_licence_to_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COQUI_TOS_AGREED", raising=False)
    engine = Coqui(EngineOptions("tts_models/multilingual/multi-dataset/xtts_v2", models_dir=tmp_path))
    assert engine.weights() == []
    with pytest.raises(
        ConfigurationError, match=r"xtts_v2: its licence, .* must be accepted: set COQUI_TOS_AGREED"
    ):
        engine.load(Runtime())
    with pytest.raises(ConfigurationError, match="Coqui's list has no such model"):
        Coqui(EngineOptions("tts_models/en/ljspeech/nothing", models_dir=tmp_path)).load(Runtime())


def test_a_download_that_fails_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    engine = Coqui(EngineOptions("tts_models/en/ljspeech/glow-tts", models_dir=tmp_path))
    for _ in range(2):  # what is left of the first is not taken for the model
        with pytest.raises(ConfigurationError, match=r"glow-tts could not be downloaded: the download"):
            engine.load(Runtime())


def test_models_and_directories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'nowhere' is neither a directory"):
        Coqui(EngineOptions("nowhere", models_dir=tmp_path))
    (tmp_path / "empty").mkdir()
    empty = Coqui(EngineOptions("empty", models_dir=tmp_path))
    assert empty.weights() == [tmp_path / "empty" / "config.json"]
    with pytest.raises(ConfigurationError, match=r"empty must hold config\.json and model\.pth"):
        empty.load(Runtime())
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model": "vits"}))
    (tmp_path / "empty" / "model.pth").write_bytes(b"no weights")
    with pytest.raises(
        ConfigurationError, match="empty: its files are incomplete, damaged, or no Coqui model"
    ):
        empty.load(Runtime())


def test_without_the_package_it_says_how_to_get_it(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "TTS", None)
    with pytest.raises(ConfigurationError, match=r"install presence\[coqui\]"):
        loaded(models_dir, "plain")
