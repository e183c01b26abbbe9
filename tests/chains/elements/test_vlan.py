"""What an endpoint without a dataplane tells its clients."""

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain, NotFound
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.model.vlans import VlanService

SERVER = VlanServer([VlanService("finance", "gw-1", 100), VlanService("plain", "gw-2")])


async def ask(service, kind="VLAN", **labels):
    connection = Connection(network_service=service, mechanism=Mechanism(type=kind), labels=labels)
    return await Chain([SERVER]).request(Call(NetworkServiceRequest(connection=connection)))


@pytest.mark.parametrize(("service", "vlan", "via"), [("finance", "100", "gw-1"), ("plain", "0", "gw-2")])
async def test_each_service_has_its_vlan_and_its_uplink(service, vlan, via):
    connection = await ask(service, team="blue")
    assert connection.mechanism.parameters == {"vlan-id": vlan}
    assert connection.labels == {"team": "blue", "via": via}


async def test_another_mechanism_is_left_alone():
    connection = await ask("finance", "VXLAN")
    assert (connection.mechanism.parameters, connection.labels) == ({}, {})


async def test_a_service_that_is_not_provided_is_refused_with_those_that_are():
    with pytest.raises(NotFound, match="'sales' is not provided here; available: 'finance', 'plain'"):
        await ask("sales")
