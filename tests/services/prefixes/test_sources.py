"""What a cluster's objects say about the addresses that it uses."""

import pytest
import yaml

from nsm.chains.config.watched_file import PartlyRead
from nsm.chains.elements.excluded_prefixes import prefixes_of
from nsm.services.prefixes.sources import (
    document_of,
    merged,
    of_kubeadm,
    of_node,
    of_service,
    of_service_cidr,
    of_user,
)


def texts(networks):
    return list(map(str, networks))


@pytest.mark.parametrize(
    ("spec", "prefixes"),
    [
        ({"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"], "podCIDR": "10.244.1.0/24"}, ["10.244.1.0/24", "fd00:1::/64"]),
        ({"podCIDR": "10.244.1.0/24"}, ["10.244.1.0/24"]),
        ({}, []),
        (None, []),
    ],
)
def test_a_node_names_the_ranges_of_its_pods(spec, prefixes):
    assert texts(of_node({"spec": spec})) == prefixes


@pytest.mark.parametrize(
    ("spec", "prefixes"),
    [
        ({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}, ["10.96.0.1/32", "fd00::1/128"]),
        ({"clusterIP": "10.96.0.1"}, ["10.96.0.1/32"]),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
        ({"type": "ExternalName"}, []),
    ],
)
def test_a_service_is_its_addresses(spec, prefixes):
    assert texts(of_service({"spec": spec})) == prefixes


def test_a_service_range_is_excluded_as_a_whole():
    assert texts(of_service_cidr({"spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/108"]}})) == [
        "10.96.0.0/12",
        "fd00:96::/108",
    ]


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}", ["10.244.0.0/16", "10.96.0.0/12"]),
        ("networking: {podSubnet: '10.244.0.0/16, fd00::/48'}", ["10.244.0.0/16", "fd00::/48"]),
        ("networking: {podSubnet: ''}", []),
        ("networking:", []),
        ("kind: ClusterConfiguration", []),
        ("", []),
    ],
)
def test_kubeadm_names_the_ranges_of_the_cluster(text, prefixes):
    assert texts(of_kubeadm({"data": {"ClusterConfiguration": text}})) == prefixes
    assert of_kubeadm({}) == []


def test_a_user_names_what_else_is_excluded():
    entry = {"data": {"key": "prefixes:\n- 172.16.1.0/24\n- fd01::1/64\n"}}
    assert texts(of_user(entry, "key")) == ["172.16.1.0/24", "fd01::/64"]
    assert of_user(entry, "other") == []
    assert of_user({}, "key") == []


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (
            lambda: of_user({"data": {"k": "prefixs: [10.0.0.0/8]"}}, "k"),
            "prefixs is not a field of the file; expected pre",
        ),
        (lambda: of_user({"data": {"k": "prefixes: [10.0.0.0]"}}, "k"), "'10.0.0.0' is not a prefix"),
        (lambda: of_user({"data": {"k": "prefixes: {a: b}"}}, "k"), "expected a list under `prefixes`"),
        (lambda: of_user({"data": {"k": "prefixes: ["}}, "k"), "k: while parsing"),
        (lambda: of_user({"data": {"k": "[" * 5000}}, "k"), "k: it is nested too deep"),
        (lambda: of_user({"data": {"k": "prefixes: !!bool x"}}, "k"), "k: a value does not match its tag"),
        (lambda: of_user({"data": {"k": "prefixes: !!timestamp x"}}, "k"), "k: a value does not match its tag"),
        (lambda: of_kubeadm({"data": {"ClusterConfiguration": "networking: [1]"}}), "networking is not a mapping"),
        (
            lambda: of_kubeadm({"data": {"ClusterConfiguration": "networking: {podSubnet: here}"}}),
            "'here' is not a prefix",
        ),
        (lambda: of_node({"spec": {"podCIDR": "10.0.0.0/40"}}), "'10.0.0.0/40' is not a prefix"),
    ],
)
def test_what_cannot_be_read_says_what_would_do(read, told):
    with pytest.raises(ValueError, match=told):
        read()


def test_prefixes_are_merged_for_each_family():
    """Adjacent ones become one, what lies in another goes."""
    said = [
        *of_node({"spec": {"podCIDRs": ["10.244.1.0/24", "fd00:0:0:1::/64"]}}),
        *of_node({"spec": {"podCIDRs": ["10.244.0.0/24", "fd00::/64"]}}),
        *of_service({"spec": {"clusterIP": "10.96.0.10"}}),
        *of_service({"spec": {"clusterIP": "10.97.0.1"}}),
        *of_service_cidr({"spec": {"cidrs": ["10.96.0.0/16"]}}),
    ]
    assert merged(said) == ("10.96.0.0/16", "10.97.0.1/32", "10.244.0.0/23", "fd00::/63")
    assert merged([]) == ()
    assert merged(reversed(said)) == merged(said)


@pytest.mark.parametrize("prefixes", [(), ("10.96.0.0/12", "fd00::/64"), ("0.0.0.0/0", "::/0")])
def test_a_manager_reads_what_is_written(prefixes):
    assert prefixes_of(yaml.safe_load(document_of(prefixes))) == prefixes


@pytest.mark.parametrize(
    ("read", "in_force"),
    [
        (lambda: of_user({"data": {"k": "prefixes: ['', 10.0.0.0/8]"}}, "k"), "10.0.0.0/8"),
        (lambda: of_node({"spec": {"podCIDRs": ["10.0.0.0/40", "fd00::/64"]}}), "fd00::/64"),
        (lambda: of_service_cidr({"spec": {"cidrs": ["10.96.0.0/12", "x"]}}), "10.96.0.0/12"),
        (
            lambda: of_kubeadm({"data": {"ClusterConfiguration": "networking: {podSubnet: '10.0.0.0/8,here'}"}}),
            "10.0.0.0/8",
        ),
    ],
)
def test_one_unreadable_prefix_of_an_object_leaves_its_others_excluded(read, in_force):
    with pytest.raises(PartlyRead, match=f"in force: {in_force}$") as partly:
        read()
    assert texts(partly.value.value) == [in_force]
