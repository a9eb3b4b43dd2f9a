"""Registrations over the real store deployment class on SQLite, all in this process."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import Conflict, InvalidInput, UnknownRecord
from engines.store import Filter
from graphs.clients.store import Store
from graphs.store import MOST_MATCHES, Identification, Registration, Registrations


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test in memory on SQLite, and in Postgres."""
    if "store_spec" in metafunc.fixturenames:
        metafunc.parametrize("store_spec", ["faiss", "pgvector"], indirect=True)


def at(degrees: float) -> np.ndarray:
    """A unit vector at an angle; the distance of two is 1 - cos of the angle between them."""
    angle = np.deg2rad(degrees)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def distance(degrees: float) -> float:
    return float(1 - np.cos(np.deg2rad(degrees)))


def later() -> float:
    return time.time() + 30


@pytest.fixture
def people(local_store: Store) -> Registrations:
    return Registrations("face", local_store)


async def enrol(
    people: Registrations,
    name: str,
    degrees: float = 0,
    *,
    model: str = "one",
    labels: Mapping[str, str] | None = None,
    store: str | None = None,
    key: str | None = None,
) -> Registration:
    return await people.register(
        at(degrees), model, name=name, labels=labels or {}, store=store, deadline=later(), key=key
    )


async def identify(people: Registrations, degrees: float = 0, model: str = "one", **more: Any) -> Any:
    more = {"threshold": 0.1, **more}
    return (await people.identify(at(degrees), model, deadline=later(), **more)).found


async def found_names(people: Registrations, degrees: float = 0, **more: Any) -> list[str]:
    return [one.registration.name for one in await identify(people, degrees, **more)]


async def total(people: Registrations, store: str | None = None) -> int:
    return (await people.listed(Filter(), store, after=0, limit=1, deadline=later()))[1]


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u3000"])
async def test_a_name_is_required(people: Registrations, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^name is required$"):
        await enrol(people, name)
    assert await total(people) == 0
    made = await enrol(people, "Ada")
    with pytest.raises(InvalidInput, match=r"^name is required$"):
        await people.update(made.id, name=name, labels=None, store=None, deadline=later())


async def test_what_was_enrolled_is_what_is_read(people: Registrations) -> None:
    before = datetime.now(UTC)
    made = await enrol(people, "Ada Lovelace", labels={"team": "ops", "empty": ""})
    assert before <= made.registered_at <= datetime.now(UTC)
    assert made.registered_at.utcoffset() == timedelta(0)
    assert (made.name, made.model, made.store) == ("Ada Lovelace", "one", "default")
    read = await people.get(made.id, None, later())
    assert read == replace(made, position=read.position)
    (near,) = await identify(people)
    assert near.registration == read


@given(st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)))
def test_the_time_survives_the_journal_to_the_microsecond(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    assert datetime.fromtimestamp(moment.timestamp(), UTC) == moment


async def test_nobody_enrolled_is_nobody_found(people: Registrations) -> None:
    assert await people.identify(at(0), "one", threshold=0.1, deadline=later()) == Identification(())


async def test_found_nearest_first_with_the_rule_of_the_threshold(people: Registrations) -> None:
    for name, degrees in (("far", 90), ("near", 10), ("opposite", 180), ("same", 0)):
        await enrol(people, name, degrees)
    found = await identify(people, threshold=distance(20))
    assert [one.registration.name for one in found] == ["same", "near", "far", "opposite"]
    assert [one.match for one in found] == [True, True, False, False]
    assert [one.distance for one in found] == pytest.approx([0, distance(10), 1, 2], abs=1e-5)
    expected = [100, (1 - distance(10) / distance(20)) * 100, 0, 0]
    assert [one.confidence for one in found] == pytest.approx(expected, abs=0.01)
    exact = found[1].distance
    at_threshold = (await identify(people, threshold=exact))[1]
    assert (at_threshold.match, at_threshold.confidence) == (True, 0)
    assert not (await identify(people, threshold=np.nextafter(exact, 0)))[1].match


async def test_distances_stay_inside_their_range(people: Registrations) -> None:
    for number in range(24):
        await enrol(people, str(number), number * 15)
    for degrees in range(0, 360, 15):
        found = await identify(people, degrees, top_k=1000, threshold=2.0)
        distances = [one.distance for one in found]
        assert len(found) == 24
        assert distances == sorted(distances)
        assert 0 <= distances[0] <= 1e-6
        assert 2 - 1e-6 <= distances[-1] <= 2
        assert all(one.match and 0 <= one.confidence <= 100 for one in found)


@pytest.mark.parametrize(
    ("top_k", "asked"), [(0, 5), (-3, 5), (1, 1), (7, 7), (1000, 1000), (1001, MOST_MATCHES)]
)
async def test_top_k_is_5_unless_positive_and_at_most_1000(
    people: Registrations, local_store: Any, top_k: int, asked: int
) -> None:
    for number in range(8):
        await enrol(people, str(number), number)
    assert await found_names(people, top_k=top_k) == [str(number) for number in range(min(asked, 8))]
    assert local_store.searched == [asked]


async def test_without_top_k_there_are_5(people: Registrations) -> None:
    for number in range(8):
        await enrol(people, str(number), number)
    assert len(await identify(people)) == 5


async def test_labels_choose_who_is_looked_for(people: Registrations) -> None:
    await enrol(people, "a", 0, labels={"site": "north", "role": "guest"})
    await enrol(people, "b", 5, labels={"site": "north", "role": "staff"})
    await enrol(people, "c", 10, labels={"site": "south"})
    assert await found_names(people, labels={}) == ["a", "b", "c"]
    assert await found_names(people, labels={"site": "north"}) == ["a", "b"]
    assert await found_names(people, labels={"role": "staff", "site": "north"}) == ["b"]
    assert await found_names(people, labels={"role": "staff", "site": "south"}) == []
    assert await found_names(people, 10, labels={"site": "north"}, top_k=1) == ["b"]


async def test_several_samples_of_a_person(people: Registrations) -> None:
    for degrees in range(12):
        await enrol(people, "Ada", degrees)
    await enrol(people, "Grace", 40)
    await enrol(people, "Edsger", 50)
    await enrol(people, "Grace", 45)
    assert await found_names(people, top_k=3) == ["Ada"] * 3
    best = await identify(people, top_k=3, best_per_name=True)
    assert [one.registration.name for one in best] == ["Ada", "Grace", "Edsger"]
    assert [one.distance for one in best] == pytest.approx([0, distance(40), distance(50)], abs=1e-5)
    assert await found_names(people, top_k=2, best_per_name=True) == ["Ada", "Grace"]
    assert await found_names(people, top_k=9, best_per_name=True) == ["Ada", "Grace", "Edsger"]
    nobody = await people.identify(at(0), "two", threshold=0.1, best_per_name=True, deadline=later())
    assert nobody == Identification(())


async def test_the_same_picture_twice_is_two_registrations(people: Registrations) -> None:
    first, second = await enrol(people, "Ada"), await enrol(people, "Ada")
    assert first.id != second.id
    await people.forget(first.id, None, later())
    (left,) = await identify(people)
    assert left.registration.id == second.id
    assert left.match
    with pytest.raises(UnknownRecord, match=first.id):
        await people.forget(first.id, None, later())


async def test_a_key_makes_one_registration_of_repeated_requests(people: Registrations) -> None:
    made = await enrol(people, "Ada", 0, labels={"a": "b"}, key="k")
    again = [enrol(people, "Ada", 1, labels={"a": "b"}, key="k") for _ in range(20)]
    assert {one.id for one in await asyncio.gather(*again)} == {made.id}
    repeated = await enrol(people, "Ada", 0, labels={"a": "b"}, key="k")
    assert (repeated.id, repeated.name, repeated.labels) == (made.id, "Ada", {"a": "b"})
    assert repeated.registered_at == made.registered_at
    assert await total(people) == 1
    others = [
        await enrol(people, "Ada", key="K"),
        await enrol(people, "Ada", key="k", store="another"),
        await enrol(replace(people, kind="voice"), "Ada", key="k"),
        await enrol(people, "Ada"),
    ]
    assert len({made.id, *(one.id for one in others)}) == 5


@pytest.mark.parametrize("other", [{"name": "Eve"}, {"labels": {"a": "c"}}, {"model": "two"}])
async def test_a_key_of_another_registration_is_refused(people: Registrations, other: dict[str, Any]) -> None:
    same: dict[str, Any] = {"name": "Ada", "labels": {"a": "b"}, "model": "one", "key": "k"}
    await enrol(people, **same)
    with pytest.raises(Conflict, match="another name, labels or model"):
        await enrol(people, **{**same, **other})
    assert await total(people) == 1


async def test_a_key_is_free_again_when_its_registration_is_forgotten(people: Registrations) -> None:
    made = await enrol(people, "Ada", key="k")
    await people.forget(made.id, None, later())
    assert (await enrol(people, "Eve", key="k")).id == made.id
    assert await found_names(people) == ["Eve"]


async def test_many_enrol_at_once(people: Registrations) -> None:
    made = await asyncio.gather(*(enrol(people, str(number), number) for number in range(32)))
    assert len({one.id for one in made}) == 32
    assert await total(people) == 32
    assert set(await found_names(people, top_k=100)) == {str(number) for number in range(32)}


async def test_absent_empty_and_localais_name_are_the_default_store(people: Registrations) -> None:
    for name, store in (("a", None), ("b", ""), ("c", "local-store"), ("d", "default")):
        assert (await enrol(people, name, store=store)).store == "default"
    for store in (None, "", "local-store", "default"):
        assert sorted(await found_names(people, store=store)) == ["a", "b", "c", "d"]
        assert await total(people, store) == 4


async def test_stores_are_kept_apart(people: Registrations) -> None:
    north = await enrol(people, "north", store="north")
    await enrol(people, "default")
    assert north.store == "north"
    assert await found_names(people, store="north") == ["north"]
    assert await found_names(people) == ["default"]
    assert await found_names(people, store="south") == []
    with pytest.raises(UnknownRecord):
        await people.get(north.id, "default", later())
    with pytest.raises(UnknownRecord):
        await people.forget(north.id, "local-store", later())
    with pytest.raises(UnknownRecord):
        await people.update(north.id, name="x", labels=None, store="default", deadline=later())
    assert (await people.get(north.id, "north", later())).name == "north"


async def test_without_a_store_an_id_is_found_in_every_store_of_its_kind_alone(
    people: Registrations, local_store: Store
) -> None:
    voices = Registrations("voice", local_store)
    face = await enrol(people, "face", store="north")
    voice = await enrol(voices, "voice", store="north")
    assert (await people.get(face.id, None, later())).store == "north"
    with pytest.raises(UnknownRecord):
        await people.forget(voice.id, None, later())
    with pytest.raises(UnknownRecord):
        await people.forget(voice.id, "north", later())
    assert await found_names(people, store="north") == ["face"]
    await people.forget(face.id, None, later())
    assert await found_names(people, store="north") == []
    assert await found_names(voices, store="north") == ["voice"]


async def test_models_never_mix(people: Registrations) -> None:
    await enrol(people, "one", model="one")
    await enrol(people, "two", model="two")
    await people.register(
        np.ones(512, np.float32), "wide", name="wide", labels={}, store=None, deadline=later()
    )
    assert await found_names(people, model="one") == ["one"]
    assert await found_names(people, model="two") == ["two"]
    assert await found_names(people, model="three") == []
    assert await total(people) == 3
    with pytest.raises(InvalidInput, match="dimensions"):
        await people.identify(np.ones(512, np.float32), "one", threshold=1, deadline=later())
    with pytest.raises(InvalidInput, match="holds embeddings of 2"):
        await people.register(
            np.ones(512, np.float32), "one", name="wrong", labels={}, store=None, deadline=later()
        )


async def test_update_changes_what_is_given(people: Registrations) -> None:
    made = await enrol(people, "old", labels={"site": "north"}, store="yard")
    renamed = await people.update(made.id, name="new", labels=None, store=None, deadline=later())
    assert (renamed.name, renamed.labels, renamed.store) == ("new", {"site": "north"}, "yard")
    labelled = await people.update(made.id, name=None, labels={"a": "b"}, store="yard", deadline=later())
    assert (labelled.name, labelled.labels) == ("new", {"a": "b"})
    bare = await people.update(made.id, name=None, labels={}, store=None, deadline=later())
    assert (bare.labels, bare.registered_at) == ({}, made.registered_at)
    assert await people.update(made.id, name=None, labels=None, store=None, deadline=later()) == bare
    assert await found_names(people, store="yard") == ["new"]
    with pytest.raises(UnknownRecord):
        await people.update("unknown", name="new", labels=None, store=None, deadline=later())


async def test_pages_hold_every_registration_once_oldest_first(people: Registrations) -> None:
    for number in range(7):
        await enrol(people, f"{number % 2}", labels={"number": str(number)})
    seen: list[Registration] = []
    while page := await people.listed(
        Filter(), None, after=seen[-1].position if seen else 0, limit=3, deadline=later()
    ):
        assert page[1] == 7
        seen += page[0]
        if len(page[0]) < 3:
            break
    assert [one.labels["number"] for one in seen] == list("0123456")
    odd, count = await people.listed(Filter("1"), None, after=0, limit=2, deadline=later())
    assert ([one.labels["number"] for one in odd], count) == (["1", "3"], 3)
    six = Filter("0", {"number": "6"})
    (one,), count = await people.listed(six, None, after=0, limit=2, deadline=later())
    assert (one.labels, count) == ({"number": "6"}, 1)


async def test_unknown_ids_and_the_empty_one(people: Registrations) -> None:
    await enrol(people, "Ada")
    for call in (people.forget, people.get):
        with pytest.raises(UnknownRecord, match='no registration has the id "nobody"'):
            await call("nobody", None, later())
    with pytest.raises(InvalidInput, match=r"^id is required$"):
        await people.forget("", None, later())
    with pytest.raises(InvalidInput, match="NUL"):
        await people.forget("a\0b", None, later())
    assert await total(people) == 1


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 1001])
async def test_text_that_no_record_can_have_is_refused(people: Registrations, text: str) -> None:
    for more in ({"name": text}, {"name": "Ada", "labels": {text: ""}}, {"name": "A", "labels": {"a": text}}):
        with pytest.raises(InvalidInput):
            await enrol(people, **more)
    with pytest.raises(InvalidInput):
        await identify(people, labels={"a": text})
    with pytest.raises(InvalidInput):
        await people.listed(Filter(text), None, after=0, limit=1, deadline=later())
    assert await total(people) == 0
