"""VALL-E X: speech in a preset voice, or in that of a few seconds of a recording.

Sources: https://github.com/Plachtaa/VALL-E-X (MIT), Zhang et al., arXiv:2303.03926. It is no package: it is
imported from a checkout under the models directory, whose code must be trusted.
"""

import logging
import sys
import wave
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import ConfigurationError, InvalidInput
from engines.options import whole
from engines.pretrained import opening
from engines.torch_device import device
from engines.tts import Utterance, Voice, sampling
from engines.tts.generation import Turn, sound, speakable
from engines.types import Audio, EngineOptions, Runtime

logger = logging.getLogger("presence.tts")

CHECKOUT = "VALL-E-X"
LANGUAGES = ("en", "zh", "ja")
LONGEST_S = 15.0
"""Of a recording that is cloned; the checkout refuses longer ones."""
LEAST_S = 1.0


class VallEX:
    """The engine. `parameters.model` names nothing: the checkout holds one model, which it downloads."""

    known_options: ClassVar[dict[str, str]] = {
        "checkout": f"directory of the checkout, under the models directory; {CHECKOUT}",
        "transcript": "what is said in the recording that is cloned; empty: the checkout's Whisper tells",
        "seed": sampling.OPTIONS["seed"],
    }
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = True
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._checkout = (options.models_dir / (options.options.get("checkout") or CHECKOUT)).resolve()
        if not self._checkout.is_dir():
            raise ConfigurationError(
                f"option checkout:{self._checkout.name} is no directory under the models directory; clone "
                "https://github.com/Plachtaa/VALL-E-X there"
            )
        _seed(options)

    def weights(self) -> list[Path]:
        """What is imported of the checkout; it fetches its own weights."""
        return [self._checkout / "utils" / f"{name}.py" for name in ("generation", "prompt_making")]

    def load(self, runtime: Runtime) -> "VallEXSynthesizer":
        """Imports the checkout and loads its weights; it takes a GPU wherever it sees one."""
        place = device(runtime)
        with opening(self._checkout.name, "checkout of VALL-E X"), _inside(self._checkout):
            generation, prompts = (_module(name, self._checkout) for name in ("generation", "prompt_making"))
            generation.preload_models()
        return VallEXSynthesizer(generation, prompts, self._checkout, Turn(place), self._options)


class VallEXSynthesizer:
    """Speaks one utterance at a time, in one piece. Thread-safe.

    The checkout reads and writes beside itself, so the working directory of the process is its own while a
    recording is cloned.
    """

    def __init__(
        self, generation: Any, prompts: Any, checkout: Path, turn: Turn, options: EngineOptions
    ) -> None:
        """generation, prompts: the checkout's modules utils.generation and utils.prompt_making."""
        self._generation, self._prompts = generation, prompts
        self._checkout, self._turn, self._options = checkout, turn, options
        self._presets = {file.stem: file for file in sorted(checkout.glob("presets/*.npz"))}
        self._last = ("", b"")
        self.rate: int = generation.SAMPLE_RATE
        self.voices = tuple(Voice(name, LANGUAGES) for name in self._presets)

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """See Synthesizer. The reference of an utterance that names no voice is cloned; seed is its param."""
        seed = sampling.requested(self._options, utterance.params, _seed)
        language = utterance.language.split("-")[0].lower() or "auto"
        if language not in (*LANGUAGES, "auto"):
            raise InvalidInput(f'language "{utterance.language}" is unknown; known: {", ".join(LANGUAGES)}')
        if not any(sign.isalnum() for sign in utterance.text):
            raise InvalidInput("the text holds nothing that can be spoken")
        with self._turn.taken(seed), speakable(), self._prompt(utterance) as prompt:
            spoken = self._generation.generate_audio(utterance.text, prompt=prompt, language=language)
        yield sound(torch.from_numpy(np.asarray(spoken, np.float32)))

    @contextmanager
    def _prompt(self, utterance: Utterance) -> Iterator[str | None]:
        """The file that describes the voice; None for a voice of the model's choice."""
        if utterance.voice and utterance.voice not in self._presets:
            known = ", ".join(self._presets) or "none"
            raise InvalidInput(f'voice "{utterance.voice}" is unknown; known: {known}')
        if utterance.voice:
            yield str(self._presets[utterance.voice])
        elif utterance.reference:
            with TemporaryDirectory(prefix="vall-e-x-") as folder:
                file = Path(folder) / "clone.npz"
                file.write_bytes(self._cloned(utterance.reference, Path(folder)))
                yield str(file)
        else:
            yield None

    def _cloned(self, recording: Audio, folder: Path) -> bytes:
        """The voice of a recording. The last one is kept: the sentences of a text come one by one."""
        if not LEAST_S <= recording.seconds <= LONGEST_S:
            raise InvalidInput(
                f"the recording of the voice lasts {recording.seconds:.1f} s; {LEAST_S:g} to {LONGEST_S:g} "
                "are needed"
            )
        name = sha256(recording.samples.tobytes()).hexdigest()
        if self._last[0] != name:
            self._last = name, self._made(name, recording, folder / "clip.wav")
        return self._last[1]

    def _made(self, name: str, recording: Audio, clip: Path) -> bytes:
        """What the checkout writes as customs/NAME.npz; nothing of the recording stays there."""
        _write(clip, recording)
        transcript = self._options.options.get("transcript") or None
        with _inside(self._checkout):
            for folder in ("customs", "prompts"):
                Path(folder).mkdir(exist_ok=True)
            try:
                self._prompts.make_prompt(name=name, audio_prompt_path=str(clip), transcript=transcript)
                return Path("customs", f"{name}.npz").read_bytes()
            finally:
                Path("customs", f"{name}.npz").unlink(missing_ok=True)
                Path("prompts", f"{name}.wav").unlink(missing_ok=True)


def _seed(options: EngineOptions) -> int | None:
    return whole(options, "seed", 0, 0, 2**32 - 1) if "seed" in options.options else None


def _write(file: Path, recording: Audio) -> None:
    """A WAV file of 16 bits."""
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, recording.rate, len(recording.samples), "NONE", ""))
        out.writeframes((recording.samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


@contextmanager
def _inside(checkout: Path) -> Iterator[None]:
    """Its modules can be imported, and its files lie where it looks for them."""
    sys.path.insert(0, str(checkout))
    try:
        with chdir(checkout):
            yield
    finally:
        sys.path.remove(str(checkout))


def _module(name: str, checkout: Path) -> Any:
    """A module of the checkout. Raises ConfigurationError where another `utils` is imported already."""
    found = import_module(f"utils.{name}")
    if not Path(found.__file__ or "").resolve().is_relative_to(checkout):
        raise ConfigurationError("another checkout is loaded already; give each its own deployment")
    return found
