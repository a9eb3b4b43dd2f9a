"""`presence store`: export, import and look after the store of people, while the service runs or not."""

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

import sqlalchemy.exc
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from sqlalchemy import make_url

from engines.errors import ConfigurationError, PresenceError
from engines.store.journal import SqlJournal
from engines.store.pgvector import opened
from engines.store.sealed_file import sync_directory
from graphs.record_lines import exported, imported
from graphs.settings import Store, store_location

app = typer.Typer(no_args_is_help=True, help="Export, import and look after the store of people.")
console = Console(stderr=True, highlight=False, soft_wrap=True)

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PRESENCE_STORE_URL",
        help="journal, as `store.url` of a config names it; default: SQLite in the directory",
    ),
]
Directory = Annotated[
    Path | None, typer.Option("--directory", help="as `store.directory` of a config; ~/.presence/store")
]
File = Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - for standard input or output")]


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with the message of an error, without a traceback."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads on: typer ends without a word
    except OSError as error:
        _fail(f"{error.filename or 'standard input or output'}: {error.strerror}")
    except PresenceError as error:
        _fail(error.message)
    except sqlalchemy.exc.DBAPIError as error:  # its own message may quote the URL or a record
        _fail(f"the database's driver refuses ({type(error.orig).__name__}): look at the store's URL")


def _fail(message: str) -> NoReturn:
    console.print("[red]error[/red]", end=" ")
    console.print(_printable(message), markup=False)
    raise typer.Exit(1) from None


@contextmanager
def _opened(
    url: str | None, directory: Path | None, *, make: bool = False
) -> Iterator[tuple[SqlJournal, str]]:
    """The journal and its URL. make: whether a SQLite file that is not there is made."""
    location, _ = store_location(Store(directory=directory), url)
    path = _sqlite_file(location)
    if path and not make and not path.is_file():
        raise ConfigurationError(f"there is no store at {path}; --url and --directory name another")
    with closing(opened(location, make=make)) as journal:
        yield journal, location


@app.command("export")
def export(
    file: File,
    namespace: Annotated[str | None, typer.Option(help='only this one, such as "face/default"')] = None,
    url: Url = None,
    directory: Directory = None,
) -> None:
    """Write all records, embeddings included, as JSON lines: a backup that any database can take."""
    with _told(), _opened(url, directory) as (journal, _), _output(file) as output:
        spaces = journal.spaces().items()
        total = sum(count for space, (_, count) in spaces if namespace in (None, space.namespace))
        with _bar("exporting") as bar:
            task = bar.add_task("exporting", total=total)
            for line in exported(journal, namespace):
                output.write(line)
                bar.advance(task)
        output.flush()


@app.command("import")
def import_(file: File, url: Url = None, directory: Directory = None) -> None:
    """Write the records of an export; those whose ids are there already are left as they are."""
    with _told(), _opened(url, directory, make=True) as (journal, _), _input(file) as source:
        written = skipped = 0
        try:
            with _bar("importing") as bar:
                task = bar.add_task("importing", total=_size(source))
                for batch in imported(journal, source):
                    written, skipped = written + batch.imported, skipped + batch.skipped
                    bar.advance(task, batch.size)
        finally:
            typer.echo(f"imported {written}, skipped {skipped}")


@app.command()
def stats(
    url: Url = None,
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Tell what the store holds and how large it is."""
    with _told(), _opened(url, directory) as (journal, location):
        told = _stats(journal, location)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    columns = ("namespace", "model", "records", "dim", "embedding_bytes")
    rows = [columns, *([_printable(str(space[column])) for column in columns] for space in told["spaces"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    size = "" if told["file_bytes"] is None else f", {told['file_bytes']} bytes on disk"
    typer.echo(f"{told['records']} records at position {told['position']} of {told['store']}{size}")


def _stats(journal: SqlJournal, location: str) -> dict[str, Any]:
    spaces = [
        {
            "namespace": space.namespace,
            "model": space.model,
            "records": count,
            "dim": dim,
            "embedding_bytes": 4 * count * dim,
        }
        for space, (dim, count) in journal.spaces().items()
    ]
    path = _sqlite_file(location)
    return {
        "store": str(path or make_url(location).database),
        "position": journal.head(),
        "records": sum(count for _, count in journal.spaces().values()),
        "file_bytes": _bytes_on_disk(path) if path else None,
        "spaces": sorted(spaces, key=lambda space: (space["namespace"], space["model"])),
    }


@app.command()
def compact(url: Url = None, directory: Directory = None) -> None:
    """Give the space of deleted records back; the service may wait meanwhile."""
    with _told(), _opened(url, directory) as (journal, location):
        path = _sqlite_file(location)
        before = _bytes_on_disk(path) if path else 0
        journal.compact()
        typer.echo(f"{before} bytes became {_bytes_on_disk(path)}" if path else "done")


@app.command()
def verify(url: Url = None, directory: Directory = None) -> None:
    """Read everything and list what is wrong; exit code 1 when something is."""
    with _told(), _opened(url, directory) as (journal, _):
        problems = journal.verify()
    typer.echo("\n".join(map(_printable, problems)) or "nothing is wrong")
    if problems:
        raise typer.Exit(1)


def _bar(what: str) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """Standard output, or a file for its owner's eyes that is in its place when the block ends well."""
    if name == "-":
        yield typer.get_binary_stream("stdout")
        return
    path = Path(name)
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{name} is no file; name another, or - for standard output")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield typer.get_binary_stream("stdin")
        return
    with Path(name).open("rb") as file:
        yield file


def _size(file: BinaryIO) -> int | None:
    """Bytes of a regular file; None for a pipe, whose end nobody knows."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:  # not a file of the system
        return None


def _sqlite_file(location: str) -> Path | None:
    """None for Postgres, and for a URL that the journal itself will refuse."""
    try:
        url = make_url(location)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _bytes_on_disk(path: Path) -> int:
    """Of the database and its log."""
    log = path.with_name(f"{path.name}-wal")
    return sum(file.stat().st_size for file in (path, log) if file.exists())


def _printable(text: str) -> str:
    """Names come from clients and from files: a terminal must not take them for commands."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


if __name__ == "__main__":
    app()
