"""Which mechanisms reach which peer."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Chain
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.testing import Record, call


@pytest.mark.parametrize(
    ("target", "left"), [("unix:///x", ["KERNEL"]), ("tcp://h:1", ["VXLAN"]), ("inode://4/5", ["KERNEL"])]
)
async def test_only_mechanisms_that_reach_the_peer_are_offered(target, left):
    probe = Record()
    asked = call(preferences=[Mechanism(cls="LOCAL", type="KERNEL"), Mechanism(cls="REMOTE", type="VXLAN")])
    asked.target = target
    await Chain([FilterMechanisms(), probe]).request(asked)
    assert [p.type for p in probe.requests[0].mechanism_preferences] == left
