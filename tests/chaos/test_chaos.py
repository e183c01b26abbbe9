"""A short run of chaos, always the same: `make chaos SEED=… MINUTES=…` runs others, for longer."""

import os
import random

import pytest

from .faults import KINDS, Fault, schedule
from .run import Chaos

SEED = 11
SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))


@pytest.mark.system
@pytest.mark.timeout(SECONDS + 240)
async def test_whatever_breaks_comes_back_and_nothing_is_left_behind(tmp_path):
    told = []
    async with Chaos.begun(f"chaos-{os.getpid()}", told.append) as chaos:
        try:
            assert await chaos.go(SEED, SECONDS) > 0
        except BaseException:
            print("\n".join(told))
            await chaos.mesh.keep_logs(tmp_path / "chaos.log")
            print(f"the logs of the mesh are in {tmp_path}/chaos.log")
            raise


def test_a_seed_replays():
    def first(seed):
        faults = schedule(seed)
        return [next(faults) for _ in range(50)]

    assert first(7) == first(7) != first(8)
    assert len({fault.kind for fault in first(7)}) > 5


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_each_kind_of_fault_says_what_it_does(maker):
    fault = maker(random.Random(1))
    assert isinstance(fault, Fault)
    assert str(fault).startswith(fault.kind)
