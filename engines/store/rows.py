"""Between what the store promises and what its tables hold: texts that may be written, vectors, checksums."""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import TypedDict, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engines.errors import InvalidInput, StoreCorrupt
from engines.store import Filter, NewRecord, Stored

MOST_BYTES = 1000
"""Of an id, name, namespace, model, label key or label value in UTF-8; two of them fit Postgres's indexes."""


Item = TypeVar("Item")


def chunks(items: Sequence[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """Parts short enough to be the parameters of one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


class EmbeddingRow(TypedDict):
    """A row of the table of embeddings."""

    position: int
    vector: bytes
    checksum: int


def checksum(position: int, vector: bytes) -> int:
    """CRC-32 of the position (8 bytes, little endian) and the vector: neither passes for another's."""
    return crc32(vector, crc32(position.to_bytes(8, "little")))


def record_checksum(record: Stored) -> int:
    """CRC-32 of all that is told of a record: no byte of it changes unseen, and none passes for another's."""
    labels = [text for pair in sorted(record.labels.items()) for text in pair]
    texts = [record.space.namespace, record.space.model, record.id, record.name, *labels]
    if record.value is not None:
        texts.append(record.value)
    shape = len(labels), record.value is None
    numbers = struct.pack("<qqdi?", record.position, record.dim, record.created_at, *shape)
    return crc32("\0".join(texts).encode(), crc32(numbers))  # NUL is in none of them


def embedding_row(position: int, embedding: NDArray[np.float32]) -> EmbeddingRow:
    """embedding: shape (dim,)."""
    vector = embedding.astype("<f4").tobytes()
    return {"position": position, "vector": vector, "checksum": checksum(position, vector)}


def read_vector(position: int, vector: object, expected: object) -> NDArray[np.float32]:
    """The embedding of a living record, shape (dim,). Raises StoreCorrupt when it is not what was written."""
    is_whole = isinstance(vector, bytes) and len(vector) > 0 and len(vector) % 4 == 0
    if not isinstance(vector, bytes) or not is_whole or checksum(position, vector) != expected:
        raise StoreCorrupt(f"the embedding of record {position} is damaged: restore a backup of the store")
    return np.frombuffer(vector, dtype="<f4").astype(np.float32)


def check_text(what: str, text: str, most_bytes: int | None = MOST_BYTES) -> None:
    """Raises InvalidInput, naming `what`, for text that one of the databases cannot hold."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} is not valid Unicode") from None
    if "\0" in text:
        raise InvalidInput(f"{what} holds a NUL character")
    if most_bytes is not None and size > most_bytes:
        raise InvalidInput(f"{what} is longer than {most_bytes} bytes")


def check_filter(namespace: str, chosen: Filter) -> None:
    """Raises InvalidInput for text that no record can have."""
    check_text("the namespace", namespace)
    if chosen.name is not None:
        check_text("the name", chosen.name)
    for key, value in chosen.labels.items():
        check_text("a label's key", key)
        check_text("a label's value", value)


def check_record(record: NewRecord) -> None:
    """Raises InvalidInput for what cannot be written."""
    check_text("the id", record.id)
    check_text("the model", record.space.model)
    check_filter(record.space.namespace, Filter(record.name, record.labels))
    if not math.isfinite(record.created_at):
        raise InvalidInput("the time of a record is a finite number")
    if record.value is not None:
        check_text("the value", record.value, most_bytes=None)
    embedding = record.embedding
    if embedding.ndim != 1 or embedding.size == 0 or not np.isfinite(embedding).all():
        raise InvalidInput("an embedding is a list of finite numbers, at least one")
