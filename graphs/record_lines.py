"""Records of the store as JSON lines: a header, a record a line, and at the end how many they are.

{"format":"presence-store","version":1}
{"id":"...","namespace":"face/default","model":"dlib-resnet","name":"Ada","labels":{},"value":null,
 "created_at":"2026-01-02T03:04:05.678901Z","embedding":"<float32, little endian, base64>"}
{"records":1}
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from engines.errors import InvalidInput, StoreCorrupt
from engines.store import Filter, Journal, NewRecord, Space, Stored
from engines.store.rows import check_record

VERSION = 1
PAGE = 1000
"""Records of one read, and of one transaction."""

BATCH_BYTES = 16 * 2**20
"""A transaction ends early when its lines are longer than this."""

LONGEST_LINE = 64 * 2**20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def written(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class _Header(_Line):
    format: Literal["presence-store"] = "presence-store"
    version: int = VERSION


class _Record(_Line):
    id: str
    namespace: str
    model: str
    name: str
    labels: dict[str, str]
    value: str | None
    created_at: AwareDatetime
    embedding: str


class _End(_Line):
    records: int


END = b'{"records":'


@dataclass(frozen=True, slots=True)
class _Read:
    """A record, the number of its line, and how many bytes that has."""

    line: int
    size: int
    record: NewRecord


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction did. skipped: ids that were there. size: bytes of its lines."""

    imported: int
    skipped: int
    size: int


def exported(journal: Journal, namespace: str | None = None) -> Iterator[bytes]:
    """Lines of all that lived when the export began, or of one namespace; never more than a page in memory.

    What is deleted while it runs may be missing, what is added is left out. Raises StoreCorrupt.
    """
    head = journal.head()
    chosen = {space.namespace for space in journal.spaces()}
    count = 0
    yield _Header().written()
    for name in sorted(chosen if namespace is None else chosen & {namespace}):
        for page in _pages(journal, name, head):
            embeddings = journal.embeddings([stored.position for stored in page])
            for stored in page:
                if stored.position in embeddings:  # else it was deleted just now
                    count += 1
                    yield _record(stored, embeddings[stored.position]).written()
    yield _End(records=count).written()


def _pages(journal: Journal, namespace: str, head: int) -> Iterator[list[Stored]]:
    after = 0
    while page := journal.listed(namespace, Filter(), after=after, limit=PAGE):
        yield [stored for stored in page if stored.position <= head]
        after = page[-1].position
        if after >= head:
            return


def _record(stored: Stored, embedding: NDArray[np.float32]) -> _Record:
    try:
        created_at = EPOCH + timedelta(seconds=stored.created_at)
    except OverflowError:
        raise StoreCorrupt(
            f"the time of record {stored.position} lies beyond the year 9999: delete it and export again"
        ) from None
    return _Record(
        id=stored.id,
        namespace=stored.space.namespace,
        model=stored.space.model,
        name=stored.name,
        labels=dict(sorted(stored.labels.items())),
        value=stored.value,
        created_at=created_at,
        embedding=base64.b64encode(embedding.astype("<f4").tobytes()).decode(),
    )


def imported(journal: Journal, file: BinaryIO) -> Iterator[Batch]:
    """Writes the records of an export, a transaction for each item; an id that lives is left as it is.

    Raises InvalidInput that names the line: nothing of its transaction is written, those before are.
    """
    done = 1
    try:
        for batch in _batches(_read(file)):
            yield _append(journal, batch)
            done = batch[-1].line
    except InvalidInput as error:
        raise InvalidInput(f"{error.message}; nothing behind line {done} was imported") from None


def _batches(records: Iterable[_Read]) -> Iterator[list[_Read]]:
    batch: list[_Read] = []
    size = 0
    for one in records:
        batch.append(one)
        size += one.size
        if len(batch) == PAGE or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _append(journal: Journal, batch: Sequence[_Read]) -> Batch:
    before = journal.head()
    try:
        positions = journal.append([one.record for one in batch])
    except InvalidInput as error:
        raise InvalidInput(f"{_misfit(journal, batch)}: {error.message}") from None
    new = {position for position in positions if position > before}
    return Batch(len(new), len(batch) - len(new), sum(one.size for one in batch))


def _misfit(journal: Journal, batch: Sequence[_Read]) -> str:
    """Where the first record stands whose embedding has another length than its space, the reason left."""
    dims = {space: dim for space, (dim, _) in journal.spaces().items()}
    seen: set[tuple[str, str]] = set()
    for one in batch:
        space, record_id = one.record.space, one.record.id
        key = space.namespace, record_id
        if key in seen or journal.get(*key):  # it would be skipped
            continue
        seen.add(key)
        if dims.setdefault(space, one.record.embedding.size) != one.record.embedding.size:
            return f"line {one.line}"
    return f"lines {batch[0].line} to {batch[-1].line}"


def _read(file: BinaryIO) -> Iterator[_Read]:
    """The records of an export. Raises InvalidInput, naming the line, for what is none and for a torn one."""
    _check_header(file.readline(LONGEST_LINE))
    count, number = 0, 2
    while line := file.readline(LONGEST_LINE):
        if line.startswith(END):
            _check_end(number, line, count)
            if file.read(1):
                raise InvalidInput(f"line {number + 1}: nothing may follow the last line of an export")
            return
        yield _Read(number, len(line), _new_record(number, line))
        count, number = count + 1, number + 1
    raise InvalidInput(f"line {number}: the export is cut off here")


def _check_header(line: bytes) -> None:
    try:
        header = _Header.model_validate_json(line)
    except ValidationError:
        raise InvalidInput("line 1: this is no export of a store") from None
    if header.version != VERSION:
        raise InvalidInput(
            f"line 1: the export has version {header.version} and this program reads version {VERSION}: "
            "use a newer presence"
        )


def _check_end(number: int, line: bytes, count: int) -> None:
    try:
        told = _End.model_validate_json(line).records
    except ValidationError as error:
        raise InvalidInput(f"line {number}: {_reason(error)}") from None
    if told != count:
        raise InvalidInput(f"line {number}: the export tells of {told} records and has {count}")


def _new_record(number: int, line: bytes) -> NewRecord:
    try:
        parsed = _Record.model_validate_json(line)
        embedding = np.frombuffer(base64.b64decode(parsed.embedding, validate=True), dtype="<f4")
    except ValidationError as error:
        raise InvalidInput(f"line {number}: {_reason(error)}") from None
    except (binascii.Error, ValueError):
        raise InvalidInput(f"line {number}: embedding: this is not float32 in base64") from None
    record = NewRecord(
        id=parsed.id,
        space=Space(parsed.namespace, parsed.model),
        embedding=embedding.astype(np.float32),
        name=parsed.name,
        labels=parsed.labels,
        value=parsed.value,
        created_at=(parsed.created_at - EPOCH).total_seconds(),
    )
    try:
        check_record(record)
    except InvalidInput as error:
        raise InvalidInput(f"line {number}: {error.message}") from None
    return record


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join([".".join(str(part) for part in first["loc"]), first["msg"]]).removeprefix(": ")
