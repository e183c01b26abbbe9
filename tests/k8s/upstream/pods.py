"""Pods as upstream's manifests write them: of no user or group, with folders of the node, small limits and no probes."""

from collections.abc import Callable
from dataclasses import dataclass

CLIENT, ENDPOINT, TOOLS, FORWARDER, FIREWALL, PASSTHROUGH, SUPPLIER, VL3, IPAM, BALANCER = (
    f"localhost/nsm/{name}:0.1.0"
    for name in (
        *("nsc-tools", "nse", "nsc-tools", "forwarder-kernel", "nse-firewall", "nse-passthrough", "nse-supplier"),
        *("nse-vl3", "ipam", "lb-vl3"),
    )
)
SERVER = "python3 -m http.server --directory /etc {port}"
"""In the place of nginx, in an image that has Python."""


@dataclass(frozen=True)
class Example:
    """Objects in a namespace of its own, and commands in them: what runs it, what it runs, what is in its output."""

    objects: list
    commands: list | tuple = ()
    check: Callable | None = None
    """More than commands say: what is wrong, given kubectl in the namespace; else an empty text."""
    labels: tuple = ()
    """Of the namespace."""
    later: tuple = ()
    """What is applied when the other pods are ready."""
    annotation: str = ""
    """Of the namespace, from then on."""
    gone: tuple = ()
    """What is deleted after the commands; then `instead` is applied, and in a while there is what `afterwards` looks for."""
    instead: tuple = ()
    afterwards: tuple = ()


def namespace_of(example):
    """The namespace that an example has upstream."""
    return f"ns-{example.rpartition('/')[2].replace('_', '-').lower()}".replace("ns-vl3-basic", "ns-vl3")


def namespace(example, **labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace_of(example), "labels": labels}}


def service(name, **spec):
    about = {"apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService", "metadata": {"name": name}}
    return {**about, "spec": {"payload": "ETHERNET", **spec}}


def pod(name, spec, **metadata):
    """Sooner gone than upstream's."""
    spec = {"terminationGracePeriodSeconds": 5, **spec}
    labels = {"app": name, **metadata.pop("labels", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels, **metadata}, "spec": spec}


def deployment(made, replicas=1):
    """A Deployment of pods like one."""
    name, template = made["metadata"]["name"], {"metadata": {**made["metadata"], "name": None}, "spec": made["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def apart(app):
    """Not on a node with a pod of that application."""
    return near(app, far=True)


def near(app, *, far=False):
    """On the node of that application's pod, or on another."""
    expression = {"key": "app", "operator": "In", "values": [app]}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchExpressions": [expression]}}
    kind = "podAntiAffinity" if far else "podAffinity"
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def client(urls, name="alpine", annotation="networkservicemesh.io", **spec):
    """An application that knows nothing of the mesh."""
    loop = ["/bin/sh", "-c", "trap : TERM INT; sleep infinity & wait"]
    container = {"name": name, "image": TOOLS, "imagePullPolicy": "IfNotPresent", "command": loop}
    return pod(name, {"containers": [container], **spec}, annotations={annotation: urls} if urls else {})


def named_values(variables):
    return [{"name": name, "value": value} for name, value in variables.items()]


def component(name, image, variables, more_mounts=(), more_volumes=()):
    """The spec of a pod with one component in it."""
    env = [
        {"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///run/spire/sockets/agent.sock"},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NSM_NAME", "value": "$(POD_NAME)"},
        {"name": "NSM_CONNECT_TO", "value": "unix:///var/lib/networkservicemesh/nsm.io.sock"},
    ]
    env = [*(each for each in env if each["name"] not in variables), *named_values(variables)]
    folders = {"spire-agent-socket": "/run/spire/sockets", "nsm-socket": "/var/lib/networkservicemesh"}
    mounts = [{"name": key, "mountPath": path, "readOnly": True} for key, path in folders.items()]
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": env,
        "volumeMounts": [*mounts, *more_mounts],
        "resources": {"requests": {"cpu": "100m", "memory": "40Mi"}, "limits": {"memory": "80Mi", "cpu": "200m"}},
    }
    volumes = [{"name": key, "hostPath": {"path": path, "type": "Directory"}} for key, path in folders.items()]
    return {"containers": [container], "volumes": [*volumes, *more_volumes]}


IDENTITY = {"spiffe.io/spiffe-id": "true"}


def endpoint(provides, prefixes, name="nse-kernel", *, policies="", beside=(), **more):
    """`more`: `env` for the endpoint, and what else the pod says. `policies`: a ConfigMap with policy routes."""
    variables = {
        "NSM_SERVICE_NAMES": provides,
        "NSM_CIDR_PREFIX": prefixes,
        "NSM_REGISTER_SERVICE": "false",
        **more.pop("env", {}),
    }
    mount = {"name": "policies", "mountPath": "/etc/policy-based-routing/config.yaml", "subPath": "config.yaml"}
    volume = {"name": "policies", "configMap": {"name": policies}}
    spec = component("nse", ENDPOINT, variables, [mount] if policies else (), [volume] if policies else ())
    spec["containers"] += beside
    return pod(name, {**spec, **more}, labels=IDENTITY)


def config_map(name, text):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"config.yaml": text}}


def supplier(name):
    """What creates endpoints of a service in its own namespace, and its rights."""
    mounted = {
        "more_mounts": [{"name": "pod-file", "mountPath": "/run/supplier", "readOnly": True}],
        "more_volumes": [{"name": "pod-file", "configMap": {"name": "supplier-pod-template-configmap"}}],
    }
    variables = {
        "NSM_SERVICE_NAME": name,
        "NSM_LABELS": "app:icmp-responder-supplier",
        "NSM_POD_DESCRIPTION_FILE": "/run/supplier/config.yaml",
    }
    spec = component("nse-supplier", SUPPLIER, variables, **mounted)
    own = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    spec["containers"][0]["env"].append({"name": "NSM_NAMESPACE", "valueFrom": own})
    may = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list"]}
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nse-supplier"}},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "nse-supplier"}, "rules": [may]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "nse-supplier"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "nse-supplier"},
            "subjects": [{"kind": "ServiceAccount", "name": "nse-supplier"}],
        },
        deployment(pod("nse-supplier-k8s", {**spec, "serviceAccountName": "nse-supplier"}, labels=IDENTITY)),
    ]
