"""ONNX Runtime sessions that keep to what the replica was given."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
)

from engines.errors import ConfigurationError
from engines.types import Runtime

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# cuDNN's default times every algorithm anew for each input shape. Batches and pictures come in many.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}


def session(path: Path, runtime: Runtime) -> ort.InferenceSession:
    """A session on the GPU where the replica has one, else on `runtime.threads` CPU threads.

    Raises ConfigurationError for a file that is no readable network, and RuntimeError where a GPU
    was given and is not used: a silent fall back to the CPU would waste it.
    Source: https://onnxruntime.ai/docs/execution-providers/
    """
    chosen = providers(runtime)
    if runtime.cuda:
        ort.preload_dlls()  # of the nvidia packages; the loader does not look there by itself
    options = ort.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        made = ort.InferenceSession(str(path), options, providers=chosen)
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
        raise ConfigurationError(
            f"{path} is not a readable ONNX file; install the model again ({error})"
        ) from error
    if runtime.cuda and CUDA not in made.get_providers():
        raise RuntimeError("a GPU was given, but CUDA could not be started: check CUDA and cuDNN libraries")
    return made


def providers(runtime: Runtime) -> list[str | tuple[str, dict[str, str]]]:
    """Execution providers in order of preference.

    Raises RuntimeError where a GPU was given and this ONNX Runtime has no CUDA provider.
    """
    if not runtime.cuda:
        return [CPU]
    if CUDA not in ort.get_available_providers():
        raise RuntimeError("a GPU was given, but this onnxruntime has no CUDA: install onnxruntime-gpu")
    return [(CUDA, CUDA_OPTIONS), CPU]


def run(net: ort.InferenceSession, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of a network with one input.

    batch: shape (n, ...), n at least 1. One run for all of it; one a row where the graph was
    exported with a fixed batch of 1. Returns shape (n, ...).
    """
    entry, outputs = net.get_inputs()[0], [net.get_outputs()[0].name]
    parts: list[NDArray[np.float32]] = [batch]
    if entry.shape[0] == 1:
        parts = [batch[i : i + 1] for i in range(len(batch))]
    answers: list[NDArray[np.float32]] = [net.run(outputs, {entry.name: part})[0] for part in parts]
    return np.concatenate(answers)
