"""ONNX Runtime sessions that keep to what the replica was given."""

from pathlib import Path

import onnxruntime as ort

from engines.types import Runtime


def session(path: Path, runtime: Runtime) -> ort.InferenceSession:
    """A session on the GPU where the replica has one, else on `runtime.threads` CPU threads.

    Source: https://onnxruntime.ai/docs/execution-providers/
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=providers(runtime))


def providers(runtime: Runtime) -> list[str]:
    """Execution providers in order of preference.

    Raises RuntimeError where a GPU was given and this ONNX Runtime has no CUDA provider: a silent
    fall back to the CPU would waste the GPU.
    """
    if not runtime.cuda:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("a GPU was given, but this onnxruntime has no CUDA: install onnxruntime-gpu")
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
