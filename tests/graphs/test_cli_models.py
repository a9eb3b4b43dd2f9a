"""`presence models`, as it is typed."""

import hashlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from graphs.cli_models import app

FILES = {"det.onnx": b"d" * 3000, "rec.onnx": b"r" * 5000}
Run = Callable[..., Result]


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Two entries whose files come from a directory; the second is not for commercial use."""
    source = tmp_path / "source"
    source.mkdir()
    entries = []
    for name, filename, commercial in (("free", "det.onnx", True), ("research", "rec.onnx", False)):
        (source / filename).write_bytes(FILES[filename])
        file = {
            "filename": filename,
            "uri": (source / filename).as_uri(),
            "sha256": hashlib.sha256(FILES[filename]).hexdigest(),
        }
        entries.append(
            {
                "name": name,
                "license": "apache-2.0" if commercial else "research-only-1.0",
                "commercial": commercial,
                "size": "1 MB",
                "backend": "fake",
                "known_usecases": ["face_recognition"],
                "files": [file],
            }
        )
    path = tmp_path / "gallery.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.fixture
def run(gallery: Path, tmp_path: Path) -> Run:
    """Runs a command on that gallery and an empty models directory."""

    def call(command: str, *arguments: str) -> Result:
        options = ["--models-dir", str(tmp_path / "models")]
        if command in ("available", "show", "install"):
            options += ["--gallery", str(gallery)]
        return CliRunner().invoke(app, [command, *arguments, *options])

    return call


def said(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refused(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("error ")]
    assert result.stderr.endswith(f"{message}\n")
    return message


def test_from_nothing_to_installed_and_back(run: Run, tmp_path: Path) -> None:
    models_dir = tmp_path / "models"
    assert said(run("list")) == [f"no model is installed in {models_dir}"]
    result = run("install", "free")
    assert said(result) == [f"free is installed: {models_dir / 'free.yaml'}"]
    assert result.stderr.splitlines() == ["det.onnx: 0.0 of 0.0 MB", "det.onnx: 0.0 of 0.0 MB"]
    assert said(run("list")) == ["name  backend  license", "free  fake     apache-2.0"]
    assert said(run("remove", "free")) == [
        f"removed {models_dir / name}" for name in ("free.yaml", "det.onnx")
    ]
    assert said(run("list")) == [f"no model is installed in {models_dir}"]


def test_available_tells_licences_and_what_is_installed(run: Run) -> None:
    run("install", "free")
    assert said(run("available")) == [
        "name      installed  commercial  license            size",
        "free      yes        yes         apache-2.0         1 MB",
        "research  no         no          research-only-1.0  1 MB",
    ]
    assert json.loads(run("available", "--json").stdout) == [
        {"name": "free", "installed": True, "commercial": True, "license": "apache-2.0", "size": "1 MB"}
        | {"description": ""},
        {"name": "research", "installed": False, "commercial": False, "license": "research-only-1.0"}
        | {"description": "", "size": "1 MB"},
    ]


def test_list_as_json(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("list", "--json").stdout) == []
    run("install", "free")
    (one,) = json.loads(run("list", "--json").stdout)
    assert (one["name"], one["backend"], one["license"]) == ("free", "fake", "apache-2.0")
    assert one["path"] == str(tmp_path / "models" / "free.yaml")
    assert [file["filename"] for file in one["files"]] == ["det.onnx"]


def test_show_an_entry_and_a_model_of_ones_own(run: Run, tmp_path: Path) -> None:
    shown = yaml.safe_load(run("show", "research").stdout)
    assert shown["license"] == "research-only-1.0"
    assert (shown["commercial"], shown["installed"]) == (False, False)
    assert shown == json.loads(run("show", "research", "--json").stdout)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/own.yaml").write_text("{backend: fake, license: mit}")
    own = json.loads(run("show", "own", "--json").stdout)
    assert (own["name"], own["license"], own["installed"]) == ("own", "mit", True)
    assert "no model 'other', neither installed nor in the gallery" in refused(run("show", "other"))


def test_a_licence_is_named_and_must_be_accepted(run: Run, tmp_path: Path) -> None:
    message = refused(run("install", "research"))
    assert "research-only-1.0" in message
    assert "--accept-license" in message
    assert not (tmp_path / "models").exists()
    told = run("install", "research", "--accept-license")
    assert said(told)[0].startswith("research is installed")
    assert "The licence of research, research-only-1.0, allows no commercial use." in told.stderr
    assert "licence" not in run("install", "free").stderr


def test_a_mirror_is_the_only_source(run: Run, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    assert f"the mirror {mirror} has no file of that name" in refused(
        run("install", "free", "--mirror", str(mirror))
    )
    (mirror / "det.onnx").write_bytes(FILES["det.onnx"])
    assert said(run("install", "free", "--mirror", str(mirror)))


def test_the_environment_may_name_the_mirror(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESENCE_MIRROR", str(tmp_path))
    assert f"the mirror {tmp_path} has no file of that name" in refused(run("install", "free"))
    (tmp_path / "det.onnx").write_bytes(FILES["det.onnx"])
    assert said(run("install", "free"))


def test_errors_are_one_line_without_a_traceback(run: Run, gallery: Path, tmp_path: Path) -> None:
    assert "no model 'frei' in the gallery; it has: free, research" in refused(run("install", "frei"))
    assert "does not exist" in refused(run("remove", "free"))
    (tmp_path / "source/det.onnx").write_bytes(b"[red]other[/red]")
    assert "det.onnx: wrong checksum" in refused(run("install", "free"))
    gallery.write_text("- {name: x, colour: red}")
    assert f"{gallery}: entry x: " in refused(run("available"))
    (tmp_path / "models/broken.yaml").write_text("{name: broken}")
    assert "broken.yaml: backend: " in refused(run("list"))


def test_the_shipped_gallery_is_the_default(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["available", "--json", "--models-dir", str(tmp_path)])
    assert "insightface-buffalo-l" in [entry["name"] for entry in json.loads(result.stdout)]


def test_the_models_directory_may_come_from_the_environment(tmp_path: Path) -> None:
    result = CliRunner(env={"PRESENCE_MODELS_DIR": str(tmp_path)}).invoke(app, ["list"])
    assert said(result) == [f"no model is installed in {tmp_path}"]


def on_a_terminal(arguments: list[str], answer: str) -> tuple[int, str]:
    """Exit code and output of the command with a terminal at all ends, and an answer typed ahead."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "graphs.cli_models", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        output = bytearray()
        try:
            while piece := os.read(ours, 4096):
                output += piece
        except OSError:  # how Linux tells that the other end is closed
            os.close(ours)
    return process.returncode, output.decode()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_on_a_terminal_the_licence_is_asked_for(
    answer: str, code: int, gallery: Path, tmp_path: Path
) -> None:
    models_dir = tmp_path / "models"
    arguments = ["install", "research", "--gallery", str(gallery), "--models-dir", str(models_dir)]
    returned, output = on_a_terminal(arguments, answer)
    assert "research-only-1.0, allows no commercial use" in output
    assert "Do you accept it?" in output
    assert returned == code
    assert (models_dir / "research.yaml").is_file() == (code == 0)
    assert ("rec.onnx" in output) == (code == 0)
