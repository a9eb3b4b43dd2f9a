"""Parler-TTS: speech in a voice that a sentence describes.

Sources: https://huggingface.co/parler-tts/parler-tts-mini-v1 (Apache-2.0), Lyth and King, arXiv:2402.01912.
The package parler-tts needs transformers 4.46.1, so it lives in an environment of its own.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engines import hub, pretrained
from engines.errors import ConfigurationError, InvalidInput
from engines.torch_device import device
from engines.tts import Utterance, Voice, sampling
from engines.tts.generation import Turn, sound
from engines.types import EngineOptions, Runtime

logger = logging.getLogger("presence.tts")

SOURCE = "parler-tts/parler-tts-mini-v1"
FILES = ("*.json", "spiece.model", "tokenizer.model")
DESCRIPTION = (
    "A speaker with a calm and clear voice talks at a moderate pace, very close up, in a quiet room."
)
MOST_TOKENS = 512
"""Of a description, and of a text."""


class Parler:
    """The engine.

    `parameters.model` names the checkpoint: a repository id, or a directory under the models directory.
    """

    known_options: ClassVar[dict[str, str]] = {
        "description": f"of the voice, where neither voice nor instructions are given; {DESCRIPTION}",
        "description_tokenizer": "where descriptions have another tokenizer than texts: repository id, or "
        "directory under the models directory; the checkpoint's own",
        **sampling.OPTIONS,
    }
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = True
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._source = options.model or SOURCE
        self._directory = hub.local(self._source, options.models_dir)
        if described := options.options.get("description_tokenizer"):
            hub.local(described, options.models_dir)
        sampling.read(options)

    def weights(self) -> list[Path]:
        """The configuration of a directory; nothing of a repository: it is fetched."""
        return [self._directory / "config.json"] if self._directory else []

    def load(self, runtime: Runtime) -> "ParlerSynthesizer":
        """Loads the checkpoint, downloads it where it is not at hand; see engines/hub.py."""
        network, tokenizers = _package()
        place = device(runtime)
        described = self._options.options.get("description_tokenizer")
        with pretrained.opening(self._source, "Parler-TTS model"):
            found = pretrained.directory(self._source, self._options.models_dir, FILES)
            model = pretrained.network(network, found).to(place)
            prompts = tokenizers.from_pretrained(found, local_files_only=True)
            descriptions = prompts
            if described:
                there = hub.checkpoint(described, self._options.models_dir, FILES)
                descriptions = tokenizers.from_pretrained(there, local_files_only=True)
            return ParlerSynthesizer(model, prompts, descriptions, self._options)


class ParlerSynthesizer:
    """Speaks one utterance at a time, in one piece. Thread-safe."""

    voices: tuple[Voice, ...] = ()

    def __init__(self, model: Any, prompts: Any, descriptions: Any, options: EngineOptions) -> None:
        """prompts, descriptions: the tokenizers of what is said and of how it is said."""
        self._model, self._prompts, self._descriptions, self._options = model, prompts, descriptions, options
        self._turn = Turn(model.device)
        self.rate: int = model.config.sampling_rate

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """See Synthesizer. The voice and the instructions, one after the other, describe how it sounds.

        Of the params do_sample, temperature, top_k and seed count. language has no meaning: the model hears
        it in the text.
        """
        drawn = sampling.requested(self._options, utterance.params, sampling.read)
        if not any(sign.isalnum() for sign in utterance.text):
            raise InvalidInput("the text holds nothing that can be spoken")
        given = " ".join(part for part in (utterance.voice, utterance.instructions) if part)
        described = given or self._options.options.get("description", DESCRIPTION)
        how = self._tokens(self._descriptions, described, "description of the voice")
        what = self._tokens(self._prompts, utterance.text, "text")
        with self._turn.taken(drawn.seed):
            spoken = self._model.generate(
                input_ids=how["input_ids"],
                attention_mask=how["attention_mask"],
                prompt_input_ids=what["input_ids"],
                prompt_attention_mask=what["attention_mask"],
                **drawn.arguments,
            )
        yield sound(spoken)

    def _tokens(self, tokenizer: Any, text: str, name: str) -> Any:
        inputs = tokenizer(text, return_tensors="pt")
        if (tokens := inputs["input_ids"].shape[1]) > MOST_TOKENS:
            raise InvalidInput(f"the {name} has {tokens} tokens; {MOST_TOKENS} are read")
        return inputs.to(self._model.device)


def _package() -> tuple[Any, Any]:
    """Classes of the network and of tokenizers. Raises ConfigurationError with the remedy."""
    try:
        from parler_tts import ParlerTTSForConditionalGeneration  # noqa: PLC0415 - see the module
        from transformers import AutoTokenizer  # noqa: PLC0415 - of the package's own environment
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        logger.warning("parler-tts cannot be imported: %s: %s", type(error).__name__, error)
        raise ConfigurationError(
            "backend parler-tts needs parler-tts==0.2.3 in an environment of its own: copy `runtime_env` "
            "from docs/speech-engines.md into the deployment of its model file"
        ) from error
    return ParlerTTSForConditionalGeneration, AutoTokenizer
