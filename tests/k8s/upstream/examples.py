"""Upstream's examples by name: what they apply, and what their READMEs run. The table grows with what works."""

from itertools import pairwise

import yaml

from tests.k8s.upstream import vl3
from tests.k8s.upstream.pods import (
    CLIENT,
    FIREWALL,
    FORWARDER,
    IDENTITY,
    PASSTHROUGH,
    SERVER,
    TOOLS,
    Example,
    client,
    component,
    config_map,
    deployment,
    endpoint,
    near,
    pod,
    service,
    supplier,
)

PAIR, NEXT_PAIR = "172.16.1.100/31", "172.16.1.102/31"
POLICIES = """\
- {from: 172.16.2.201/24, proto: 6, dstport: "6666", routes: [{prefix: 172.16.3.0/24, nexthop: 172.16.2.200}]}
- {from: 172.16.2.201/24, proto: 6, srcport: "5555"}
- {proto: 17, dstport: "6666"}
- {proto: 17, dstport: 6667-6670}
- {from: "2004::3/120", proto: 17, dstport: "5555", routes: [{prefix: "2004::5/120", nexthop: "2004::6"}]}
"""


def ping(source, address):
    return source, f"ping -c 4 -i 0.2 -W 5 {address}", "4 received"


def both(one, other, *addresses):
    """`one` has the second address of each pair, `other` the first."""
    return [each for first, second in addresses for each in (ping(one, first), ping(other, second))]


def pair(provides, prefixes, *addresses, far=False):
    """A client and an endpoint on one node or two, which ping each other."""
    made = [
        service(provides),
        deployment(endpoint(provides, prefixes)),
        client(f"kernel://{provides}/nsm-1", **near("nse-kernel", far=far)),
    ]
    return Example(made, both("pod/alpine", "deployment/nse-kernel", *addresses))


V4, V6 = ("172.16.1.100", "172.16.1.101"), ("2001:db8::", "2001:db8::1")
NEXT_V4 = "172.16.1.102", "172.16.1.103"


def several_services():
    names = {number: f"multiple-services-{number}" for number in (1, 2)}
    urls = ",".join(f"kernel://{name}/nsm-{number}" for number, name in names.items())
    ends = [endpoint(name, f"172.16.{number}.100/31", f"nse-kernel-{number}") for number, name in names.items()]
    pings = [
        each
        for number in names
        for each in both("pod/alpine", f"pod/nse-kernel-{number}", (f"172.16.{number}.100", f"172.16.{number}.101"))
    ]
    # a client that is there first gets its wires, and so its addresses, in the order in which the endpoints come
    return Example([*map(service, names.values()), *ends], pings, later=(client(urls),))


def annotated_namespace():
    return Example(
        [service("annotated-namespace"), deployment(endpoint("annotated-namespace", PAIR))],
        both("deployment/alpine", "deployment/nse-kernel", V4),
        annotation="kernel://annotated-namespace/nsm-1",
        later=(deployment(client("")),),
    )


def web(provides, port, **security):
    """An application beside its endpoint, and a client on another node."""
    command = ["sh", "-c", SERVER.format(port=port)]
    beside = {"name": "nginx", "image": TOOLS, "imagePullPolicy": "IfNotPresent", "command": command, **security}
    return beside, endpoint(provides, PAIR, beside=[beside])


FETCH = "python3 -c \"import urllib.request as u; print(u.urlopen('http://{}/hostname', timeout=5).status)\""


def webhook():
    _, provider = web("webhook", 80, securityContext={"runAsUser": 0})
    objects = [service("webhook"), deployment(provider)]
    far = client("kernel://webhook/nsm-1", "nettools", **near("nse-kernel", far=True))
    return Example([*objects, far], [("pod/nettools", FETCH.format("172.16.1.100:80"), "200")])


def restricted():
    """By upstream's own names of CSI drivers, but for that of the identities."""
    least = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    whose = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    _, provider = web("nginx", 8080)
    drivers = {"spire-agent-socket": "identity.csi.networkservicemesh.io", "nsm-socket": "csi.networkservicemesh.io"}
    volumes = [{"name": name, "csi": {"driver": driver, "readOnly": True}} for name, driver in drivers.items()]
    provider["spec"].update(securityContext=whose, volumes=volumes)
    asking = client("kernel://nginx/nsm-1", "nettools", securityContext=whose, **near("nse-kernel", far=True))
    for each in (*provider["spec"]["containers"], *asking["spec"]["containers"]):
        each.update(least)
    commands = [("pod/nettools", FETCH.format("172.16.1.100:8080"), "200")]
    enforced = (("pod-security.kubernetes.io/enforce", "restricted"),)
    return Example([service("nginx"), deployment(provider), asking], commands, labels=enforced)


def excluded_by_clients():
    """Two endpoints have the same prefix: the second gives what the first has not."""
    names = {number: f"nsm-service-{number}" for number in (1, 2)}
    ends = [deployment(endpoint(name, "172.16.1.96/29", f"nse-kernel-{number}")) for number, name in names.items()]
    urls = ",".join(f"kernel://{name}/nsm-{number}" for number, name in names.items())
    pings = [
        *both("pod/alpine", "deployment/nse-kernel-1", ("172.16.1.96", "172.16.1.97")),
        *both("pod/alpine", "deployment/nse-kernel-2", ("172.16.1.98", "172.16.1.99")),
    ]
    # a client that is there first gets its wires, and so its addresses, in the order in which the endpoints come
    return Example([*map(service, names.values()), *ends], pings, later=(client(urls),))


def mutually_aware():
    """Two endpoints give the same addresses, and routes for different traffic."""
    names, protocols = {number: f"mutually-aware-nses-{number}" for number in (1, 2)}, {1: (6, 6666), 2: (17, 5555)}
    objects = [service(name) for name in names.values()]
    for number, name in names.items():
        protocol, port = protocols[number]
        rule = (
            f'- {{from: 172.16.1.101/32, proto: {protocol}, dstport: "{port}", routes: [{{prefix: 172.16.1.100/32}}]}}'
        )
        objects += [
            config_map(f"policies-{number}", rule),
            deployment(
                endpoint(name, PAIR, f"nse-kernel-{number}", policies=f"policies-{number}", **near("nsc-kernel"))
            ),
        ]
    urls = ",".join(f"kernel://{name}/nsm-{number}?color=red" for number, name in names.items())
    asking = component("nsc", CLIENT, {"NSM_NETWORK_SERVICES": urls, "NSM_AWARENESS_GROUPS": f"[{urls}]"})
    route = "ip r get 172.16.1.100 from 172.16.1.101 ipproto {} dport {}"
    commands = [
        ("deployment/nsc-kernel", route.format("tcp", 6666), "172.16.1.100 from 172.16.1.101 dev nsm-1"),
        ("deployment/nsc-kernel", route.format("udp", 5555), "172.16.1.100 from 172.16.1.101 dev nsm-2"),
    ]
    return Example([*objects, deployment(pod("nsc-kernel", asking, labels=IDENTITY))], commands)


def policy_routes():
    """What chooses which route, and by which table: its number is that of the policy in the list."""
    made = [
        service("policy-based-routing"),
        config_map("policies", POLICIES),
        deployment(endpoint("policy-based-routing", PAIR, policies="policies")),
        client("kernel://policy-based-routing/nsm-1", "nettools", **near("nse-kernel")),
    ]
    return Example(made, [*both("pod/nettools", "deployment/nse-kernel", V4), *chosen_routes("pod/nettools")])


def chosen_routes(where):
    """What `POLICIES` choose, by the tables that upstream's READMEs look for."""
    routes = {
        "172.16.3.1 from 172.16.2.201 ipproto tcp dport 6666": "via 172.16.2.200 dev nsm-1 table 1",
        "172.16.3.1 from 172.16.2.201 ipproto tcp sport 5555": "dev nsm-1 table 2",
        "172.16.4.1 ipproto udp dport 6666": "dev nsm-1 table 3 src 172.16.1.101",
        "172.16.4.1 ipproto udp dport 6668": "dev nsm-1 table 4 src 172.16.1.101",
        "2004::5 from 2004::3 ipproto udp dport 5555": "via 2004::6 dev nsm-1 table 5 src 2004::3",
    }
    return [(where, f"ip {'-6' if ':' in asked else '-4'} r get {asked}", told) for asked, told in routes.items()]


def endpoint_death(name, *, far=False):
    """The next endpoint has other addresses: the client gets them too, and keeps its first one and its tables."""
    other = {"name": "nse-kernel-new", "policies": "policies"}
    return Example(
        [
            service(name),
            config_map("policies", POLICIES),
            deployment(endpoint(name, PAIR, policies="policies")),
            client(f"kernel://{name}/nsm-1", **near("nse-kernel", far=far)),
        ],
        [*both("pod/alpine", "deployment/nse-kernel", V4), *chosen_routes("pod/alpine")],
        gone=("deployment/nse-kernel", "--cascade=foreground"),
        instead=(deployment(endpoint(name, NEXT_PAIR, **other, **near("alpine", far=far))),),
        afterwards=(*both("pod/alpine", "deployment/nse-kernel-new", NEXT_V4), *chosen_routes("pod/alpine")),
    )


def dataplane_interrupt():
    """Someone sets the link down: pings notice that, and are answered again at once."""
    privileged = {"securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}}
    asking = client("kernel://dataplane-interrupt/nsm-1", **near("nse-kernel", far=True))
    asking["spec"]["containers"][0].update(privileged)
    interrupt = "ping -q -i 0.1 -c 20 172.16.1.100 & sleep 0.5; ip link set nsm-1 down; wait"
    return Example(
        [service("dataplane-interrupt"), deployment(endpoint("dataplane-interrupt", PAIR)), asking],
        [
            *both("pod/alpine", "deployment/nse-kernel", V4),
            ("pod/alpine", f"sh -c '{interrupt}'", "!, 0% packet loss"),
            *both("pod/alpine", "deployment/nse-kernel", V4),
        ],
    )


def change_endpoint():
    """The service is edited while the client has its wire: it moves to the endpoint that is selected then."""
    name, prefixes = "change-nse-dynamically", {"red": PAIR, "green": NEXT_PAIR}
    ends = [
        endpoint(name, prefix, f"nse-{color}", env={"NSM_LABELS": f"color:{color}"})
        for color, prefix in prefixes.items()
    ]

    def selecting(color):
        return service(name, matches=[{"routes": [{"destination_selector": {"color": color}}]}])

    return Example(
        [selecting("red"), *ends, client(f"kernel://{name}/nsm-1")],
        both("pod/alpine", "pod/nse-red", V4),
        instead=(selecting("green"),),
        afterwards=both("pod/alpine", "pod/nse-green", NEXT_V4),
    )


def ipam_policies():
    """The second endpoint is strict: it takes no address of the first one's, and clients keep none."""
    first = endpoint("ipam-policies", "172.16.1.0/29", "first-nse")
    second = endpoint("ipam-policies", "172.16.2.0/29", "second-nse", env={"NSM_IPAM_POLICY": "strict"})
    clients = [client(f"kernel://ipam-policies/nsm-{number}", f"alpine-{number}") for number in (1, 2)]
    return Example(
        [service("ipam-policies"), first, *clients],
        [ping("pod/first-nse", f"172.16.1.{address}") for address in (1, 3)],
        gone=("pod/first-nse",),
        instead=(second,),
        afterwards=(
            *(ping("pod/second-nse", f"172.16.2.{address}") for address in (1, 3)),
            *((f"pod/alpine-{number}", f"ip -4 r show dev nsm-{number}", "172.16.2.") for number in (1, 2)),
            *((f"pod/alpine-{number}", f"ip -4 r show dev nsm-{number}", "!172.16.1.") for number in (1, 2)),
        ),
    )


def opa():
    """A client whose tokens have expired when it makes them is refused, and says why."""
    asking = component("nsc", CLIENT, {"NSM_MAX_TOKEN_LIFETIME": "-1m", "NSM_NETWORK_SERVICES": "kernel://opa/nsm-1"})
    refused = pod("nsc-kernel", {**asking, **near("nse-kernel")}, labels=IDENTITY)
    objects = [service("opa"), deployment(endpoint("opa", PAIR)), deployment(refused)]
    told = ("deployment/nsc-kernel", "logs nsc", "no sufficient privileges")
    return Example(objects, [], afterwards=(told,))


def forwarder(name):
    """A second one on each node, as privileged as upstream's, with the probes that it has there, but for their second
    and their three tries: a busy node needs more to start a program.
    """
    command = ["/bin/grpc-health-probe", "-spiffe", "-addr=unix:///listen.on.sock"]
    probe = {"exec": {"command": command}, "timeoutSeconds": 10, "failureThreshold": 12}
    labels = {"NSM_LISTEN_ON": "unix:///listen.on.sock", "NSM_LABELS": "p2p:true,my_forwarder_capability:true"}
    spec = component(name, FORWARDER, labels)
    (container,) = spec["containers"]
    container["env"].insert(0, {"name": "NSM_TUNNEL_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    container.update(
        securityContext={"privileged": True},
        readinessProbe=probe,
        livenessProbe=probe,
        resources={"requests": {"cpu": "150m"}, "limits": {"memory": "500Mi", "cpu": "500m"}},
    )
    made = deployment(pod(name, {**spec, "hostPID": True, "hostNetwork": True}, labels=IDENTITY))
    spec = {key: value for key, value in made["spec"].items() if key != "replicas"}
    return {**made, "kind": "DaemonSet", "spec": spec}


def select_forwarder():
    """The service chooses the forwarder, and the client says by which one its wire goes."""
    chosen = {"matches": [{"metadata": {"labels": {"my_forwarder_capability": "true"}}}]}
    objects = [
        service("select-forwarder", **chosen),
        forwarder("my-forwarder-vpp"),
        deployment(endpoint("select-forwarder", "169.254.0.0/16")),
        client("kernel://select-forwarder/my-iface"),
    ]
    pings = both("pod/alpine", "deployment/nse-kernel", ("169.254.0.0", "169.254.0.1"))
    return Example(objects, [*pings, ("pod/alpine", "logs cmd-nsc", "my-forwarder-vpp")])


RULES = """\
allow icmp: {ispermit: 1, proto: 1, srcportoricmptypelast: 65535, dstportoricmpcodelast: 65535}
allow tcp8080:
  {ispermit: 1, proto: 6, srcportoricmptypelast: 65535, dstportoricmpcodefirst: 8080, dstportoricmpcodelast: 8080}
forbid tcp80: {proto: 6, srcportoricmptypelast: 65535, dstportoricmpcodefirst: 80, dstportoricmpcodelast: 80}
"""


def stage(name, image, number=0, **mounted):
    """An endpoint between others, which changes interfaces of its pod."""
    label = name if not number else f"{name}-{number}"
    spec = component("nse", image, {"NSM_SERVICE_NAME": "nse-composition", "NSM_LABELS": f"app:{label}"}, **mounted)
    spec["containers"][0]["securityContext"] = {"capabilities": {"add": ["NET_ADMIN"]}}
    return deployment(pod(f"nse-{label}", spec, labels=IDENTITY))


def composition():
    """A client reaches port 8080 of the last endpoint through a firewall and three more, and not port 80."""
    mounted = {
        "more_mounts": [{"name": "rules", "mountPath": "/etc/firewall/config.yaml", "subPath": "config.yaml"}],
        "more_volumes": [{"name": "rules", "configMap": {"name": "firewall-config-file"}}],
    }
    stages = ["firewall", "passthrough-1", "passthrough-2", "passthrough-3", "gateway"]
    matches = [
        {"source_selector": {"app": one}, "routes": [{"destination_selector": {"app": other}}]}
        for one, other in pairwise(stages)
    ]
    server = {"name": "nginx", "image": TOOLS, "imagePullPolicy": "IfNotPresent", "securityContext": {"runAsUser": 0}}
    beside = [{**server, "name": f"nginx-{p}", "command": ["sh", "-c", SERVER.format(port=p)]} for p in (80, 8080)]
    return Example(
        [
            service("nse-composition", matches=[*matches, {"routes": [{"destination_selector": {"app": "firewall"}}]}]),
            config_map("firewall-config-file", RULES),
            stage("firewall", FIREWALL, **mounted),
            *(stage("passthrough", PASSTHROUGH, number) for number in (1, 2, 3)),
            deployment(endpoint("nse-composition", PAIR, beside=beside, env={"NSM_LABELS": "app:gateway"})),
            client("kernel://nse-composition/nsm-1"),
        ],
        [
            ping("pod/alpine", V4[0]),
            ("pod/alpine", FETCH.format(f"{V4[0]}:8080"), "200"),
            ("pod/alpine", FETCH.format(f"{V4[0]}:80"), "!200"),
            ping("deployment/nse-kernel", V4[1]),
        ],
    )


def scale_from_zero():
    """An endpoint is created on the client's node, and is gone some time after the client."""
    name = "autoscale-icmp-responder"
    described = endpoint(
        name,
        "169.254.0.0/16",
        "nse-icmp-responder",
        env={"NSM_LABELS": "app:nse-icmp-responder", "NSM_IDLE_TIMEOUT": "15s"},
    )
    described["metadata"]["name"] = 'nse-icmp-responder-{{ index .Labels "nodeName" }}'
    described["spec"] |= {"nodeName": '{{ index .Labels "nodeName" }}', "restartPolicy": "Never"}
    near_client = {"app": "nse-icmp-responder", "nodeName": "{{.nodeName}}"}
    matches = [
        {"fallthrough": True, "routes": [{"destination_selector": near_client}]},
        {"routes": [{"destination_selector": {"app": "icmp-responder-supplier"}}]},
    ]
    template = config_map("supplier-pod-template-configmap", yaml.safe_dump(described))  # JSON would escape quotes
    return Example(
        [*supplier(name), service(name, matches=matches), template, client(f"kernel://{name}/nsm-1")],
        [ping("pod/alpine", "169.254.0.0")],
        gone=("pod/alpine",),
        afterwards=(("deployment/nse-supplier-k8s", "logs nse-supplier", "pod removed"),),
    )


TABLE = {
    "use-cases/Kernel2Kernel": pair("kernel2kernel", PAIR, V4),
    "use-cases/Kernel2Ethernet2Kernel": pair("kernel2ethernet2kernel", PAIR, V4, far=True),
    "features/ipv6/Kernel2Kernel_ipv6": pair("kernel2kernel-ipv6", "2001:db8::/116", V6),
    "features/dual-stack/Kernel2Kernel_dual_stack": pair("kernel2kernel-dual-stack", f"{PAIR},2001:db8::/116", V4, V6),
    "features/multiple-services": several_services(),
    "features/annotated-namespace": annotated_namespace(),
    "features/webhook": webhook(),
    "features/exclude-prefixes-client": excluded_by_clients(),
    "features/mutually-aware-nses": mutually_aware(),
    "features/policy-based-routing": policy_routes(),
    "features/opa": opa(),
    "features/ipam-policies": ipam_policies(),
    "features/select-forwarder": select_forwarder(),
    "features/change-nse-dynamically": change_endpoint(),
    "features/nse-composition": composition(),
    "features/scale-from-zero": scale_from_zero(),
    "use-cases/vl3-basic": vl3.basic(),
    "features/vl3-dns": vl3.names(),
    "features/vl3-lb": vl3.balancer(),
    "features/dual-stack/vl3-dual-stack": vl3.dual_stack(),
    "features/vl3-ipv6": vl3.ipv6(),
    "features/vl3-scale-from-zero": vl3.scale_from_zero(),
    "heal/local-nse-death": endpoint_death("local-nse-death"),
    "heal/remote-nse-death": endpoint_death("remote-nse-death", far=True),
    "heal/dataplane-interrupt": dataplane_interrupt(),
    "pss/use-cases/nginx": restricted(),
}
