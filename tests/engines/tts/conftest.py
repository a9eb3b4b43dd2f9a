"""Small random checkpoints, each made where a test asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.tts.checkpoints import save_bark, save_musicgen


@pytest.fixture
def bark(tmp_path: Path) -> Any:
    """The model that is saved as tmp_path / "bark"."""
    return save_bark(tmp_path / "bark")


@pytest.fixture
def musicgen(tmp_path: Path) -> Callable[..., Any]:
    """Saves tmp_path / "musicgen" with so many channels."""
    return lambda channels=1: save_musicgen(tmp_path / "musicgen", channels)
