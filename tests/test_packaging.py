"""What is shipped: the wheel's content, its commands, and the pins of everything that it needs."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engines", "deployments", "graphs")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.partition(";")[0].split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built without a network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = out.glob("*.whl")
    return ZipFile(built)


def info(wheel: ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_the_wheel_holds_the_rooms_the_configs_and_nothing_else(wheel: ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*ROOMS, "config"}
    assert all(name.endswith((".py", "/py.typed")) for name in wheel.namelist() if name.startswith(ROOMS))


def test_every_module_and_every_config_is_in_the_wheel(wheel: ZipFile) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for folder, pattern in (*((room, "*.py") for room in ROOMS), ("config", "*.yaml"))
        for path in (ROOT / folder).rglob(pattern)
    }
    assert {"config/local.yaml", "config/gpu.yaml", "config/gallery.yaml", "graphs/app.py"} < expected
    assert expected <= set(wheel.namelist())
    assert not [name for name in wheel.namelist() if name.startswith("config/") and name.endswith(".py")]


def test_the_rooms_are_typed(wheel: ZipFile) -> None:
    assert {f"{room}/py.typed" for room in ROOMS} < set(wheel.namelist())


def test_the_licence_is_shipped(wheel: ZipFile) -> None:
    assert info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in info(wheel, "licenses/LICENSE")
    assert "License-Expression: Apache-2.0" in info(wheel, "METADATA")


def test_the_commands_lead_to_functions(wheel: ZipFile) -> None:
    parser = ConfigParser()
    parser.read_string(info(wheel, "entry_points.txt"))
    commands = dict(parser["console_scripts"])
    assert commands == PROJECT["scripts"]
    assert "presence" in commands
    for target in commands.values():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


@pytest.fixture(scope="module")
def installed(wheel: ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel; what it needs is taken from that of the tests."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, symlinks=True)
    own, of_tests = (
        sysconfig.get_path("purelib", vars={"base": str(at)}) for at in (environment, sys.prefix)
    )
    (Path(own) / "needs.pth").write_text(of_tests, encoding="utf-8")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--offline", "--no-deps"]
    command = [*uv, "--python", str(environment / "bin" / "python"), str(wheel.filename)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return environment / "bin"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["presence", "models", "available"], "insightface-buffalo-l"),
        (["presence", "serve", "--config", "config/gpu.yaml"], "refusing to listen on 0.0.0.0"),
        (["presence-haproxy", "-v"], "HAProxy version"),
        (["python", "-c", "import graphs; print(graphs.__file__)"], "/installed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_wheel_works_where_it_is_installed(
    installed: Path, tmp_path: Path, command: list[str], told: str
) -> None:
    program = [str(installed / command[0]), *command[1:]]
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "200"}
    said = subprocess.run(
        program, check=False, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120
    )
    assert told in said.stdout + said.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_serve_passes_port_and_config_on() -> None:
    command = ["make", "-n", "--no-print-directory", "serve", "PORT=9000", "CONFIG=config/gpu.yaml"]
    planned = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    last = planned.stdout.splitlines()[-1]
    assert last == ".venv/bin/presence serve --config config/gpu.yaml --port 9000"


def named(requirement: str) -> str:
    """The normalised name of what a requirement asks for."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_every_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]
    assert not [one for one in wanted if named(one) not in PINS]


def test_what_computes_on_gpus_has_the_version_of_what_it_replaces() -> None:
    assert PINS["onnxruntime-gpu"] == PINS["onnxruntime"]
    assert PINS["faiss-gpu"] == PINS["faiss-cpu"]


def test_ray_is_required_exactly_as_pinned() -> None:
    (ray,) = (one for one in PROJECT["dependencies"] if named(one) == "ray")
    assert ray == f"ray[serve]=={PINS['ray']}"


def test_pins_are_names_and_versions_alone() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pin = re.compile(r"[a-z0-9-]+==[A-Za-z0-9.+!]+(; python_version [=!]= '3\.\d+')?")
    assert not [line for line in lines if not pin.fullmatch(line)]
    assert "://" not in text
    assert lines == sorted(set(lines), key=lines.index)
