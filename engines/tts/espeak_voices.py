"""Names of eSpeak NG's voices: LANGUAGE or LANGUAGE+VARIANT, such as de and en-us+f3."""

from collections.abc import Sequence
from pathlib import Path

import espeakng_loader

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Voice
from engines.tts.espeak_process import VoiceFile

SHOWN = ("en-us", "en-gb-x-rp", "de", "fr", "es", "it", "cmn", "en-us+f3")
"""Voices that an error names."""


class EspeakVoices:
    """What requests may call a voice.

    default: the voice of requests that name none. Raises ConfigurationError where there is no such voice.
    """

    def __init__(self, languages: Sequence[VoiceFile], variants: Sequence[VoiceFile], default: str) -> None:
        data = Path(espeakng_loader.get_data_path())
        self._languages = {one.code: one for one in languages if _has_dictionary(data, one)}
        self._variants = {one.code: one for one in variants}
        self._default = ("", "")
        try:
            self._default = self._named(default)
        except InvalidInput as error:
            raise ConfigurationError(f"option voice:{default}: {error.message}") from error
        language, _ = self._default
        self.listed = [
            *(_voice(one.code, one, one.gender) for one in self._languages.values()),
            *(
                _voice(f"{language}+{one.code}", self._languages[language], one.gender)
                for one in self._variants.values()
            ),
        ]

    def identifier(self, voice: str, language: str) -> str:
        """The files of a voice: its variant in the language that is asked for, else in its own.

        voice: LANGUAGE, LANGUAGE+VARIANT or +VARIANT, "" for the default. language: BCP 47, "" for the
        voice's; a voice of that language stays as it is (en-us for en), any other speaks the new one.
        Raises InvalidInput for names that it does not know.
        """
        code, variant = self._named(voice) if voice else self._default
        if language:
            wanted = language.lower().replace("_", "-")
            if wanted not in {known for known, _ in self._languages[code].languages} | {code}:
                code = self._spoken(wanted)
        name = self._languages[code].identifier
        return f"{name}+{self._variants[variant].identifier.rpartition('/')[2]}" if variant else name

    def _named(self, voice: str) -> tuple[str, str]:
        """Language and variant of a voice's name."""
        name, plus, variant = voice.lower().partition("+")
        code = self._fitting(name.replace("_", "-")) if name or not plus else self._default[0]
        if not code or (plus and variant not in self._variants):
            raise InvalidInput(f'voice "{voice[:40]}" is unknown; known are {self._some()}')
        return code, variant

    def _spoken(self, language: str) -> str:
        """The language of the data; where it is not spoken in that country, as it is elsewhere."""
        code = self._fitting(language) or self._fitting(language.partition("-")[0])
        if not code:
            raise InvalidInput(f'language "{language[:40]}" is unknown; known are {self._some()}')
        return code

    def _fitting(self, name: str) -> str:
        """The language of that name, else the most fitting that has it among its codes, else ""."""
        if name in self._languages:
            return name
        fits = [
            (priority, one.code)
            for one in self._languages.values()
            for code, priority in one.languages
            if code == name
        ]
        return min(fits)[1] if fits else ""

    def _some(self) -> str:
        return f"{', '.join(SHOWN)} and others, of {len(self._languages)} languages"


def _has_dictionary(data: Path, voice: VoiceFile) -> bool:
    """Some languages are listed without the file that they need: their own, or that of the one they name."""
    lines = (data / "lang" / voice.identifier).read_text(encoding="utf-8").splitlines()
    named = [line.split()[1] for line in lines if line.startswith("dictionary ")]
    names = named or [code.partition("-")[0] for code, _ in voice.languages]
    return any((data / f"{name}_dict").is_file() for name in names)


def _voice(name: str, language: VoiceFile, gender: str) -> Voice:
    codes = sorted(language.languages, key=lambda one: one[1])
    return Voice(name, tuple(code for code, _ in codes), gender)
