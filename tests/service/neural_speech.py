"""Writes small random speech models into a directory: `python -m tests.service.neural_speech DIRECTORY`."""

import sys
import wave
from pathlib import Path

import numpy as np

from tests.engines.tts.checkpoints import save_bark, save_musicgen
from tests.engines.tts.coqui_checkpoints import save_vits, save_xtts
from tests.engines.tts.vall_e_x_checkout import save_checkout

models = Path(sys.argv[1])
save_bark(models / "bark")
save_musicgen(models / "musicgen")
save_vits(models / "vits", ("ann", "bob"), ("en", "fr-fr"))
save_xtts(models / "xtts")
save_checkout(models / "VALL-E-X")
with wave.open(str(models / "audio-sample.wav"), "wb") as recording:
    recording.setparams((1, 2, 16_000, 0, "NONE", ""))
    recording.writeframes(np.full(3 * 16_000, 1 << 14, "<i2").tobytes())
