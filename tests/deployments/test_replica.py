"""What every model part does inside its replica: warm-up, health, live settings, errors as values."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.replica import BatchedReplica, runtime
from engines.errors import DeadlineExceeded, NotDecodable, PresenceError
from engines.types import Runtime
from graphs import ray_runtime

WITH_RAY = """
import json, sys
from pathlib import Path
import ray
from deployments.replica import runtime
from graphs import ray_runtime

ray.init(**ray_runtime.init_options(directory=Path(sys.argv[1])), num_cpus=1, num_gpus=1)
given = {share: ray.remote(runtime).options(num_cpus=0, num_gpus=share).remote(2) for share in (0, 0.1)}
print(json.dumps({share: [ray.get(one).threads, ray.get(one).cuda] for share, one in given.items()}))
"""


def later() -> float:
    return time.time() + 30


class Doubler(BatchedReplica[int, int]):
    """Doubles numbers, refuses 13, breaks when told to. Batches wait at the gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.broken = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(self._run, probe=0)

    def _run(self, items: list[int]) -> Sequence[int | PresenceError]:
        self.batches.append(items)
        self.entered.set()
        assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("the device is gone")
        return [NotDecodable("thirteen") if item == 13 else item * 2 for item in items]

    async def double(self, item: int, deadline: float) -> int | PresenceError:
        return await self._one(item, deadline)

    async def double_all(self, items: Sequence[int], deadline: float) -> list[int] | PresenceError:
        return await self._all(items, deadline)


def test_the_model_runs_once_before_the_replica_is_ready() -> None:
    assert Doubler().batches == [[0]]


def test_a_model_that_does_not_run_makes_no_replica() -> None:
    class Broken(Doubler):
        def _run(self, items: list[int]) -> Sequence[int | PresenceError]:
            raise RuntimeError(f"cannot run {items}")

    with pytest.raises(RuntimeError, match="cannot run"):
        Broken()


async def test_health_runs_the_model_and_fails_with_it() -> None:
    replica = Doubler()
    await replica.check_health()
    assert replica.batches == [[0], [0]]
    replica.broken = True
    with pytest.raises(RuntimeError, match="the device is gone"):
        await replica.check_health()


async def test_health_trusts_requests_that_were_answered_since_the_last_check() -> None:
    replica = Doubler()
    assert await replica.double(4, later()) == 8
    await replica.check_health()
    assert replica.batches == [[0], [4]]
    await replica.check_health()
    assert replica.batches == [[0], [4], [0]]
    assert isinstance(await replica.double(13, later()), NotDecodable)
    await replica.check_health()
    assert replica.batches[3:] == [[13], [0]], "a request that is refused proves nothing"
    assert await replica.double(4, later()) == 8
    replica.broken = True
    with pytest.raises(RuntimeError, match="the device is gone"):
        await replica.double(4, later())
    with pytest.raises(RuntimeError, match="the device is gone"):
        await replica.check_health()


async def test_errors_of_the_tree_are_values() -> None:
    replica = Doubler()
    assert await replica.double(4, later()) == 8
    assert isinstance(await replica.double(13, later()), NotDecodable)
    assert isinstance(await replica.double(4, time.time() - 1), DeadlineExceeded)
    assert await replica.double_all([1, 2, 3], later()) == [2, 4, 6]
    assert await replica.double_all([], later()) == []
    assert isinstance(await replica.double_all([1, 13], later()), NotDecodable)


async def test_a_failure_of_the_model_itself_is_raised() -> None:
    replica = Doubler()
    replica.broken = True
    with pytest.raises(RuntimeError, match="the device is gone"):
        await replica.double(4, later())


async def test_a_model_that_loses_items_fails_those_calls_and_no_later_ones() -> None:
    class Forgetful(Doubler):
        def _run(self, items: list[int]) -> Sequence[int | PresenceError]:
            return [item * 2 for item in items if item != 7]

    replica = Forgetful()
    with pytest.raises(RuntimeError, match="took 1 items and returned 0 outcomes"):
        await replica.double(7, later())
    assert await replica.double(4, later()) == 8


async def test_reconfigure_sets_the_batch_size_while_running() -> None:
    replica = Doubler()
    for size in (2, 4):
        replica.reconfigure({"max_batch_size": size, "batch_wait_timeout_s": 0.0})
        replica.batches.clear()
        replica.entered.clear()
        replica.gate.clear()
        first = asyncio.create_task(replica.double(1, later()))
        assert await asyncio.to_thread(replica.entered.wait, 10)
        rest = asyncio.create_task(replica.double_all([2, 3, 4, 5], later()))
        await asyncio.sleep(0)  # lets the rest queue up behind the batch that waits at the gate
        await asyncio.sleep(0)
        replica.gate.set()
        assert await rest == [4, 6, 8, 10]
        assert await first == 2
        assert [len(batch) for batch in replica.batches] == [1, *[size] * (4 // size)]


def test_without_ray_the_runtime_is_the_cpu() -> None:
    assert runtime(3) == Runtime(threads=3, cuda=False)


def test_with_ray_a_replica_uses_the_gpu_that_was_booked_for_it() -> None:
    """A Ray that takes one GPU for granted; whether there is one is the model's to find out."""
    with tempfile.TemporaryDirectory(prefix="p") as directory:
        ray_runtime.protect_token(Path(directory) / ".ray" / "auth_token")
        told = ray_runtime.environment(port=8080, directory=Path(directory))
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", WITH_RAY, directory],
            env={**os.environ, **told, "HOME": directory},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"0": [2, False], "0.1": [2, True]}
