"""Engines by capability and name: noun -> engine name -> "module:Class", imported on first use."""

from importlib import import_module
from typing import Any

from engines.errors import ConfigurationError

ENGINES: dict[str, dict[str, str]] = {
    "face": {
        "dlib-resnet": "engines.face.dlib_resnet:DlibResnet",
        "opencv-zoo": "engines.face.opencv_zoo:OpencvZoo",
        "insightface": "engines.face.insightface_pack:InsightfacePack",
        "fake": "engines.face.fake:FakeFace",
    },
    "voice": {
        "resemblyzer-ge2e": "engines.voice.ge2e:Ge2e",
        "speechbrain": "engines.voice.speechbrain_ecapa:SpeechBrainEcapa",
        "wespeaker": "engines.voice.wespeaker:WeSpeaker",
        "fake-voice": "engines.voice.fake:FakeVoice",
    },
    "tts": {
        "espeak-ng": "engines.tts.espeak:Espeak",
        "piper": "engines.tts.piper:Piper",
        "bark": "engines.tts.bark:Bark",
        "transformers-musicgen": "engines.tts.musicgen:MusicGen",
        "coqui": "engines.tts.coqui:Coqui",
        "parler-tts": "engines.tts.parler:Parler",
        "vall-e-x": "engines.tts.vall_e_x:VallEX",
        "fake-tts": "engines.tts.fake:FakeTts",
    },
}


def capability(engine: str) -> str:
    """The capability that an engine serves, such as "face".

    Raises ConfigurationError when no engine has that name, or engines of two capabilities have it.
    """
    nouns = [noun for noun, engines in ENGINES.items() if engine in engines]
    if len(nouns) > 1:
        raise ConfigurationError(
            f"backend {engine!r} is registered for {' and for '.join(nouns)}; rename one"
        )
    if nouns:
        return nouns[0]
    known = sorted(name for engines in ENGINES.values() for name in engines)
    raise ConfigurationError(f"unknown backend {engine!r}; known backends: {', '.join(known)}")


def load(noun: str, engine: str) -> Any:
    """The class of an engine.

    Raises ConfigurationError when the capability has no engine of that name.
    """
    try:
        module, _, name = ENGINES[noun][engine].partition(":")
    except KeyError:
        known = ", ".join(sorted(ENGINES.get(noun, {})))
        raise ConfigurationError(f"no {noun} engine {engine!r}; known: {known}") from None
    return getattr(import_module(module), name)
