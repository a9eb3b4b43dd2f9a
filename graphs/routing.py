"""Which replica of a deployment a call goes to."""

import random
from collections.abc import Sequence
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    LocalityMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)


class TakingTurns(FIFOMixin, LocalityMixin, RequestRouter):
    """Of two replicas that are drawn, the one with the shorter queue; of equals, the one whose turn it is.

    Serve's own router counts a call when it is sent, not when its replica is chosen: of calls that begin
    together, such as those for the two pictures of one request, many meet at one replica while another rests.
    Source: https://docs.ray.io/en/latest/serve/advanced-guides/custom-request-router.html
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)  # type: ignore[no-untyped-call] # Ray leaves it without annotations
        self._last_turn: dict[ReplicaID, int] = {}
        self._turns = 0

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forgets those that are gone."""
        super().update_replicas(replicas)
        there = (one.replica_id for one in replicas)
        self._last_turn = {name: self._last_turn[name] for name in there if name in self._last_turn}

    async def choose_replicas(
        self, candidate_replicas: Sequence[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The pair, of which Serve takes the first where their queues are equal.

        Where one is not known, Serve would ask for it and take who answers sooner, or the other: then they
        are ranks, and it asks the first alone.
        """
        near = self.apply_locality_routing(pending_request=pending_request)
        there = [one for one in candidate_replicas if one.replica_id in near]
        drawn = random.sample(there, min(2, len(there)))
        if drawn:
            drawn.sort(key=lambda one: self._last_turn.get(one.replica_id, 0))
            self._turns += 1
            self._last_turn[drawn[0].replica_id] = self._turns
        known = all(self.replica_queue_len_cache.get(one.replica_id) is not None for one in drawn)
        return [drawn] if known else [[one] for one in drawn]
