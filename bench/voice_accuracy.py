"""How well each voice engine tells people apart: `python -m bench.voice_accuracy`.

A directory of recordings holds one folder a person, or files that are named PERSON_anything. Every clip is
compared with every other one, as it is and as a bad line, a codec, noise or haste would leave it.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engines import registry
from engines.audio import decode, speech
from engines.types import Audio, EngineOptions, Runtime
from engines.verification import Accuracy, Pairs, accuracy, all_pairs
from engines.voice import RATE, SpeakerEncoder, VoiceEngine

MEDIA = Path(__file__).resolve().parents[1] / ".." / "shared" / "media" / "audio"
DATA = [MEDIA / name for name in ("speakers", "transcribed", "short_sentences")]
MOST_SECONDS = 60.0
BATCH = 16
PERCENTILES = (1, 5, 50, 95, 99)


@dataclass(frozen=True, slots=True)
class Recording:
    """A clip without silence at its ends, and who speaks."""

    person: str
    clip: Audio


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. same, different: the percentiles of the distances, as PERCENTILES names them.

    other: what the clips under this condition were compared with.
    """

    engine: str
    condition: str
    other: str
    accuracy: Accuracy
    same: list[float]
    different: list[float]


def recordings(directories: Sequence[Path], least_seconds: float) -> list[Recording]:
    """Every clip that is long enough."""
    found = []
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.suffix.lower() in {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}:
                inner = path.relative_to(directory)
                person = inner.parts[0] if len(inner.parts) > 1 else path.stem.partition("_")[0]
                clip = speech(decode(path.read_bytes(), RATE, MOST_SECONDS), least_seconds)
                found.append(Recording(f"{directory.name}/{person}", clip))
    return found


def encoded(clip: Audio, rate: int, container: str, codec: str, bit_rate: int = 0) -> Audio:
    """The clip as it comes out of that codec at that rate, at RATE again."""
    narrow = decode(_written(clip, "wav", "pcm_f32le", 0), rate, MOST_SECONDS)
    return decode(_written(narrow, container, codec, bit_rate), RATE, MOST_SECONDS)


def _written(clip: Audio, container: str, codec: str, bit_rate: int) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=clip.rate, layout="mono", bit_rate=bit_rate)
        frame = av.AudioFrame.from_ndarray(clip.samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = clip.rate, 0, Fraction(1, clip.rate)
        for part in (frame, None):
            output.mux(stream.encode(part))
    return file.getvalue()


def noisy(clip: Audio, decibels: float) -> Audio:
    """With white noise, whose power lies that far below the clip's."""
    power = float(np.mean(clip.samples.astype(np.float64) ** 2)) / 10 ** (decibels / 10)
    noise = np.random.default_rng(len(clip.samples)).normal(0, np.sqrt(power), len(clip.samples))
    return Audio(np.clip(clip.samples + noise, -1, 1).astype(np.float32), clip.rate)


def first(clip: Audio, seconds: float) -> Audio:
    """Its beginning."""
    return Audio(clip.samples[: round(seconds * clip.rate)], clip.rate)


CONDITIONS: dict[str, Callable[[Audio], Audio]] = {
    "as recorded": lambda clip: clip,
    "8 kHz, mu-law": partial(encoded, rate=8_000, container="wav", codec="pcm_mulaw"),
    "mp3, 32 kbit/s": partial(encoded, rate=RATE, container="mp3", codec="libmp3lame", bit_rate=32_000),
    "opus, 12 kbit/s": partial(encoded, rate=RATE, container="ogg", codec="libopus", bit_rate=12_000),
    "noise, SNR 20 dB": partial(noisy, decibels=20),
    "noise, SNR 5 dB": partial(noisy, decibels=5),
    "first 3 seconds": partial(first, seconds=3),
    "first 2 seconds": partial(first, seconds=2),
    "first second": partial(first, seconds=1),
    "first half second": partial(first, seconds=0.5),
}


def embedded(encoder: SpeakerEncoder, clips: Sequence[Audio]) -> NDArray[np.float32]:
    """A row for each clip."""
    starts = range(0, len(clips), BATCH)
    return np.concatenate([encoder.embed(clips[start : start + BATCH]) for start in starts])


def across(one: NDArray[np.float32], other: NDArray[np.float32], people: Sequence[str]) -> Pairs:
    """Every clip of the first kind with every clip of the second, but for the same recording."""
    distances = 1 - one.astype(np.float64) @ other.T
    names = np.asarray(people)
    same, apart = names[:, None] == names[None], ~np.eye(len(names), dtype=bool)
    return Pairs(distances[same & apart], distances[~same])


def measure(
    name: str, engine: VoiceEngine, data: Sequence[Recording], threshold: float, runtime: Runtime
) -> Iterator[Row]:
    """Under each condition two rows: against the clips as recorded, and against each other."""
    encoder = engine.load_encoder(runtime)
    people = [one.person for one in data]
    plain = embedded(encoder, [one.clip for one in data])
    for condition, changed in CONDITIONS.items():
        rows = embedded(encoder, [changed(one.clip) for one in data])
        pairs = {"as recorded": across(rows, plain, people), "the same": all_pairs(rows, people)}
        for other, found in pairs.items():
            if condition != other:
                yield Row(
                    name,
                    condition,
                    other,
                    accuracy(found, threshold),
                    [float(value) for value in np.percentile(found.same, PERCENTILES)],
                    [float(value) for value in np.percentile(found.different, PERCENTILES)],
                )


def table(rows: Sequence[Row]) -> Table:
    """The report for people."""
    made = Table(title="Speaker verification, all pairs")
    for name in ("engine", "condition", "compared with"):
        made.add_column(name, no_wrap=True)
    shares = ", ".join(str(share) for share in PERCENTILES)
    for name in ("EER", "best at", "TAR", "FAR", "at", "TAR at FAR 1 %"):
        made.add_column(name, justify="right", no_wrap=True)
    for name in (f"same: {shares} %", f"different: {shares} %"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found = row.accuracy
        made.add_row(
            row.engine,
            row.condition,
            row.other,
            f"{found.eer:.2%}",
            f"{found.best_threshold:.3f}",
            f"{found.tar:.2%}",
            f"{found.far:.2%}",
            f"{found.threshold:.2f}",
            f"{found.tar_at_far_1:.2%}",
            " ".join(f"{value:.2f}" for value in row.same),
            " ".join(f"{value:.2f}" for value in row.different),
        )
    return made


def cases(models: Sequence[str]) -> Iterator[tuple[str, VoiceEngine]]:
    """The engine of the package, and those of `ENGINE:FILE`."""
    for given in ("resemblyzer-ge2e", *models):
        name, _, path = given.partition(":")
        kind: Callable[[EngineOptions], VoiceEngine] = registry.load("voice", name)
        yield given, kind(EngineOptions(model=str(Path(path).resolve()) if path else ""))


def main() -> None:
    """Measures, prints, and writes the figures where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.voice_accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=DATA)
    parser.add_argument("--model", nargs="*", default=[], help="such as wespeaker:FILE.onnx")
    parser.add_argument("--threshold", type=float, help="instead of the engine's own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for one inference")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    rows: list[Row] = []
    for name, engine in cases(given.model):
        data = recordings(given.data, engine.least_seconds)
        if not data:
            parser.error(f"no recordings in {', '.join(map(str, given.data))}")
        threshold = engine.verify_threshold if given.threshold is None else given.threshold
        rows += measure(name, engine, data, threshold, Runtime(given.threads))
    Console(width=220).print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
