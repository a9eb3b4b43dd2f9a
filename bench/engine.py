"""The bare engine loop: the work of each route on the same engines and samples, without HTTP and Ray.

One process with one thread tells the least latency; as many processes as cores tell the highest
throughput. Nothing crosses a process border while they run.
"""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Protocol

from engines.types import EngineOptions
from graphs.settings import ModelFile

Inputs = tuple[bytes, ...]
"""What one request carries, encoded: two pictures or clips for verify, one for the others."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The engine that the service would load for an entry of a model file."""

    engine: str
    options: EngineOptions

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "EngineSpec":
        """From the entry, by the rules of the service."""
        model = ModelFile.model_validate(entry)
        ours = {key: value for key, value in model.options.items() if key not in ("engine", "face_selection")}
        return cls(model.engine, EngineOptions(model.parameters.model, ours, Path()))


class Bare(Protocol):
    """The parts of one model on one thread, and what each route asks of them."""

    routes: ClassVar[tuple[str, ...]]

    def request(self, route: str, inputs: Inputs) -> int:
        """The work of one request; how many faces or clips it was about."""
        ...

    def is_usable(self, sample: bytes) -> bool:
        """Whether every route can answer for a sample."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A loop over requests in turn: for `seconds`, at most `most` times, at least once."""

    route: str
    requests: tuple[Inputs, ...] = field(repr=False)
    seconds: float
    most: int


@dataclass(frozen=True, slots=True)
class Loop:
    """What one process did. took_ms: milliseconds of each request. items: faces or clips. cpu_s: CPU time."""

    took_ms: tuple[float, ...] = field(repr=False)
    items: int
    elapsed_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.took_ms) / self.elapsed_s

    @property
    def cores(self) -> float:
        """CPU time over time: 1 where nothing else wanted the core."""
        return self.cpu_s / self.elapsed_s


def loop(bare: Bare, task: Task) -> Loop:
    """Runs the task here."""
    took, items = [], 0
    began, began_cpu = time.perf_counter(), time.process_time()
    for inputs in itertools.islice(itertools.cycle(task.requests), task.most):
        start = time.perf_counter()
        items += bare.request(task.route, inputs)
        end = time.perf_counter()
        took.append((end - start) * 1000)
        if end - began >= task.seconds:
            break
    return Loop(tuple(took), items, time.perf_counter() - began, time.process_time() - began_cpu)


class BareProcesses:
    """Processes of one model, each with engines of its own; use as a context manager.

    make: makes the engines, in the new process.
    """

    def __init__(self, make: Callable[[], Bare], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        os.environ.update(ONE_THREAD)  # libraries read it when the new process loads them
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "BareProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()

    def usable(self, samples: Sequence[bytes]) -> list[bytes]:
        """The samples that the model can use. Every process looks at all: it is the warm-up too."""
        for pipe in self._pipes:
            pipe.send(samples)
        answers: list[list[bytes]] = [pipe.recv() for pipe in self._pipes]
        return answers[0]

    def one(self, task: Task) -> Loop:
        """The task in one process. Raises EOFError when it died."""
        self._pipes[0].send(task)
        return _loop_of(self._pipes[0])

    def all(self, task: Task) -> list[Loop]:
        """The task in every process at the same time. Raises EOFError when one died."""
        for pipe in self._pipes:
            pipe.send(task)
        return [_loop_of(pipe) for pipe in self._pipes]


def _loop_of(pipe: Connection) -> Loop:
    answer: Loop = pipe.recv()
    return answer


def _serve(make: Callable[[], Bare], pipe: Connection) -> None:
    bare = make()
    while (asked := pipe.recv()) is not None:
        pipe.send(loop(bare, asked) if isinstance(asked, Task) else _warm_up(bare, asked))


def _warm_up(bare: Bare, samples: Sequence[bytes]) -> list[bytes]:
    found = [sample for sample in samples if bare.is_usable(sample)]
    for route in bare.routes if found else ():
        bare.request(route, (found[0], found[0]))
    return found
