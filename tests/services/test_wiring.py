"""What configuration makes of the services' chains."""

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.config import load
from nsm.chains.core import Begin, Call, Chain
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.serving.provided import endpoint_record
from nsm.services.nsc.config import NscConfig, NscInitConfig
from nsm.services.nsc.wires import request_for
from nsm.services.nse.main import NseConfig, icmp_responder
from nsm.services.nse_remote_vlan.main import NseRemoteVlanConfig, vlan_server


def endpoint_of(**environment):
    return icmp_responder(load(NseConfig, environment).config)


@pytest.mark.parametrize(("policy", "strict"), [({}, 0), ({"NSM_IPAM_POLICY": "strict"}, 1)])
def test_the_policy_decides_whether_other_addresses_are_taken_away(policy, strict):
    """Behind the address pairs, before the policy routes, which add some."""
    elements = endpoint_of(NSM_CIDR_PREFIX="10.0.0.0/24,fd00::/64", **policy)
    names = [type(element).__name__ for element in elements]
    assert names.count("Point2PointIpam") == 2
    assert sum(isinstance(element, StrictIpam) for element in elements) == strict
    order = [name for name in names if name in {"Point2PointIpam", "StrictIpam", "PolicyRouting"}]
    assert order == ["Point2PointIpam"] * 2 + ["StrictIpam"] * strict + ["PolicyRouting"]


def test_policy_routes_are_read_from_the_file_that_is_named(tmp_path):
    file = tmp_path / "policies.yaml"
    file.write_text("[{proto: 6, dstport: 80}]")
    (element,) = (e for e in endpoint_of(NSM_PBR_CONFIG_PATH=str(file)) if isinstance(e, PolicyRouting))
    assert [policy.dst_port for policy in element._file.value()] == ["80"]


async def test_an_endpoint_without_a_dataplane_gives_each_client_an_address_of_each_group_and_a_vlan():
    services = "blue { vlan: 100; via: gw-1; labels: tier=gold }, plain { via: gw-2 }"
    given = {"NSM_SERVICES": services, "NSM_CIDR_PREFIX": "[10.0.0.0/31,10.1.0.0/24],[fd00::/64]"}
    config = load(NseRemoteVlanConfig, given).config
    own = vlan_server(config)
    for number, (service, vlan) in enumerate([("blue", "100"), ("plain", "0")]):
        connection = Connection(id=str(number), network_service=service, mechanism=Mechanism(type="VLAN"))
        answer = await Chain([Begin(), *own]).request(Call(NetworkServiceRequest(connection=connection)))
        assert answer.mechanism.parameters == {"vlan-id": vlan}
        addresses = [["10.0.0.1/31", "fd00::1/64"], ["10.1.0.1/24", "fd00::2/64"]]
        assert answer.context.ip_context.src_ip_addrs == addresses[number]
        assert answer.context.ip_context.dst_ip_addrs == []
    record = endpoint_record(config.name, "tcp://10.0.0.1:5003", config.provided())
    assert (record.name, record.url) == ("vlan-server", "tcp://10.0.0.1:5003")
    assert {name: each.labels for name, each in record.network_service_labels.items()} == {
        "blue": {"tier": "gold"},
        "plain": {},
    }


@pytest.mark.parametrize("kind", [NscConfig, NscInitConfig])
async def test_a_wire_has_the_client_s_labels_and_those_of_its_url_win(kind):
    config = load(
        kind,
        {"NSM_LABELS": "app:web,tier:front", "NSM_NETWORK_SERVICES": "kernel://a/nsm-1?app=db,kernel://b?color=red"},
    ).config
    one, two = (request_for(wish, "c", config.labels) for wish in config.network_services)
    assert one.connection.labels == {"app": "db", "tier": "front"}
    assert two.connection.labels == {"app": "web", "tier": "front", "color": "red"}
    assert one.mechanism_preferences[0].parameters == {INTERFACE_NAME: "nsm-1"}


def test_awareness_groups_name_wires():
    groups = load(
        NscConfig, {"NSM_AWARENESS_GROUPS": "[kernel://a/nsm-1,kernel://b],[kernel://c]"}
    ).config.awareness_groups
    assert [[each.network_service for each in group] for group in groups] == [["a", "b"], ["c"]]
