"""What stands beside a Piper voice: NAME.onnx.json.

Source: https://github.com/OHF-Voice/piper1-gpl/blob/main/docs/TRAINING.md; the fields are those of the voices
at https://huggingface.co/rhasspy/piper-voices and of release v0.0.2 of https://github.com/rhasspy/piper.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ConfigurationError
from engines.tts.phonemes import BEGIN, END, PAD

ESPEAK, TEXT = "espeak", "text"


@dataclass(frozen=True, slots=True)
class PiperVoice:
    """A voice's description.

    rate: samples a second. espeak: its voice of eSpeak NG. phonemes: ESPEAK or TEXT. table: ids of each
    phoneme. languages: codes that it speaks. speakers: number of each by name, empty where there is one.
    length_scale, noise_scale, noise_w: how long, how varied in sound and in rhythm it speaks.
    """

    rate: int
    espeak: str
    phonemes: str
    table: dict[str, list[int]]
    languages: tuple[str, ...]
    speakers: dict[str, int]
    length_scale: float
    noise_scale: float
    noise_w: float

    @classmethod
    def read(cls, path: Path) -> "PiperVoice":
        """Raises ConfigurationError for a file that describes no voice that is spoken here."""
        try:
            found = cls._of(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path.name} does not describe a Piper voice ({error!r}); install the voice again"
            ) from error
        if found.phonemes not in (ESPEAK, TEXT):
            raise ConfigurationError(f"{path.name}: phonemes of type {found.phonemes!r} are not known here")
        if missing := [mark for mark in (BEGIN, END, PAD) if mark not in found.table]:
            raise ConfigurationError(f"{path.name}: phoneme_id_map has no {' '.join(missing)}")
        return found

    @classmethod
    def _of(cls, data: dict[str, Any]) -> "PiperVoice":
        inference, count = data.get("inference", {}), int(data.get("num_speakers", 1))
        named = {str(name): int(number) for name, number in data.get("speaker_id_map", {}).items()}
        language, espeak = data.get("language", {}), str(data["espeak"]["voice"])
        codes = (language.get("code", ""), language.get("family", ""), espeak)
        return cls(
            rate=int(data["audio"]["sample_rate"]),
            espeak=espeak,
            phonemes=str(data.get("phoneme_type", ESPEAK)),
            table={str(key): [int(one) for one in value] for key, value in data["phoneme_id_map"].items()},
            languages=tuple(dict.fromkeys(code.lower().replace("_", "-") for code in codes if code)),
            speakers=(named or {str(number): number for number in range(count)}) if count > 1 else {},
            length_scale=float(inference.get("length_scale", 1)),
            noise_scale=float(inference.get("noise_scale", 0.667)),
            noise_w=float(inference.get("noise_w", 0.8)),
        )

    def speaks(self, language: str) -> bool:
        """Whether it is a voice of that language, wherever that is spoken."""
        return _base(language) in {_base(code) for code in self.languages}


def _base(code: str) -> str:
    return code.lower().replace("_", "-").partition("-")[0]
