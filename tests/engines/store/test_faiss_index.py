"""Exactness against numpy, removal without a trace, recall of the approximate kinds, files under damage."""

from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.embedding import unit_rows
from engines.errors import ConfigurationError, InvalidInput, StoreCorrupt
from engines.store.faiss_index import FaissIndex
from engines.store.index_options import IndexOptions, Kind
from engines.store.segment import Segment
from engines.types import Embeddings

DIM = 8
HNSW = IndexOptions(kind="hnsw", approximate_from=100, m=16)
IVF = IndexOptions(kind="ivf", approximate_from=100, nprobe=8)
EVERY = [IndexOptions(), IndexOptions(kind="flat-fp16"), HNSW, IVF]
Ints = NDArray[np.int64]


def vectors(count: int, dim: int = DIM, seed: int = 0) -> Embeddings:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32))


def clustered(count: int, dim: int, seed: int) -> Embeddings:
    """People with several samples each, as embeddings of faces lie: about 10 samples around each."""
    centres = vectors(count // 10, dim, seed=7)
    generator = np.random.default_rng(seed)
    spread = generator.standard_normal((count, dim), dtype=np.float32) * np.float32(0.5 / np.sqrt(dim))
    return unit_rows(centres[generator.integers(0, len(centres), count)] + spread)


def filled(options: IndexOptions, count: int, dim: int = DIM) -> tuple[FaissIndex, Embeddings]:
    """Records at positions 1 to count, the last tenth not yet in the graph or the lists."""
    index, rows, most = FaissIndex(dim, options), vectors(count, dim), count - count // 10
    index.add(np.arange(1, most + 1), rows[:most])
    index.build()
    index.add(np.arange(most + 1, count + 1), rows[most:])
    return index, rows


def ids(index: FaissIndex, queries: Embeddings, k: int, only: Ints | None = None) -> list[list[int]]:
    found: list[list[int]] = index.search(queries, k, only)[1].tolist()
    return found


class Model:
    """What an index must find: brute force over a dictionary."""

    def __init__(self) -> None:
        self.records: dict[int, Embeddings] = {}

    def best(self, query: Embeddings, k: int, only: set[int] | None) -> list[tuple[float, int]]:
        pairs = [
            (float(vector.astype(np.float64) @ query.astype(np.float64)), position)
            for position, vector in self.records.items()
            if only is None or position in only
        ]
        return sorted(pairs, key=lambda pair: -pair[0])[:k]


def kept_up(index: FaissIndex, step: str, made: Segment | None) -> Segment | None:
    """A step of the upkeep; what was made and is not yet adopted."""
    if step == "adopt":
        if made:
            index.adopt(made)
        return None
    index.release()
    if step == "build":
        index.build()
    elif step == "hold":
        index.hold()
        return index.rebuilt()
    return None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 30)),
        st.tuples(st.just("remove"), st.integers(1, 20)),
        st.tuples(st.sampled_from(["build", "hold", "adopt", "release"]), st.just(0)),
        st.tuples(st.just("search"), st.integers(1, 40)),
        st.tuples(st.just("search among"), st.integers(1, 40)),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(steps=steps, seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["flat", "flat-fp16", "ivf"]))
def test_indexes_find_what_brute_force_finds(steps: list[tuple[str, int]], seed: int, kind: Kind) -> None:
    generator = np.random.default_rng(seed)
    every_list = IndexOptions(kind=kind, approximate_from=20, nprobe=1000)
    index, model, last = FaissIndex(DIM, every_list), Model(), 0
    made: Segment | None = None
    near = 2e-3 if kind == "flat-fp16" else 1e-5
    for step, count in [*steps, ("search", 5), ("search among", 5)]:
        if step == "add":
            positions = last + np.cumsum(generator.integers(1, 4, count))
            rows = vectors(count, seed=int(generator.integers(2**32)))
            index.add(positions, rows)
            model.records |= dict(zip(positions.tolist(), rows, strict=True))
            last = int(positions[-1])
        elif step == "remove":
            gone = generator.integers(0, last + 5, count)
            index.remove(gone)
            for position in gone.tolist():
                model.records.pop(position, None)
        elif not step.startswith("search"):
            made = kept_up(index, step, made)
        else:
            only = set(generator.integers(0, last + 5, 12).tolist()) if step == "search among" else None
            queries = vectors(int(generator.choice([1, 2, 5, 30])), seed=int(generator.integers(2**32)))
            chosen = None if only is None else np.array(sorted(only), np.int64)
            similarities, positions = index.search(queries, count, chosen)
            assert similarities.shape == positions.shape == (len(queries), count)
            for query, close, found in zip(queries, similarities.tolist(), positions.tolist(), strict=True):
                best = model.best(query, count, only)
                assert close[: len(best)] == pytest.approx([one for one, _ in best], abs=near)
                assert len(set(found[: len(best)])) == len(best)
                assert set(found[: len(best)]) <= (model.records.keys() if only is None else only)
                assert found[len(best) :] == [-1] * (count - len(best)) == close[len(best) :]
    assert len(index) == len(model.records)
    assert index.positions.tolist() == sorted(model.records)


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
def test_a_removed_record_is_never_found_again(options: IndexOptions) -> None:
    index, rows = filled(options, 400)
    gone = np.arange(5, 400, 20)
    index.remove(gone)
    for _ in range(2):
        for batch in (rows[gone - 1], rows[gone[:1] - 1]):
            for k in (1, 10, 400):
                assert not np.isin(index.search(batch, k)[1], gone).any()
                assert not np.isin(index.search(batch, k, np.arange(1, 401))[1], gone).any()
        assert len(index) == 380
        index.build()


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
def test_every_kind_finds_each_record_by_itself_after_removals_and_additions(options: IndexOptions) -> None:
    index, rows = filled(options, 300)
    index.remove(np.arange(1, 101))
    more = vectors(100, seed=1)
    index.add(np.arange(301, 401), more)
    assert ids(index, np.vstack([rows[100:], more]), 1) == [[one] for one in range(101, 401)]


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
@pytest.mark.parametrize("many", [3, 250])
def test_a_search_among_some_finds_these_alone(options: IndexOptions, many: int) -> None:
    index, rows = filled(options, 300)
    only = np.arange(10, 10 + many)
    index.remove(only[:1])
    found = np.array(ids(index, rows[:40], 5, only))
    assert set(found[found >= 0].tolist()) <= set(only[1:].tolist())
    assert ids(index, rows[only[1:] - 1], 1, only) == [[one] for one in only[1:].tolist()]


def test_a_large_set_is_compared_in_several_pieces() -> None:
    index, rows = filled(IndexOptions(), 40_000, dim=4)
    only = np.arange(1, 40_001, 2)
    expected = only[np.argsort(-(rows[only - 1] @ rows[:3].T), axis=0, kind="stable")[:4].T]
    assert ids(index, rows[:3], 4, only) == expected.tolist()


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_equal_records_come_in_the_order_of_their_positions(batch: int) -> None:
    index = FaissIndex(4)
    index.add(
        np.array([3, 5, 9, 11]),
        np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], np.float32),
    )
    query = np.repeat(np.array([[1, 0, 0, 0]], np.float32), batch, axis=0)
    assert ids(index, query, 4) == [[5, 9, 11, 3]] * batch
    assert ids(index, query, 4, np.array([11, 9, 3])) == [[9, 11, 3, -1]] * batch


def test_more_is_asked_than_there_is() -> None:
    index, rows = filled(IndexOptions(), 2)
    similarities, positions = index.search(rows, 4)
    assert positions.tolist() == [[1, 2, -1, -1], [2, 1, -1, -1]]
    assert similarities[:, 0] == pytest.approx([1, 1])
    assert (similarities[:, 2:] == -1).all()


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
def test_nothing_is_found_in_nothing(options: IndexOptions, tmp_path: Path) -> None:
    index, rows = filled(options, 200)
    index.remove(np.arange(1, 201))
    index.save(tmp_path / "index")
    for one in (FaissIndex(DIM, options), index, FaissIndex.load(tmp_path / "index", options)):
        assert len(one) == 0
        assert ids(one, rows[:2], 3) == [[-1] * 3] * 2
    full, _ = filled(options, 200)
    assert ids(full, rows[:2], 3, np.empty(0, np.int64)) == [[-1] * 3] * 2
    assert full.search(rows[:0], 3)[1].shape == (0, 3)


def test_applying_twice_is_harmless() -> None:
    index, rows = filled(IndexOptions(), 5)
    index.remove(np.array([5]))
    index.build()
    index.add(np.arange(1, 7), np.vstack([rows, vectors(1, seed=1)]))
    assert index.positions.tolist() == [1, 2, 3, 4, 6]


def test_what_does_not_fit_is_refused() -> None:
    index, _ = filled(IndexOptions(), 5)
    with pytest.raises(InvalidInput, match="8 dimensions, not 4"):
        index.add(np.array([9]), vectors(1, 4))
    with pytest.raises(InvalidInput, match="8 dimensions, not 4"):
        index.search(vectors(1, 4), 1)
    with pytest.raises(InvalidInput, match="ascend"):
        index.add(np.array([9, 8]), vectors(2))
    with pytest.raises(InvalidInput, match="at least one"):
        index.search(vectors(1), 0)
    assert len(index) == 5


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="FAISS sees a GPU here")
def test_a_gpu_that_is_not_there_is_told_of() -> None:
    with pytest.raises(ConfigurationError, match="no GPU"):
        FaissIndex(DIM, IndexOptions(gpu=True))


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS sees no GPU here")
@pytest.mark.parametrize("kind", ["flat", "flat-fp16"])
def test_a_gpu_finds_what_the_cpu_finds(kind: Kind) -> None:
    index, rows = filled(IndexOptions(kind=kind, gpu=True), 400)
    assert ids(index, rows, 1) == [[one] for one in range(1, 401)]
    index.remove(np.array([1, 2]))
    index.add(np.array([401]), vectors(1, seed=1))
    assert ids(index, np.vstack([rows[2:], vectors(1, seed=1)]), 1) == [[one] for one in range(3, 402)]
    assert not np.isin(index.search(rows[:2], 400)[1], [1, 2]).any()


def test_a_graph_does_not_go_on_a_gpu() -> None:
    with pytest.raises(ConfigurationError, match="not with hnsw"):
        FaissIndex(DIM, IndexOptions(kind="hnsw", gpu=True))


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (IndexOptions(kind="flat-fp16"), 0.99),
        (IndexOptions(kind="hnsw", approximate_from=5000), 0.95),
        (IndexOptions(kind="ivf", approximate_from=5000), 0.9),
    ],
    ids=lambda one: one.kind if isinstance(one, IndexOptions) else "",
)
def test_recall_at_1_on_clustered_vectors(options: IndexOptions, least: float) -> None:
    rows, queries = clustered(20_000, 64, seed=1), clustered(500, 64, seed=2)
    index = FaissIndex(64, options)
    for start in range(0, len(rows), 4000):
        index.add(np.arange(start, start + 4000), rows[start : start + 4000])
        index.build()
    assert len(index._segments) == 1
    index.remove(np.arange(0, 1950))
    expected = 1950 + np.argmax(queries @ rows[1950:].T, axis=1)
    assert float(np.mean(index.search(queries, 1)[1][:, 0] == expected)) >= least


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
def test_a_saved_index_is_read_as_it_was(options: IndexOptions, tmp_path: Path) -> None:
    index, rows = filled(options, 300)
    index.remove(np.array([7, 300]))
    index.save(tmp_path / "index")
    again = FaissIndex.load(tmp_path / "index", options)
    assert again.positions.tolist() == index.positions.tolist()
    assert np.array_equal(index.search(rows[:20], 5)[0], again.search(rows[:20], 5)[0])
    assert ids(index, rows[:20], 5) == ids(again, rows[:20], 5)
    again.add(np.array([301]), vectors(1, seed=5))
    again.remove(np.array([1]))
    assert ids(again, vectors(1, seed=5), 1) == [[301]]
    assert len(again) == 298
    assert not np.isin(again.search(rows, 30)[1], [1, 7, 300]).any()
    assert [one.name for one in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
def test_a_held_index_goes_on_and_is_saved_as_it_was(options: IndexOptions, tmp_path: Path) -> None:
    index, rows = filled(options, 300)
    more = vectors(300, seed=1)
    index.hold()
    index.add(np.arange(301, 601), more)
    index.remove(np.array([7, 8, 301]))
    index.save(tmp_path / "index")
    found = [[one] for one in (*range(1, 7), *range(9, 301), *range(302, 601))]
    asked = np.vstack([rows[:6], rows[8:], more[1:]])
    for _ in range(2):
        assert ids(index, asked, 1) == found
        assert len(index) == len(found)
        assert index.positions.tolist() == [one for (one,) in found]
        assert not np.isin(index.search(rows[6:8], 10)[1], [7, 8, 301]).any()
        index.release()
    saved = FaissIndex.load(tmp_path / "index", options)
    assert saved.positions.tolist() == [one for one in range(1, 301) if one not in (7, 8)]
    index.add(np.array([600, 601]), vectors(2, seed=2))
    assert len(index) == len(found) + 1


@pytest.mark.parametrize("before", EVERY, ids=lambda one: f"from {one.kind}")
@pytest.mark.parametrize("after", EVERY, ids=lambda one: f"to {one.kind}")
def test_another_kind_is_configured(before: IndexOptions, after: IndexOptions, tmp_path: Path) -> None:
    index, rows = filled(before, 200)
    index.save(tmp_path / "index")
    if before.kind == "flat-fp16" != after.kind:
        with pytest.raises(StoreCorrupt, match="half precision"):
            FaissIndex.load(tmp_path / "index", after)
        return
    again = FaissIndex.load(tmp_path / "index", after)
    again.build()
    assert {segment.kind for segment in again._segments} == {after.kind}
    assert ids(again, rows, 1) == [[one] for one in range(1, 201)]
    again.add(np.array([201]), vectors(1, seed=5))
    assert len(again) == 201


@pytest.mark.parametrize("options", EVERY, ids=lambda one: one.kind)
@pytest.mark.parametrize("reread", [False, True])
def test_nothing_of_a_removed_record_is_in_the_file(
    options: IndexOptions, reread: bool, tmp_path: Path
) -> None:
    index, rows = filled(options, 300)
    if options.kind == "flat-fp16":
        rows = rows.astype(np.float16)
    index.save(tmp_path / "before")
    if reread:
        index = FaissIndex.load(tmp_path / "before", options)
    index.remove(np.array([50]))
    index.save(tmp_path / "after")
    assert rows[49].tobytes() in (tmp_path / "before").read_bytes()
    assert rows[49].tobytes() not in (tmp_path / "after").read_bytes()
    assert rows[50].tobytes() in (tmp_path / "after").read_bytes()


@pytest.mark.parametrize("kind", ["flat", "flat-fp16"])
def test_a_flat_index_erases_at_once_and_compacts_in_bulk(kind: Kind) -> None:
    index, _ = filled(IndexOptions(kind=kind), 1000)
    number = np.float32 if kind == "flat" else np.float16
    memory, sizes = index._segments[0]._index.codes, []
    for position in range(1, 151):
        index.remove(np.array([position]))
        rows = faiss.rev_swig_ptr(memory.data(), memory.size()).view(number).reshape(-1, DIM)
        assert np.count_nonzero(~np.isnan(rows).any(axis=1)) == len(index) == 1000 - position
        sizes.append(memory.size())
    assert sum(now < before for before, now in pairwise(sizes)) == 1
    index._segments[0].compact()
    assert memory.size() == 850 * DIM * np.dtype(number).itemsize


@pytest.mark.parametrize("length", [0, 5, 100, 5000])
def test_a_torn_file_is_told_from_a_whole_one(length: int, tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(IndexOptions(), 300)[0].save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreCorrupt, match="index is torn"):
        FaissIndex.load(path)


@settings(deadline=None, max_examples=50)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_seen(where: float, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    filled(IndexOptions(), 20)[0].save(path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        FaissIndex.load(path)


def test_a_file_that_is_not_there_is_no_corrupt_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FaissIndex.load(tmp_path / "index")
