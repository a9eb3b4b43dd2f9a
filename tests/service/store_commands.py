"""`presence store` beside a service that clients write to: used by the tests of each kind of store."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from graphs.cli import main
from tests.service.enrolling import Enrolment, Service, all_registered


async def store(*arguments: object) -> str:
    """What the command prints, once it has ended well; it runs in a thread, the loop's other tasks go on."""
    command = ["store", *map(str, arguments)]
    done = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


async def commands_beside_a_service(
    service: Service, where: list[str], numbers: Iterator[int], folder: Path
) -> dict[str, str]:
    """Every command while two clients enrol; where: options that name the store. Name by id of all then.

    A copy of one person in the export, under a new id and name, is found by the service once it is imported.
    """
    with service.client() as client:
        before = all_registered(client)[0]
    enrolment = Enrolment(service.url, numbers, clients=2)
    exported, changed = folder / "people.jsonl", folder / "one.jsonl"
    async with enrolment.running():
        await enrolment.more(50)
        there = before | enrolment.acknowledged
        (stats,) = [
            space
            for space in json.loads(await store("stats", "--json", *where))["spaces"]
            if space["namespace"] == "face/default"
        ]
        assert stats["records"] >= len(there)
        await store("export", exported, "--namespace", "face/default", *where)
        header, *records, last = exported.read_text().splitlines()
        assert json.loads(last) == {"records": len(records)}
        assert there.items() <= {(one["id"], one["name"]) for one in map(json.loads, records)}
        await store("compact", *where)
        again = json.loads(records[0]) | {"id": "imported", "namespace": "face/copies", "name": "a copy"}
        changed.write_text("\n".join([header, json.dumps(again), json.dumps({"records": 1}), ""]))
        assert "imported 1, skipped 0" in await store("import", changed, *where)
        await enrolment.more(50)
    assert enrolment.lost == []
    with service.client() as client:
        found, total = all_registered(client)
        assert before | enrolment.acknowledged == found
        assert total == len(found)
        (copy,) = client.get("/v1/face/registrations", params={"store": "copies"}).json()["data"]
        assert (copy["id"], copy["name"]) == ("imported", "a copy")
    await store("verify", *where)
    return found
