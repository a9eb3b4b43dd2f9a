"""`presence calibrate`: which threshold fits a model, on your own pictures or recordings."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.errors import ConfigurationError
from engines.verification import Pairs
from graphs import calibration, samples
from graphs.calibration import Calibration, Point
from graphs.models import DEFAULT_MODELS_DIR
from graphs.samples import Embed, Kind, Sample, Skipped
from graphs.serve_config import application_args, read_config
from graphs.settings import Media, all_models

console = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with the message of an error, without a traceback."""
    try:
        yield
    except ConfigurationError as error:
        console.print("[red]error[/red]", end=" ")
        console.print(error.message, markup=False)
        raise typer.Exit(1) from None


def calibrate(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="one folder for each person, with their files")
    ],
    *,
    kind: Annotated[Kind, typer.Option(help="what the files show")],
    model: Annotated[str | None, typer.Option(help="its name; default: the first of its kind")] = None,
    out: Annotated[
        Path | None, typer.Option(help="write calibration.json, histogram.png and roc.png here")
    ] = None,
    far: Annotated[
        float, typer.Option(min=0, max=1, help="part of strangers that the suggestion may accept at most")
    ] = 0.01,
    config: Annotated[Path, typer.Option(help="Serve config file")] = Path("config/local.yaml"),
    models_dir: Annotated[
        Path | None,
        typer.Option(envvar="PRESENCE_MODELS_DIR", help="model files and weights; default: the config's"),
    ] = None,
) -> None:
    """Measure how well a model tells people apart, and suggest its verify_threshold."""
    with _told():
        _require_matplotlib(out)
        named = models_dir if _typed(context, "models_dir") else None
        args = application_args(read_config(config), named, config)
        place = args.models_dir or models_dir or DEFAULT_MODELS_DIR  # as graphs/app.py finds it
        chosen = samples.chosen(all_models(args, place), kind, model)
        files = samples.samples(directory)
        embed, present = samples.opened(chosen, kind, place, args.media)
        people, rows, skipped = _embedded(files, embed, args.media)
        distances = calibration.pairs(people, np.stack(rows) if rows else np.empty((0, 1), np.float32))
        told = calibration.calibrated(
            chosen,
            kind=kind,
            people=people,
            skipped=skipped,
            distances=distances,
            present=present,
            far=far,
        )
        for line in report(told):
            typer.echo(line)
        if out is not None:
            _write(told, distances, out)


def _typed(context: typer.Context, option: str) -> bool:
    """Whether an option was given with the command, not by the environment."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _require_matplotlib(out: Path | None) -> None:
    if out is not None and find_spec("matplotlib") is None:
        raise ConfigurationError("--out draws with matplotlib: install presence[calibrate]")


def _embedded(
    files: Sequence[Sample], embed: Embed, media: Media
) -> tuple[list[str], list[np.ndarray], list[Skipped]]:
    """Whose file each row is, the rows, and what was skipped."""
    people: list[str] = []
    rows: list[np.ndarray] = []
    skipped: list[Skipped] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("embedding", total=len(files))
        for sample, told in samples.embedded(files, embed, media):
            if isinstance(told, Skipped):
                skipped.append(told)
                bar.console.print(f"skipped {told.file}: {told.reason}", markup=False)
            else:
                people.append(sample.person)
                rows.append(told)
            bar.advance(task)
    return people, rows, skipped


def report(told: Calibration) -> Iterator[str]:
    """The report for people, line by line."""
    yield f"{told.model}: {told.files} files of {told.people} people, {len(told.skipped)} skipped"
    yield ""
    names = {0: "least", 50: "median", 100: "most"}
    heads = [names.get(percent, f"{percent} %") for percent in calibration.PERCENTILES]
    yield f"{'distances':<12}{'pairs':>9}" + "".join(f"{head:>9}" for head in heads)
    for name, one in (("one person", told.same), ("two people", told.different)):
        yield f"{name:<12}{one.pairs:>9}" + "".join(f"{value:>9.3f}" for value in one.percentiles.values())
    yield ""
    yield f"EER {told.equal_error_rate:.2%} at distance {told.equal_error_threshold:.3f}"
    for rate, point in told.at_far.items():
        yield f"TAR {point.tar:.2%} at FAR {rate:.1%}, distance {point.threshold:.3f}"
    yield f"now: {_line(told.present)}"
    for warning in told.warnings:
        yield f"warning: {warning}"
    yield ""
    yield f"suggested: {_line(told.suggested)}; in the model file:"
    yield "options:"
    yield f'  - "verify_threshold:{told.suggested.threshold:g}"'


def _line(point: Point) -> str:
    return (
        f"verify_threshold {point.threshold:g} accepts {point.tar:.2%} of one person, {point.far:.2%} of two"
    )


def _write(told: Calibration, distances: Pairs, out: Path) -> None:
    from graphs.calibration_plots import characteristic, histogram  # noqa: PLC0415 - matplotlib is an extra

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "calibration.json").write_text(json.dumps(asdict(told), indent=2) + "\n", encoding="utf-8")
        histogram(told, distances, out / "histogram.png")
        characteristic(told, distances, out / "roc.png")
    except OSError as error:
        raise ConfigurationError(f"{error.filename or out}: {error.strerror or error}") from None
    typer.echo(f"\nwritten: {out}/calibration.json, histogram.png, roc.png")
