"""Identify over HTTP beside embed alone, which is all of it but the search: `python -m bench.identify`.

The service runs on the profile's face model; its store holds people made as those of `bench.index`. Embed and
identify take turns, with the same pictures from the same number of clients.
"""

import argparse
import base64
import json
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench import face, load
from bench.index import samples
from bench.report import cores, machine, percentile
from bench.service import SHARED, model_entries, running
from engines.store import NewRecord, Space
from engines.store.journal import SqlJournal

CLIENTS = (1, 16)
ROUTES = ("embed", "identify")
PICTURES = 16
MOST = 5_000
"""Requests of one measurement at most."""
APPENDED = 1000
"""Records of one transaction while the store is filled."""
STORE = "bench"


def dimension(port: int, request: dict[str, str]) -> int:
    """Numbers of an embedding of the model."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/face/embed",
        json.dumps(request).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 - as above
        return int(json.load(answer)["dim"])


def fill(directory: Path, model: str, records: int, dim: int) -> None:
    """People for the store of a running service."""
    rows = samples(records, dim, max(records // 10, 1), 1)
    people = [
        NewRecord(f"{number:032x}", Space(f"face/{STORE}", model), row, f"person {number}", created_at=1.0)
        for number, row in enumerate(rows)
    ]
    with closing(SqlJournal(f"sqlite:///{directory / 'store' / 'presence.db'}")) as journal:
        for start in range(0, records, APPENDED):
            journal.append(people[start : start + APPENDED])


def measured(
    port: int, bodies: Sequence[dict[str, str]], seconds: float, rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of every answer by route and number of clients. Raises RuntimeError for any but 200."""
    wire = {route: tuple(load.encode(f"/v1/face/{route}", body) for body in bodies) for route in ROUTES}
    took: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for turn in range(-1, rounds):  # the first one warms up
        for clients in CLIENTS:
            for route in ROUTES:
                found = load.run(load.Job(port, wire[route], clients, seconds / rounds, MOST))
                if found.errors:
                    raise RuntimeError(f"{route}: {found.errors}")
                if turn >= 0:
                    took[route, clients] += found.took_ms
    return took


def table(took: dict[tuple[str, int], list[float]]) -> Table:
    """For people."""
    shown = Table()
    for name in ("clients", "embed p50 ms", "p95", "identify p50 ms", "p95", "added to p50", "requests"):
        shown.add_column(name, justify="right")
    for clients in CLIENTS:
        embed, identify = (took[route, clients] for route in ROUTES)
        figures = (median(embed), percentile(embed, 0.95), median(identify), percentile(identify, 0.95))
        added = f"{figures[2] - figures[0]:+.1f}"
        many = f"{len(embed)}, {len(identify)}"
        shown.add_row(str(clients), *(f"{one:.1f}" for one in figures), added, many)
    return shown


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.identify", description=__doc__)
    entries = model_entries()
    parser.add_argument("--model", default="dlib-resnet", choices=list(entries))
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10, help="for one route at one number of clients")
    parser.add_argument("--rounds", type=int, default=4, help="parts into which they are split")
    given = parser.parse_args()
    pictures = [base64.b64encode(one).decode() for one in face.photographs(SHARED)[:PICTURES]]
    bodies = [{"model": given.model, "img": picture, "store": STORE} for picture in pictures]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        directory = Path(folder)
        with running([entries[given.model]], directory) as service:
            asked = [{"model": one["model"], "img": one["img"]} for one in bodies]
            fill(directory, given.model, given.records, dimension(service.port, asked[0]))
            took = measured(service.port, bodies, given.seconds, given.rounds)
    Console(width=120).print(table(took))
    print(f"load average of the machine: {machine()['load_average']} on {cores()} cores")


if __name__ == "__main__":
    main()
