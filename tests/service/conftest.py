"""The running application: the real command, real models, real HTTP. Started once a session."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from bench.service import free_port
from tests.service.slow_picture import SlowPicture, serving_slowly

START_S = 400
"""Far more than it takes; two services may start at once, on two cores."""
KEY = "test-key"


@dataclass(frozen=True)
class Service:
    """A running `presence serve`. pid is the command's own process."""

    url: str
    port: int
    pid: int
    log: Path
    ready_after_s: float
    key: str = ""

    def client(self, timeout_s: float = 60) -> httpx.Client:
        """A client that sends the key."""
        headers = {"x-api-key": self.key} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)


PYTHON = Path(sys.executable)


def start(
    arguments: list[str], port: int, log: Path, env: dict[str, str], python: Path = PYTHON
) -> subprocess.Popen[bytes]:
    """python: of the environment whose `presence` runs."""
    command = [str(python.with_name("presence")), "serve", "--port", str(port), *arguments]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )


def wait_until_ready(
    process: subprocess.Popen[bytes], url: str, log: Path, within_s: float = START_S
) -> float:
    """Seconds until /readyz answered 200."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if process.poll() is not None:
            pytest.fail(f"presence serve ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return time.monotonic() - began
        except httpx.HTTPError:
            pass
        time.sleep(0.2)  # nothing announces readiness but asking
    pytest.fail(f"not ready after {within_s} s:\n{log.read_text()[-4000:]}")


def running(
    arguments: list[str],
    directory: Path,
    key: str = "",
    env: dict[str, str] | None = None,
    within_s: float = START_S,
    host: str = "",
    python: Path = PYTHON,
) -> Iterator[Service]:
    port, log = free_port(), directory / "serve.log"
    url = f"http://{host or '127.0.0.1'}:{port}"
    arguments = [*arguments, "--host", host] if host else arguments
    process = start(arguments, port, log, {"HOME": str(directory), **(env or {})}, python)
    try:
        ready = wait_until_ready(process, url, log, within_s)
        yield Service(url, port, process.pid, log, ready, key)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


SHARED = ("default_service", "service")
"""Services that many tests share. Those that start a service of their own come after both."""
STOPS = pytest.StashKey[dict[str, Callable[[], None]]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a shared service stand together, so that it need not run beside the others' services."""
    items.sort(key=turn)


def turn(item: pytest.Item) -> int:
    if "service" not in item.keywords:
        return 0
    used = set(getattr(item, "fixturenames", ()))
    return next((number for number, name in enumerate(SHARED, start=1) if name in used), len(SHARED) + 1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stops a shared service after the last of its tests."""
    if nextitem is not None and turn(nextitem) > turn(item):
        for stop in item.config.stash.get(STOPS, {}).values():
            stop()


@contextmanager
def shared_service(
    config: pytest.Config, name: str, arguments: list[str], directory: Path, key: str = ""
) -> Iterator[Service]:
    with ExitStack() as stack:
        config.stash.setdefault(STOPS, {})[name] = stack.close
        yield stack.enter_context(contextmanager(running)(arguments, directory, key))


@pytest.fixture(scope="session")
def default_service(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """`presence serve` with its defaults and an empty models directory."""
    directory = tmp_path_factory.mktemp("default")
    arguments = ["--models-dir", str(directory)]
    with shared_service(pytestconfig, "default_service", arguments, directory) as started:
        yield started


@pytest.fixture(scope="session")
def service(
    shared: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Every face engine on real weights (SFace's are random), voices, speech, keys; one network allowed."""
    directory = tmp_path_factory.mktemp("service")
    models = directory / "models"
    models.mkdir()
    random_sface(models / "sface.onnx")
    random_emotions(models / "emotions")
    keys = directory / "keys"
    keys.write_text(f"# for tests\n{KEY}\n")
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(serve_config(service_arguments(shared, keys))))
    arguments = ["--config", str(config), "--models-dir", str(models)]
    with shared_service(pytestconfig, "service", arguments, directory, KEY) as started:
        yield started


def serve_config(arguments: dict[str, Any]) -> dict[str, Any]:
    """What `presence serve` reads, with these arguments of the application."""
    application = {
        "name": "presence",
        "route_prefix": "/",
        "import_path": "graphs.app:app",
        "args": arguments,
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [application],
    }


def service_arguments(shared: Path, keys: Path) -> dict[str, Any]:
    face = shared / "models" / "face"
    liveness = {
        "antispoof_v2_onnx": str(face / "minifasnet" / "MiniFASNetV2.onnx"),
        "antispoof_v1se_onnx": str(face / "minifasnet" / "MiniFASNetV1SE.onnx"),
    }
    mini = {
        "engine": "insightface",
        "model_pack": "mini",
        "root": str(face / "insightface"),
        "detector_onnx": "det_500m_bnkps.onnx",
        "recognizer_onnx": "w_mobilefacenet_128d.onnx",
        "genderage_onnx": "genderage.onnx",
        "verify_threshold": "0.6",
        "expression_onnx": str(face / "expression" / "fer2013_mini_XCEPTION.102-0.66.onnx"),
        **liveness,
    }
    opencv = {
        "engine": "onnx_direct",
        "detector_onnx": str(face / "yunet" / "face_detection_yunet_2023mar.onnx"),
        "recognizer_onnx": "sface.onnx",
    }
    models: list[dict[str, Any]] = [
        {"name": "dlib-resnet", "backend": "dlib-resnet", "license": "CC0-1.0",
         "deployment": {"recognizer": {"min_replicas": 2, "max_batch_size": 2}}},
        {"name": "mini", "backend": "insightface", "license": "research", "options": mini},
        {"name": "opencv", "backend": "insightface", "license": "apache-2.0", "options": opencv},
        {"name": "mini-fused", "backend": "insightface", "options": mini, "fused": True},
        {"name": "resemblyzer-ge2e", "backend": "resemblyzer-ge2e", "license": "Apache-2.0",
         "options": ["emotion_model:"], "deployment": {"encoder": {"max_batch_size": 4}}},
        {"name": "talker", "backend": "fake-voice",
         "options": ["emotion_model:emotions", "age_gender_model:absent/model"]},
        {"name": "espeak-ng", "backend": "espeak-ng", "license": "GPL-3.0-or-later"},
        {"name": "off", "backend": "llama-cpp", "disabled": True},
    ]  # fmt: skip
    return {
        "models": models,
        "gateway": {"api_keys_file": str(keys), "cors_origins": ["https://app.example"]},
        "media": {"allow_networks": ["127.0.0.2/32"], "max_seconds": 30},
        "store": {"directory": str(keys.parent / "store"), "replicas": {"min_replicas": 3}},
    }


def random_sface(path: Path) -> None:
    """A small random network with SFace's interface: 1x3x112x112 RGB 0..255 in, 128 numbers out."""
    rng = np.random.default_rng(7)
    weights = rng.standard_normal((3 * 14 * 14, 128)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["fc1"]),
        ],
        "sface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 128])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def random_emotions(path: Path) -> None:
    """A small random network in the layout of superb/wav2vec2-base-superb-er.

    Another process makes it, so that this one need not hold torch.
    """
    script = Path(__file__).with_name("random_emotions.py")
    subprocess.run([sys.executable, str(script), str(path)], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="session")
def serve_with(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., AbstractContextManager[Service]]:
    """Starts one more `presence serve` with these arguments of the application, and this directory of models.

    Without a directory no models are installed. more: as `running` takes it. Stops it at the end.
    """

    def started(
        arguments: dict[str, Any], models: Path | None = None, within_s: float = START_S, **more: Any
    ) -> AbstractContextManager[Service]:
        directory = tmp_path_factory.mktemp("own")
        path, models = directory / "config.yaml", models or directory / "models"
        models.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(serve_config(arguments)))
        options = ["--config", str(path), "--models-dir", str(models)]
        return contextmanager(running)(options, directory, within_s=within_s, **more)

    return started


REPLICA = re.compile(r"ray::ServeReplica:presence:(Gateway|store|[\w-]+\.[a-z]+)")


def process_title(process: psutil.Process) -> str:
    """What Ray calls the process; for the time of a health check it takes another name."""
    try:
        while (title := " ".join(process.cmdline())).rstrip().endswith(".check_health"):
            time.sleep(0.02)  # nothing announces its end
    except psutil.NoSuchProcess:
        return ""
    return title


@pytest.fixture(scope="session")
def replicas() -> Callable[[int], dict[int, str]]:
    """The deployment of each replica process, by process id, below the command with that process id."""

    def found(command: int) -> dict[int, str]:
        children = psutil.Process(command).children(recursive=True)
        titles = {child.pid: process_title(child) for child in children}
        return {pid: match[1] for pid, title in titles.items() if (match := REPLICA.match(title))}

    return found


@pytest.fixture(scope="session")
def picture() -> Callable[[Path], str]:
    """A file, of a picture or of sound, as base64."""
    return lambda path: base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
def slow_picture() -> Iterator[SlowPicture]:
    with serving_slowly() as picture:
        yield picture


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened
