"""Parler-TTS on a small random checkpoint of its real classes, in the environment that the package needs.

The other tests' environment holds a newer transformers: there these tests skip, and
tests/service/test_parler_environment.py runs them in the other one.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.parler import Parler, ParlerSynthesizer
from engines.types import EngineOptions, Runtime

pytestmark = pytest.mark.filterwarnings("ignore")  # old versions of libraries warn about newer ones
installed = pytest.mark.skipif(find_spec("parler_tts") is None, reason="parler-tts needs transformers 4.46.1")

SEED = {"seed": "7"}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("parler_checkpoint.py")
    subprocess.run([sys.executable, script, path / "parler"], check=True, capture_output=True, timeout=120)
    return path


def loaded(models_dir: Path, **options: str) -> ParlerSynthesizer:
    return Parler(EngineOptions("parler", options, models_dir)).load(Runtime(threads=1))


def spoken(synthesizer: ParlerSynthesizer, text: str = "hello world", **more: Any) -> np.ndarray:
    [piece] = synthesizer.speak(Utterance(text, params=SEED, **more))
    return piece


@installed
def test_the_description_makes_the_voice(models_dir: Path) -> None:
    synthesizer = loaded(models_dir)
    deep = spoken(synthesizer, voice="a deep voice")
    assert np.ptp(deep) > 0.01
    assert synthesizer.rate == 1_600
    np.testing.assert_array_equal(spoken(synthesizer, voice="a deep voice"), deep)
    np.testing.assert_array_equal(spoken(synthesizer, instructions="a deep voice"), deep)
    np.testing.assert_array_equal(spoken(synthesizer, voice="a deep", instructions="voice"), deep)
    np.testing.assert_array_equal(spoken(loaded(models_dir, description="a deep voice")), deep)
    for other in ({"voice": "a high voice"}, {"voice": "a deep voice", "instructions": "slow"}):
        assert not np.array_equal(spoken(synthesizer, **other), deep)


@installed
def test_the_text_makes_the_sound(models_dir: Path) -> None:
    synthesizer = loaded(models_dir)
    assert not np.array_equal(spoken(synthesizer, "hello"), spoken(synthesizer, "world"))


@installed
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "?"}, "nothing that can be spoken"),
        ({"text": "hello " * 513}, "the text has 513 tokens"),
        ({"text": "hello", "voice": "deep " * 513}, "the description of the voice has 513 tokens"),
    ],
)
def test_what_cannot_be_spoken(models_dir: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        spoken(loaded(models_dir), **given)


@installed
def test_a_directory_without_a_model_is_refused(models_dir: Path) -> None:
    (models_dir / "empty").mkdir()
    with pytest.raises(
        ConfigurationError, match="empty: its files are incomplete, damaged, or no Parler-TTS"
    ):
        Parler(EngineOptions("empty", {}, models_dir)).load(Runtime())


def test_options_are_checked_where_the_package_is_not_installed(tmp_path: Path) -> None:
    assert Parler(EngineOptions(models_dir=tmp_path)).weights() == []
    for name, value in {"temperature": "hot", "description_tokenizer": "nowhere"}.items():
        with pytest.raises(ConfigurationError, match=value):
            Parler(EngineOptions(options={name: value}, models_dir=tmp_path))


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parler_tts", None)
    with pytest.raises(ConfigurationError, match=r"needs parler-tts==0\.2\.3 in an environment of its own"):
        Parler(EngineOptions(models_dir=tmp_path)).load(Runtime())
