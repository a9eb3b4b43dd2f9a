"""The service beside the bare engine loop on the same cores: `python -m bench`, `make bench`."""

import argparse
import base64
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console

from bench import face, load, report, voice
from bench.engine import Bare, BareProcesses, EngineSpec, Inputs, Loop, Task
from bench.service import SHARED, Service, model_entries, running
from engines.registry import capability

CONCURRENCIES = (1, 8, 16, 32)
SAMPLES = 16
MOST = 5_000
"""Requests of one measurement at most."""
SETTLE_S = 0.5
"""Load after a pause that is not measured: Ray catches up with its timers."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What models of one capability are asked, and with which samples.

    fields: of each route, those that carry samples.
    """

    noun: str
    fields: Mapping[str, tuple[str, ...]]
    samples: Callable[[Path], list[bytes]]
    bare: Callable[[EngineSpec], Bare]

    def encoded(self, model: str, route: str, requests: Sequence[Inputs]) -> tuple[bytes, ...]:
        """Requests of a route as they go over the wire."""
        path, names = f"/v1/{self.noun}/{route}", self.fields[route]
        return tuple(
            load.encode(
                path,
                {"model": model}
                | {name: base64.b64encode(one).decode() for name, one in zip(names, inputs, strict=True)},
            )
            for inputs in requests
        )


KINDS = {
    "face": Kind("face", face.FIELDS, face.photographs, face.BareFace),
    "voice": Kind("voice", voice.FIELDS, voice.recordings, voice.BareVoice),
}


def carried(route: str, samples: Sequence[bytes]) -> tuple[Inputs, ...]:
    """What each request of a route carries: every sample, for verify with its neighbour."""
    if route == "verify":
        return tuple((one, samples[index - 1]) for index, one in enumerate(samples))
    return tuple((one,) for one in samples)


@dataclass(slots=True)
class Point:
    """What the rounds of one model and route left: loads by concurrency, their CPU, and bare loops."""

    model: str
    route: str
    loads: dict[int, list[load.Load]] = field(default_factory=dict)
    cpu: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    alone: list[Loop] = field(default_factory=list)
    together: list[list[Loop]] = field(default_factory=list)

    def bare(self) -> report.Bare:
        """The floor over all rounds."""
        took = [one for each in self.alone for one in each.took_ms]
        loops = [one for each in self.together for one in each]
        rate = sum(one.rate for one in loops) / len(self.together)
        return report.Bare(
            model=self.model,
            route=self.route,
            processes=len(self.together[0]),
            requests=len(took) + sum(len(one.took_ms) for one in loops),
            median_ms=median(took),
            requests_per_s=rate,
            items_per_s=rate * self._items(),
            cpu_ms=sum(each.cpu_s for each in self.alone) / len(took) * 1000,
            cores=sum(one.cores for one in loops) / len(self.together),
            quiet=min(one.cores for one in (*loops, *self.alone)) >= report.QUIET,
        )

    def served(self) -> list[report.Served]:
        """A row a concurrency, over all rounds."""
        return [self._served(number) for number in self.loads]

    def _served(self, concurrency: int) -> report.Served:
        loads = self.loads[concurrency]
        took = [one for each in loads for one in each.took_ms]
        elapsed = sum(each.elapsed_s for each in loads)
        errors: Counter[str] = Counter()
        for each in loads:
            errors.update(each.errors)
        answered = max(len(took) + errors.total(), 1)
        cpu, client = _summed(self.cpu[concurrency]), sum(each.cpu_s for each in loads)
        return report.Served(
            model=self.model,
            route=self.route,
            concurrency=concurrency,
            requests=len(took),
            requests_per_s=len(took) / elapsed,
            items_per_s=len(took) / elapsed * self._items(),
            p50_ms=median(took) if took else report.percentile(took, 0.5),
            p95_ms=report.percentile(took, 0.95),
            p99_ms=report.percentile(took, 0.99),
            errors=dict(errors),
            cpu_ms=sum(cpu.values()) / answered * 1000,
            client_cpu=client / elapsed,
            cores=(client + sum(cpu.values())) / elapsed,
            cpu_by_process={name: spent / answered * 1000 for name, spent in cpu.items()},
        )

    def _items(self) -> float:
        """Faces or clips a request, from the bare loops, which go through the same requests."""
        loops = [*self.alone, *(one for each in self.together for one in each)]
        return sum(one.items for one in loops) / sum(len(one.took_ms) for one in loops)


def _summed(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """CPU seconds of every kind of process that used any, the most first."""
    names = {name for one in rounds for name in one}
    total = {name: sum(one.get(name, 0.0) for one in rounds) for name in names}
    return {name: spent for name, spent in sorted(total.items(), key=lambda item: -item[1]) if spent > 0}


class Bench:
    """A running service, the bare processes of one model, and the load generator's process."""

    def __init__(self, service: Service, bare: BareProcesses, client: ProcessPoolExecutor) -> None:
        self._service = service
        self._bare = bare
        self._client = client

    def measure(
        self, point: Point, kind: Kind, samples: Sequence[bytes], seconds: float, rounds: int
    ) -> None:
        """Rounds in which the bare loop and the service take turns, each measurement of that length."""
        requests = carried(point.route, samples)
        wire = kind.encoded(point.model, point.route, requests)
        self._load(wire, 8, seconds / 2)  # a service that has just started answers its first slowly
        task = Task(point.route, requests, seconds / rounds, MOST)
        for _ in range(rounds):
            with self._service.paused():
                point.alone.append(self._bare.one(task))
            self._load(wire, 8, SETTLE_S)
            for number in CONCURRENCIES:
                before = self._service.cpu()
                point.loads.setdefault(number, []).append(self._load(wire, number, seconds / rounds))
                point.cpu.setdefault(number, []).append(self._service.spent(before))
            with self._service.paused():
                point.together.append(self._bare.all(task))

    def _load(self, wire: tuple[bytes, ...], concurrency: int, seconds: float) -> load.Load:
        job = load.Job(self._service.port, wire, concurrency, seconds, MOST)
        return self._client.submit(load.run, job).result()


def run(models: Sequence[str], seconds: float, rounds: int, console: Console) -> report.Report:
    """The whole measurement. Each model is served alone, as it has the cores alone in the bare loop."""
    facts = report.machine()
    entries = model_entries()
    points: list[Point] = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as client:
        for model in models:
            spec = EngineSpec.of(entries[model])
            kind = KINDS[capability(spec.engine)]
            with ExitStack() as stack:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
                console.print(f"starting the service with {model} ...")
                service = stack.enter_context(running([entries[model]], directory))
                bare = stack.enter_context(BareProcesses(partial(kind.bare, spec), report.cores()))
                samples = bare.usable(kind.samples(SHARED))[:SAMPLES]
                bench = Bench(service, bare, client)
                for route in kind.fields:
                    console.print(f"  {route}, {len(samples)} samples")
                    points.append(Point(model, route))
                    bench.measure(points[-1], kind, samples, seconds, rounds)
    method = {
        "seconds": seconds,
        "rounds": rounds,
        "most_requests": MOST,
        "turns": "service and bare loop in turn; the service is paused (SIGSTOP) while the bare loop runs",
        "client": "closed loop, keep-alive, one process on the same cores",
    }
    rows = tuple(row for point in points for row in point.served())
    return report.Report(facts, method, rows, tuple(point.bare() for point in points))


def main() -> None:
    """Measures, prints, and writes bench.json and bench.png."""
    at_hand = list(model_entries())
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--models", default=",".join(at_hand), help=f"of {', '.join(at_hand)}; default: all")
    parser.add_argument("--seconds", type=float, default=10, help="for one route at one concurrency; 10")
    parser.add_argument("--rounds", type=int, default=2, help="parts into which they are split; 2")
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="directory of the report")
    given = parser.parse_args()
    models = given.models.split(",")
    if unknown := [name for name in models if name not in at_hand]:
        parser.error(f"no model {unknown[0]!r} at hand; choose from {', '.join(at_hand)}")
    console = Console(width=150)
    made = run(models, given.seconds, given.rounds, console)
    report.write(made, given.out)
    console.print(report.tables(made))
    console.print(f"written: {given.out / 'bench.json'}, {given.out / 'bench.png'}")


if __name__ == "__main__":
    main()
