"""Upstream's examples between clusters: what they apply in each, what their READMEs run, and what they delete meanwhile."""

from dataclasses import dataclass

from tests.k8s.upstream.pods import TOOLS, client, config_map, deployment, endpoint

PAIR, ENDPOINT, CLIENT = "172.16.1.2/31", "172.16.1.2", "172.16.1.3"
SKY = "my.cluster3"
"""The floating domain: it has a registry only."""


@dataclass(frozen=True)
class Between:
    """Objects in namespaces of the same name in two clusters; what runs a command in which cluster, and what it writes."""

    one: list
    two: list
    commands: list
    deaths: tuple = ()
    """What is deleted in both clusters, in this namespace if it is none of the system; then all is as before."""


def pings():
    one = "one", "pod/alpine", f"ping -c 4 -i 0.2 -W 5 {ENDPOINT}", "4 received"
    return [one, ("two", "deployment/nse-kernel", f"ping -c 4 -i 0.2 -W 5 {CLIENT}", "4 received")]


def pair(name, deaths=(), **more):
    """A client of the first cluster, and an endpoint of the second, which registers its service there."""
    provider = endpoint(name, PAIR, env={"NSM_REGISTER_SERVICE": "true"}, **more)
    return Between([client(f"kernel://{name}@my.cluster2/nsm-1")], [deployment(provider)], pings(), deaths)


def floating(name, deaths=()):
    """The same; the endpoint and its service are registered in a third domain."""
    names = {"NSM_NAME": f"$(POD_NAME)@{SKY}", "NSM_SERVICE_NAMES": f"{name}@{SKY}", "NSM_REGISTER_SERVICE": "true"}
    provider = endpoint(f"{name}@{SKY}", PAIR, env=names)
    return Between([client(f"kernel://{name}@{SKY}/nsm-1")], [deployment(provider)], pings(), deaths)


def dns():
    """The endpoint's pod has a DNS server, which the client's pod uses for the names of its domain, and for no others."""
    name, domain = "interdomain-dns", "my.coredns.service"
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
    provider = endpoint(name, PAIR, env=variables, beside=[server])
    provider["spec"]["volumes"].append({"name": "records", "configMap": {"name": "coredns"}})
    records = config_map("coredns", f'{domain}: ["{ENDPOINT}:53"]\n')
    commands = [
        ("one", "pod/dnsutils", f"getent ahostsv4 {domain}", ENDPOINT),
        ("one", "pod/dnsutils", f"ping -c 4 -i 0.2 -W 5 {domain}", "4 received"),
        ("one", "pod/dnsutils", "getent ahostsv4 kubernetes.default", "kubernetes.default.svc.cluster.local"),
    ]
    asking = client(f"kernel://{name}@my.cluster2/nsm-1", "dnsutils")
    return Between([asking], [records, deployment(provider)], commands)


TABLE = {
    "interdomain_Kernel2Ethernet2Kernel": pair("interdomain-kernel2ethernet2kernel"),
    "interdomain_dns": dns(),
    "floating_Kernel2Ethernet2Kernel": floating("floating-kernel2ethernet2kernel"),
    "heal_interdomain-nsmgr-death": pair("interdomain-nsmgr-death", ("nsmgr",)),
    "heal_interdomain-proxy-nsmgr-death": pair("interdomain-proxy-nsmgr-death", ("nsmgr-proxy",)),
    "heal_interdomain-registry-death": pair("interdomain-registry-death", ("registry",)),
    "heal_floating-forwarder-death": floating("floating-forwarder-death", ("forwarder-kernel",)),
    "heal_floating-nse-death": floating("floating-nse-death", ("nse-kernel",)),
}
