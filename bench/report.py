"""What was measured, for people (table, chart) and for programs (JSON)."""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Group
from rich.table import Table

RATIO_WANTED = 0.85
"""Least part of the bare loop's throughput, at RATIO_CONCURRENCY requests at a time."""
RATIO_CONCURRENCY = 16
ADDED_WANTED_MS = 6.0
"""Most milliseconds added to the bare median, at one request at a time."""

QUIET = 0.95
"""Part of its cores that the bare loop gets on a machine without other work."""

PACKAGES = (
    *("ray", "fastapi", "numpy", "opencv-python", "onnxruntime", "dlib-bin", "insightface"),
    *("torch", "av"),
)


def percentile(values: Sequence[float], part: float) -> float:
    """The least value that `part` (0..1) of the values do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Served:
    """The service at one concurrency. items_per_s: faces or clips.

    cpu_ms: CPU time a request of all its processes, the client left out. client_cpu: CPU time of the load
    generator, in cores. cores: that of both. cpu_by_process: milliseconds a request.
    """

    model: str
    route: str
    concurrency: int
    requests: int
    requests_per_s: float
    items_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_ms: float
    client_cpu: float
    cores: float
    cpu_by_process: dict[str, float]


@dataclass(frozen=True, slots=True)
class Bare:
    """The bare engine loop. median_ms: one request in one process; requests_per_s: in `processes` of them.

    cpu_ms: CPU time a request, in one process. cores: what all processes together got, at best one each.
    quiet: whether every loop got at least QUIET of its core, so that nothing else disturbed it.
    """

    model: str
    route: str
    processes: int
    requests: int
    median_ms: float
    requests_per_s: float
    items_per_s: float
    cpu_ms: float
    cores: float
    quiet: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """One route of one model against what is wanted.

    ratios: throughput over bare, by concurrency. cpu_ratio: CPU time of a bare request over that of one
    served at RATIO_CONCURRENCY, clients left out; other work on the machine hardly changes it.
    quiet: whether the bare loop was undisturbed; without that nothing is said to hold.
    """

    model: str
    route: str
    ratios: dict[int, float]
    added_ms: float | None
    cpu_ratio: float | None
    quiet: bool

    @property
    def throughput_holds(self) -> bool | None:
        """Whether the ratio is reached; None: not measured at that concurrency, or disturbed."""
        ratio = self.ratios.get(RATIO_CONCURRENCY)
        return None if ratio is None or not self.quiet else ratio >= RATIO_WANTED

    @property
    def latency_holds(self) -> bool | None:
        """Whether the median at one request at a time is near enough; None: not measured, or disturbed."""
        return None if self.added_ms is None or not self.quiet else self.added_ms <= ADDED_WANTED_MS


def verdicts(served: Sequence[Served], bare: Sequence[Bare]) -> list[Verdict]:
    """One for each bare row."""
    made = []
    for floor in bare:
        ours = [row for row in served if (row.model, row.route) == (floor.model, floor.route)]
        ratios = {row.concurrency: row.requests_per_s / floor.requests_per_s for row in ours}
        alone = [row.p50_ms - floor.median_ms for row in ours if row.concurrency == 1]
        cpu = [floor.cpu_ms / row.cpu_ms for row in ours if row.concurrency == RATIO_CONCURRENCY]
        added, cpu_ratio = (values[0] if values else None for values in (alone, cpu))
        made.append(Verdict(floor.model, floor.route, ratios, added, cpu_ratio, floor.quiet))
    return made


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. pictures: how many each model was asked about; method: how it was measured."""

    machine: dict[str, Any]
    method: dict[str, Any]
    served: tuple[Served, ...]
    bare: tuple[Bare, ...]

    def data(self) -> dict[str, Any]:
        """For JSON. Figures that do not exist (of no request) are null."""
        judged = [
            {**asdict(one), "throughput_holds": one.throughput_holds, "latency_holds": one.latency_holds}
            for one in verdicts(self.served, self.bare)
        ]
        wanted = {"ratio": RATIO_WANTED, "at": RATIO_CONCURRENCY, "added_ms": ADDED_WANTED_MS}
        return {
            "machine": self.machine,
            "method": self.method,
            "service": [asdict(row) for row in self.served],
            "bare": [asdict(row) for row in self.bare],
            "wanted": wanted,
            "verdicts": judged,
        }


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine. load_average: of the last minute."""
    cpus = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpus.read_text().splitlines() if cpus.is_file() else [])
        if line.startswith("model name")
    ]
    return {
        "cores": cores(),
        "cpu": names[0] if names else platform.processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def write(report: Report, directory: Path) -> None:
    """bench.json and bench.png."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(report.data()), indent=2, allow_nan=False)
    (directory / "bench.json").write_text(text + "\n")
    chart(report, directory / "bench.png")


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(report: Report) -> Group:
    """The report for a terminal."""
    return Group(_served_table(report), _verdict_table(report))


def _served_table(report: Report) -> Table:
    made = Table(title="Service and bare engine loop", caption=_caption(report))
    for name in ("model", "route", "at a time"):
        made.add_column(name, no_wrap=True)
    for name in (
        "requests",
        "req/s",
        "items/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "CPU ms/req",
        "cores",
        "client",
        "errors",
    ):
        made.add_column(name, justify="right")
    for floor in report.bare:
        made.add_row(
            floor.model,
            floor.route,
            f"bare, {floor.processes} processes",
            str(floor.requests),
            f"{floor.requests_per_s:.1f}",
            f"{floor.items_per_s:.1f}",
            f"{floor.median_ms:.1f}",
            "",
            "",
            f"{floor.cpu_ms:.1f}",
            f"{floor.cores:.2f}",
            "",
            "",
        )
        for row in report.served:
            if (row.model, row.route) == (floor.model, floor.route):
                _add_served(made, row)
        made.add_section()
    return made


def _add_served(made: Table, row: Served) -> None:
    made.add_row(
        "",
        "",
        str(row.concurrency),
        str(row.requests),
        f"{row.requests_per_s:.1f}",
        f"{row.items_per_s:.1f}",
        f"{row.p50_ms:.1f}",
        f"{row.p95_ms:.1f}",
        f"{row.p99_ms:.1f}",
        f"{row.cpu_ms:.1f}",
        f"{row.cores:.2f}",
        f"{row.client_cpu:.3f}",
        " ".join(f"{status}: {count}" for status, count in row.errors.items()) or "0",
    )


def _caption(report: Report) -> str:
    facts, disturbed = report.machine, sum(not floor.quiet for floor in report.bare)
    busy = f"[red]The machine was busy: {disturbed} of {len(report.bare)} bare loops were disturbed.[/red] "
    return (
        f"{busy if disturbed else ''}{facts['cores']} cores of {facts['cpu']}, "
        f"load average {facts['load_average']} before the run. "
        "bare: median of one request in one process, throughput of all processes. CPU ms: of one request. "
        "items: faces or clips. cores: CPU time over time, service and client. "
        "client: the load generator's part of it."
    )


def _verdict_table(report: Report) -> Table:
    made = Table(title="Against what is wanted")
    for name in ("model", "route"):
        made.add_column(name, no_wrap=True)
    judged = verdicts(report.served, report.bare)
    concurrencies = sorted({number for one in judged for number in one.ratios})
    for number in concurrencies:
        made.add_column(f"x bare at {number}", justify="right")
    made.add_column(f">= {RATIO_WANTED} at {RATIO_CONCURRENCY}")
    made.add_column(f"x CPU at {RATIO_CONCURRENCY}", justify="right")
    made.add_column("added ms at 1", justify="right")
    made.add_column(f"<= {ADDED_WANTED_MS:g} ms")
    for one in judged:
        made.add_row(
            one.model,
            one.route,
            *(f"{one.ratios[number]:.2f}" if number in one.ratios else "" for number in concurrencies),
            _word(one.throughput_holds),
            "" if one.cpu_ratio is None else f"{one.cpu_ratio:.2f}",
            "" if one.added_ms is None else f"{one.added_ms:+.1f}",
            _word(one.latency_holds),
        )
    return made


def _word(holds: bool | None) -> str:
    return {None: "not told", True: "[green]holds[/green]", False: "[red]does not hold[/red]"}[holds]


def chart(report: Report, path: Path) -> None:
    """Throughput and latency by concurrency, a row a model and route, the bare floor as a line."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(
        len(report.bare), 2, figsize=(10, 2.6 * len(report.bare)), squeeze=False, layout="constrained"
    )
    for (rate, latency), floor in zip(axes, report.bare, strict=True):
        rows = [row for row in report.served if (row.model, row.route) == (floor.model, floor.route)]
        at = [row.concurrency for row in rows]
        rate.plot(at, [row.requests_per_s for row in rows], marker="o", label="service")
        rate.axhline(floor.requests_per_s, linestyle="--", color="grey", label="bare loop, all cores")
        rate.set(title=f"{floor.model} {floor.route}", ylabel="requests/s", ylim=(0, None))
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            latency.plot(at, [getattr(row, name) for row in rows], marker="o", label=name.removesuffix("_ms"))
        latency.axhline(floor.median_ms, linestyle="--", color="grey", label="bare median, one process")
        latency.set(title=f"{floor.model} {floor.route}", ylabel="ms", ylim=(0, None))
        for axis in (rate, latency):
            axis.set_xlabel("requests at a time")
            axis.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def figures(title: str, rows: Sequence[Any]) -> Table:
    """Rows of one dataclass, for people: a column a field."""
    shown = Table(title=title)
    values = [asdict(row) for row in rows]
    for name in values[0]:
        shown.add_column(name.replace("_", " "), justify="right")
    for row in values:
        shown.add_row(*(_text(value) for value in row.values()))
    return shown


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.2f}"
