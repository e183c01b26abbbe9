"""Upstream's examples between clusters: what they apply in each, what their READMEs run, and what they delete meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.k8s.upstream import vl3
from tests.k8s.upstream.pods import IDENTITY, TOOLS, VL3, client, config_map, deployment, endpoint, pod

PAIR, ENDPOINT, CLIENT = "172.16.1.2/31", "172.16.1.2", "172.16.1.3"
SKY = "my.cluster3"
"""The floating domain: it has a registry only."""

VOUCH = ",".join(
    f"spiffe://{domain}/ns/nsm-system/pod/{role}-*"
    for domain in ("k8s.nsm", "two.nsm")
    for role in ("nsmgr", "forwarder", "registry")
)
"""Endpoints of a vL3 tell each other from clients by who they are, also through the proxies of both domains."""


@dataclass(frozen=True)
class Between:
    """Objects in namespaces of the same name in two clusters; what runs a command in which cluster, and what it writes."""

    one: list
    two: list
    commands: list
    check: Callable | None = None
    """More than commands say: what is wrong, given kubectl in the namespace of each cluster; else an empty text."""
    deaths: tuple = ()
    """Of the system: deleted in both clusters, and then all has to be as before."""
    gone: tuple = ()
    """The same for applications of the second cluster's namespace."""


NAMES = '{{ index .Labels "podName" }}.{{ target .NetworkService }}.{{ domain .NetworkService }}.'
MEMBERS = {"one": "alpine-1", "two": "alpine-2"}
"""The client of the vL3 in each cluster."""


def pings():
    one = "one", "pod/alpine", f"ping -c 4 -i 0.2 -W 5 {ENDPOINT}", "4 received"
    return [one, ("two", "deployment/nse-kernel", f"ping -c 4 -i 0.2 -W 5 {CLIENT}", "4 received")]


def pair(name, payload="ETHERNET", **more):
    """A client of the first cluster, and an endpoint of the second, which registers its service there."""
    provider = endpoint(name, PAIR, env={"NSM_REGISTER_SERVICE": "true", "NSM_PAYLOAD": payload})
    return Between([client(f"kernel://{name}@my.cluster2/nsm-1")], [deployment(provider)], pings(), **more)


def floating(name, payload="ETHERNET", **more):
    """The same; the endpoint and its service are registered in a third domain."""
    names = {"NSM_NAME": f"$(POD_NAME)@{SKY}", "NSM_SERVICE_NAMES": f"{name}@{SKY}", "NSM_REGISTER_SERVICE": "true"}
    provider = endpoint(f"{name}@{SKY}", PAIR, env={**names, "NSM_PAYLOAD": payload})
    return Between([client(f"kernel://{name}@{SKY}/nsm-1")], [deployment(provider)], pings(), **more)


def dns(name, home):
    """The endpoint's pod has a DNS server, which the client's pod uses for the names of its domain, and for no others."""
    domain = "my.coredns.service"
    server = {
        "name": "coredns",
        "image": TOOLS,
        "imagePullPolicy": "IfNotPresent",
        "command": ["nsm", "dns-server"],
        "env": [
            {"name": "NSM_LISTEN_ON", "value": "0.0.0.0:53"},
            {"name": "NSM_RECORDS_FILE", "value": "/etc/records/config.yaml"},
        ],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "records", "mountPath": "/etc/records"}],
    }
    told = f'[{{"dns_server_ips": ["{ENDPOINT}"], "search_domains": ["{domain}"]}}]'
    variables = {"NSM_REGISTER_SERVICE": "true", "NSM_DNS_CONFIGS": told}
    if home == SKY:
        variables |= {"NSM_NAME": f"$(POD_NAME)@{SKY}", "NSM_SERVICE_NAMES": f"{name}@{SKY}"}
    provider = endpoint(name, PAIR, env=variables, beside=[server])
    provider["spec"]["volumes"].append({"name": "records", "configMap": {"name": "coredns"}})
    records = config_map("coredns", f'{domain}: ["{ENDPOINT}:53"]\n')
    commands = [
        ("one", "pod/dnsutils", f"getent ahostsv4 {domain}", ENDPOINT),
        ("one", "pod/dnsutils", f"ping -c 4 -i 0.2 -W 5 {domain}", "4 received"),
        ("one", "pod/dnsutils", "getent ahostsv4 kubernetes.default", "kubernetes.default.svc.cluster.local"),
    ]
    asking = client(f"kernel://{name}@{home}/nsm-1", "dnsutils")
    return Between([asking], [records, deployment(provider)], commands)


def network(name, check=None):
    """One vL3 over both clusters: an endpoint and a client in each, whose prefixes are from a service of the third domain."""

    def member(number):
        variables = {
            "NSM_NAME": f"nse-vl3-vpp-{number}@{SKY}",
            "NSM_SERVICE_NAMES": f"{name}@{SKY}",
            "NSM_REGISTER_SERVICE": "true",
            "NSM_PREFIX_SERVER_URL": f"tcp://vl3-ipam.ns-{name}.{SKY}:5006",
            "NSM_INTERMEDIARIES": VOUCH,
            "NSM_DNS_TEMPLATES": NAMES,
        }
        provider = pod(f"nse-vl3-vpp-{number}", vl3.router(vl3.ENDPOINTS, VL3, variables), labels=IDENTITY)
        provider["metadata"]["labels"]["app"] = vl3.ENDPOINTS
        asking = client(f"kernel://{name}@{SKY}/nsm-1", f"alpine-{number}")
        asking["metadata"]["labels"]["app"] = vl3.CLIENTS
        asking["spec"]["containers"][0]["name"] = vl3.CLIENTS
        return [provider, asking]

    served, outside = vl3.prefixes()
    outside["metadata"]["annotations"] = {"external-dns.alpha.kubernetes.io/hostname": f"vl3-ipam.ns-{name}.{SKY}"}
    outside["spec"]["type"] = "LoadBalancer"
    return Between(member(1), [served, outside, *member(2)], [], check=check or everybody_reaches)


def everybody_reaches(mine):
    """Each client pings that of the other cluster, and both endpoints; what went wrong, or an empty text."""
    wanted = {which: vl3.addresses(mine[which], name) for which, name in MEMBERS.items()}
    if not all(wanted.values()):
        return f"clients without addresses: {wanted}"
    addresses = [*(each for found in wanted.values() for each in found), *vl3.V4_ENDPOINTS]
    return everybody_pings(addresses, mine)


def everybody_is_found(service, mine):
    """The same, by the names of all clients and endpoints."""
    names = [*MEMBERS.values(), *(f"{vl3.ENDPOINTS}-{number}" for number in (1, 2))]
    return everybody_pings([f"{name}.{service}.{SKY}" for name in names], mine)


def everybody_pings(places, mine):
    asked = [f"ping -c 2 -i 0.2 -W 2 {each}" for each in places]
    return "".join(vl3.says(mine[which], name, vl3.CLIENTS, asked) for which, name in MEMBERS.items())


TABLE = {
    "interdomain_Kernel2Ethernet2Kernel": pair("interdomain-kernel2ethernet2kernel"),
    "interdomain_Kernel2IP2Kernel": pair("interdomain-kernel2ip2kernel", "IP"),
    "interdomain_dns": dns("interdomain-dns", "my.cluster2"),
    "floating_Kernel2Ethernet2Kernel": floating("floating-kernel2ethernet2kernel"),
    "floating_Kernel2IP2Kernel": floating("floating-kernel2ip2kernel", "IP"),
    "floating_dns": dns("floating-dns", SKY),
    "floating_vl3-basic": network("floating-vl3-basic"),
    "floating_vl3-dns": network("floating-vl3-dns", partial(everybody_is_found, "floating-vl3-dns")),
    "heal_interdomain-nsmgr-death": pair("interdomain-nsmgr-death", deaths=("nsmgr",)),
    "heal_interdomain-proxy-nsmgr-death": pair("interdomain-proxy-nsmgr-death", deaths=("nsmgr-proxy",)),
    "heal_interdomain-registry-death": pair("interdomain-registry-death", deaths=("registry",)),
    "heal_floating-forwarder-death": floating("floating-forwarder-death", deaths=("forwarder-kernel",)),
    "heal_floating-nse-death": floating("floating-nse-death", gone=("nse-kernel",)),
}
