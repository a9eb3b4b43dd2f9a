"""Coqui's models, such as XTTS v2, Glow-TTS and VITS, through the package coqui-tts.

Sources: https://github.com/idiap/coqui-ai-TTS (MPL-2.0); each model has a licence of its own, XTTS v2 the
non-commercial CPML. The package is an extra, presence[coqui].
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import ConfigurationError, InvalidInput
from engines.hub import downloading
from engines.pretrained import opening
from engines.torch_device import device
from engines.tts import Utterance, Voice, sampling
from engines.tts.generation import Turn, sound, speakable
from engines.types import Audio, EngineOptions, Runtime

logger = logging.getLogger("presence.tts")

MODEL = "tts_models/en/ljspeech/glow-tts"
NAME = re.compile(r"tts_models(/[\w.-]+){3}")
"""Of a model that Coqui's own list holds."""
FOLDER = "coqui"
"""Folder of the models directory that holds what was downloaded, in the package's own layout."""
CHECKPOINTS = ("model.pth", "model_file.pth", "best_model.pth", "checkpoint.pth", "model_file.pth.tar")
"""What the package and its trainer call a checkpoint; the first that is there counts."""

CLONING_RATE = 22_050
"""Samples a second of the recordings that XTTS takes."""
LEAST_CLONING_S = 1.0


class Coqui:
    """The engine.

    `parameters.model` is a name of Coqui's list, such as tts_models/multilingual/multi-dataset/xtts_v2, which
    is downloaded, or a directory under the models directory that holds config.json and a checkpoint.
    """

    known_options: ClassVar[dict[str, str]] = {
        "language": "of a multilingual model, where the utterance names none; the first that it lists",
        "vocoder": "directory under the models directory: vocoder of a model in a directory; Griffin-Lim",
        **sampling.OPTIONS,
    }
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = True
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._model = options.model or MODEL
        self._directory = options.models_dir / self._model
        if not self._directory.is_dir() and not NAME.fullmatch(self._model):
            raise ConfigurationError(
                f"{Path(self._model).name!r} is neither a directory under the models directory nor a name of "
                f"Coqui's list such as {MODEL}"
            )
        sampling.read(options)

    def weights(self) -> list[Path]:
        """The configuration of a directory; nothing of a listed model: it is fetched."""
        return [self._directory / "config.json"] if self._directory.is_dir() else []

    def load(self, runtime: Runtime) -> "CoquiSynthesizer":
        """Loads the model, downloads it where it is not at hand."""
        place = device(runtime)
        api = _package()
        shown = Path(self._model).name
        with opening(shown, "Coqui model"):
            tts = self._opened(api) if self._directory.is_dir() else self._listed(api)
            return CoquiSynthesizer(tts.to(place), place, self._options)

    def _opened(self, api: Any) -> Any:
        files = _files(self._directory)
        if vocoder := self._options.options.get("vocoder"):
            model, config = _files(self._options.models_dir / vocoder).values()
            files |= {"vocoder_path": model, "vocoder_config_path": config}
        return api.TTS(**files, progress_bar=False)

    def _listed(self, api: Any) -> Any:
        tts = api.TTS(progress_bar=False)
        tts.manager = api.ModelManager(output_prefix=self._options.models_dir / FOLDER)
        kind, language, dataset, name = self._model.split("/")
        entry = tts.manager.models_dict.get(kind, {}).get(language, {}).get(dataset, {}).get(name)
        if entry is None and dataset != "fairseq":
            raise ConfigurationError("Coqui's list has no such model")
        folder = tts.manager.output_prefix / self._model.replace("/", "--")
        if entry and not tts.manager.tos_agreed(entry, folder):
            raise ConfigurationError(
                f"its licence, {entry.get('license')}, must be accepted: set COQUI_TOS_AGREED to 1 under "
                "`runtime_env: {env_vars: ...}` of its deployment"
            )
        with downloading(self._model):
            tts.download_model_by_name(self._model)
        tts.load_tts_model_by_name(self._model)
        return tts


class CoquiSynthesizer:
    """Speaks one utterance at a time, in one piece. Thread-safe."""

    def __init__(self, tts: Any, place: torch.device, options: EngineOptions) -> None:
        self._tts, self._options = tts, options
        self._model = tts.synthesizer.tts_model
        self._turn = Turn(place)
        self._multilingual = bool(tts.is_multi_lingual)
        names = tts.languages if self._multilingual else self._model.language_manager.language_names
        self._languages: tuple[str, ...] = tuple(name for name in names or () if name)
        self.rate: int = tts.synthesizer.output_sample_rate
        self.voices = tuple(Voice(name, self._languages) for name in tts.speakers or ())
        given = options.options.get("language", "")
        self._language = self._matching(given) if given else next(iter(self._languages), None)
        if self._multilingual and not self._language:
            raise ConfigurationError(
                f"it does not speak {given}; its languages: {', '.join(self._languages)}"
            )

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """See Synthesizer. XTTS clones the reference of an utterance that names no voice.

        The first voice speaks where there are several and none is named. Of its params seed counts, with
        XTTS do_sample, temperature and top_k too.
        """
        drawn = sampling.requested(self._options, utterance.params, sampling.read)
        if not any(sign.isalnum() for sign in utterance.text):
            raise InvalidInput("the text holds nothing that can be spoken")
        language, voice = self._spoken_language(utterance.language), self._voice(utterance)
        with self._turn.taken(drawn.seed), speakable():
            if voice is None and utterance.reference:
                wave = self._cloned(utterance, utterance.reference, language, drawn)
            else:
                named = {"speaker": voice, "language": language, "split_sentences": False}
                wave = self._tts.tts(utterance.text, **named, **drawn.arguments)
        yield sound(torch.from_numpy(np.asarray(wave, np.float32)))

    def _voice(self, utterance: Utterance) -> str | None:
        """The speaker for the package; None for a clone, and for a model with one voice."""
        names = [voice.name for voice in self.voices]
        if utterance.voice:
            if utterance.voice not in names:
                raise InvalidInput(
                    f'voice "{utterance.voice}" is unknown; known: {", ".join(names) or "none"}'
                )
            return utterance.voice
        if utterance.reference:
            if not hasattr(self._model, "get_gpt_cond_latents"):
                raise InvalidInput("this model does not clone voices; XTTS does")
            if utterance.reference.seconds < LEAST_CLONING_S:
                raise InvalidInput(f"at least {LEAST_CLONING_S:g} s of a voice are needed to clone it")
            return None
        return names[0] if names else None

    def _spoken_language(self, asked: str) -> str | None:
        """The language for the package; None for a model of one language, which speaks it in any case."""
        if not self._multilingual:
            return None
        found = self._matching(asked) if asked else self._language
        if not found:
            raise InvalidInput(f'language "{asked}" is unknown; known: {", ".join(self._languages)}')
        return found

    def _matching(self, language: str) -> str | None:
        """The model's own code of a language: the same, or one that shares its first subtag."""
        folded: dict[str, str] = {name.lower(): name for name in self._languages}
        if (asked := language.lower()) in folded:
            return folded[asked]
        first = asked.split("-")[0]
        return next((name for code, name in folded.items() if code.split("-")[0] == first), None)

    def _cloned(
        self, utterance: Utterance, reference: Audio, language: str | None, drawn: sampling.Sampling
    ) -> Any:
        """As the package clones, without a file: that would need FFmpeg's libraries on the machine."""
        from torchaudio.functional import resample  # noqa: PLC0415 - comes with the extra

        config = self._model.config
        wave = resample(torch.from_numpy(reference.samples)[None], reference.rate, CLONING_RATE)
        wave = wave[:, : CLONING_RATE * config.max_ref_len]
        if config.sound_norm_refs:
            wave = 0.75 * wave / wave.abs().max()
        latents = self._model.get_gpt_cond_latents(
            wave, CLONING_RATE, config.gpt_cond_len, config.gpt_cond_chunk_len
        )
        speaker = self._model.get_speaker_embedding(wave, CLONING_RATE)
        names = ("temperature", "length_penalty", "repetition_penalty", "top_k", "top_p")
        settings = {name: config[name] for name in names} | drawn.arguments
        return self._model.inference(utterance.text, language, latents, speaker, **settings)["wav"]


def _package() -> Any:
    """The module TTS.api. Its log would repeat what is spoken: only its errors are kept.

    Raises ConfigurationError with the remedy where the package cannot be imported.
    """
    try:
        from TTS import api  # noqa: PLC0415 - an extra
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        logger.warning("coqui-tts cannot be imported: %s: %s", type(error).__name__, error)
        raise ConfigurationError(
            "backend coqui needs the package coqui-tts: install presence[coqui], or name it under "
            "`runtime_env: {pip: [...]}` of the model's deployment"
        ) from error
    logging.getLogger("TTS").setLevel(logging.ERROR)
    return api


def _files(directory: Path) -> dict[str, str]:
    """The checkpoint and the configuration in a directory. Raises ConfigurationError."""
    found = [directory / name for name in CHECKPOINTS if (directory / name).is_file()]
    if not found or not (directory / "config.json").is_file():
        raise ConfigurationError(f"{directory.name} must hold config.json and model.pth")
    return {"model_path": str(found[0]), "config_path": str(directory / "config.json")}
