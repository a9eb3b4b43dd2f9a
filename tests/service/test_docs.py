"""The pages keep their word: their curl lines run as printed, and the default service stays small."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it ships without types
import pytest

from engines.audio import decode

pytestmark = pytest.mark.service

ROOT = Path(__file__).resolve().parents[2]
PRINTED = "http://127.0.0.1:8080"
STRICT = """set -euo pipefail
curl() { command curl --fail-with-body --show-error --noproxy '*' --max-time 60 "$@"; }
"""
"""Before each example: whatever fails, fails the whole; an HTTP error is a failure."""
IDLE_MIB = 4096
"""Memory that the idle default service stays below."""


@dataclass(frozen=True)
class Example:
    """A block of a page that calls the service."""

    page: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def examples() -> Iterator[Example]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, text in enumerate(blocks(page, "bash"), start=1):
            if "curl" in text and PRINTED in text:
                yield Example(str(page.relative_to(ROOT)), number, text)


EXAMPLES = list(examples())
MUSIC = "/v1/sound-generation"
"""Its example asks for a model that the default service lacks: test_neural_speech.py runs it."""


@pytest.fixture(scope="session")
def media(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the pictures and clips that the pages name."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    faces, directory = shared / "media" / "faces", tmp_path_factory.mktemp("media")
    alice, bob = (sorted((faces / "lfw" / name).glob("*.jpg")) for name in ("John_Kerry", "Jose_Serra"))
    named = {"alice1": alice[0], "alice2": alice[1], "bob": bob[0], "group": faces / "groups" / "t1.jpg"}
    for name, source in named.items():
        shutil.copy(source, directory / f"{name}.jpg")
    voice = sorted((shared / "media" / "audio" / "speakers" / "1998").glob("*.flac"))
    for name, source in (("alice1", voice[0]), ("alice2", voice[1])):
        shutil.copy(source, directory / f"{name}.flac")
    return directory


@pytest.fixture
def answers(default_service: Any, media: Path) -> Callable[[str], list[Any]]:
    """Runs an example against the service: the JSON documents that it prints."""

    def run(text: str) -> list[Any]:
        script = STRICT + text.replace(PRINTED, default_service.url)
        ended = subprocess.run(
            ["bash", "-c", script], cwd=media, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return list(documents(ended.stdout))

    return run


def documents(text: str) -> Iterator[Any]:
    """JSON documents one after another; an exposition of metrics is a mapping of its families' names."""
    text = text.lstrip()
    while text:
        if text.startswith("# HELP "):
            yield dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
            return
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:].lstrip()


def method(call: str) -> str:
    """What curl sends with these arguments."""
    named = re.search(r"-X (\w+)", call)
    return named[1] if named else "POST" if re.search(r" -[dF] ", call) else "GET"


def test_the_pages_show_every_route(default_service: Any) -> None:
    with default_service.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    calls = [call for example in EXAMPLES for call in re.split(r"\bcurl (?=-)", example.text)[1:]]

    def shown(verb: str, path: str) -> bool:
        address = re.compile(
            ":8080" + re.sub(r"\\{\w+\\}", r"\\$?\\w[\\w-]*", re.escape(path)) + r"(?![\w/-])"
        )
        return any(method(call) == verb and address.search(call) for call in calls)

    routes = {(verb.upper(), path) for path, verbs in paths.items() for verb in verbs}
    assert {route for route in routes if not shown(*route)} == set()
    assert {"README.md", "docs/faces.md", "docs/voices.md"} <= {example.page for example in EXAMPLES}


@pytest.mark.parametrize("example", [one for one in EXAMPLES if MUSIC not in one.text], ids=str)
def test_the_example_runs_as_printed(
    answers: Callable[[str], list[Any]], media: Path, example: Example
) -> None:
    calls = re.split(r"\bcurl (?=-)", example.text)[1:]
    printed = answers(example.text)
    assert len(printed) == sum("-o " not in call or "-w " in call for call in calls)
    for name in re.findall(r"-o (\S+\.(?:mp3|wav))", example.text):
        assert decode((media / name).read_bytes(), 16_000, 60).seconds > 0.5
    for answer in printed:
        assert answer
        assert "error" not in answer


def test_the_example_of_the_readme_answers_what_it_shows(answers: Callable[[str], list[Any]]) -> None:
    (example,) = (one for one in EXAMPLES if one.page == "README.md" and "/v1/face/verify" in one.text)
    (answer,) = answers(example.text)
    (shown,) = (json.loads(block) for block in blocks(ROOT / "README.md", "json"))
    assert answer["verified"] is shown["verified"] is True
    assert {name: type(value) for name, value in answer.items()} == {
        name: type(value) for name, value in shown.items()
    }
    assert (answer["model"], answer["threshold"]) == (shown["model"], shown["threshold"])
    (other,) = answers(example.text.replace("alice2", "bob"))
    assert other["verified"] is False


def test_the_idle_default_service_fits_into_four_gibibytes(
    default_service: Any, record_testsuite_property: Callable[[str, object], None]
) -> None:
    command = psutil.Process(default_service.pid)
    total = 0
    for process in (command, *command.children(recursive=True)):
        try:
            total += process.memory_full_info().pss  # shared pages count once over all processes
        except psutil.NoSuchProcess:
            continue
    used_mib = total / 2**20
    record_testsuite_property("ready_after_s", default_service.ready_after_s)
    record_testsuite_property("resident_mib", round(used_mib))
    assert used_mib < IDLE_MIB
