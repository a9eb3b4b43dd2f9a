"""Whole installations over HTTP: killed, at once, on a full disk."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from engines.errors import ConfigurationError
from graphs.gallery import load
from graphs.models import install, installed

if TYPE_CHECKING:
    from tests.graphs.conftest import Origin

BODY = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(32_000))
"""1,024,000 bytes that don't repeat."""
SHA = hashlib.sha256(BODY).hexdigest()


def gallery_of(tmp_path: Path, url: str) -> Path:
    entry = {
        "name": "net",
        "license": "apache-2.0",
        "commercial": True,
        "backend": "fake",
        "known_usecases": ["face_recognition"],
        "files": [{"filename": "net.onnx", "uri": url, "sha256": SHA}],
    }
    path = tmp_path / "gallery.yaml"
    path.write_text(yaml.safe_dump([entry]))
    return path


def start_install(gallery: Path, models_dir: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "graphs.cli_models", "install", "net"]
    command += ["--gallery", str(gallery), "--models-dir", str(models_dir)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HALF = r"net\.onnx: 0\.[456]"


def read_until(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(words, line):
            return
    pytest.fail(f"{words!r} was never said: {said}")


def test_a_killed_installation_is_not_listed_and_goes_on(origin: "Origin", tmp_path: Path) -> None:
    resource = origin.put("/net", BODY, pause_at=600_000)
    gallery, models_dir = gallery_of(tmp_path, resource.url), tmp_path / "models"
    with start_install(gallery, models_dir) as process:
        read_until(process, HALF)
        process.kill()
    resource.go_on.set()
    assert installed(models_dir) == {}
    kept = (models_dir / "net.onnx.part").stat().st_size
    assert 300_000 < kept <= 600_000
    resource.pause_at = 0
    path = install(load(gallery)["net"], models_dir)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert (models_dir / "net.onnx").read_bytes() == BODY
    assert [model.name for model in installed(models_dir).values()] == ["net"]
    assert path == models_dir / "net.yaml"


def test_two_installations_at_once_fetch_once(origin: "Origin", tmp_path: Path) -> None:
    resource = origin.put("/net", BODY, pause_at=600_000)
    gallery, models_dir = gallery_of(tmp_path, resource.url), tmp_path / "models"
    with start_install(gallery, models_dir) as first:
        read_until(first, HALF)
        with start_install(gallery, models_dir) as second:
            read_until(second, "waiting for another installation")
            resource.go_on.set()
            _, said = second.communicate()
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "net.onnx: in place" in said
    assert "net.yaml: in place" in said
    assert origin.requests == [("/net", None, len(BODY))]
    assert (models_dir / "net.onnx").read_bytes() == BODY


def test_a_full_disk_is_told_and_the_download_goes_on_when_there_is_space(
    origin: "Origin", tmp_path: Path, small_disk: Path
) -> None:
    entry = load(gallery_of(tmp_path, origin.put("/net", BODY).url))["net"]
    with pytest.raises(ConfigurationError, match="the disk is full; free some space and install again"):
        install(entry, small_disk)
    assert installed(small_disk) == {}
    assert not (small_disk / "net.onnx").exists()
    kept = (small_disk / "net.onnx.part").stat().st_size
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    install(entry, small_disk)
    assert origin.requests[-1] == ("/net", f"bytes={kept}-", len(BODY) - kept)
    assert (small_disk / "net.onnx").read_bytes() == BODY
