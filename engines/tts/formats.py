"""Formats of encoded sound: what they are called, and what they can hold."""

from dataclasses import dataclass

from engines.errors import InvalidInput

LEAST_RATE, MOST_RATE = 4_000, 192_000
"""Samples a second of formats that take any rate; `engines.audio` reads all of them."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one format is made and called.

    container, codec: FFmpeg's names. rates: samples a second that the codec knows, ascending; empty for any.
    bit_rates: least and most bits a second, None where nothing is lost. fixed_rate: what formats without a
    header are played at when nothing else is said; None for the engine's own rate.
    """

    content_type: str
    extension: str
    container: str
    codec: str
    rates: tuple[int, ...] = ()
    bit_rates: tuple[int, int] | None = None
    fixed_rate: int | None = None


MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

FORMATS: dict[str, Format] = {
    "wav": Format("audio/wav", "wav", "wav", "pcm_s16le"),
    "mp3": Format("audio/mpeg", "mp3", "mp3", "libmp3lame", MPEG_RATES, (8_000, 320_000)),
    "aac": Format("audio/aac", "aac", "adts", "aac", MPEG_RATES, (8_000, 320_000)),
    "flac": Format("audio/flac", "flac", "flac", "flac"),
    "opus": Format(
        "audio/ogg",
        "ogg",
        "ogg",
        "libopus",
        (8_000, 12_000, 16_000, 24_000, 48_000),
        (6_000, 256_000),
    ),
    "pcm": Format("audio/pcm", "pcm", "s16le", "pcm_s16le", fixed_rate=24_000),
    "ulaw": Format("audio/basic", "ulaw", "mulaw", "pcm_mulaw", (8_000,), fixed_rate=8_000),
    "alaw": Format("audio/x-alaw-basic", "alaw", "alaw", "pcm_alaw", (8_000,), fixed_rate=8_000),
}
"""By the names that requests use. All are of one channel; pcm is 16-bit little-endian without a header."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to encode to: a name of FORMATS, samples a second and bits a second, None for the usual ones.

    A decoder gives opus back at 48,000 samples a second whatever went in. Encoders take the nearest bit rate
    that they have. Raises InvalidInput for what the format cannot hold.
    """

    name: str = "wav"
    sample_rate: int | None = None
    bit_rate: int | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise InvalidInput(f'format "{self.name[:40]}" is unknown; known: {", ".join(FORMATS)}')
        self._check_sample_rate()
        self._check_bit_rate()

    def _check_sample_rate(self) -> None:
        rates, asked = self.format.rates, self.sample_rate
        if asked is not None and rates and asked not in rates:
            raise InvalidInput(
                f"{self.name} has no sample rate of {asked}; it has {', '.join(map(str, rates))}"
            )
        if asked is not None and not LEAST_RATE <= asked <= MOST_RATE:
            raise InvalidInput(f"the sample rate must be between {LEAST_RATE} and {MOST_RATE}, not {asked}")

    def _check_bit_rate(self) -> None:
        if self.bit_rate is None:
            return
        if self.format.bit_rates is None:
            raise InvalidInput(f"{self.name} has no bit rate to choose")
        low, high = self.format.bit_rates
        if not low <= self.bit_rate <= high:
            raise InvalidInput(
                f"the bit rate of {self.name} must be between {low} and {high} bits a second, "
                f"not {self.bit_rate}"
            )

    @classmethod
    def parse(cls, text: str) -> "Target":
        """A name, or NAME_RATE or NAME_RATE_KILOBITS, such as mp3_44100_128 and pcm_16000.

        Source: https://elevenlabs.io/docs/api-reference/text-to-speech/convert (output_format).
        Raises InvalidInput for anything else.
        """
        name, *numbers = text.split("_")
        if len(numbers) > 2 or not all(one.isdecimal() and len(one) <= 6 for one in numbers):
            raise InvalidInput(
                f'format "{text[:40]}" is not understood: write for example mp3, pcm_16000 or mp3_44100_128'
            )
        rate, kilobits = (int(one) for one in (*numbers, "0", "0")[:2])
        return cls(name, rate or None, kilobits * 1000 or None)

    @property
    def format(self) -> Format:
        """How it is made."""
        return FORMATS[self.name]

    def rate(self, source: int) -> int:
        """Samples a second of what is written where the engine speaks at `source`: rather more than fewer."""
        if wanted := self.sample_rate or self.format.fixed_rate:
            return wanted
        rates = self.format.rates
        return next((one for one in rates if one >= source), rates[-1]) if rates else source

    def bits(self, rate: int) -> int | None:
        """Bits a second at that sample rate: as asked, else 64,000, or 128,000 from 32,000 samples on."""
        if self.format.bit_rates is None:
            return None
        return self.bit_rate or (64_000 if rate < 32_000 or self.name == "opus" else 128_000)
