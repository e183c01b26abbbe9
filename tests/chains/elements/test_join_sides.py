"""The two interfaces of a stage: their names, and when they are joined."""

import pytest

from nsm.apis.connection import Mechanism, Path
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.mechanisms import KERNEL
from nsm.chains.core import Begin, Chain, Unavailable
from nsm.chains.elements.join_sides import JoinSides, Pair, ServerSide, mark_of
from nsm.chains.testing import Check, Fail, Record, call


class Joints:
    def __init__(self, error=None):
        self.calls, self.error, self.is_closed = [], error, False

    def join(self, pair, on_joined):
        self.calls.append(pair)
        if self.error:
            raise self.error
        on_joined(pair.client_side, pair.server_side)

    async def leave(self, client_side):
        self.calls.append(client_side)

    async def aclose(self):
        self.is_closed = True


def request(**fields):
    return call("c", "shop", preferences=[KERNEL], payload="IP", path=Path(), **fields)


async def test_interfaces_are_bare_named_after_the_connection_and_joined_when_the_service_has_answered():
    joints, joined, record = Joints(), [], Record()
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"]))
    answer = Check(after=lambda connection: setattr(connection, "context", context))
    chain = Chain([Begin(), JoinSides(joints, lambda *ends: joined.append(ends)), record, ServerSide(), answer])
    await chain.request(request())
    mark = mark_of("c")
    (to_client,) = record.requests[0].mechanism_preferences[:1]
    assert to_client.parameters == {"name": f"in-{mark}", "bare": "true"}
    assert joints.calls == [Pair(f"in-{mark}", f"out-{mark}", "IP", ("10.0.0.1/32",), ("10.0.0.0/32",))]
    assert joined == [(f"in-{mark}", f"out-{mark}")]
    assert joints.calls[0].mark == mark


async def test_a_close_ends_the_joint():
    joints = Joints()
    chain = Chain([Begin(), JoinSides(joints)])
    await chain.request(request())
    await chain.close(call("c"))
    assert joints.calls[-1] == f"in-{mark_of('c')}"


async def test_a_first_request_that_fails_further_on_leaves_nothing_joined():
    joints = Joints()
    with pytest.raises(Unavailable):
        await Chain([Begin(), JoinSides(joints), Fail(Unavailable("gone"))]).request(request())
    assert joints.calls == []


async def test_what_cannot_be_joined_fails_the_request_and_is_removed():
    joints = Joints(Unavailable("cannot forward IPv6"))
    with pytest.raises(Unavailable, match="cannot forward IPv6"):
        await Chain([Begin(), JoinSides(joints)]).request(request())
    assert joints.calls[-1] == f"in-{mark_of('c')}"


async def test_the_side_of_the_service_is_requested_as_a_bare_kernel_interface():
    record = Record()
    await Chain([Begin(), ServerSide(), record]).request(call("c", path=Path()))
    expected = Mechanism(cls="LOCAL", type=KERNEL, parameters={"name": f"out-{mark_of('c')}", "bare": "true"})
    assert record.requests[0].mechanism_preferences == [expected]


async def test_the_joiner_is_closed_with_the_chain():
    joints = Joints()
    await Chain([JoinSides(joints)]).aclose()
    assert joints.is_closed
