"""`presence models`: list, install and remove models."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from engines.errors import ConfigurationError
from graphs import gallery, models
from graphs.download import Reporter
from graphs.gallery import GALLERY, Entry
from graphs.models import DEFAULT_MODELS_DIR
from graphs.settings import ModelFile

app = typer.Typer(no_args_is_help=True, help="List, install and remove models.")
console = Console(stderr=True, highlight=False, soft_wrap=True)

Name = Annotated[str, typer.Argument(help="name of the model, as `presence models available` lists it")]
ModelsDir = Annotated[
    Path, typer.Option("--models-dir", envvar="PRESENCE_MODELS_DIR", help="model files and weights")
]
GalleryPath = Annotated[Path, typer.Option("--gallery", help="a gallery of your own")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with the message of an error, without a traceback."""
    try:
        yield
    except ConfigurationError as error:
        console.print("[red]error[/red]", end=" ")
        console.print(error.message, markup=False)
        raise typer.Exit(1) from None


@app.command("list")
def list_(models_dir: ModelsDir = DEFAULT_MODELS_DIR, as_json: AsJson = False) -> None:
    """List the models that are installed."""
    with _told():
        rows = [_described(path, model) for path, model in models.installed(models_dir).items()]
    _print_rows(rows, ("name", "backend", "license"), as_json, f"no model is installed in {models_dir}")


@app.command()
def available(
    models_dir: ModelsDir = DEFAULT_MODELS_DIR, gallery_path: GalleryPath = GALLERY, as_json: AsJson = False
) -> None:
    """List the models that can be installed."""
    with _told():
        present = {model.name for model in models.installed(models_dir).values()}
        rows = [
            {"name": entry.name, "installed": entry.name in present}
            | entry.model_dump(mode="json", include={"license", "commercial", "size", "description"})
            for entry in gallery.load(gallery_path).values()
        ]
    _print_rows(rows, ("name", "installed", "commercial", "license", "size"), as_json, "the gallery is empty")


@app.command()
def show(
    name: Name,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    gallery_path: GalleryPath = GALLERY,
    as_json: AsJson = False,
) -> None:
    """Show what a model is: its entry in the gallery, or the model file that is installed."""
    with _told():
        data = _shown(name, models_dir, gallery_path)
    text = (
        json.dumps(data, indent=2) if as_json else yaml.safe_dump(data, sort_keys=False, width=100).rstrip()
    )
    typer.echo(text)


@app.command()
def install(
    name: Name,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    gallery_path: GalleryPath = GALLERY,
    mirror: Annotated[
        str | None, typer.Option(envvar="PRESENCE_MIRROR", help="directory or URL that has the files")
    ] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="accept a licence that allows no commercial use")
    ] = False,
) -> None:
    """Download a model, check it and put it into place."""
    with _told():
        entry = _entry(name, gallery.load(gallery_path))
        accepted = _accepted(entry, accept_license)
        with _Bars() if console.is_terminal else _Lines() as report:
            path = models.install(entry, models_dir, mirror=mirror, accept_license=accepted, report=report)
    typer.echo(f"{name} is installed: {path}")


@app.command()
def remove(name: Name, models_dir: ModelsDir = DEFAULT_MODELS_DIR) -> None:
    """Remove a model and those of its files that no other model needs."""
    with _told():
        removed = models.remove(name, models_dir)
    typer.echo("\n".join(f"removed {path}" for path in removed))


class _Lines(Reporter):
    """Progress where there is no terminal: a line for each tenth of a file."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def message(self, line: str) -> None:
        typer.echo(line, err=True)

    def progress(self, name: str, done: int, total: int | None) -> None:
        tenth = 10 * done // total if total else 0
        if self._last != (name, tenth):
            self._last = (name, tenth)
            of = f" of {total / 1e6:.1f}" if total else ""
            self.message(f"{name}: {done / 1e6:.1f}{of} MB")


class _Bars(Reporter):
    """Progress on a terminal: a bar for each file."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._bars = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def message(self, line: str) -> None:
        self._bars.console.print(line, markup=False)

    def progress(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name)
        self._bars.update(self._tasks[name], completed=done, total=total)


def _entry(name: str, entries: dict[str, Entry]) -> Entry:
    if name not in entries:
        raise ConfigurationError(f"no model {name!r} in the gallery; it has: {', '.join(entries)}")
    return entries[name]


def _accepted(entry: Entry, given: bool) -> bool:
    """Tells a licence that allows no commercial use; unless it was given, asks where somebody can answer."""
    if entry.commercial:
        return given
    typer.echo(f"The licence of {entry.name}, {entry.license}, allows no commercial use.", err=True)
    return given or (sys.stdin.isatty() and typer.confirm("Do you accept it?", err=True))


def _shown(name: str, models_dir: Path, gallery_path: Path) -> dict[str, Any]:
    found = {model.name: (path, model) for path, model in models.installed(models_dir).items()}
    entries = gallery.load(gallery_path)
    if name in entries:
        return entries[name].model_dump(mode="json", exclude_defaults=True) | {"installed": name in found}
    if name in found:
        return _described(*found[name]) | {"installed": True}
    raise ConfigurationError(f"no model {name!r}, neither installed nor in the gallery")


def _described(path: Path, model: ModelFile) -> dict[str, Any]:
    return {"name": model.name, "path": str(path), **model.model_dump(mode="json", exclude_defaults=True)}


def _print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool, nothing: str) -> None:
    """JSON, or a table that a script can cut: names of columns, then a line a row."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(nothing)
        return
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) or "-"


if __name__ == "__main__":
    app()
