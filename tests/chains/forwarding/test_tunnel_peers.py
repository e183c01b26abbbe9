"""Who may say where the other end of a tunnel is."""

import time

import jwt
import pytest

from nsm.apis.connection import Mechanism, Path, PathSegment
from nsm.chains.core import Chain, Peer, Refused
from nsm.chains.forwarding.tunnel_peers import AnsweredByManagers, AskedByForwarders
from nsm.chains.policy import NO_TRUST, IdPatterns, Trust
from nsm.chains.testing import Check, Record, call

TRUST = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr", "spiffe://test.mesh/forwarder"]))


def peer(name):
    return Peer(f"spiffe://test.mesh/{name}", b"")


def segment(name):
    token = jwt.encode({"sub": f"spiffe://test.mesh/{name}", "exp": int(time.time()) + 60}, "k" * 32)
    return PathSegment(name=name, id=name, token=token)


def asked(*names):
    """A request that passed `names` on its way to a forwarder."""
    request = call(path=Path(index=len(names), path_segments=[*map(segment, names), PathSegment(name="own")]))
    request.peer = peer(names[-1])
    return request


@pytest.mark.parametrize("names", [("workload",), ("workload", "nsmgr"), ("forwarder", "workload")])
async def test_a_tunnel_that_a_workload_asks_for_is_refused_also_by_way_of_a_manager(names):
    probe = Record()
    with pytest.raises(Refused, match=r"/workload may not name the other end of a tunnel.*NSM_INTERMEDIARIES"):
        await Chain([AskedByForwarders(TRUST), probe]).request(asked(*names))
    assert probe.requests == []


async def test_a_segment_that_says_of_nobody_who_it_was_is_refused():
    request = asked("forwarder", "nsmgr")
    request.connection.path.path_segments[0].token = "nonsense"
    with pytest.raises(Refused, match="nobody may not name the other end"):
        await Chain([AskedByForwarders(TRUST)]).request(request)


@pytest.mark.parametrize(
    ("names", "trust"), [(("forwarder", "nsmgr"), TRUST), (("nsmgr",), TRUST), (("workload",), NO_TRUST)]
)
async def test_forwarders_ask_each_other_and_without_intermediaries_anybody_does(names, trust):
    probe = Record()
    await Chain([AskedByForwarders(trust), probe]).request(asked(*names))
    assert len(probe.requests) == 1


async def answered(name, kind, trust=TRUST):
    """What a forwarder gets of whom it asked."""

    def answer(call):
        call.connection.mechanism, call.server_peer = Mechanism(type=kind), peer(name)

    return await Chain([AnsweredByManagers(trust), Check(answer)]).request(call())


@pytest.mark.parametrize("kind", ["VXLAN", "WIREGUARD"])
async def test_an_endpoint_that_says_where_a_tunnel_ends_is_refused(kind):
    with pytest.raises(Refused, match=r"test\.mesh/endpoint may not name the other end of a tunnel"):
        await answered("endpoint", kind)
    assert (await answered("nsmgr", kind)).mechanism.type == kind
    assert (await answered("endpoint", kind, NO_TRUST)).mechanism.type == kind


async def test_an_endpoint_answers_with_an_interface_of_its_own():
    assert (await answered("endpoint", "KERNEL")).mechanism.type == "KERNEL"
