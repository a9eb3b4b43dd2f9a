"""Parler-TTS in the environments that it needs: its tests in one, its replica in the one that Ray makes.

The second is made as docs/speech-engines.md prints it: a copy of the service's environment, in which other
versions are installed. Here the service has an environment of links, as copies of gigabytes take minutes.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from engines.audio import decode
from tests.service.test_docs import ROOT, blocks

pytestmark = pytest.mark.service

UV = Path(sys.executable).with_name("uv")
PAGE = ROOT / "docs" / "speech-engines.md"
READY_WITHIN_S = 600


def model_file() -> dict[str, Any]:
    """The one of the page."""
    (found,) = (text for text in blocks(PAGE, "yaml") if "backend: parler-tts" in text)
    content: dict[str, Any] = yaml.safe_load(found)
    return content


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Python. Holds the packages of the page, and what the tests import."""
    packages = model_file()["deployment"]["synthesizer"]["runtime_env"]["uv"]["packages"]
    return made(tmp_path_factory.mktemp("parler") / "venv", *packages, "av", "pytest")


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Python. Holds what the service and Ray need, each file a link into the cache of uv."""
    pins = ["-c", str(ROOT / "constraints.txt"), "--link-mode", "symlink"]
    return made(tmp_path_factory.mktemp("service") / "venv", *pins, "pip", "-e", str(ROOT))


def made(directory: Path, *given: str) -> Path:
    """The Python of a new environment with what these arguments of `uv pip install` name."""
    python = directory / "bin" / "python"
    for arguments in (
        ["venv", "--python", sys.executable, str(directory)],
        ["pip", "install", "--python", str(python), *given],
    ):
        subprocess.run([str(UV), *arguments], check=True, capture_output=True, timeout=600)
    return python


def test_its_tests_pass_where_it_is_installed(environment: Path) -> None:
    options = ["-q", "-c", "/dev/null", "--rootdir", ".", "--noconftest", "-p", "no:cacheprovider"]
    command = [str(environment), "-m", "pytest", *options, "tests/engines/tts/test_parler.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout
    assert re.fullmatch(r"\d+ passed in .*", ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def parler(
    environment: Path,
    links: Path,
    serve_with: Callable[..., AbstractContextManager[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A service with the model file of the page, whose model, override file and GPU are of this machine."""
    models = tmp_path_factory.mktemp("parler-models")
    script = ROOT / "tests" / "engines" / "tts" / "parler_checkpoint.py"
    subprocess.run([environment, script, models / "parler"], check=True, capture_output=True, timeout=120)
    model = model_file()
    (pinned,) = re.findall(r"line that overrules it,\s+`(.*?)`", PAGE.read_text(encoding="utf-8"))
    overrides = models / "overrides.txt"
    overrides.write_text(f"{pinned}\n")
    synthesizer = model["deployment"]["synthesizer"]
    del synthesizer["num_gpus"]
    synthesizer["num_cpus"] = 0.1
    synthesizer["runtime_env"]["uv"]["uv_pip_install_options"] = ["--override", str(overrides)]
    model["parameters"]["model"] = "parler"
    model["tts"]["voice"] = "a deep voice"
    arguments = {"models": [model], "store": {"directory": str(models / "store")}}
    with (
        serve_with(arguments, models, READY_WITHIN_S, python=links) as own,
        own.client(300) as client,
    ):
        yield client


def test_it_speaks_from_the_environment_that_ray_makes(parler: httpx.Client) -> None:
    def spoken(**more: Any) -> np.ndarray:
        body = {"model": "parler", "input": "hello world", "params": {"seed": "7"}, "sample_rate": 16_000}
        answer = parler.post("/tts", json={**body, **more})
        assert answer.status_code == 200, answer.text
        return decode(answer.content, 16_000, 60).samples

    deep = spoken()
    assert np.ptp(deep) > 0.01
    np.testing.assert_array_equal(spoken(voice="a deep voice"), deep)
    assert not np.array_equal(spoken(voice="a high voice"), deep)
    assert not np.array_equal(spoken(instructions="slow"), deep)
    refused = parler.post("/tts", json={"model": "parler", "input": "?"})
    assert (refused.status_code, "nothing that can be spoken" in refused.text) == (400, True)
