"""Paths that callers name."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Chain, Peer, Refused
from nsm.chains.elements.refuse_paths import RefusePaths
from nsm.chains.testing import Record, call


@pytest.mark.parametrize("where", ["mechanism", "preferences"])
async def test_a_path_of_the_caller_is_refused_and_a_descriptor_or_our_own_path_is_not(where):
    probe = Record()
    chain = Chain([RefusePaths(), probe])

    def naming(url):
        named = Mechanism(type="KERNEL", parameters={"inodeURL": url})
        return call(**{where: named if where == "mechanism" else [named]})

    asked = naming("file:///proc/1/ns/net")
    asked.peer = Peer("spiffe://test.mesh/client", b"")
    with pytest.raises(Refused, match="file:///proc/1/ns/net is a path of the caller's"):
        await chain.request(asked)
    assert probe.requests == []
    await chain.request(naming("file:///proc/1/ns/net"))
    asked = naming("inode://4/5")
    asked.peer = Peer("spiffe://test.mesh/client", b"")
    await chain.request(asked)
    assert len(probe.requests) == 2
