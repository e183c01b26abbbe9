"""The first process of a node: its file systems and its network, then containerd, the kubelet and kube-proxy.

It is started by `control_plane`, in namespaces of its own, with the cluster's folder, the node's name and the number of the
layout as arguments.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from . import images, layout
from .programs import Programs, answers

HIERARCHIES = Path("/sys/fs/cgroup")
SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""What the kubelet wants to find; they are the whole machine's, so it is shown files instead."""

SOCKET = "/run/containerd/containerd.sock"
CONFIGURATION = Path("/run/configuration")

CONTAINERD = """\
version = 2
root = "{root}"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true  # runc may not lower it where CAP_SYS_RESOURCE is missing
  sandbox_image = "{pause}"
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{configuration}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def main(folder, node, where):
    layout.pid_file(folder, node).write_text(str(Path("/proc/self").readlink()))
    make_file_systems(folder / node)
    make_network(node, where)
    group = make_cgroups(layout.cgroup(folder), node)
    CONFIGURATION.mkdir()
    write_network_configuration(where.pods_of(node))
    with Programs(folder / node / "logs") as programs:
        start_containerd(programs, folder / node / "containerd")
        start_kubelet(programs, folder, node, group, where)
        start_proxy(programs, folder, node, where)
        programs.watch(again=["containerd", "kubelet", "kube-proxy"])


def make_file_systems(folder):
    """A /proc, /run and /var of the node's own; what is in the machine's /var is seen and not changed."""
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    upper, work = folder / "var", folder / "work"
    upper.mkdir()
    work.mkdir()
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/var,upperdir={upper},workdir={work}", "/var")
    for name, value in SYSCTLS.items():
        file = Path("/run/sysctl", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        run("mount", "--bind", file, f"/proc/sys/{name}")


def make_network(node, where):
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{where.address(node)}/{where.network.prefixlen}", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", where.control)
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for other in where.nodes:
        if other != node:
            run("ip", "route", "add", where.pods_of(other), "via", where.address(other))


def make_cgroups(name, node):
    """The node's control group in each hierarchy; its path, as the kubelet wants it."""
    for hierarchy in HIERARCHIES.iterdir():
        if hierarchy.name == "unified" or hierarchy.is_symlink() or not (hierarchy / "cgroup.procs").exists():
            continue
        for group in (hierarchy / name, hierarchy / name / node):
            group.mkdir(exist_ok=True)
            if hierarchy.name.startswith("cpuset"):
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (group / setting).write_text((group.parent / setting).read_text())
    return f"/{name}/{node}"


def write_network_configuration(pods):
    folder = CONFIGURATION / "cni"
    folder.mkdir()
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    (folder / "10-bridge.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]})
    )


def start_containerd(programs, root):
    """Returns when it answers and has the images that all clusters have."""
    configuration = CONFIGURATION / "containerd.toml"
    configuration.write_text(
        CONTAINERD.format(root=root, socket=SOCKET, pause=images.PAUSE, configuration=CONFIGURATION)
    )
    programs.start("containerd", ["containerd", "--config", configuration])
    programs.wait_until(lambda: ctr("version"), "containerd answers")
    for archive in sorted(root.parent.parent.glob("images/*.tar")):
        if not ctr("images", "import", archive):
            raise SystemExit(f"{archive} cannot be imported")


def start_kubelet(programs, folder, node, group, where):
    identities = folder / "identities"
    resolver = CONFIGURATION / "resolv.conf"
    resolver.touch()
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},  # tokens, as SPIRE's agents have
            "x509": {"clientCAFile": str(identities / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "clusterDNS": [where.control],
        "clusterDomain": layout.DOMAIN,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "resolvConf": str(resolver),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    configuration = CONFIGURATION / "kubelet.json"
    configuration.write_text(json.dumps(settings))
    programs.start(
        "kubelet",
        [
            folder / "bin/kubelet",
            f"--config={configuration}",
            f"--kubeconfig={identities / f'system-node-{node}.kubeconfig'}",
            f"--hostname-override={node}",
            f"--node-ip={where.address(node)}",
            f"--node-labels=kubernetes.io/hostname={node}",
        ],
    )
    programs.wait_until(lambda: answers("http://127.0.0.1:10248/healthz"), "the kubelet is healthy")


def start_proxy(programs, folder, node, where):
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "identities/system-kube-proxy.kubeconfig")},
        "clusterCIDR": str(where.pods),
        # these are the whole machine's: nothing is set
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "hostnameOverride": node,
        "mode": "iptables",
    }
    configuration = CONFIGURATION / "kube-proxy.json"
    configuration.write_text(json.dumps(settings))
    programs.start("kube-proxy", [folder / "bin/kube-proxy", f"--config={configuration}"])


def ctr(*words):
    """Whether containerd's client succeeds."""
    client = [shutil.which("ctr"), "--address", SOCKET, "--namespace", "k8s.io", *words]
    return subprocess.run(list(map(str, client)), capture_output=True, check=False).returncode == 0


def run(*words):
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], layout.BY_NUMBER[int(sys.argv[3])])
