"""Emotion, age and gender of a speaker, by audio classifiers beside the speaker engine."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

from engines import hub
from engines.errors import ConfigurationError, NothingComputable
from engines.types import Audio, Demographics, EngineOptions, Runtime
from engines.voice import VoiceAttributes, labels

if TYPE_CHECKING:
    from engines.voice.classifier import AudioClassifier

logger = logging.getLogger("presence.voice")

EMOTION_MODEL = "superb/wav2vec2-base-superb-er"
"""Four emotions, trained on IEMOCAP (Apache-2.0). Source: the model page; Yang et al., arXiv:2105.01051."""

OPTION = {"emotion": "emotion_model", "age_gender": "age_gender_model"}
"""Head -> the option that names its checkpoint."""

RETRY_S = 60.0
"""A head that could not be loaded is tried again after this time."""


class AttributeHeads:
    """The attribute heads of one model, as its options describe them. Loads no weights."""

    known_options: ClassVar[dict[str, str]] = {
        "emotion_model": "emotion classifier: repository id, or directory under the models directory; "
        f"empty: none; {EMOTION_MODEL}",
        "age_gender_model": "age or gender classifier with a plain head: repository id, or directory under "
        "the models directory; none",
    }

    def __init__(self, options: EngineOptions) -> None:
        given = {"emotion_model": EMOTION_MODEL, **options.options}
        named = {head: given.get(option, "") for head, option in OPTION.items()}
        self._sources = {head: source for head, source in named.items() if source}
        self._models_dir = options.models_dir

    @property
    def names(self) -> tuple[str, ...]:
        """Which of "emotion" and "age_gender" the options enable."""
        return tuple(self._sources)

    def load(self, runtime: Runtime) -> VoiceAttributes:
        """Cheap: a head loads (or is fetched) when it is first asked for. Thread-safe.

        Raises RuntimeError where a GPU was given and torch finds none.
        """
        if runtime.cuda:
            from engines.torch_device import device  # noqa: PLC0415 - a CPU replica that is never asked needs no torch

            device(runtime)
        return _Attributes(
            {head: _Head(head, source, self._models_dir, runtime) for head, source in self._sources.items()}
        )


class _Attributes:
    """The heads of a model."""

    def __init__(self, heads: dict[str, "_Head"]) -> None:
        self._heads = heads

    def analyze(self, clips: Sequence[Audio], heads: Sequence[str]) -> list[Demographics]:
        """See VoiceAttributes."""
        told, reasons = [Demographics()] * len(clips), []
        for name in heads:
            try:
                classifier = self._classifier(name)
            except NothingComputable as error:
                reasons.append(error.message)
                continue
            shares = classifier.classify(clips).astype(float).tolist()
            told = [MEANING[name](one, classifier.labels, row) for one, row in zip(told, shares, strict=True)]
        if len(reasons) == len(heads):
            raise NothingComputable("; ".join(reasons) or "no attribute was asked for")
        return told

    def _classifier(self, name: str) -> "AudioClassifier":
        if name not in self._heads:
            raise NothingComputable(
                f"the model tells no {_words(name)}: its option {OPTION[name]} is not set"
            )
        return self._heads[name].classifier()


class _Head:
    """One classifier, loaded when it is first asked for; a failure is remembered for RETRY_S."""

    def __init__(self, name: str, source: str, models_dir: Path, runtime: Runtime) -> None:
        self._name, self._source, self._models_dir, self._runtime = name, source, models_dir, runtime
        self._classifier: AudioClassifier | None = None
        self._failure, self._retry_at = "", 0.0
        self._lock = Lock()

    def classifier(self) -> "AudioClassifier":
        """The classifier, loaded. Raises NothingComputable with the reason and the remedy."""
        with self._lock:
            if self._classifier is None:
                self._classifier = self._load()
            return self._classifier

    def _load(self) -> "AudioClassifier":
        if time.monotonic() >= self._retry_at:
            try:
                return self._opened()
            except ConfigurationError as error:
                option = f"{OPTION[self._name]}:{hub.shown(self._source)}"
                self._failure = f"{_words(self._name)} cannot be told: {option}: {error.message}"
                self._retry_at = time.monotonic() + RETRY_S
        raise NothingComputable(self._failure)

    def _opened(self) -> "AudioClassifier":
        try:
            # transformers takes seconds to import, and may be missing.
            from engines.voice.classifier import AudioClassifier  # noqa: PLC0415 - imports torch
        except (ImportError, OSError, RuntimeError) as error:
            logger.warning("transformers cannot be imported: %s", error)
            raise ConfigurationError(
                "transformers or torch cannot be imported; install them again"
            ) from error
        classifier = AudioClassifier(self._source, self._models_dir, self._runtime)
        if self._name == "age_gender":
            labels.require_meaning(classifier.labels)
        return classifier


def _words(head: str) -> str:
    return head.replace("_", " and ")


def _emotion(told: Demographics, names: Sequence[str], shares: Sequence[float]) -> Demographics:
    return replace(told, emotion=labels.emotions(names, shares))


def _age_gender(told: Demographics, names: Sequence[str], shares: Sequence[float]) -> Demographics:
    return replace(told, age=labels.age(names, shares), gender=labels.genders(names, shares))


MEANING: dict[str, Callable[[Demographics, Sequence[str], Sequence[float]], Demographics]] = {
    "emotion": _emotion,
    "age_gender": _age_gender,
}
