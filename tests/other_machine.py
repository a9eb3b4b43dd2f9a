"""A second network namespace, joined to this one by a veth pair: what another machine is to the network."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class OtherMachine:
    """namespace: its name. here, there: addresses of this machine and of the other."""

    namespace: str
    here: str
    there: str

    def command(self, *words: str) -> list[str]:
        """A command that runs there."""
        return ["ip", "netns", "exec", self.namespace, *words]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Meanwhile nothing of what it sends arrives, as where its power failed."""
        route = f"blackhole {self.here}/32"
        _ip(f"-n {self.namespace} route add {route}")
        try:
            yield
        finally:
            _ip(f"-n {self.namespace} route delete {route}")


@contextmanager
def other_machine() -> Iterator[OtherMachine]:
    """One that reaches this machine and nothing else. Skips the test where namespaces are not allowed."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("the ip command (iproute2) is missing")
    number = os.getpid()
    first = 4 * (number % 63)
    # Documentation addresses (RFC 5737); processes that run tests at the same time have their own networks.
    other = OtherMachine(f"presence{number}", f"198.51.100.{first + 1}", f"198.51.100.{first + 2}")
    made = subprocess.run(
        ["ip", "netns", "add", other.namespace], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
    here, there = f"ph{number}", f"pg{number}"
    try:
        _ip(f"link add {here} type veth peer name {there} netns {other.namespace}")
        _ip(f"address add {other.here}/30 dev {here}")
        _ip(f"link set {here} up")
        _ip(f"-n {other.namespace} address add {other.there}/30 dev {there}")
        _ip(f"-n {other.namespace} link set {there} up")
        yield other
    finally:
        # The pair goes at once; with the namespace alone it would linger until its last process ends.
        subprocess.run(["ip", "link", "delete", here], check=False)
        _ip(f"netns delete {other.namespace}")


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)
