"""What all tests share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights and media beside the project; tests that need them skip where they are absent."""
    path = ROOT.parent / "shared"
    if not (path / "media").is_dir():
        pytest.skip("no shared test data beside the project")
    return path
