"""People are forgotten over HTTP; nothing of them stays in a store's files. For the tests of each kind."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
from sqlalchemy import create_engine, text

from engines.embedding import unit_rows
from tests.service.enrolling import Service, coloured
from tests.service.many_replicas import Record, until

PEOPLE = 10


def enrolled(client: httpx.Client) -> tuple[dict[str, bytes], list[bytes]]:
    """Names by id of ten people, and two needles for each: its embedding as it is, and normalised."""
    people: dict[str, bytes] = {}
    needles: list[bytes] = []
    for number in range(PEOPLE):
        name, picture = f"Person {uuid4()}", coloured(251 - 3 * number, 37 + 5 * number, 91)
        body = {"model": "fake", "img": picture, "name": name, "labels": {"badge": f"badge of {name}"}}
        answer = client.post("/v1/face/register", json=body)
        assert answer.status_code == 200, answer.text
        people[answer.json()["id"]] = name.encode()
        numbers = client.post("/v1/face/embed", json={"model": "fake", "img": picture}).json()
        embedding = np.array(numbers["embedding"], np.float32)
        needles += [embedding.tobytes(), unit_rows(embedding[None])[0].tobytes()]
    return people, needles


def forget(client: httpx.Client, people: dict[str, bytes]) -> None:
    for record_id in people:
        assert client.post("/v1/face/forget", json={"id": record_id}).status_code == 204
        assert client.get(f"/v1/face/registrations/{record_id}").status_code == 404


def on_disk(directory: Path, *needles: bytes) -> dict[str, list[int]]:
    """Where in the files of a directory each of these bytes is: numbers of needles by file."""
    while True:
        try:
            contents = {path: path.read_bytes() for path in _files(directory)}
            if set(contents) == set(_files(directory)):
                break
        except FileNotFoundError:
            continue  # a file that was just replaced: what replaced it was not looked at
    places = {
        str(path.relative_to(directory)): [i for i, one in enumerate(needles) if one in content]
        for path, content in contents.items()
    }
    return {path: found for path, found in places.items() if found}


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def leave_postgres(service: Service, postgres: Any, url: str, record_property: Record) -> None:
    """By the upkeep of the service alone; the server's log is not looked at."""
    engine = create_engine(url)
    with engine.connect() as connection:
        number = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
        folder = postgres.directory / "data" / "base" / str(number.scalar_one())
    engine.dispose()

    def there(*needles: bytes) -> set[int]:
        postgres.execute("CHECKPOINT")
        return {number for found in on_disk(folder, *needles).values() for number in found}

    with service.client() as client:
        people, needles = enrolled(client)
        assert there(*people.values()) == set(range(PEOPLE)), "what is looked for can be found"
        assert {number // 2 for number in there(*needles)} == set(range(PEOPLE))
        forget(client, people)
        erased = [*people.values(), *needles]
        record_property("erased_after_s", round(until(lambda: not there(*erased)), 1))
