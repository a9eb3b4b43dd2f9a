"""Sessions: threads, providers, broken files, batches."""

from ctypes.util import find_library
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx as onnx_format
import onnxruntime as ort
import pytest

from engines import onnx
from engines.errors import ConfigurationError
from engines.types import Runtime

CUDA_HERE = "CUDAExecutionProvider" in ort.get_available_providers()
GPU_HERE = CUDA_HERE and find_library("cuda") is not None


def doubling(path: Path, batch: int | str) -> Path:
    """A network that doubles rows of 3 numbers."""
    helper, kind = onnx_format.helper, onnx_format.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["rows", "rows"], ["doubled"])],
        "doubling",
        [helper.make_tensor_value_info("rows", kind, [batch, 3])],
        [helper.make_tensor_value_info("doubled", kind, [batch, 3])],
    )
    opset = helper.make_opsetid("", 17)
    onnx_format.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_uses_the_threads_it_was_given(tmp_path: Path, threads: int) -> None:
    made = onnx.session(doubling(tmp_path / "net.onnx", "n"), Runtime(threads=threads))
    assert made.get_session_options().intra_op_num_threads == threads
    assert made.get_session_options().inter_op_num_threads == 1
    assert made.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.skipif(CUDA_HERE, reason="this onnxruntime has CUDA")
def test_a_gpu_that_cannot_be_used_is_no_silent_fall_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        onnx.session(doubling(tmp_path / "net.onnx", "n"), Runtime(cuda=True))


class Cuda:
    """An ONNX Runtime that has CUDA, and a session that says which providers it came up with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, come_up: list[str]) -> None:
        self.preloaded = False
        self.asked: list[object] = []
        self._come_up = come_up
        monkeypatch.setattr(ort, "get_available_providers", lambda: [onnx.CUDA, onnx.CPU])
        monkeypatch.setattr(ort, "preload_dlls", self._preload)
        monkeypatch.setattr(ort, "InferenceSession", self._session)

    def _preload(self) -> None:
        self.preloaded = True

    def _session(self, path: str, options: object, *, providers: list[object]) -> "Cuda":  # noqa: ARG002 - ORT's own
        assert self.preloaded
        self.asked = providers
        return self

    def get_providers(self) -> list[str]:
        return self._come_up


def test_a_replica_with_a_gpu_asks_for_cuda_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, [onnx.CUDA, onnx.CPU])
    assert onnx.session(tmp_path / "net.onnx", Runtime(cuda=True)) is cuda
    assert cuda.asked == [(onnx.CUDA, onnx.CUDA_OPTIONS), onnx.CPU]


def test_a_replica_without_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [onnx.CUDA, onnx.CPU])
    made = onnx.session(doubling(tmp_path / "net.onnx", "n"), Runtime(cuda=False))
    assert made.get_providers() == [onnx.CPU]


def test_cuda_that_does_not_come_up_is_no_silent_fall_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cuda(monkeypatch, [onnx.CPU])
    with pytest.raises(RuntimeError, match="CUDA could not be started"):
        onnx.session(tmp_path / "net.onnx", Runtime(cuda=True))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU_HERE, reason="this onnxruntime has no CUDA, or this machine no GPU")
def test_a_session_on_the_gpu_answers_the_same(tmp_path: Path) -> None:
    made = onnx.session(doubling(tmp_path / "net.onnx", "n"), Runtime(cuda=True))
    assert made.get_providers()[0] == "CUDAExecutionProvider"
    assert onnx.run(made, np.ones((2, 3), np.float32)) == pytest.approx(2 * np.ones((2, 3)))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None], ids=["empty", "html", "missing"])
def test_a_file_that_is_no_network_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"weights\.onnx.*install"):
        onnx.session(path, Runtime())


def test_a_truncated_network_is_named(tmp_path: Path) -> None:
    path = doubling(tmp_path / "weights.onnx", "n")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigurationError, match=r"weights\.onnx"):
        onnx.session(path, Runtime())


@pytest.mark.parametrize("batch", ["n", 1], ids=["free batch", "batch of 1"])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_batch_goes_through_either_kind_of_graph(tmp_path: Path, batch: int | str, rows: int) -> None:
    made = onnx.session(doubling(tmp_path / "net.onnx", batch), Runtime())
    numbers = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    counted = Mock(wraps=made)
    assert np.array_equal(onnx.run(counted, numbers), 2 * numbers)
    assert counted.run.call_count == (rows if batch == 1 else 1)
