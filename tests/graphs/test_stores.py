"""LocalAI's generic stores over the real store deployment class on SQLite: its own cases and more."""

import time
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from engines.errors import InvalidInput
from graphs.stores import Entries, Key, Stores, key_id


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test in memory on SQLite, and in Postgres."""
    if "store_spec" in metafunc.fixturenames:
        metafunc.parametrize("store_spec", ["faiss", "pgvector"], indirect=True)


class Store:
    """One store of the flow; each call has half a minute."""

    def __init__(self, flow: Stores, name: str = "s") -> None:
        self._flow, self._name = flow, name

    async def set(self, entries: dict[Key, str]) -> None:
        await self._flow.set(self._name, list(entries), list(entries.values()), time.time() + 30)

    async def get(self, *keys: Key) -> dict[Key, str]:
        found = await self._flow.get(self._name, keys, time.time() + 30)
        assert len(found.keys) == len(found.values)
        assert found.similarities == ()
        return dict(zip(found.keys, found.values, strict=True))

    async def delete(self, *keys: Key) -> None:
        await self._flow.delete(self._name, keys, time.time() + 30)

    async def find(self, key: Key, top_k: int) -> Entries:
        return await self._flow.find(self._name, key, top_k, time.time() + 30)


@pytest.fixture
def flow(local_store: Any) -> Stores:
    return Stores(local_store)


@pytest.fixture
def store(flow: Stores) -> Store:
    return Store(flow)


ABC: dict[Key, str] = {(0.5, 0.25, 0.125): "a", (1.0, 2.0, 3.0): "b", (7.0, 8.0, 9.0): "c"}


async def test_set_get_delete(store: Store) -> None:
    await store.set(ABC)
    assert await store.get(*ABC) == ABC
    gone, *left = ABC
    await store.delete(gone)
    assert await store.get(*ABC) == {key: ABC[key] for key in left}
    found = await store.find(gone, 3)
    assert set(found.values) == {"b", "c"}


async def test_get_answers_in_the_order_of_the_request_without_the_missing(store: Store) -> None:
    await store.set(ABC)
    one, two, three = ABC
    assert list(await store.get(three, (4.0, 5.0, 6.0), one, two)) == [three, one, two]
    assert await store.get((4.0, 5.0, 6.0)) == {}
    await store.delete((4.0, 5.0, 6.0), one)
    assert list(await store.get(*ABC)) == [two, three]


async def test_many_keys_are_read_in_order(store: Store) -> None:
    keys = [(float(number), 1.0) for number in range(100)]
    await store.set({key: str(key[0]) for key in keys if key[0] % 3})
    assert await store.get(*reversed(keys)) == {key: str(key[0]) for key in reversed(keys) if key[0] % 3}
    assert list(await store.get(*reversed(keys))) == [key for key in reversed(keys) if key[0] % 3]


async def test_set_again_replaces_the_value_alone(store: Store) -> None:
    await store.set(ABC)
    one, *_ = ABC
    await store.set({one: "new", (4.0, 5.0, 6.0): "d"})
    assert await store.get(*ABC) == {**ABC, one: "new"}
    found = await store.find(one, 10)
    assert len(found.keys) == 4
    assert found.values[0] == "new"


async def test_a_key_that_was_deleted_can_be_set_again(store: Store) -> None:
    await store.set(ABC)
    await store.delete(*ABC)
    one, *_ = ABC
    await store.set({one: "again"})
    assert await store.get(*ABC) == {one: "again"}
    assert (await store.find(one, 3)).values == ("again",)


async def test_of_a_key_that_comes_twice_the_last_value_holds(flow: Stores) -> None:
    key = (1.0, 2.0)
    await flow.set("s", [key, key], ["first", "last"], time.time() + 30)
    found = await flow.get("s", [key, key], time.time() + 30)
    assert found == Entries((key, key), ("last", "last"))


async def test_similarities_of_orthogonal_and_opposite_keys(store: Store) -> None:
    keys: list[Key] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)]
    await store.set({key: f"test{number}" for number, key in enumerate(keys)})
    found = await store.find(keys[0], 4)
    assert found.similarities == (1, 0, 0, -1)
    assert found.keys == tuple(keys)
    assert found.values == ("test0", "test1", "test2", "test3")


async def test_top_k_beyond_what_there_is(store: Store) -> None:
    await store.set(ABC)
    found = await store.find((1.0, 2.0, 3.0), 1000)
    assert set(found.values) == {"a", "b", "c"}
    assert found.similarities[0] == pytest.approx(1, abs=1e-6)
    assert list(found.similarities) == sorted(found.similarities, reverse=True)
    assert len(found.keys) == len(found.values) == len(found.similarities) == 3


@pytest.mark.parametrize("top_k", [0, -1])
async def test_top_k_is_at_least_one(store: Store, top_k: int) -> None:
    await store.set(ABC)
    with pytest.raises(InvalidInput):
        await store.find((1.0, 2.0, 3.0), top_k)


async def test_an_empty_store_answers_three_empty_lists(store: Store) -> None:
    assert await store.find((1.0, 2.0), 3) == Entries((), (), ())
    assert await store.get((1.0, 2.0)) == {}
    await store.delete((1.0, 2.0))


async def test_keys_of_different_lengths_are_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="of one length"):
        await store.set({(1.0, 2.0): "a", (1.0, 2.0, 3.0): "b"})
    assert await store.get((1.0, 2.0)) == {}
    await store.set(ABC)
    with pytest.raises(InvalidInput, match="3"):
        await store.set({(1.0, 2.0): "a"})
    with pytest.raises(InvalidInput, match="dimensions"):
        await store.find((1.0, 2.0), 1)
    assert await store.get((1.0, 2.0), *ABC) == ABC


async def test_the_length_is_free_again_when_everything_is_deleted(store: Store) -> None:
    await store.set(ABC)
    await store.find(next(iter(ABC)), 1)
    await store.delete(*ABC)
    await store.set({(1.0, 0.0): "short"})
    assert (await store.find((1.0, 0.0), 5)).values == ("short",)
    with pytest.raises(InvalidInput):
        await store.set(ABC)


@pytest.mark.parametrize(
    ("keys", "values"), [([], []), ([(1.0,)], []), ([(1.0,)], ["a", "b"]), ([()], ["a"])]
)
async def test_as_many_keys_as_values(flow: Stores, keys: list[Key], values: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"^keys"):
        await flow.set("s", keys, values, time.time() + 30)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e39])
async def test_keys_are_finite_as_32_bit_floats(store: Store, number: float) -> None:
    for call in (store.get, store.delete):
        with pytest.raises(InvalidInput, match="finite"):
            await call((1.0, number))
    with pytest.raises(InvalidInput, match="finite"):
        await store.set({(1.0, number): "a"})
    with pytest.raises(InvalidInput, match="finite"):
        await store.find((1.0, number), 1)


async def test_nothing_asked_is_refused(store: Store) -> None:
    for call in (store.get, store.delete):
        with pytest.raises(InvalidInput, match="at least one"):
            await call()


async def test_keys_are_equal_when_their_32_bit_floats_are(store: Store) -> None:
    next_up = float(np.nextafter(np.float32(0.1), np.float32(1)))
    await store.set({(0.1, 1.0): "a"})
    assert await store.get((float(np.float32(0.1)), 1.0)) == {(float(np.float32(0.1)), 1.0): "a"}
    assert await store.get((0.1 + 1e-12, 1.0)) == {(float(np.float32(0.1)), 1.0): "a"}
    assert await store.get((next_up, 1.0)) == {}
    await store.set({(next_up, 1.0): "b"})
    assert set((await store.find((0.1, 1.0), 5)).values) == {"a", "b"}
    assert key_id(np.array([-0.0, 1], np.float32)) == key_id(np.array([0.0, 1], np.float32))


async def test_keys_come_back_with_every_bit(store: Store) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((50, 16)).astype(np.float32) * 10.0 ** rng.integers(-8, 8, (50, 1))
    keys = [tuple(row.astype(np.float32).tolist()) for row in rows]
    await store.set({key: str(number) for number, key in enumerate(keys)})
    assert list(await store.get(*keys)) == keys
    for number, key in enumerate(keys):
        found = await store.find(key, 1)
        assert found.keys == (key,)
        assert found.values == (str(number),)


@pytest.mark.parametrize("count", [2, 3])
async def test_normalised_and_raw_keys_have_the_same_similarities(flow: Stores, count: int) -> None:
    rng = np.random.default_rng(count)
    raw = rng.standard_normal((20, 8)).astype(np.float32) * rng.uniform(0.1, 50, (20, 1)).astype(np.float32)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    for name, rows in (("raw", raw), ("unit", unit)):
        await Store(flow, name).set({tuple(row.tolist()): str(i) for i, row in enumerate(rows)})
    for i in range(20):
        one = await Store(flow, "raw").find(tuple(raw[i].tolist()), 20)
        two = await Store(flow, "unit").find(tuple(unit[i].tolist()), 20)
        assert one.values == two.values
        assert one.similarities == pytest.approx(two.similarities, abs=1e-5)
        assert one.similarities[0] == pytest.approx(1, abs=1e-5)
        expected = np.sort(unit @ unit[i])[::-1]
        assert list(one.similarities) == pytest.approx(expected.tolist(), abs=1e-5)


async def test_angles_keep_the_triangle_inequality(store: Store) -> None:
    rng = np.random.default_rng(11)
    keys = [tuple(row.tolist()) for row in rng.standard_normal((12, 6)).astype(np.float32)]
    await store.set({key: str(number) for number, key in enumerate(keys)})
    angles = np.empty((12, 12))
    for number, key in enumerate(keys):
        found = await store.find(key, 12)
        for value, similarity in zip(found.values, found.similarities, strict=True):
            assert -1 <= similarity <= 1
            angles[number, int(value)] = np.arccos(similarity)
    assert angles == pytest.approx(angles.T, abs=1e-3)
    assert np.diag(angles) == pytest.approx(0, abs=1e-3)
    for a, b, c in permutations(range(12), 3):
        assert angles[a, c] <= angles[a, b] + angles[b, c] + 1e-3


async def test_a_key_of_zeros_is_similar_to_nothing(store: Store) -> None:
    await store.set({(0.0, 0.0): "zero", (1.0, 0.0): "east"})
    assert await store.get((0.0, -0.0)) == {(0.0, 0.0): "zero"}
    found = await store.find((0.0, 0.0), 2)
    assert found.similarities == (0, 0)
    assert (await store.find((1.0, 0.0), 2)).values == ("east", "zero")


async def test_stores_are_kept_apart(flow: Stores) -> None:
    one, two = Store(flow, "one"), Store(flow, "two")
    await one.set({(1.0, 0.0): "one"})
    await two.set({(1.0, 0.0): "two", (1.0, 1.0): "more"})
    assert await one.get((1.0, 0.0), (1.0, 1.0)) == {(1.0, 0.0): "one"}
    await one.delete((1.0, 0.0))
    assert (await two.find((1.0, 0.0), 9)).values == ("two", "more")


@pytest.mark.parametrize("value", ["", '{"id": 1}', "ü \U0001f600", "long " * 10_000])
async def test_values_are_any_text(store: Store, value: str) -> None:
    await store.set({(1.0,): value})
    assert await store.get((1.0,)) == {(1.0,): value}
    assert (await store.find((2.0,), 1)).values == (value,)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
async def test_values_that_a_database_cannot_hold_are_refused(store: Store, value: str) -> None:
    with pytest.raises(InvalidInput, match="value"):
        await store.set({(1.0,): "good", (2.0,): value})
    assert await store.get((1.0,), (2.0,)) == {}
    await store.set({(1.0,): "good"})
    with pytest.raises(InvalidInput, match="value"):
        await store.set({(1.0,): value})
    assert await store.get((1.0,)) == {(1.0,): "good"}
