"""Bark: speech, laughter and other sounds from text, in voices that presets describe.

Sources: https://huggingface.co/suno/bark (MIT), the class BarkModel of transformers.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from transformers import BarkModel, BarkProcessor
from transformers.feature_extraction_utils import BatchFeature

from engines import hub, pretrained
from engines.errors import ConfigurationError, InvalidInput
from engines.options import number
from engines.torch_device import device
from engines.tts import Utterance, Voice, sampling
from engines.tts.generation import Turn, sound
from engines.types import EngineOptions, Runtime

SOURCE = "suno/bark"
FILES = ("*.json", "vocab.txt", "speaker_embeddings/*.npy")
PRESET = re.compile(r"(v2/)?([a-z]{2})_speaker_\d|(v2/)?announcer")
LANGUAGES = ("de", "en", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "tr", "zh")
"""What the published checkpoint was trained on; it hears in the text which of them it is."""

DIMENSIONS = {"semantic_prompt": 1, "coarse_prompt": 2, "fine_prompt": 2}


def is_preset(name: str) -> bool:
    """Whether a name is one of Suno's voice presets, such as "v2/en_speaker_4"."""
    return PRESET.fullmatch(name) is not None


class Bark:
    """The engine.

    `parameters.model` names the checkpoint: a repository id, or a directory under the models directory.
    Where it names a preset instead (`model: v2/en_speaker_4`), the option names the checkpoint, and the
    preset is the voice of utterances that name none. A caller whose request names this backend and a preset
    as its model passes the preset as the voice; `is_preset` tells.
    """

    known_options: ClassVar[dict[str, str]] = {
        "checkpoint": f"repository id, or directory under the models directory; {SOURCE}",
        "min_eos_p": "speech ends where its end is at least so likely, 0.001 to 1; the checkpoint's own",
        **sampling.OPTIONS,
    }
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._voice = options.model if is_preset(options.model) else ""
        named = "" if self._voice else options.model
        self._source = options.options.get("checkpoint") or named or SOURCE
        self._directory = hub.local(self._source, options.models_dir)
        _arguments(options)

    def weights(self) -> list[Path]:
        """The configuration of a directory; nothing of a repository: it is fetched."""
        return [self._directory / "config.json"] if self._directory else []

    def load(self, runtime: Runtime) -> "BarkSynthesizer":
        """Loads the checkpoint, downloads it where it is not at hand; see engines/hub.py."""
        place = device(runtime)
        with pretrained.opening(self._source, "Bark model"):
            found = pretrained.directory(self._source, self._options.models_dir, FILES)
            model = pretrained.network(BarkModel, found).to(place)
            processors: Any = BarkProcessor  # transformers leaves its methods without types
            return BarkSynthesizer(model, processors.from_pretrained(found), self._options, self._voice)


class BarkSynthesizer:
    """Speaks one utterance at a time, in one piece: its networks run one after the other. Thread-safe."""

    def __init__(self, model: Any, processor: Any, options: EngineOptions, voice: str) -> None:
        """voice: the preset of utterances that name none, "" for none.

        Raises ConfigurationError for a damaged preset, and where the checkpoint has no preset `voice`.
        """
        self._model, self._processor, self._options = model, processor, options
        self._presets = _presets(processor, model)
        self._voice = voice
        if voice and voice not in self._presets:
            raise ConfigurationError(f"it has no voice preset {voice}")
        self._turn = Turn(model.device)
        self._longest: int = model.generation_config.semantic_config["max_input_semantic_length"]
        self.rate: int = model.generation_config.sample_rate
        self.voices = tuple(Voice(name, _languages(name)) for name in self._presets)

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """See Synthesizer. Of its params do_sample, temperature, top_k, seed and min_eos_p count."""
        drawn, arguments = sampling.requested(self._options, utterance.params, _arguments)
        inputs = self._inputs(utterance)
        with self._turn.taken(drawn.seed):
            spoken = self._model.generate(**inputs, **arguments)
        yield sound(spoken)

    def _inputs(self, utterance: Utterance) -> dict[str, Any]:
        voice = utterance.voice or self._voice
        if voice and voice not in self._presets:
            raise InvalidInput(f'voice "{voice}" is unknown; known: {", ".join(self._presets) or "none"}')
        if utterance.language and utterance.language.split("-")[0].lower() not in LANGUAGES:
            raise InvalidInput(f'language "{utterance.language}" is unknown; known: {", ".join(LANGUAGES)}')
        inputs = self._processor(utterance.text, max_length=self._longest)
        if (tokens := inputs["input_ids"].shape[1]) > self._longest:
            raise InvalidInput(f"the text has {tokens} tokens; {self._longest} can be spoken at once")
        if not inputs["attention_mask"].any():
            raise InvalidInput("the text holds nothing that can be spoken")
        if voice:
            inputs["history_prompt"] = self._presets[voice]
        return dict(inputs.to(self._model.device))


def _arguments(options: EngineOptions) -> tuple[sampling.Sampling, dict[str, Any]]:
    """How to draw, and all that BarkModel.generate is told. Raises ConfigurationError."""
    drawn = sampling.read(options)
    arguments = {**drawn.arguments, "semantic_min_new_tokens": 1}  # the codec cannot decode an empty sound
    if "min_eos_p" in options.options:
        arguments["min_eos_p"] = number(options, "min_eos_p", 1, 0.001, 1)
    return drawn, arguments


def _languages(preset: str) -> tuple[str, ...]:
    found = PRESET.fullmatch(preset)
    return (found[2],) if found and found[2] else ()


def _presets(processor: Any, model: Any) -> dict[str, BatchFeature]:
    """Every voice preset whose three files are there, by name. Raises ConfigurationError."""
    known = processor.speaker_embeddings or {}
    root = Path(known.get("repo_or_path", ""))
    presets = {}
    for name in processor.available_voice_presets:
        files = {part: root / known[name][part] for part in DIMENSIONS}
        if all(file.is_file() for file in files.values()):
            presets[name] = _preset(name, files, model.generation_config)
    return presets


def _preset(name: str, files: dict[str, Path], generation: Any) -> BatchFeature:
    """The tokens of one preset. Raises ConfigurationError for a shape or a token that the model has not."""
    sizes = dict.fromkeys(DIMENSIONS, generation.codebook_size)
    sizes["semantic_prompt"] = generation.semantic_config["semantic_vocab_size"]
    tokens = {part: np.load(file, allow_pickle=False) for part, file in files.items()}
    for part, values in tokens.items():
        if values.ndim != DIMENSIONS[part] or not all(0 <= token < sizes[part] for token in values.flat):
            raise ConfigurationError(f"its voice preset {name} is damaged: {part}")
    return BatchFeature(tokens, tensor_type="pt")
