"""The service under measurement: its configuration, its start and stop, and the CPU time of its processes."""

import http.client
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it ships without types
import yaml

from graphs.ray_runtime import free_ports
from graphs.settings import ModelFile

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PROFILE = ROOT / "config" / "local.yaml"
"""What `presence serve` runs by default; it is measured as it is, with more models beside its own."""

START_S = 180
STOP_S = 60
POLL_S = 0.2


def model_entries(shared: Path = SHARED) -> dict[str, dict[str, Any]]:
    """Entries of model files by name: faces and voices of the default profile, `mini` where its weights are.

    Each face model also with all its parts in one replica, a replica a core: its name with `-fused` behind.
    """
    entries: list[dict[str, Any]] = yaml.safe_load(PROFILE.read_text())["applications"][0]["args"]["models"]
    face = (shared / "models" / "face").resolve()
    if (face / "insightface" / "models" / "mini").is_dir():
        entries.append(_mini(face))
    kinds = {entry["name"]: ModelFile.model_validate(entry).capability for entry in entries}
    faces = [entry for entry in entries if kinds[entry["name"]] == "face"]
    others = [entry for entry in entries if kinds[entry["name"]] == "voice"]
    both = [variant for entry in faces for variant in (entry, _fused(entry))]
    return {entry["name"]: entry for entry in (*both, *others)}


def _fused(entry: dict[str, Any]) -> dict[str, Any]:
    deployment = {"detector": {"min_replicas": psutil.cpu_count() or 1, "max_batch_size": 1}}
    return {**entry, "name": f"{entry['name']}-fused", "fused": True, "deployment": deployment}


def _mini(face: Path) -> dict[str, Any]:
    options = {
        "model_pack": "mini",
        "root": str(face / "insightface"),
        "detector_onnx": "det_500m_bnkps.onnx",
        "recognizer_onnx": "w_mobilefacenet_128d.onnx",
        "genderage_onnx": "genderage.onnx",
        "expression_onnx": str(face / "expression" / "fer2013_mini_XCEPTION.102-0.66.onnx"),
        "antispoof_v2_onnx": str(face / "minifasnet" / "MiniFASNetV2.onnx"),
        "antispoof_v1se_onnx": str(face / "minifasnet" / "MiniFASNetV1SE.onnx"),
        "verify_threshold": "0.6",
    }
    each: dict[str, Any] = {"min_replicas": psutil.cpu_count() or 1, "max_batch_size": 4}
    deployment = {"detector": each, "recognizer": each, "attributes": each}
    return {
        "name": "mini",
        "backend": "insightface",
        "license": "research",
        "options": options,
        "deployment": deployment,
    }


def write_config(path: Path, entries: list[dict[str, Any]]) -> None:
    """The default profile with these models instead of its own."""
    data = yaml.safe_load(PROFILE.read_text())
    data["applications"][0]["args"] |= {"models": entries, "store": {"directory": str(path.parent / "store")}}
    path.write_text(yaml.safe_dump(data))


@dataclass(frozen=True, slots=True)
class Service:
    """A running `presence serve` on 127.0.0.1."""

    port: int
    process: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """The command, Ray's servers, the replicas and HAProxy."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> dict[int, float]:
        """CPU seconds so far of each process, by its id."""
        seconds: dict[int, float] = {}
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                seconds[one.pid] = times.user + times.system
        return seconds

    def spent(self, before: dict[int, float]) -> dict[str, float]:
        """CPU seconds since then by kind of process; the replicas of one deployment are one kind."""
        seconds: dict[str, float] = defaultdict(float)
        for number, total in self.cpu().items():
            with suppress(psutil.NoSuchProcess):
                one = psutil.Process(number)
                seconds[kind(one.cmdline() or [one.name()])] += total - before.get(number, 0.0)
        return dict(seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every process stopped by SIGSTOP, so that the cores are free; for seconds, not minutes."""
        stopped = self.processes()
        _signal(stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(stopped, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def kind(command: list[str]) -> str:
    """What a process is for: the deployment of a replica, else the name of the program."""
    title = command[0]
    if title.startswith("ray::ServeReplica:"):
        return title.split(":")[4]
    if title.startswith("ray::"):
        return title.removeprefix("ray::").split(".")[0]
    words = [Path(word).name for word in command if not word.startswith("-")]
    return next((word for word in words if not word.startswith("python")), words[0])


@contextmanager
def running(entries: list[dict[str, Any]], directory: Path) -> Iterator[Service]:
    """`presence serve` with these models, ready, on a free port. Its files lie in the directory."""
    config, models, log = directory / "config.yaml", directory / "models", directory / "serve.log"
    models.mkdir()
    write_config(config, entries)
    port = free_port()
    command = [str(Path(sys.executable).with_name("presence")), "serve", "--config", str(config)]
    command += ["--port", str(port), "--models-dir", str(models)]
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        _wait_until_ready(started, port, log)
        yield Service(port, psutil.Process(started.pid))
    finally:
        _stop(started)


def free_port() -> int:
    """Of 127.0.0.1, below those that Linux hands out to whoever wants any."""
    return free_ports(range(10_000, 20_000), 1)[0]


def _wait_until_ready(started: subprocess.Popen[bytes], port: int, log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_S:
        if started.poll() is not None:
            break
        if _status(port, "/readyz") == 200:
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"the service did not become ready:\n{log.read_text()[-4000:]}")


def _status(port: int, path: str) -> int:
    """Status of a GET; 0 when there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _stop(started: subprocess.Popen[bytes]) -> None:
    left = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
    started.send_signal(signal.SIGTERM)
    try:
        started.wait(STOP_S)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
        _signal(left, signal.SIGKILL)
