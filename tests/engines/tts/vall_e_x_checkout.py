"""A stand-in for the checkout of VALL-E X, with the same modules, functions and files."""

from pathlib import Path

import numpy as np

RATE = 24_000

GENERATION = """
import os
from pathlib import Path
import numpy as np
import torch
from macros import *

table = Path("./utils/g2p/bpe_69.json").read_text()
model = None

def preload_models():
    global model
    model = Path("./checkpoints/vallex-checkpoint.pt").read_text()

def generate_audio(text, prompt=None, language="auto", accent="no-accent"):
    assert model is not None and len(text) < 100
    {"en": 0, "zh": 1, "ja": 2}["en" if language == "auto" else language]
    pitch = 0.0
    if prompt is not None:
        if not os.path.exists(prompt):
            raise ValueError(f"Cannot find prompt {prompt}")
        with np.load(prompt) as data:
            pitch = float(data["audio_tokens"].mean())
    return np.full(len(text) * 100, pitch, np.float32) + torch.rand(len(text) * 100).numpy() * 0.01
"""
PROMPT_MAKING = """
import wave
import numpy as np
from macros import *

made = 0

def make_prompt(name, audio_prompt_path, transcript=None):
    global made
    made += 1
    with wave.open(audio_prompt_path) as clip:
        assert clip.getnframes() / clip.getframerate() <= 15
        samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2") / 32768
    open(f"./prompts/{name}.wav", "w").close()
    text = len(transcript) if transcript else 0
    np.savez(f"./customs/{name}.npz", audio_tokens=samples, text_tokens=np.array([text]), lang_code=0)
"""


def save_checkout(root: Path) -> None:
    """Its voice is a level: of the preset alan 0.3, of a recording the mean of its samples."""
    for folder in ("utils/g2p", "checkpoints", "presets"):
        (root / folder).mkdir(parents=True)
    (root / "macros.py").write_text(f"SAMPLE_RATE = {RATE}\n")
    (root / "utils" / "__init__.py").touch()
    (root / "utils" / "generation.py").write_text(GENERATION)
    (root / "utils" / "prompt_making.py").write_text(PROMPT_MAKING)
    (root / "utils" / "g2p" / "bpe_69.json").write_text("{}")
    (root / "checkpoints" / "vallex-checkpoint.pt").write_text("weights")
    np.savez(root / "presets" / "alan.npz", audio_tokens=np.full(9, 0.3), text_tokens=[0], lang_code=0)
