"""An endpoint that names its MAC, and the VLAN of a service."""

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, EthernetContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain, NotFound
from nsm.chains.elements.ethernet import EthernetServer
from nsm.chains.model.ethernet_services import EthernetService

SERVER = EthernetServer([EthernetService("a", "0a:55:44:33:22:11", 100), EthernetService("b", "0a:55:44:33:22:12")])


async def ask(service, **context):
    connection = Connection(network_service=service, mechanism=Mechanism(type="NOOP"))
    if context:
        connection.context = ConnectionContext(ethernet_context=EthernetContext(**context))
    return (await Chain([SERVER]).request(Call(NetworkServiceRequest(connection=connection)))).context.ethernet_context


async def test_each_service_has_a_mac_and_a_vlan_and_the_client_keeps_its_own_mac():
    ethernet = await ask("a", src_mac="0a:55:44:33:22:00", vlan_tag=7)
    assert (ethernet.src_mac, ethernet.dst_mac, ethernet.vlan_tag) == ("0a:55:44:33:22:00", "0a:55:44:33:22:11", 100)
    assert (await ask("b")).vlan_tag == 0


async def test_a_service_that_is_not_provided_is_refused_with_those_that_are():
    with pytest.raises(NotFound, match="'c' is not provided here; available: 'a', 'b'"):
        await ask("c")
