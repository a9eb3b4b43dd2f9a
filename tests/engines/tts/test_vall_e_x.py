"""VALL-E X against a stand-in for its checkout, with the same modules, functions and files.

The checkout itself is not run: it is no package, and its weights are downloaded.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.vall_e_x import VallEX, VallEXSynthesizer
from engines.types import Audio, EngineOptions, Runtime
from tests.engines.tts.vall_e_x_checkout import RATE, save_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """The stand-in; what it imported is forgotten afterwards."""
    root = tmp_path / "VALL-E-X"
    save_checkout(root)
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] in {"utils", "macros"}]:
        del sys.modules[name]


def loaded(checkout: Path, **options: str) -> VallEXSynthesizer:
    return VallEX(EngineOptions("cloned-voice", options, checkout.parent)).load(Runtime(threads=1))


def spoken(synthesizer: VallEXSynthesizer, text: str = "Hello!", **more: Any) -> np.ndarray:
    [piece] = synthesizer.speak(Utterance(text, params={"seed": "7"}, **more))
    return piece


def recording(level: float, seconds: float = 3) -> Audio:
    return Audio(np.full(int(16_000 * seconds), level, np.float32), 16_000)


def test_it_speaks_from_the_checkout_and_leaves_the_process_as_it_was(checkout: Path) -> None:
    directory, path = Path.cwd(), list(sys.path)
    synthesizer = loaded(checkout)
    sound = spoken(synthesizer)
    assert (synthesizer.rate, len(sound)) == (RATE, 600)
    np.testing.assert_array_equal(spoken(synthesizer), sound)
    assert (Path.cwd(), sys.path) == (directory, path)


def test_presets_are_its_voices(checkout: Path) -> None:
    synthesizer = loaded(checkout)
    assert [voice.name for voice in synthesizer.voices] == ["alan"]
    assert spoken(synthesizer, voice="alan").mean() == pytest.approx(0.305, abs=0.001)
    with pytest.raises(InvalidInput, match=r'voice "\.\./presets/alan" is unknown; known: alan'):
        spoken(synthesizer, voice="../presets/alan")


def test_a_recording_is_cloned_once_and_nothing_of_it_stays_in_the_checkout(checkout: Path) -> None:
    synthesizer = loaded(checkout)
    for _ in range(2):
        assert spoken(synthesizer, reference=recording(0.5)).mean() == pytest.approx(0.505, abs=0.002)
    assert sys.modules["utils.prompt_making"].made == 1
    assert spoken(synthesizer, reference=recording(-0.5)).mean() == pytest.approx(-0.495, abs=0.002)
    assert sys.modules["utils.prompt_making"].made == 2
    assert [*(checkout / "customs").iterdir(), *(checkout / "prompts").iterdir()] == []
    assert spoken(synthesizer, voice="alan", reference=recording(0.5)).mean() < 0.4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reference": recording(0.5, 16)}, r"lasts 16\.0 s; 1 to 15 are needed"),
        ({"reference": recording(0.5, 0.5)}, r"lasts 0\.5 s; 1 to 15 are needed"),
        ({"language": "fr"}, 'language "fr" is unknown; known: en, zh, ja'),
        ({"text": "..."}, "nothing that can be spoken"),
        ({"text": "a" * 100}, "the model cannot speak this text"),
    ],
)
def test_what_cannot_be_spoken(checkout: Path, given: dict[str, Any], message: str) -> None:
    synthesizer = loaded(checkout)
    with pytest.raises(InvalidInput, match=message):
        spoken(synthesizer, **given)
    assert len(spoken(synthesizer, language="zh-CN"))


def test_what_is_missing_is_told_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="option checkout:VALL-E-X is no directory"):
        VallEX(EngineOptions(models_dir=tmp_path))
    (tmp_path / "mine").mkdir()
    engine = VallEX(EngineOptions(options={"checkout": "mine"}, models_dir=tmp_path))
    names = [file.relative_to(tmp_path.resolve()).as_posix() for file in engine.weights()]
    assert names == ["mine/utils/generation.py", "mine/utils/prompt_making.py"]


def test_a_checkout_that_cannot_be_loaded_is_told_without_a_path(checkout: Path) -> None:
    (checkout / "checkpoints" / "vallex-checkpoint.pt").unlink()
    with pytest.raises(
        ConfigurationError, match="VALL-E-X: its files are incomplete, damaged, or no checkout"
    ):
        loaded(checkout)


def test_two_checkouts_do_not_mix(checkout: Path, tmp_path: Path) -> None:
    loaded(checkout)
    other = tmp_path / "other"
    (other / "utils").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="another checkout is loaded already"):
        VallEX(EngineOptions(options={"checkout": "other"}, models_dir=tmp_path)).load(Runtime())
