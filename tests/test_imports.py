"""What importing costs: no model library for the builder, no side effect for anything."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engines", "deployments", "graphs")
HEAVY = {"torch", "onnxruntime", "cv2", "dlib", "_dlib_pybind11", "insightface", "transformers", "matplotlib"}

SILENT = """
import importlib, json, sys, threading

happened = []
WATCHED = ("socket.bind", "socket.connect", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename")

def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (event in WATCHED or writes) and "__pycache__" not in repr(arguments):
        happened.append([event, repr(arguments)])

names, *warm = json.loads(sys.argv[1])
for module in warm:
    importlib.import_module(module)
threads = threading.active_count()
sys.addaudithook(watch)
for module in names:
    importlib.import_module(module)
happened += [["thread", thread.name] for thread in threading.enumerate()[threads:]]
sys.stderr.write(json.dumps(happened))
"""
LIBRARIES = [
    "matplotlib.figure",
    "ray.serve",
    "fastapi",
    "httpx",
    "onnxruntime",
    "cv2",
    "torch",
    "torch._dynamo",
    "PIL.Image",
    "typer",
    "rich.progress",
    "yaml",
]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter whose warnings do not speak."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended


def modules() -> list[str]:
    return [
        found.name
        for room in ROOMS
        for found in pkgutil.walk_packages([str(ROOT / room)], f"{room}.")
        if not found.ispkg
    ]


def test_what_crosses_between_replicas_loads_no_ffmpeg() -> None:
    loaded = python("import sys, deployments.messages; print('\\n'.join(sys.modules))").stdout.split()
    assert "deployments.messages" in loaded
    assert not {"av", *HEAVY} & set(loaded)


@pytest.mark.parametrize("module", ["graphs.app", "graphs.cli"])
def test_the_builder_and_the_command_load_no_model_library(module: str) -> None:
    loaded = python(f"import sys, {module}; print('\\n'.join(sys.modules))").stdout.split()
    assert module in loaded
    assert not HEAVY & set(loaded)


def test_the_command_loads_no_ray_before_its_environment_is_set() -> None:
    loaded = python("import sys, graphs.cli; print('\\n'.join(sys.modules))").stdout.split()
    assert "ray" not in loaded


def test_importing_every_module_does_nothing_else() -> None:
    ours = modules()
    assert {"graphs.app", "deployments.face", "engines.face.insightface_pack"} < set(ours)
    ended = python(SILENT, json.dumps([ours, *LIBRARIES]))
    assert ended.stdout == ""
    assert json.loads(ended.stderr) == []
