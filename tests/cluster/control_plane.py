"""The first process in a cluster's namespaces: the network between the nodes, the control plane, and the nodes.

It is started by `cluster.up`, which has made the namespaces, with the cluster's folder and the number of its layout as
arguments.
"""

import subprocess
import sys
from pathlib import Path

from . import api_server, identities, layout
from .programs import Programs

OPTIONS = {
    "kube-controller-manager": ["--node-monitor-period=2s"],
    "kube-scheduler": ["--leader-elect=false", "--bind-address=127.0.0.1"],
}


def main(folder, where):
    layout.pid_file(folder).write_text(str(Path("/proc/self").readlink()))
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    make_network(where)
    who = identities.make(
        folder / "identities", ["127.0.0.1", where.control, api_server.FIRST_SERVICE], nodes=where.nodes
    )
    binaries = folder / "bin"
    with Programs(folder / "logs") as programs:
        for node in where.nodes:
            start_node(programs, folder, node, who, where)
        api = api_server.start(programs, folder, who, binaries, address=where.control)
        api.kubeconfig.replace(folder / "kubeconfig")
        api_server.start_controllers(programs, api, more=OPTIONS["kube-controller-manager"])
        scheduler = who.kubeconfig("system:kube-scheduler", api.url)
        programs.start(
            "kube-scheduler",
            [binaries / "kube-scheduler", f"--kubeconfig={scheduler}", *OPTIONS["kube-scheduler"]],
            env={},
        )
        for name in ("names", "balancers"):
            programs.start(name, [sys.executable, "-m", f"tests.cluster.{name}", folder, where.number])
        programs.wait_until(lambda: usable(api, where), "the nodes are ready", seconds=120)
        (folder / "ready").touch()
        programs.watch(
            again=["names", "balancers", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        )


def make_network(where):
    """A bridge, and for each node a namespace that is joined to it."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "nodes", "type", "bridge")
    run("ip", "address", "add", f"{where.control}/{where.network.prefixlen}", "dev", "nodes")
    run("ip", "link", "set", "nodes", "up")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for node in where.nodes:
        run("ip", "netns", "add", node)
        run("ip", "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", node)
        run("ip", "link", "set", node, "up", "master", "nodes")
        run("ip", "route", "add", where.pods_of(node), "via", where.address(node))
    run("ip", "route", "add", where.balancers, "via", where.address(where.nodes[0]))  # kube-proxy has what is there


def start_node(programs, folder, node, who, where):
    """Start a node in mount and pid namespaces of its own, and in the network namespace that is there for it."""
    who.kubeconfig(f"system:node:{node}", f"https://{where.control}:6443")
    who.kubeconfig("system:kube-proxy", f"https://{where.control}:6443")
    programs.start(
        node,
        [
            *("nsenter", f"--net=/run/netns/{node}"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
            *(sys.executable, "-m", "tests.cluster.node", folder, node, where.number),
        ],
    )


def usable(api, where):
    """Whether a pod would start: all nodes are ready, and the default service account is there."""
    nodes = (api.get("/api/v1/nodes") or {}).get("items", [])
    ready = [
        node
        for node in nodes
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return len(ready) == len(where.nodes) and api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def run(*words):
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), layout.BY_NUMBER[int(sys.argv[2])])
