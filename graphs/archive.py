"""Archives of weights, unpacked without trusting what is in them."""

import errno
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from engines.errors import ConfigurationError

SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar.bz2")
MAX_BYTES = 8 * 2**30
MAX_MEMBERS = 10_000
CHUNK_BYTES = 2**20
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeError,
    NotImplementedError,
)
"""What the readers of archives raise, beside OSError without a number or for an impossible position."""


def folder_of(filename: str) -> str | None:
    """The folder that an archive is unpacked into: its name without the suffix. None for any other file."""
    for suffix in SUFFIXES:
        if filename.endswith(suffix) and filename != suffix:
            return filename.removesuffix(suffix)
    return None


def unpack(
    archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> dict[str, str]:
    """Unpacks the regular files of an archive into a folder; gives the sha256 of each by its path in there.

    max_bytes: of all files together, unpacked. max_members: files and folders.
    Raises ConfigurationError for an archive that is damaged, exceeds a limit, or holds a path that leads
    outside, a link, a device or the same path twice; OSError where the disk refuses.
    """
    opened = _zip_members(archive) if archive.name.endswith(".zip") else _tar_members(archive)
    sums: dict[str, str] = {}
    left = max_bytes
    try:
        with closing(opened) as members:
            for count, (name, stream) in enumerate(members, 1):
                if count > max_members:
                    raise _refused(archive, f"it holds more than {max_members} files")
                path = _inside(archive, name)
                if stream is not None:
                    target = folder / path
                    sums[str(path)] = _write(archive, stream, target, left)
                    left -= target.stat().st_size
    except DAMAGE as error:
        raise _refused(archive, f"it is damaged: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refused(archive, f"it holds {name!r} twice") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _refused(archive, f"it is damaged: {error}") from error
    return sums


def _refused(archive: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{archive.name} was not unpacked: {reason}")


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise _refused(archive, f"the path {name!r} leads outside")
    return path


def _zip_members(archive: Path) -> Generator[tuple[str, IO[bytes] | None]]:
    """Paths with their content; None for a folder."""
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"{info.filename!r} is a link or a device")
            if info.flag_bits & 1:
                raise _refused(archive, f"{info.filename!r} is encrypted")
            if info.is_dir():
                yield info.filename, None
                continue
            with source.open(info) as stream:
                yield info.filename, stream


def _tar_members(archive: Path) -> Generator[tuple[str, IO[bytes] | None]]:
    """Paths with their content; None for a folder."""
    with tarfile.open(archive, "r:*") as source:
        for info in source:
            if not (info.isreg() or info.isdir()):
                raise _refused(archive, f"{info.name!r} is a link or a device")
            yield info.name, source.extractfile(info)


def _write(archive: Path, stream: IO[bytes], target: Path, left: int) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while piece := stream.read(CHUNK_BYTES):
            left -= len(piece)
            if left < 0:
                raise _refused(archive, "its files are larger than the limit allows")
            out.write(piece)
            digest.update(piece)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
