"""Where torch computes."""

import torch

from engines.types import Runtime


def device(runtime: Runtime) -> torch.device:
    """The GPU where the replica has one, else the CPU with `runtime.threads` threads, in all of the process.

    Raises RuntimeError where a GPU was given and torch finds none: a silent fall back would waste it.
    """
    torch.set_num_threads(runtime.threads)
    if not runtime.cuda:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("a GPU was given, but torch finds none: check the driver and torch's CUDA build")
    return torch.device("cuda")
