"""Upstream's examples of a vL3: what they apply, and what their READMEs run.

What had to be changed in them: the endpoints' pods may change their own network, and forward packets.
"""

import ipaddress
import json
from functools import partial

import yaml

from tests.k8s.upstream.pods import (
    BALANCER,
    IDENTITY,
    IPAM,
    VL3,
    Example,
    apart,
    client,
    component,
    config_map,
    deployment,
    pod,
    service,
    supplier,
)

ENDPOINTS, CLIENTS = "nse-vl3-vpp", "alpine"
V4_ENDPOINTS = ("172.16.0.0", "172.16.1.0")
V6_ENDPOINTS = ("2001:db8::", "2001:db8::1:0")
FORWARDING = """\
for each in ipv4/ip_forward ipv6/conf/all/forwarding; do
    if [ -e /proc/sys/net/$each ]; then echo 1 > /proc/sys/net/$each; fi
done
"""
NETWORK_ADMIN = {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_BIND_SERVICE"]}}


def router(name, image, variables):
    """The spec of a pod that passes packets on."""
    spec = component("nse", image, variables)
    spec["containers"][0]["securityContext"] = NETWORK_ADMIN
    allow = {"name": "forwarding", "image": image, "imagePullPolicy": "IfNotPresent"}
    allow |= {"command": ["sh", "-ec", FORWARDING], "securityContext": {"privileged": True, "runAsUser": 0}}
    return {**spec, "initContainers": [allow]}


def endpoints(provides, count=2, **variables):
    given = {"NSM_SERVICE_NAMES": provides, "NSM_REGISTER_SERVICE": "false", **variables}
    return deployment(pod(ENDPOINTS, router(ENDPOINTS, VL3, given), labels=IDENTITY), replicas=count)


def prefixes(name="vl3-ipam", network="172.16.0.0/16", length="24"):
    """The prefix service for one family: a Deployment and a Service."""
    variables = {"NSM_LISTEN_ON": "tcp://:5006", "NSM_PREFIX": network, "NSM_CLIENT_PREFIX_LEN": length}
    served = {"name": name, "port": 5006, "targetPort": 5006}
    about = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    return [
        deployment(pod(name, component("vl3-ipam", IPAM, variables), labels=IDENTITY)),
        {**about, "spec": {"selector": {"app": name}, "ports": [served]}},
    ]


def clients(provides, count=2, interface="nsm-1", **spec):
    return deployment(client(f"kernel://{provides}/{interface}", CLIENTS, **spec), replicas=count)


def basic(name="vl3-basic", **more):
    """Everybody reaches everybody, and both endpoints."""
    objects = [service(name, payload="IP"), *prefixes(), endpoints(name), clients(name)]
    return Example(objects, check=partial(everybody_reaches, V4_ENDPOINTS), **more)


def ipv6():
    name, ipam = "vl3-ipv6", "vl3-ipam-ipv6"
    variables = {"NSM_PREFIX_SERVER_URL": f"{ipam}:5006"}
    served = prefixes(ipam, "2001:db8::/64", "112")
    objects = [service(name, payload="IP"), *served, endpoints(name, **variables), clients(name)]
    return Example(objects, check=partial(everybody_reaches, V6_ENDPOINTS))


def dual_stack():
    """By two prefix services; the endpoints reach each other too."""
    name, servers = "vl3-dual-stack", ("vl3-ipam-ds-ipv4", "vl3-ipam-ds-ipv6")
    both = [*prefixes(servers[0]), *prefixes(servers[1], "2001:db8::/64", "112")]
    variables = {"NSM_PREFIX_SERVER_URL": ",".join(f"{each}:5006" for each in servers)}
    objects = [service(name, payload="IP"), *both, endpoints(name, **variables), clients(name)]
    return Example(objects, check=partial(everybody_reaches, V4_ENDPOINTS + V6_ENDPOINTS, pingers=(CLIENTS, ENDPOINTS)))


def names():
    """Clients and endpoints are found by their names, and the names by the addresses."""
    name = "vl3-dns"
    objects = [service(name, payload="IP"), *prefixes(), endpoints(name), clients(name, 4, "myiface")]
    return Example(objects, check=partial(everybody_is_found, name))


def balancer():
    """Connections to the balancer's name go to each of the servers."""
    name = "vl3-lb"
    variables = {
        "POD_NAME": "finance",
        "NSM_PORT": "8080",
        "NSM_TARGET_PORT": "8081",
        "NSM_SELECTOR": "app:finance",
        "NSM_NETWORK_SERVICES": f"kernel://{name}/nsm-1",
    }
    server = client(f"kernel://{name}/nsm-1?app=finance", "finance-server")
    server["spec"]["containers"][0]["command"] = ["python3", "-m", "http.server", "--directory", "/etc", "8081"]
    objects = [
        service(name, payload="IP"),
        *prefixes(),
        endpoints(name, count=1, NSM_MONITOR_VIEWERS=f"/ns/ns-{name}/pod/vl3-lb-*"),
        deployment(pod("vl3-lb", router("lb", BALANCER, variables), labels=IDENTITY)),
        deployment(server, replicas=3),
        deployment(client(f"kernel://{name}/nsm-1", "finance-client")),
    ]
    return Example(objects, check=partial(all_servers_answer, f"http://finance.{name}:8080/hostname", "finance-server"))


def scale_from_zero():
    """An endpoint is created on each client's node, and the two find each other."""
    name = "vl3-scale-from-zero"
    variables = {
        "NSM_SERVICE_NAMES": name,
        "NSM_REGISTER_SERVICE": "false",
        "NSM_IDLE_TIMEOUT": "15s",
        "NSM_LABELS": f"app:{ENDPOINTS},capability:vl3",
        "NSM_REQUEST_LABELS": "capability:vl3",
    }
    described = pod('nse-vl3-{{ index .Labels "nodeName" }}', router(ENDPOINTS, VL3, variables), labels=IDENTITY)
    described["metadata"]["labels"]["app"] = ENDPOINTS
    described["spec"] |= {"nodeName": '{{ index .Labels "nodeName" }}', "restartPolicy": "Never"}
    matches = [
        {"fallthrough": True, "routes": [{"destination_selector": {"app": ENDPOINTS, "nodeName": "{{.nodeName}}"}}]},
        {
            "source_selector": {"capability": "vl3"},
            "fallthrough": True,
            "routes": [{"destination_selector": {"capability": "vl3"}}],
        },
        {"routes": [{"destination_selector": {"app": "icmp-responder-supplier"}}]},
    ]
    objects = [
        service(name, payload="IP", matches=matches),
        config_map("supplier-pod-template-configmap", yaml.safe_dump(described)),
        *prefixes(),
        *supplier(name),
        clients(name, **apart(CLIENTS)),  # so that there are two nodes
    ]
    return Example(objects, check=partial(everybody_reaches, V4_ENDPOINTS))


def pods(mine, app):
    """The names of the pods of an application that are not going; there is one at least."""
    found = mine.get("pods", "-l", f"app={app}")["items"]
    assert found, app
    return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]


def container_of(app):
    return "nse" if app == ENDPOINTS else app


def addresses(mine, name, interface="nsm-1"):
    """The addresses of a client's wire, but for those of the link."""
    shown = mine.run("exec", name, "-c", CLIENTS, "--", "ip", "-j", "address", "show", "dev", interface).stdout
    found = [each["local"] for link in json.loads(shown or "[]") for each in link["addr_info"]]
    return [each for each in found if not ipaddress.ip_address(each).is_link_local]


def everybody_reaches(endpoints, mine, pingers=(CLIENTS,)):
    """Each client pings the others, and each pinger the endpoints; what went wrong, or an empty text."""
    wanted = {name: addresses(mine, name) for name in pods(mine, CLIENTS)}
    if not wanted or not all(wanted.values()):
        return f"clients without addresses: {wanted}"
    of_clients = [each for found in wanted.values() for each in found]
    answers = []
    for app in pingers:
        for name in pods(mine, app):
            others = [each for each in of_clients if app == CLIENTS and each not in wanted[name]]
            answers.append(says(mine, name, app, [f"ping -c 2 -i 0.2 -W 2 {each}" for each in (*others, *endpoints)]))
    return "".join(answers)


def everybody_is_found(service, mine):
    """By name, with PTR records; what went wrong, or an empty text."""
    found = [*pods(mine, CLIENTS), *pods(mine, ENDPOINTS)]
    look = f"""
import socket
for each in "{" ".join(found)}".split():
    address = socket.gethostbyname(each + ".{service}")
    name = socket.gethostbyaddr(address)[0]
    assert name.startswith(each + ".{service}"), (address, name)
"""
    commands = [f"python3 -c '{look}'", *(f"ping -4 -c 2 -i 0.2 -W 2 {each}.{service}" for each in found)]
    return "".join(says(mine, name, CLIENTS, commands) for name in pods(mine, CLIENTS))


def all_servers_answer(url, app, mine):
    """Each server's name is on a page at `url`; what went wrong, or an empty text."""
    get = f"""
from urllib.request import urlopen
print(*(urlopen("{url}", timeout=5).read().decode() for _ in range(30)))
"""
    done = mine.run("exec", "deployment/finance-client", "-c", "finance-client", "--", "python3", "-c", get, seconds=60)
    missing = [each for each in pods(mine, app) if each not in done.stdout]
    return f"nothing from {missing}\n{done.stdout}{done.stderr}" if missing else ""


def says(mine, name, app, commands):
    """What commands in a pod write if one of them fails."""
    done = mine.run("exec", name, "-c", container_of(app), "--", "sh", "-ec", "\n".join(commands), seconds=60)
    return f"{name}\n{done.stdout}{done.stderr}" if done.returncode else ""
