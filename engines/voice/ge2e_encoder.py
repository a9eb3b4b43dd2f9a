"""What the GE2E encoder computes: spectrograms of windows, the LSTM, and the mean of what it says.

Sources: https://arxiv.org/abs/1710.10467, https://github.com/resemble-ai/Resemblyzer (Apache-2.0).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.embedding import unit_rows
from engines.errors import ConfigurationError
from engines.torch_device import device
from engines.types import Audio, Embeddings, Runtime
from engines.voice import RATE
from engines.voice.ge2e import DIM, PACKAGE

BANDS = 40
FRAME, HOP = RATE * 25 // 1000, RATE * 10 // 1000
"""Samples of a frame of the spectrogram, and from one frame to the next."""

WINDOW, STEP = 160, 77
"""Frames that the LSTM sees at once, and from one window to the next: 1.3 windows a second."""

LEAST_COVERAGE = 0.75
"""Part of the last window that the clip must fill; the rest of it is silence."""

LEVEL = 10 ** (-30 / 20)
"""Root mean square to which quieter clips are raised."""

MOST_WINDOWS = 128
"""Windows in one run of the LSTM, which takes about 50 MB for them."""


class Lstm(nn.Module):
    """Spectrograms, shape (n, WINDOW, BANDS), to rows of shape (n, DIM), L2-normalised, none negative."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, DIM, num_layers=3, batch_first=True)
        self.linear = nn.Linear(DIM, DIM)

    def forward(self, windows: Tensor) -> Tensor:
        """The last state of the last layer, through ReLU."""
        _, (hidden, _) = self.lstm(windows)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])))


class LstmEncoder:
    """The mean of the embeddings of a clip's windows; the windows of all clips run together."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._device = device(runtime)
        self._net = _network(path).to(self._device).eval()
        self._filters = torch.from_numpy(mel_filters()).to(self._device)
        self._hann = torch.hann_window(FRAME, device=self._device)

    def embed(self, clips: Sequence[Audio]) -> Embeddings:
        """Shape (len(clips), 256)."""
        if not clips:
            return np.empty((0, DIM), np.float32)
        with torch.inference_mode():
            windows = [self._windows(clip.samples) for clip in clips]
            rows = torch.cat([self._net(part) for part in torch.split(torch.cat(windows), MOST_WINDOWS)])
            means = [part.mean(dim=0) for part in torch.split(rows, [len(one) for one in windows])]
            return unit_rows(torch.stack(means).cpu().numpy())

    def _windows(self, samples: NDArray[np.float32]) -> Tensor:
        """Shape (windows, WINDOW, BANDS)."""
        starts = window_starts(len(samples))
        missing = max(0, (starts[-1] + WINDOW) * HOP - len(samples))
        wave = torch.from_numpy(np.pad(louder(samples), (0, missing))).to(self._device)
        spectrum = torch.stft(
            wave, FRAME, HOP, window=self._hann, center=True, pad_mode="constant", return_complex=True
        )
        mel = (self._filters @ spectrum.abs().square()).T
        return torch.stack([mel[start : start + WINDOW] for start in starts])


def window_starts(samples: int) -> list[int]:
    """First frame of each window of a clip of that many samples. At least one, however short the clip."""
    frames = math.ceil((samples + 1) / HOP)
    starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
    coverage = (samples - starts[-1] * HOP) / (WINDOW * HOP)
    return starts[:-1] if coverage < LEAST_COVERAGE and len(starts) > 1 else starts


def louder(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The clip raised to LEVEL where it is quieter."""
    level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
    return np.asarray(samples * np.float32(max(1.0, LEVEL / max(level, 1e-9))), np.float32)


def mel_filters() -> NDArray[np.float32]:
    """Triangles of equal area on the mel scale of Slaney's Auditory Toolbox, shape (BANDS, FRAME // 2 + 1).

    The scale is linear to 1 kHz, 15 mel, and logarithmic above it, 27 mel for a factor of 6.4.
    Source: https://engineering.purdue.edu/~malcolm/interval/1998-010/
    """
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, BANDS + 2)
    hertz = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    bins = np.linspace(0, RATE / 2, FRAME // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low), np.float32)


def _network(path: Path) -> Lstm:
    net = Lstm()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        net.load_state_dict({name: value for name, value in state.items() if "similarity" not in name})
    except (UnpicklingError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        raise ConfigurationError(
            f"the weights of package {PACKAGE} cannot be read: "
            f"pip install --force-reinstall --no-deps {PACKAGE}"
        ) from error
    return net
