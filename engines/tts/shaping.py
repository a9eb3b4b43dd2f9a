"""Speech made ready for listening: pace, joints and level. Each shaper takes samples as they come.

Samples are float32 of one channel, shape (n,), any n. Pace and level are FFmpeg's filters atempo and
alimiter, through PyAV: https://ffmpeg.org/ffmpeg-filters.html.
"""

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph
from av.filter.context import FilterContext
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SLOWEST, FASTEST = 0.25, 4.0
"""Bounds of the pace: 1 is the original's, 2 takes half as long."""

CEILING = 0.97
"""The highest level that leaves the limiter."""

SILENCE = 10 ** (-54 / 20)
"""Samples below it are silence."""

MARGIN_SECONDS = 0.03
"""Silence that is kept at both ends of a phrase: soft consonants begin below SILENCE."""

FADE_SECONDS = 0.005


class _Filters:
    """A chain of FFmpeg's filters, each a name and its arguments."""

    def __init__(self, rate: int, *chain: tuple[str, str]) -> None:
        self._rate = rate
        graph = Graph()
        source = graph.add_abuffer(format="flt", sample_rate=rate, layout="mono")
        middle = [graph.add(name, arguments) for name, arguments in chain]
        flat = graph.add("aformat", f"sample_fmts=flt:sample_rates={rate}:channel_layouts=mono")
        steps: list[FilterContext] = [source, *middle, flat, graph.add("abuffersink")]
        graph.link_nodes(*steps).configure()
        self._graph = graph

    def feed(self, samples: Samples) -> Samples:
        """What can be told once these samples are known."""
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(samples), step := self._rate // 50):  # atempo holds one frame back
            block = np.ascontiguousarray(samples[start : start + step], np.float32)
            frame = AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
            frame.sample_rate = self._rate
            self._graph.push(frame)
            parts.append(self._pulled())
        return np.concatenate(parts)

    def finish(self) -> Samples:
        """The rest."""
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> Samples:
        parts = [np.empty(0, np.float32)]
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return np.concatenate(parts)
            if isinstance(frame, AudioFrame):
                parts.append(frame.to_ndarray()[0])


class Tempo:
    """Another pace at the same pitch.

    rate: samples a second. factor: SLOWEST..FASTEST, 2 takes half as long. Raises ValueError outside.
    """

    def __init__(self, rate: int, factor: float) -> None:
        if not SLOWEST <= factor <= FASTEST:
            raise ValueError(f"factor must be between {SLOWEST} and {FASTEST}, not {factor}")
        steps = 1 if 0.5 <= factor <= 2 else 2  # one atempo slows down to a half, and skips above 2
        self._filters = _Filters(rate, *[("atempo", f"{factor ** (1 / steps):.6f}")] * steps)

    def feed(self, samples: Samples) -> Samples:
        """What can be told once these samples are known."""
        return self._filters.feed(samples)

    def finish(self) -> Samples:
        """The rest. The object is of no further use."""
        return self._filters.finish()


class Limiter:
    """Nothing above CEILING: louder passages are turned down ahead of their peaks, the rest is untouched."""

    def __init__(self, rate: int) -> None:
        self._filters = _Filters(rate, ("alimiter", f"limit={CEILING}:level=0:latency=1"))

    def feed(self, samples: Samples) -> Samples:
        """What can be told once these samples are known; what is no number is silence."""
        return np.clip(self._filters.feed(np.nan_to_num(samples, posinf=0, neginf=0)), -CEILING, CEILING)

    def finish(self) -> Samples:
        """The rest. The object is of no further use."""
        return np.clip(self._filters.finish(), -CEILING, CEILING)


class Joiner:
    """Phrases one after the other, without clicks, and with pauses that do not depend on the engine.

    The silence around each phrase is cut off, its ends are faded, and a pause follows.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._fade = max(1, round(rate * FADE_SECONDS))
        self._margin = round(rate * MARGIN_SECONDS)
        self._held = np.empty(0, np.float32)
        self._speaking = False

    def feed(self, samples: Samples) -> Samples:
        """Samples of the phrase, without those that may turn out to be its end."""
        held = np.concatenate([self._held, samples])
        loud = np.flatnonzero(np.abs(held) >= SILENCE)
        if not self._speaking:
            begin = max(0, (int(loud[0]) if len(loud) else len(held)) - self._margin)
            held, loud = held[begin:], loud - begin
        if not len(loud) or len(held) < 2 * self._fade:
            self._held = held
            return np.empty(0, np.float32)
        if not self._speaking:
            held = self._faded(held)
        self._speaking = True
        end = max(0, min(int(loud[-1]) + 1, len(held) - self._fade))
        self._held = held[end:]
        return held[:end]

    def end(self, pause: float) -> Samples:
        """The end of the phrase and its pause in seconds; nothing at all of a phrase that was silent."""
        held, self._held = self._held, np.empty(0, np.float32)
        loud = np.flatnonzero(np.abs(held) >= SILENCE)
        if not self._speaking and not len(loud):
            return held[:0]
        tail = held[: (int(loud[-1]) + 1 if len(loud) else 0) + self._margin]
        if not self._speaking:
            tail = self._faded(tail)
        self._speaking = False
        silence = np.zeros(round(pause * self._rate), np.float32)
        return np.concatenate([self._faded(tail[::-1])[::-1], silence])

    def _faded(self, samples: Samples) -> Samples:
        """A copy that rises from 0."""
        faded = samples.copy()
        part = faded[: self._fade]
        part *= np.linspace(0, 1, len(part), endpoint=False, dtype=np.float32)
        return faded
