"""Pace, joints and level, heard on tones whose pitch, length and level are known."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.tts.shaping import CEILING, FADE_SECONDS, MARGIN_SECONDS, Joiner, Limiter, Tempo

RATE = 22_050


def tone(seconds: float, level: float = 0.5, hertz: float = 220) -> NDArray[np.float32]:
    time = np.arange(int(RATE * seconds)) / RATE
    return np.asarray(level * np.cos(2 * np.pi * hertz * time), np.float32)


def run(shaper: Tempo | Limiter, samples: NDArray[np.float32], step: int = 1000) -> NDArray[np.float32]:
    parts = [shaper.feed(samples[start : start + step]) for start in range(0, len(samples), step)]
    return np.concatenate([*parts, shaper.finish()])


def pitch(samples: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * RATE / len(samples)


@pytest.mark.parametrize("factor", [0.25, 0.3, 0.5, 0.8, 1, 1.3, 2, 3.1, 4])
def test_pace_changes_the_length_and_not_the_pitch(factor: float) -> None:
    slower = run(Tempo(RATE, factor), tone(3))
    assert len(slower) / RATE == pytest.approx(3 / factor, rel=0.02)
    assert pitch(slower) == pytest.approx(220, abs=1)


@pytest.mark.parametrize("factor", [0, -1, 0.2, 4.1, float("nan"), float("inf")])
def test_a_pace_out_of_bounds_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="between"):
        Tempo(RATE, factor)


def test_sound_comes_before_the_end_at_another_pace() -> None:
    tempo = Tempo(RATE, 0.5)
    assert len(tempo.feed(tone(1))) > RATE


@pytest.mark.parametrize("shaper", [lambda: Tempo(RATE, 2), lambda: Tempo(RATE, 0.25), lambda: Limiter(RATE)])
@pytest.mark.parametrize("samples", [0, 1, 7])
def test_almost_nothing_is_shaped_to_almost_nothing(shaper: Callable[[], Limiter], samples: int) -> None:
    assert len(run(shaper(), tone(1)[:samples])) <= 4 * samples


def test_the_limiter_leaves_quiet_sound_alone() -> None:
    samples = tone(2, 0.9)
    assert np.array_equal(run(Limiter(RATE), samples), samples)


def test_the_limiter_turns_loud_sound_down_without_cutting_its_peaks() -> None:
    limited = run(Limiter(RATE), np.concatenate([tone(1, 0.5), tone(1, 3), tone(1, 0.5)]))
    assert len(limited) == 3 * RATE
    assert np.abs(limited).max() <= CEILING
    loud = limited[RATE * 5 // 4 : RATE * 7 // 4]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(len(loud)))) ** 2
    bins = np.fft.rfftfreq(len(loud), 1 / RATE)
    assert spectrum[np.abs(bins - 220) > 20].sum() < 0.01 * spectrum.sum()  # cut peaks would leave 5 %


def test_what_is_no_number_is_silence() -> None:
    limited = run(Limiter(RATE), np.array([0.1, np.nan, np.inf, -np.inf, 0.1], np.float32))
    assert limited.tolist() == pytest.approx([0.1, 0, 0, 0, 0.1])


def joined(*phrases: NDArray[np.float32], pause: float, step: int) -> NDArray[np.float32]:
    joiner, parts = Joiner(RATE), []
    for phrase in phrases:
        parts += [joiner.feed(phrase[start : start + step]) for start in range(0, len(phrase), step)]
        parts.append(joiner.end(pause))
    return np.concatenate(parts)


@pytest.mark.parametrize("step", [1, 17, 1000, 10**6])
def test_phrases_are_joined_without_clicks(step: int) -> None:
    out = joined(tone(0.2), tone(0.2), pause=0.1, step=step)
    assert len(out) == pytest.approx(0.6 * RATE, abs=2)
    steepest = 0.5 * 2 * np.pi * 220 / RATE + 0.5 / (FADE_SECONDS * RATE)
    assert np.abs(np.diff(out, prepend=0, append=0)).max() <= steepest * 1.05


@pytest.mark.parametrize("step", [1, 500, 10**6])
@pytest.mark.parametrize("silence", [0.0, 0.01, 0.5])
def test_pauses_do_not_depend_on_the_silence_of_the_engine(silence: float, step: int) -> None:
    quiet = np.zeros(int(silence * RATE), np.float32)
    phrase = np.concatenate([quiet, tone(0.2), quiet])
    out = joined(phrase, phrase, pause=0.3, step=step)
    kept = min(silence, MARGIN_SECONDS)
    assert len(out) / RATE == pytest.approx(2 * (0.2 + 0.3) + 4 * kept, abs=0.002)


def test_silence_within_a_phrase_is_kept() -> None:
    phrase = np.concatenate([tone(0.1), np.zeros(RATE, np.float32), tone(0.1)])
    assert len(joined(phrase, pause=0, step=100)) / RATE == pytest.approx(1.2, abs=0.001)


def test_a_silent_phrase_leaves_no_pause() -> None:
    silent = np.full(RATE, 0.001, np.float32)
    assert len(joined(silent, tone(0.1), silent, pause=0.5, step=100)) / RATE == pytest.approx(0.6, abs=0.001)
    assert not len(joined(silent, pause=0.5, step=100))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_the_joints_do_not_depend_on_the_pieces(borders: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    phrase = (random.standard_normal(3000) * 0.2 * (random.random(3000) > 0.5)).astype(np.float32)
    phrase[: random.integers(0, 1500)] = 0
    phrase[3000 - random.integers(0, 1500) :] = 0
    cuts = [0, *sorted(borders), 3000]
    joiner = Joiner(RATE)
    parts = [joiner.feed(phrase[start:end]) for start, end in pairwise(cuts)]
    whole = Joiner(RATE)
    expected = np.concatenate([whole.feed(phrase), whole.end(0.1)])
    assert np.array_equal(np.concatenate([*parts, joiner.end(0.1)]), expected)
