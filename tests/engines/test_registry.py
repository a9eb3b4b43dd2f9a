"""The registry of engines: every entry, and what a wrong name is told."""

import pytest

from engines import registry
from engines.errors import ConfigurationError

ENTRIES = [(noun, name) for noun, engines in registry.ENGINES.items() for name in engines]


@pytest.mark.parametrize(("noun", "name"), ENTRIES)
def test_every_engine_is_where_the_registry_says(noun: str, name: str) -> None:
    assert registry.capability(name) == noun
    assert registry.load(noun, name).__module__.startswith(f"engines.{noun}.")


def test_a_name_of_two_capabilities_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENGINES["voice"], "fake", "engines.voice.fake:FakeVoice")
    with pytest.raises(ConfigurationError, match=r"'fake' is registered for face and for voice"):
        registry.capability("fake")
