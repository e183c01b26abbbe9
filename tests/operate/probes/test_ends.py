"""How the interface of an end is recognized."""

import hashlib

import pytest

from nsm.operate.probes.ends import CLIENT, ENDPOINT, Link, Mark, packed
from nsm.view.model import Hop, Wire, WireState

LONG = "c" * 300
WIRE = Wire(
    id="client-0",
    client="client",
    service="s",
    state=WireState.UP,
    interface="nsm-1",
    endpoint="nse",
    client_addresses=["10.0.0.1/32"],
    endpoint_addresses=["10.0.0.0/32", "fd00::/128"],
    path=[Hop(name="client", id="client-0"), Hop(name="forwarder", id="f-1"), Hop(name="nse", id=LONG)],
)


def link(name="x", alias="", *addresses):
    return Link(1, name, alias.encode(), 1500, True, tuple(map(packed, addresses)))


@pytest.mark.parametrize(
    ("side", "best", "others"),
    [
        (CLIENT, link("nsm-1", "nsm o f-1", "10.0.0.1"), [link("nsm-1", "nsm o f-2", "10.0.0.1")]),
        (CLIENT, link("renamed", "nsm o f-1", "10.0.0.1"), [link("nsm-1"), link("e", "nsm o f-1", "10.0.0.0")]),
        (CLIENT, link("nsm-1", "server-f-1"), [link("x", "server-f-1")]),
        (CLIENT, link("nsm-1", "", "10.0.0.1"), [link("eth0", "", "10.0.0.1")]),
        (ENDPOINT, link("abc", "nsm o f-1", "fd00::"), [link("def", "nsm o f-2", "fd00::"), link("e", "nsm o f-1")]),
        (
            ENDPOINT,
            link("abc", f"nsm o {hashlib.sha256(LONG.encode()).hexdigest()}"),
            [link("abc"), link("abc", "f-1")],
        ),
    ],
)
def test_alias_address_and_name_tell_an_end(side, best, others):
    mark = Mark.of(WIRE, side)
    assert mark.score(best) > max(mark.score(other) for other in others)


def test_an_interface_with_nothing_in_common_is_none():
    assert Mark.of(WIRE, ENDPOINT).score(link("nsm-1", "nsm o f-2", "10.0.0.9")) == 0
    assert Mark.of(WIRE, CLIENT).score(link("eth0", "nsm o f-2", "10.0.0.9")) == 0
