"""Files that are written whole or not at all, and that tell when a byte of them has changed.

Layout: 8 bytes magic, the content, then its length (8 bytes) and its CRC-32 (4 bytes), little endian.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engines.errors import StoreCorrupt

MAGIC = b"PRESNCE1"
END = struct.Struct("<QI")
CHUNK = 1 << 20


class _Seal:
    """Passes content on to a file and keeps its length and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = 0
        self._crc = 0

    def write(self, content: bytes) -> int:
        self._length += len(content)
        self._crc = zlib.crc32(content, self._crc)
        return self._file.write(content)

    def end(self) -> bytes:
        return END.pack(self._length, self._crc)


@contextmanager
def written(path: Path) -> Iterator[Callable[[bytes], int]]:
    """Yields what takes the content. The file is in its place, and on the disk, when the block ends.

    A block that raises leaves what was there before. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            seal = _Seal(file)
            file.write(MAGIC)
            yield seal.write
            file.write(seal.end())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Yields the file at the beginning of its content, which was read once and is whole.

    Raises StoreCorrupt, and OSError when it can't be read.
    """
    with path.open("rb") as file:
        if not _whole(file):
            raise StoreCorrupt(f"{path.name} is torn or was changed; it can be removed and made again")
        file.seek(len(MAGIC))
        yield file


def _whole(file: BinaryIO) -> bool:
    length = os.fstat(file.fileno()).st_size - len(MAGIC) - END.size
    if length < 0 or file.read(len(MAGIC)) != MAGIC:
        return False
    crc, left = 0, length
    while left and (content := file.read(min(CHUNK, left))):
        crc = zlib.crc32(content, crc)
        left -= len(content)
    return file.read(END.size) == END.pack(length, crc)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
