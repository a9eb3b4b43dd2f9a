"""Appends that arrive while one is being committed share the next transaction."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from engines.errors import InvalidInput, PresenceError, StoreUnavailable
from engines.store import NewRecord

MOST_RECORDS = 4096
"""A group ends with the call that reaches this many records, so that no transaction grows without bound."""

Outcome = list[int] | PresenceError
Commit = Callable[[list[Sequence[NewRecord]]], list[list[int] | InvalidInput]]


@dataclass(slots=True, eq=False)
class _Call:
    records: Sequence[NewRecord]
    outcome: Outcome | None = None


class GroupCommit:
    """Runs `commit` for all calls that wait, one group at a time, in the thread of one of them."""

    def __init__(self, commit: Commit) -> None:
        """commit: one outcome for each call of a group; what it raises fails the whole group."""
        self._commit = commit
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._leading = False

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """The positions of the records, once their group is committed."""
        call = _Call(records)
        with self._changed:
            self._waiting.append(call)
            while call.outcome is None:
                if self._leading:
                    self._changed.wait()
                else:
                    self._lead(self._take())
        if isinstance(call.outcome, PresenceError):
            raise call.outcome
        return call.outcome

    def _take(self) -> list[_Call]:
        sizes = accumulate(len(call.records) for call in self._waiting)
        count = sum(1 for size in sizes if size < MOST_RECORDS) + 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _lead(self, group: list[_Call]) -> None:
        """Called with the lock held; gives it back for the time of the commit."""
        outcomes: Sequence[Outcome] = [StoreUnavailable("a write of the same transaction failed")] * len(
            group
        )
        self._leading = True
        self._changed.release()
        try:
            outcomes = self._commit([call.records for call in group])
        except PresenceError as error:
            outcomes = [type(error)(error.message) for _ in group]
        finally:
            self._changed.acquire()
            self._leading = False
            for call, outcome in zip(group, outcomes, strict=True):
                call.outcome = outcome
            self._changed.notify_all()
