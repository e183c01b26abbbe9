"""What configuration makes of the services' chains."""

import pytest

from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.config import load
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.services.nsc.main import NscConfig, NscInitConfig, _request
from nsm.services.nse.main import NseConfig, icmp_responder


def endpoint_of(**environment):
    config = load(NseConfig, environment).config
    identity = identity_of(Authority.create("test.mesh"), "nse")
    made = icmp_responder(
        config.name, identity, config.cidr_prefix, ipam_policy=config.ipam_policy, policies=config.pbr_config_path
    )
    return made.chain.elements


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


@pytest.mark.parametrize("kind", [NscConfig, NscInitConfig])
async def test_a_wire_has_the_client_s_labels_and_those_of_its_url_win(kind):
    config = load(
        kind,
        {"NSM_LABELS": "app:web,tier:front", "NSM_NETWORK_SERVICES": "kernel://a/nsm-1?app=db,kernel://b?color=red"},
    ).config
    one, two = (_request(config, wish, "c", None) for wish in config.network_services)
    assert one.connection.labels == {"app": "db", "tier": "front"}
    assert two.connection.labels == {"app": "web", "tier": "front", "color": "red"}
    assert one.request.mechanism_preferences[0].parameters == {INTERFACE_NAME: "nsm-1"}


def test_awareness_groups_name_wires():
    groups = load(
        NscConfig, {"NSM_AWARENESS_GROUPS": "[kernel://a/nsm-1,kernel://b],[kernel://c]"}
    ).config.awareness_groups
    assert [[each.network_service for each in group] for group in groups] == [["a", "b"], ["c"]]
