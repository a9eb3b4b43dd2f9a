"""Which replica of a deployment a call goes to."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    LocalityMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)


@dataclass(slots=True)
class _Load:
    """What this router gave one replica. in_flight: calls without an answer; turn: of its last choice."""

    in_flight: int = 0
    turn: int = 0


class FewestInFlight(FIFOMixin, LocalityMixin, RequestRouter):
    """The near replica with the fewest calls of this router in flight; of equals, the one whose turn it is.

    Serve's own router goes by a number that a replica tells when it accepts a call and that each answer
    lowers by one. Told late, as by a model that holds the interpreter, it stays too high: a replica that
    rests is passed over, for up to ten seconds, while another has a queue. And a call counts when it is
    sent, not when its replica is chosen, so that calls that begin together, such as those for the two
    pictures of one request, meet at one replica.
    Source: https://docs.ray.io/en/latest/serve/advanced-guides/custom-request-router.html
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)  # type: ignore[no-untyped-call] # Ray leaves it without annotations
        self._loads: dict[ReplicaID, _Load] = {}
        self._turns = 0

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forgets those that are gone."""
        super().update_replicas(replicas)
        self._loads = {one.replica_id: self._loads.get(one.replica_id, _Load()) for one in replicas}

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Counts a call that goes out."""
        super().on_send_request(replica_id)
        if load := self._loads.get(replica_id):
            load.in_flight += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Counts an answer, or a call that failed or was given up; also one that could not be sent."""
        super().on_request_completed(replica_id, internal_request_id)
        if load := self._loads.get(replica_id):
            load.in_flight = max(0, load.in_flight - 1)

    async def choose_replicas(
        self, candidate_replicas: Sequence[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one each: Serve takes the first that answers and is not full."""
        near = self.apply_locality_routing(pending_request=pending_request)
        there = [one for one in candidate_replicas if one.replica_id in near & self._loads.keys()]
        random.shuffle(there)  # routers of many gateways begin with different replicas
        ranked = sorted(there, key=self._rank)
        if ranked:
            self._turns += 1
            self._loads[ranked[0].replica_id].turn = self._turns
        return [[one] for one in ranked]

    def _rank(self, replica: RunningReplica) -> tuple[int, int]:
        load = self._loads[replica.replica_id]
        return load.in_flight, load.turn
