"""Which process a wire of WireGuard gets."""

from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from nsm.chains.forwarding.sides import KernelInterface
from nsm.forwarder_kernel import dataplane


class Programs:
    """An earlier forwarder's process, and what is done with it."""

    def __init__(self, former):
        self.former, self.ended, self.started = former, [], []

    def claim_former(self, _alias):
        return self.former

    async def end(self, processes):
        self.ended += processes

    async def start(self, path, room, alias):
        self.started.append((path, room, alias))
        return "a new one"


@pytest.mark.parametrize("is_here", [True, False])
async def test_the_program_of_a_node_that_was_rebooted_does_not_stay_beside_the_one_of_the_next_workload(
    is_here, tmp_path, monkeypatch
):
    """It has the wire's keys, and its UDP port, but its workload ended with the node."""
    place = KernelInterface(str(tmp_path), "nsm-1")
    key = dataplane.key_at(place.path)
    former = SimpleNamespace(key=key if is_here else (0, 0), is_running=lambda: True)
    plane = dataplane.Dataplane("f")
    try:
        programs = Programs(former)
        monkeypatch.setattr(plane, "_programs", programs)
        monkeypatch.setattr(plane, "_is_as_wanted", AsyncMock(return_value=True))
        process = await plane._process(place, SimpleNamespace(room=1400), "nsm f c", None)
        if is_here:
            assert (process, programs.ended, programs.started) == (former, [], [])
        else:
            assert (process, programs.ended) == ("a new one", [former])
    finally:
        monkeypatch.undo()
        await plane.aclose()
