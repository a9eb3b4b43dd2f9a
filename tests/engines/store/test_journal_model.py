"""Any sequence of calls leaves the journal as a dictionary would be left."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from engines.errors import InvalidInput
from engines.store import Filter, NewRecord, Space
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal

IDS = st.sampled_from(["a", "b", "c", "d", "e"])
NAMESPACES = st.sampled_from(["face/default", "voice/default"])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["Ada", "Bob"]) | TEXTS
LABELS = st.dictionaries(st.sampled_from(["k", "l"]) | TEXTS, st.sampled_from(["1", "2"]) | TEXTS, max_size=3)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
RECORDS = st.builds(
    NewRecord,
    id=IDS,
    space=st.builds(Space, NAMESPACES, st.sampled_from(["m", "n"])),
    embedding=st.lists(NUMBERS, min_size=1, max_size=2).map(
        lambda numbers: np.array(numbers, dtype=np.float32)
    ),
    name=NAMES,
    labels=LABELS,
    value=st.none() | TEXTS,
    created_at=st.floats(0, 2e9),
)


class Model(RuleBasedStateMachine):
    """living: (namespace, id) -> (position, record). steps: (position, record's position)."""

    kind = SqlJournal

    def new_url(self) -> str:
        return f"sqlite:///{Path(self.directory.name) / 'presence.db'}"

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.url = self.new_url()
        self.journal = self.kind(self.url)
        self.living: dict[tuple[str, str], tuple[int, NewRecord]] = {}
        self.steps: list[tuple[int, int]] = []

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            assert self.journal.verify() == []
            self.journal.close()
            self.directory.cleanup()

    def dims(self) -> dict[Space, int]:
        return {record.space: record.embedding.size for _, record in self.living.values()}

    @rule(records=st.lists(RECORDS, max_size=4))
    def append(self, records: list[NewRecord]) -> None:
        living, steps, dims = dict(self.living), list(self.steps), self.dims()
        for record in records:
            key = record.space.namespace, record.id
            if key in living:
                continue
            if dims.setdefault(record.space, record.embedding.size) != record.embedding.size:
                try:
                    self.journal.append(records)
                except InvalidInput:
                    return
                raise AssertionError("two dimensions in one space")
            living[key] = len(steps) + 1, record
            steps.append((len(steps) + 1, len(steps) + 1))
        expected = [living[record.space.namespace, record.id][0] for record in records]
        assert self.journal.append(records) == expected
        self.living, self.steps = living, steps

    @rule(namespace=NAMESPACES, ids=st.lists(IDS, max_size=3))
    def delete(self, namespace: str, ids: list[str]) -> None:
        expected = [one for one in dict.fromkeys(ids) if (namespace, one) in self.living]
        assert self.journal.delete(namespace, ids) == expected
        for one in expected:
            self.steps.append((len(self.steps) + 1, self.living.pop((namespace, one))[0]))

    @rule(
        namespace=NAMESPACES,
        one=IDS,
        name=st.none() | NAMES,
        labels=st.none() | LABELS,
        value=st.none() | TEXTS,
    )
    def update(
        self, namespace: str, one: str, name: str | None, labels: dict[str, str] | None, value: str | None
    ) -> None:
        lives = (namespace, one) in self.living
        assert self.journal.update(namespace, one, name=name, labels=labels, value=value) == lives
        if (namespace, one) in self.living:
            position, old = self.living[namespace, one]
            kept = old.name if name is None else name, old.labels if labels is None else labels
            changed = NewRecord(
                old.id, old.space, old.embedding, *kept, old.value if value is None else value, old.created_at
            )
            self.living[namespace, one] = position, changed

    @rule()
    def open_again(self) -> None:
        self.journal.close()
        self.journal = self.kind(self.url)

    @rule()
    def compact(self) -> None:
        self.journal.compact()

    @rule(namespace=NAMESPACES, name=st.none() | NAMES, labels=LABELS, after=st.integers(0, 5))
    def choose(self, namespace: str, name: str | None, labels: dict[str, str], after: int) -> None:
        chosen = Filter(name, labels)
        expected = sorted(
            (position, record.space.model)
            for (place, _), (position, record) in self.living.items()
            if place == namespace and name in {None, record.name} and labels.items() <= record.labels.items()
        )
        assert self.journal.count(namespace, chosen) == len(expected)
        page = self.journal.listed(namespace, chosen, after=after, limit=2)
        assert [one.position for one in page] == [position for position, _ in expected if position > after][
            :2
        ]
        of_model = [position for position, model in expected if model == "m"]
        assert self.journal.matching(Space(namespace, "m"), chosen).tolist() == of_model

    @invariant()
    def the_journal_is_as_the_model(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert self.journal.head() == len(self.steps)
        changes = self.journal.changes(0, 1000)
        assert [(change.position, change.record) for change in changes] == self.steps
        vectors = {change.record: change.embedding for change in changes if change.embedding is not None}
        assert set(vectors) == {position for position, _ in self.living.values()}
        stored = self.journal.stored([position for position, _ in self.steps])
        assert set(stored) == set(vectors)
        for (namespace, one), (position, record) in self.living.items():
            found = stored[position]
            assert vectors[position].tobytes() == record.embedding.tobytes()
            assert (found.id, found.space.namespace, found.space) == (one, namespace, record.space)
            assert (found.name, found.labels, found.value) == (record.name, dict(record.labels), record.value)
            assert (found.dim, found.created_at) == (record.embedding.size, record.created_at)


STEPS = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestModel = Model.TestCase
TestModel.settings = STEPS


def test_in_postgres_with_pgvector(postgres: Any) -> None:
    class InPostgres(Model):
        kind = PgVectorJournal

        def new_url(self) -> str:
            return str(postgres.new_database())

    run_state_machine_as_test(InPostgres, settings=settings(STEPS, max_examples=8))
