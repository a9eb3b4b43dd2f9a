"""When the tables are rewritten, so that nothing of what was deleted or replaced is left in them."""

import time

from sqlalchemy import Connection, or_, select, update

from engines.errors import StoreUnavailable
from engines.store.database import LOCK_TIMEOUT_S, Database
from engines.store.erasure import rewrite_tables
from engines.store.schema import HEAD, META, RECORDS

TURN_EVERY_S = 0.2
"""How often a command looks whether another process has ended its upkeep."""
AGAIN_S = 3600.0
"""How long the upkeep, of whichever process, does not try again after a compaction was begun."""


class Compaction:
    """Of one database. SQLite erases at once and is only made smaller; Postgres erases nothing without it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> None:
        """Raises as `SqlJournal.compact`."""
        if self._database.is_sqlite:
            self._database.rewrite()
            return
        give_up = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            with self._database.taking_turns() as connection:
                if connection is not None:
                    self._rewrite(connection)
                    return
            if time.monotonic() > give_up:
                raise StoreUnavailable(
                    f"{self._database.name} is being compacted, or an index built: try again later"
                )
            time.sleep(TURN_EVERY_S)

    def when_due(self, every_s: float) -> None:
        """See `Journal.compact_when_due`; nothing while another process is at it. Raises as `now`."""
        if self._database.is_sqlite:
            return
        with self._database.taking_turns() as connection:
            if connection is not None and _is_due(connection, every_s):
                connection.execute(update(META).values(compaction_began_at=time.time()))
                self._rewrite(connection)

    def _rewrite(self, connection: Connection) -> None:
        erased = connection.execute(select(HEAD)).one()
        rewrite_tables(connection, self._database.name, LOCK_TIMEOUT_S)
        connection.execute(
            update(META).values(
                compaction_began_at=0.0,
                compacted_at=time.time(),
                compacted_position=erased.position,
                compacted_revision=erased.revision,
            )
        )


def _is_due(connection: Connection, every_s: float) -> bool:
    """Whether they were not rewritten for so long, something was erased since, and no attempt just failed."""
    erased = select(RECORDS.c.position).where(RECORDS.c.deleted_position > META.c.compacted_position)
    replaced = select(HEAD.c.position).where(HEAD.c.revision > META.c.compacted_revision)
    due = select(
        META.c.compacted_at < time.time() - every_s,
        META.c.compaction_began_at < time.time() - AGAIN_S,
        or_(erased.exists(), replaced.exists()),
    )
    return all(connection.execute(due.select_from(META)).one())
