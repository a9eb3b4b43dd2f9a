"""The bare engine loop: the work of each route on the same engines and pictures, without HTTP and Ray.

One process with one thread tells the least latency; as many processes as cores tell the highest
throughput. Nothing crosses a process border while they run.
"""

import itertools
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.errors import NoFace
from engines.face import Attributes
from engines.face.model import CropNames, FaceModel
from engines.image import decode
from engines.types import Demographics, Embeddings, EngineOptions, Face, Image, Runtime
from graphs.settings import ModelFile

ROUTES = ("verify", "embed", "analyze")
Pictures = tuple[bytes, ...]
"""What one request carries, encoded: two pictures for verify, one for the others."""

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


class BareEngine:
    """The parts of one model on one thread, and what each route asks of them."""

    def __init__(self, spec: EngineSpec) -> None:
        self._model = FaceModel(spec.engine, spec.options)
        given, engine = Runtime(threads=1), self._model.engine
        self._detector = engine.load_detector(given)
        self._recognizer = engine.load_recognizer(given)
        self._heads: dict[str, Attributes] = {}
        if engine.has_attributes:
            self._heads["genderage"] = engine.load_attributes(given)
        if self._model.expression.available:
            self._heads["expression"] = self._model.expression.load(given)

    def verify(self, pictures: Pictures) -> float:
        """Cosine distance of the largest faces of two pictures. Raises NoFace."""
        one, two = self._recognizer.embed([self._largest(picture) for picture in pictures])
        return float(np.clip(1 - np.dot(one, two), 0, 2))

    def embed(self, picture: bytes) -> Embeddings:
        """Embedding of the largest face, shape (1, dim). Raises NoFace."""
        return self._recognizer.embed([self._largest(picture)])

    def analyze(self, picture: bytes) -> list[list[Demographics]]:
        """What each head tells of every face."""
        image, faces = self._look(picture)
        crops = [self._crops(image, face, tuple(self._heads)) for face in faces]
        told = [head.analyze([one[name] for one in crops]) for name, head in self._heads.items()]
        return [[said[index] for said in told] for index in range(len(faces))]

    def request(self, route: str, pictures: Pictures) -> int:
        """The work of one request; how many faces it was about."""
        match route:
            case "verify":
                self.verify(pictures)
                return 2
            case "embed":
                return len(self.embed(pictures[0]))
            case "analyze":
                return len(self.analyze(pictures[0]))
        raise ValueError(f"no route {route!r}; known: {', '.join(ROUTES)}")

    def shows_face(self, picture: bytes) -> bool:
        """Whether the detector finds a face."""
        return bool(self._look(picture)[1])

    def _look(self, picture: bytes) -> tuple[Image, list[Face]]:
        image = decode(picture)
        return image, self._detector.detect(image)

    def _largest(self, picture: bytes) -> Image:
        image, faces = self._look(picture)
        if not faces:
            raise NoFace("no face detected in the picture")
        face = max(faces, key=lambda one: one.box.area)
        return self._crops(image, face, ("recognizer",))["recognizer"][0]

    def _crops(self, image: Image, face: Face, wanted: CropNames) -> dict[str, tuple[Image, ...]]:
        return self._model.crops(image, face, wanted)


@dataclass(frozen=True, slots=True)
class Task:
    """A loop over requests in turn: for `seconds`, at most `most` times, at least once."""

    route: str
    requests: tuple[Pictures, ...] = field(repr=False)
    seconds: float
    most: int


@dataclass(frozen=True, slots=True)
class Loop:
    """What one process did. took_ms: milliseconds of each request. cpu_s: its CPU time."""

    took_ms: tuple[float, ...] = field(repr=False)
    faces: int
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


def loop(bare: BareEngine, task: Task) -> Loop:
    """Runs the task here."""
    took, faces = [], 0
    began, began_cpu = time.perf_counter(), time.process_time()
    for pictures in itertools.islice(itertools.cycle(task.requests), task.most):
        start = time.perf_counter()
        faces += bare.request(task.route, pictures)
        end = time.perf_counter()
        took.append((end - start) * 1000)
        if end - began >= task.seconds:
            break
    return Loop(tuple(took), faces, time.perf_counter() - began, time.process_time() - began_cpu)


class BareProcesses:
    """Processes of one model, each with engines of its own; use as a context manager."""

    def __init__(self, spec: EngineSpec, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        os.environ.update(ONE_THREAD)  # libraries read it when the new process loads them
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(spec, theirs), daemon=True)
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

    def with_faces(self, pictures: Sequence[bytes]) -> list[bytes]:
        """The pictures in which the model finds a face. Every process looks: it is the warm-up too."""
        for pipe in self._pipes:
            pipe.send(pictures)
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


def _serve(spec: EngineSpec, pipe: Connection) -> None:
    cv2.setNumThreads(1)
    bare = BareEngine(spec)
    while (asked := pipe.recv()) is not None:
        pipe.send(loop(bare, asked) if isinstance(asked, Task) else _warm_up(bare, asked))


def _warm_up(bare: BareEngine, pictures: Sequence[bytes]) -> list[bytes]:
    found = [picture for picture in pictures if bare.shows_face(picture)]
    for route in ROUTES if found else ():
        bare.request(route, (found[0], found[0]))
    return found
