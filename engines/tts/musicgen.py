"""MusicGen: music from a description of it.

Sources: https://huggingface.co/facebook/musicgen-medium (weights CC-BY-NC-4.0), Copet et al.,
arXiv:2306.05284, the class MusicgenForConditionalGeneration of transformers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

from engines import hub, pretrained
from engines.errors import InvalidInput
from engines.options import number
from engines.torch_device import device
from engines.tts import Utterance, Voice, sampling
from engines.tts.generation import Turn, sound
from engines.tts.sampling import Sampling
from engines.types import EngineOptions, Runtime

SOURCE = "facebook/musicgen-small"
FILES = ("*.json", "spiece.model")
LONGEST_S = 30.0
"""What the published checkpoints were trained on: longer pieces lose their thread."""
MOST_TOKENS = 512
"""Of a description; the text encoder was trained on no more."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is asked for. seconds: how long it lasts. guidance: how closely it follows the description."""

    seconds: float
    guidance: float
    drawn: Sampling


class MusicGen:
    """The engine.

    `parameters.model` names the checkpoint: a repository id, or a directory under the models directory.
    """

    known_options: ClassVar[dict[str, str]] = {
        "duration_seconds": f"how long the music lasts, 0.1 to {LONGEST_S:g} seconds; 10",
        "guidance_scale": "how closely it follows the description, 1 to 10; 3",
        **sampling.OPTIONS,
    }
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = False

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._source = options.model or SOURCE
        self._directory = hub.local(self._source, options.models_dir)
        _piece(options)

    def weights(self) -> list[Path]:
        """The configuration of a directory; nothing of a repository: it is fetched."""
        return [self._directory / "config.json"] if self._directory else []

    def load(self, runtime: Runtime) -> "MusicGenSynthesizer":
        """Loads the checkpoint, downloads it where it is not at hand; see engines/hub.py."""
        place = device(runtime)
        with pretrained.opening(self._source, "MusicGen model"):
            found = pretrained.directory(self._source, self._options.models_dir, FILES)
            model = pretrained.network(MusicgenForConditionalGeneration, found).to(place)
            tokenizers: Any = AutoTokenizer  # transformers leaves its methods without types
            tokenizer = tokenizers.from_pretrained(found, local_files_only=True, trust_remote_code=False)
            return MusicGenSynthesizer(model, tokenizer, self._options)


class MusicGenSynthesizer:
    """Plays one piece at a time, in one part: the codec hears it as a whole. Thread-safe."""

    voices: tuple[Voice, ...] = ()

    def __init__(self, model: Any, tokenizer: Any, options: EngineOptions) -> None:
        self._model, self._tokenizer, self._options = model, tokenizer, options
        self._turn = Turn(model.device)
        codec, decoder = model.config.audio_encoder, model.config.decoder
        self.rate: int = codec.sampling_rate
        self._frame_rate = self.rate / codec.hop_length
        self._delay = decoder.num_codebooks // decoder.audio_channels - 1

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """The music that the text describes, of a stereo checkpoint the mean of both channels.

        Of the params duration_seconds, guidance_scale, do_sample, temperature, top_k and seed count; language
        has no meaning. Raises InvalidInput for a voice, and for a text that is empty or too long.
        """
        piece = sampling.requested(self._options, utterance.params, _piece)
        inputs = self._inputs(utterance)
        frames = max(1, round(piece.seconds * self._frame_rate))
        with self._turn.taken(piece.drawn.seed):
            played = self._model.generate(
                **inputs,
                max_new_tokens=frames + self._delay,  # each codebook begins a token after the one before
                guidance_scale=piece.guidance,
                **piece.drawn.arguments,
            )
            mono = played.mean(dim=1)
        yield sound(mono)

    def _inputs(self, utterance: Utterance) -> dict[str, Any]:
        if utterance.voice:
            raise InvalidInput(f'voice "{utterance.voice}" is unknown: music has no voices')
        if not utterance.text.strip():
            raise InvalidInput("the text describes nothing")
        inputs = self._tokenizer(utterance.text, return_tensors="pt")
        if (tokens := inputs["input_ids"].shape[1]) > MOST_TOKENS:
            raise InvalidInput(f"the text has {tokens} tokens; {MOST_TOKENS} can describe a piece")
        named = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return {name: values.to(self._model.device) for name, values in named.items()}


def _piece(options: EngineOptions) -> Piece:
    """Raises ConfigurationError that names the option whose value is wrong."""
    return Piece(
        number(options, "duration_seconds", 10, 0.1, LONGEST_S),
        number(options, "guidance_scale", 3, 1, 10),
        sampling.read(options),
    )
