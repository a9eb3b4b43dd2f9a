"""Which replica a call goes to, by Serve's own choice among those that the router ranks."""

import asyncio
from collections import Counter
from typing import Any, ClassVar

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.request_router import PendingRequest, ReplicaID

from graphs.routing import FewestInFlight

PART = DeploymentID("part", "presence")


class Replica:
    """What a router asks of one."""

    node_id = "node"
    availability_zone = None
    max_ongoing_requests = 8
    multiplexed_model_ids: ClassVar[set[str]] = set()

    def __init__(self, number: int) -> None:
        self.replica_id = ReplicaID(str(number), PART)

        self.waiting = 0

    async def get_queue_len(self, *, deadline_s: float) -> int:  # noqa: ARG002 - Serve names it
        return self.waiting


async def router(replicas: int) -> FewestInFlight:
    """One whose replicas all rest, as Serve makes it."""
    made = FewestInFlight(
        deployment_id=PART,
        handle_source=DeploymentHandleSource.REPLICA,
        self_node_id="node",
        use_replica_queue_len_cache=True,
        prefer_local_node_routing=True,
        prefer_local_az_routing=False,
        self_availability_zone=None,
    )
    await given(made, *range(replicas))
    return made


async def given(made: FewestInFlight, *numbers: int) -> None:
    """These are the replicas from now on."""
    replicas: list[Any] = [Replica(number) for number in numbers]
    made.update_replicas(replicas)
    for _ in range(10_000):
        if all(made.replica_queue_len_cache.get(one.replica_id) is not None for one in replicas):
            return
        await asyncio.sleep(0.001)  # nothing announces that their queues were asked for
    pytest.fail("the queues were not asked for")


async def chosen(made: FewestInFlight, calls: int) -> list[str]:
    """Of calls that begin together, before any of them is sent."""
    pending = [PendingRequest([], {}, RequestMetadata("same", f"{number}")) for number in range(calls)]
    found: list[Any] = await asyncio.gather(*map(made._choose_replica_for_request, pending))
    return [one.replica_id.unique_id for one in found]


@pytest.mark.parametrize("replicas", [2, 3, 8])
async def test_two_calls_that_begin_together_go_to_different_replicas(replicas: int) -> None:
    made = await router(replicas)
    for _ in range(100):
        assert len(set(await chosen(made, 2))) == 2


@pytest.mark.parametrize("replicas", [2, 5])
async def test_where_all_rest_all_are_asked_alike(replicas: int) -> None:
    made = await router(replicas)
    counts = Counter([(await chosen(made, 1))[0] for _ in range(100 * replicas)])
    assert len(counts) == replicas
    assert min(counts.values()) > 60


async def test_the_replica_with_fewer_calls_in_flight_goes_first_whoever_had_the_last_turn() -> None:
    made = await router(2)
    for busy, free in (("0", "1"), ("1", "0")):
        for name, calls in ((busy, 3), (free, 1)):
            for _ in range(calls):
                made.on_send_request(ReplicaID(name, PART))
        assert set(await chosen(made, 6)) == {free}
        for name, calls in ((busy, 3), (free, 1)):
            for _ in range(calls):
                made.on_request_completed(ReplicaID(name, PART), "call")


async def test_a_replica_that_told_a_high_number_late_is_not_passed_over() -> None:
    made = await router(2)
    rests, works = ReplicaID("0", PART), ReplicaID("1", PART)
    for _ in range(3):
        made.on_send_request(rests)
        made.on_request_completed(rests, "call")
        made.decrement_queue_len_cache(rests)
    made.on_new_queue_len_info(rests, 7)
    made.on_send_request(works)
    made.on_new_queue_len_info(works, 1)
    assert set(await chosen(made, 6)) == {"0"}


async def test_a_full_replica_is_not_asked_although_it_has_no_call_of_ours() -> None:
    made = await router(2)
    made.on_send_request(ReplicaID("1", PART))
    made.curr_replicas[ReplicaID("0", PART)].waiting = Replica.max_ongoing_requests  # type: ignore[attr-defined] # of the double
    made.on_new_queue_len_info(ReplicaID("0", PART), Replica.max_ongoing_requests)
    assert set(await chosen(made, 6)) == {"1"}


async def test_calls_that_could_not_be_sent_or_whose_replica_is_gone_count_nothing() -> None:
    made = await router(2)
    made.on_request_completed(ReplicaID("0", PART), "never sent")
    made.on_send_request(ReplicaID("0", PART))
    assert set(await chosen(made, 6)) == {"1"}
    await given(made, 1, 2)
    made.on_request_completed(ReplicaID("0", PART), "gone")
    made.on_send_request(ReplicaID("0", PART))
    assert set(await chosen(made, 2)) == {"1", "2"}


@pytest.mark.parametrize("unknown", [["0"], ["1"], ["0", "1"]])
async def test_queues_that_are_not_known_do_not_bring_calls_together(unknown: list[str]) -> None:
    made = await router(2)
    for _ in range(50):
        for name in unknown:
            made.replica_queue_len_cache.invalidate_key(ReplicaID(name, PART))
        assert len(set(await chosen(made, 2))) == 2


async def test_one_replica_is_the_only_choice() -> None:
    assert set(await chosen(await router(1), 5)) == {"0"}


async def test_replicas_that_are_gone_are_forgotten_and_new_ones_asked() -> None:
    made = await router(3)
    await chosen(made, 6)
    await given(made, 2, 3)
    assert set(await chosen(made, 2)) == {"2", "3"}
    assert {name.unique_id for name in made._loads} == {"2", "3"}
