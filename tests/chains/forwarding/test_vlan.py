"""Which uplink a connection goes out at, and the file that says so."""

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, InvalidRequest, NotFound
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.forwarding.sides import ENDPOINT_SIDE, Breakout
from nsm.chains.forwarding.vlan import OfferVlan, Uplink, uplinks_from
from nsm.chains.model.vlans import VlanService
from nsm.chains.testing import FakeDataplane

UPLINKS = (Uplink("eth1", ((("via", "gw1"),), (("via", "gw2"), ("zone", "a")))), Uplink("eth2", ((("via", "gw2"),),)))


class Far(Element):
    """An endpoint, or a peer, that answers so; notes what it was asked and that it was closed."""

    def __init__(self, **parameters):
        self.parameters, self.seen, self.closed = parameters, [], []

    async def request(self, call, rest):
        self.seen.append(codec.clone(call.request))
        call.connection.mechanism = Mechanism(cls="REMOTE", type="VLAN", parameters=self.parameters)
        return await rest.request(call)

    async def close(self, call, rest):
        self.closed.append(call.connection.mechanism.type)
        await rest.close(call)


def asked(target="tcp://gateway:5003", **labels):
    connection = Connection(id="c", payload="ETHERNET", labels=labels)
    return Call(NetworkServiceRequest(connection=connection), target=target)


@pytest.mark.parametrize(
    ("labels", "uplink"),
    [({"via": "gw1"}, "eth1"), ({"via": "gw2"}, "eth2"), ({"via": "gw2", "zone": "a"}, "eth1")],
)
async def test_the_first_uplink_whose_labels_all_fit_is_taken(labels, uplink):
    begin, far = Begin(), Far(**{"vlan-id": "100"})
    connection = await Chain([begin, OfferVlan(UPLINKS, FakeDataplane(mtu=1400)), far]).request(asked(**labels))
    assert begin.stores()[0].get(ENDPOINT_SIDE) == Breakout(uplink, 100)
    assert connection.context.mtu == 1400
    (preference,) = far.seen[0].mechanism_preferences
    assert (preference.cls, preference.type) == ("REMOTE", "VLAN")


async def test_an_id_that_is_left_out_means_no_tag():
    begin = Begin()
    await Chain([begin, OfferVlan(UPLINKS, FakeDataplane(mtu=1400)), Far()]).request(asked(via="gw1"))
    assert begin.stores()[0].get(ENDPOINT_SIDE) == Breakout("eth1", 0)


async def test_endpoints_of_this_node_are_not_offered_a_breakout():
    far = Far()
    await Chain([Begin(), OfferVlan(UPLINKS, FakeDataplane(mtu=1400)), far]).request(
        asked("unix:///nse.sock", via="gw1")
    )
    assert far.seen[0].mechanism_preferences == []


@pytest.mark.parametrize(
    ("parameters", "labels", "told"),
    [
        ({}, {"via": "gw3"}, "no uplink of this node is for via=gw3, zone=; there is: eth1 for via=gw1 or via=gw2 and"),
        ({"vlan-id": "4095"}, {"via": "gw1"}, "vlan-id of the VLAN mechanism is not a number up to 4094: '4095'"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_and_closed_where_it_came_from(parameters, labels, told):
    far = Far(**parameters)
    with pytest.raises((NotFound, InvalidRequest), match=told):
        await Chain([Begin(), OfferVlan(UPLINKS, FakeDataplane(mtu=1400)), far]).request(asked(**labels))
    assert far.closed == ["VLAN"]


async def test_an_endpoint_says_which_uplink_whatever_its_client_wants():
    """As upstream's does: it labels the connection; the client keeps its own labels."""
    begin = Begin()
    server = VlanServer([VlanService("outside", "gw2", 100)])
    call = asked(via="gw1", team="blue")
    call.connection.network_service = "outside"
    connection = await Chain([begin, OfferVlan(UPLINKS, FakeDataplane(mtu=1400)), Far(), server]).request(call)
    assert begin.stores()[0].get(ENDPOINT_SIDE) == Breakout("eth2", 100)
    assert connection.labels == {"via": "gw1", "team": "blue"}


FILE = """
interfaces:
  - name: eth1
    matches:
      - labelSelector:
          - via: gw1
          - via: gw2
            zone: a
  - name: eth2
    matches:
      - labelSelector:
          - via: gw2
"""


def test_the_file_is_read_as_upstreams(tmp_path):
    (tmp_path / "file").write_text(FILE)
    assert uplinks_from(str(tmp_path / "file")) == UPLINKS


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("interfaces: {", "it is not YAML"),
        ("interfaces: !!bool x", "it is not YAML: a value does not match its tag"),
        ("[]", "the file needs a list 'interfaces'"),
        ("interfaces: [{}]", "each of its interfaces needs a name"),
        ("interfaces: [{name: eth1}]", "interface eth1 needs a list 'matches'"),
        ("interfaces: [{name: eth1, matches: [{}]}]", "a match of interface eth1 needs a list 'labelSelector'"),
        (
            "interfaces: [{name: eth1, matches: [{labelSelector: [via]}]}]",
            "of interface eth1 is not a label such as via:",
        ),
        ("interfaces: []\nbridges: []", "bridges is not a field of the file; expected interfaces"),
        ("interface: []", "interface is not a field of the file; expected interfaces"),
        (
            "interfaces: [{name: eth1, match: [], matches: []}]",
            r"interfaces\[0\].match is not a field of interface eth1; expected matches",
        ),
        (
            "interfaces: [{name: eth1, matches: [{labelSelectors: [], labelSelector: []}]}]",
            r"matches\[0\].labelSelectors is not a field of a match of interface eth1; expected labelSelector",
        ),
        (
            "interfaces: [{name: eth1, matches: [{labelSelector: [{via: yes}]}]}]",
            r"labelSelector\[0\].via is True; expected a text or a number",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_what_is_wrong(tmp_path, content, told):
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=told):
        uplinks_from(str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot read it: No such file or directory"):
        uplinks_from(str(tmp_path / "nothing"))
