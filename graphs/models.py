"""Models of a directory: what is installed there, installing from the gallery, removing."""

import errno
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import yaml

from engines.errors import ConfigurationError
from graphs.archive import folder_of, unpack
from graphs.download import TIMEOUT_S, AbsentError, Reporter, checksum, commit, fetch, shown
from graphs.gallery import Entry, GalleryFile, inside
from graphs.settings import ModelFile, read_model_file

DEFAULT_MODELS_DIR = Path("~/.presence/models").expanduser()
LOCK = ".lock"
RECORDS = ".unpacked"
WORKSHOP = ".unpacking-"


def installed(models_dir: Path) -> dict[Path, ModelFile]:
    """The models of a directory by their file, in the order of file names.

    Raises ConfigurationError for a model file that is wrong.
    """
    paths = sorted([*models_dir.glob("*.yaml"), *models_dir.glob("*.yml")])
    return {path: read_model_file(path) for path in paths}


def install(
    entry: Entry,
    models_dir: Path,
    *,
    mirror: str | None = None,
    accept_license: bool = False,
    report: Reporter | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """Installs a model of the gallery; gives its model file. What is in place already is not fetched again.

    The model file comes last, so that a model is listed only when all of it is there. One that is there
    already stays as it is. mirror: a directory or URL that has the files by their sha256 or file name, and
    is then the only source. Raises ConfigurationError.
    """
    if not (entry.commercial or accept_license):
        raise ConfigurationError(
            f"{entry.name}: its licence {entry.license} allows no commercial use; "
            "read it, and accept it with --accept-license"
        )
    report = report or Reporter()
    with _disk(models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        with _alone_in(models_dir, report):
            path = _model_file(entry.name, models_dir)
            for file in entry.files:
                _provide(file, models_dir, mirror, report, timeout_s)
            if path.is_file():
                report.message(f"{path.name}: in place")
            else:
                _write(
                    path, yaml.safe_dump(entry.document(), sort_keys=False, allow_unicode=True, width=1000)
                )
            return path


def remove(name: str, models_dir: Path) -> list[Path]:
    """Removes a model file and those of its files that no other model here names; gives what was removed.

    Raises ConfigurationError where no model has that name.
    """
    if not models_dir.is_dir():
        raise ConfigurationError(f"{models_dir} does not exist: no model is installed there")
    with _disk(models_dir), _alone_in(models_dir, Reporter()):
        models = installed(models_dir)
        removed = [path for path, model in models.items() if model.name == name]
        if not removed:
            known = ", ".join(model.name for model in models.values()) or "none"
            raise ConfigurationError(f"no model {name!r} is installed in {models_dir}; installed: {known}")
        needed = {word for path, model in models.items() if path not in removed for word in _words(model)}
        filenames = {file.filename for path in removed for file in models[path].files}
        for path in removed:
            path.unlink()
        for filename in sorted(filenames):
            removed += _remove_file(filename, needed, models_dir)
        return removed


def _words(model: ModelFile) -> set[str]:
    """Everything in a model file that can name a file or a pack."""
    return {*(file.filename for file in model.files), *model.options.values(), model.parameters.model}


@contextmanager
def _disk(models_dir: Path) -> Iterator[None]:
    """Tells what the disk refuses as an error of configuration."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{models_dir}: the disk is full; free some space and install again, downloads are kept"
        else:
            message = f"{error.filename or models_dir}: {error.strerror or error}"
        raise ConfigurationError(message) from error


@contextmanager
def _alone_in(models_dir: Path, report: Reporter) -> Iterator[None]:
    """Waits until no other process installs or removes here. The system frees the lock of a dead process."""
    with (models_dir / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.message(f"waiting for another installation in {models_dir}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _provide(
    file: GalleryFile, models_dir: Path, mirror: str | None, report: Reporter, timeout_s: float
) -> None:
    """Puts one file, or what an archive holds, into place."""
    folder = folder_of(file.filename)
    target = models_dir / file.filename
    if folder and _is_unpacked(file, models_dir):
        report.message(f"{file.filename}: in place")
        return
    if target.is_file() and checksum(target) == file.sha256:
        report.message(f"{file.filename}: in place")
    else:
        _fetch(file, target, mirror, report, timeout_s)
    if folder:
        report.message(f"{file.filename}: unpacking into {folder}/")
        _unpack(file, folder, models_dir)


def _fetch(file: GalleryFile, target: Path, mirror: str | None, report: Reporter, timeout_s: float) -> None:
    if mirror is None:
        fetch(file.uri, target, file.sha256, report, timeout_s)
        return
    for uri in _in_mirror(mirror, file):
        try:
            fetch(uri, target, file.sha256, report, timeout_s)
        except AbsentError:
            continue
        return
    raise ConfigurationError(
        f"{file.filename}: the mirror {shown(mirror)} has no file of that name, nor one named {file.sha256}"
    )


def _in_mirror(mirror: str, file: GalleryFile) -> list[str]:
    """Where a mirror may have a file: by checksum, by path, by the last part of the path."""
    url = mirror if "://" in mirror else Path(mirror).expanduser().resolve().as_uri()
    base, mark, query = url.partition("?")
    names = dict.fromkeys([file.sha256, file.filename, Path(file.filename).name])
    return [f"{base.rstrip('/')}/{quote(name)}{mark}{query}" for name in names]


def _record(filename: str, models_dir: Path) -> Path:
    """What an archive held: {"sha256": its own, "files": {path in the folder: sha256}}."""
    return models_dir / RECORDS / f"{filename}.json"


def _recorded(filename: str, models_dir: Path) -> tuple[str, dict[str, str]]:
    """The archive's checksum and its files; "" and no files where nothing is recorded."""
    try:
        record = json.loads(_record(filename, models_dir).read_text(encoding="utf-8"))
        return str(record["sha256"]), dict(record["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", {}


def _is_unpacked(file: GalleryFile, models_dir: Path) -> bool:
    archive, sums = _recorded(file.filename, models_dir)
    folder = models_dir / str(folder_of(file.filename))
    return archive == file.sha256 and all(
        (folder / path).is_file() and checksum(folder / path) == found for path, found in sums.items()
    )


def _unpack(file: GalleryFile, folder: str, models_dir: Path) -> None:
    """Unpacks a checked archive beside the folder, writes down what it held, and swaps the folders."""
    target, archive = models_dir / folder, models_dir / file.filename
    if target.exists() and not _recorded(file.filename, models_dir)[0]:
        raise ConfigurationError(
            f"{target} is there, and was not unpacked from {file.filename}: move it away and install again"
        )
    for abandoned in models_dir.glob(f"{WORKSHOP}*"):
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(prefix=WORKSHOP, dir=models_dir) as name:
        fresh = Path(name, "fresh")
        fresh.mkdir()
        sums = unpack(archive, fresh)
        record = _record(file.filename, models_dir)
        record.parent.mkdir(parents=True, exist_ok=True)
        _write(record, json.dumps({"sha256": file.sha256, "files": sums}, indent=1))
        if target.exists():
            target.rename(Path(name, "replaced"))
        fresh.rename(target)
    archive.unlink()


def _model_file(name: str, models_dir: Path) -> Path:
    """The file of the model that has that name here, else the one to write. The name of a file is no name."""
    models = installed(models_dir)
    for path, model in models.items():
        if model.name == name:
            return path
    path = models_dir / f"{name}.yaml"
    if path in models:
        raise ConfigurationError(
            f"{path} is there and names its model {models[path].name!r}; rename that file"
        )
    return path


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    commit(part, path)


def _remove_file(filename: str, needed: set[str], models_dir: Path) -> list[Path]:
    """Removes one file of a model, or what its archive held, and folders that are empty then."""
    try:
        inside(filename)
    except ValueError:
        return []
    folder = folder_of(filename)
    if filename in needed or (
        folder and any(word == folder or word.startswith(f"{folder}/") for word in needed)
    ):
        return []
    target = models_dir / filename
    record = _record(filename, models_dir)
    paths = [
        target,
        target.with_name(f"{target.name}.part"),
        target.with_name(f"{target.name}.part.json"),
        record,
    ]
    if folder:
        paths += [models_dir / folder / path for path in _recorded(filename, models_dir)[1]]
    removed = [path for path in paths if path.is_file()]
    for path in removed:
        path.unlink()
        _remove_empty(path.parent, models_dir)
    return [path for path in removed if path != record]


def _remove_empty(folder: Path, models_dir: Path) -> None:
    while folder != models_dir and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
