"""Who is which pod, on cgroup v2 as a container sees it: real groups, processes, namespaces, and the Workload API.

The groups are those that the kubelet and the runtime make; the machine's groups of v1 stay, as on a hybrid node.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ISSUER, ASKER = (str(Path(__file__).with_name(name)) for name in ("cgroup_issuer.py", "cgroup_asker.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
SELF, WEB, DB = (f"{digit * 8}-aaaa-bbbb-cccc-dddddddddddd" for digit in "123")
ID, OTHER_ID = "3f2a" * 16, "77b0" * 16
NODE = "it is not in a pod, but a process of the node itself"


def systemd(uid, qos="besteffort", container=f"cri-containerd-{ID}.scope"):
    return f"kubepods.slice/kubepods-{qos}.slice/kubepods-{qos}-pod{uid.replace('-', '_')}.slice/{container}"


def cgroupfs(uid, qos="besteffort", container=ID):
    return f"kubepods/{qos}/pod{uid}/{container}"


LAYOUTS = {
    "systemd-containerd": (systemd, f"cri-containerd-{OTHER_ID}.scope", "containerd"),
    "systemd-crio": (
        lambda uid, qos="besteffort", container=f"crio-{ID}.scope/container": systemd(uid, qos, container),
        f"crio-{OTHER_ID}.scope/container",
        "cri-o",
    ),
    "cgroupfs-containerd": (cgroupfs, OTHER_ID, "containerd"),
    "cgroupfs-crio": (
        lambda uid, qos="besteffort", container=f"crio-{ID}": cgroupfs(uid, qos, container),
        f"crio-{OTHER_ID}",
        "cri-o",
    ),
}


@pytest.fixture
def tree(tmp_path):
    """A folder of cgroup v2, for groups; they go afterwards."""
    top = tmp_path / "cgroup2"
    top.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", top], check=True)
    tree = top / f"nsm-test-{os.getpid()}"
    tree.mkdir()
    try:
        yield tree
    finally:
        for folder, _, _ in os.walk(tree, topdown=False):
            os.rmdir(folder)
        subprocess.run(["umount", top], check=True)


@contextlib.contextmanager
def issuing(group, socket, runtime):
    """`nsm identity`'s issuer in that group, which is the root of a cgroup namespace of its own."""
    group.mkdir(parents=True)
    classes = {"self": (SELF, "BestEffort"), "web": (WEB, "BestEffort"), "db": (DB, "Burstable")}
    containers = [f"{runtime}://{ID}"]
    pods = {name: {"uid": uid, "qos": qos, "containers": containers} for name, (uid, qos) in classes.items()}
    words = ["unshare", "--cgroup", sys.executable, ISSUER, socket, json.dumps(pods)]
    enter = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh"]
    with subprocess.Popen(
        [*enter, *words], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as issuer:
        try:
            assert issuer.stdout.readline() == "ready\n"
            yield
        finally:
            issuer.stdin.close()
            assert issuer.wait(timeout=20) == 0


def asks(groups, socket):
    """What a process in each of these groups is told: its SPIFFE ID, or why it has none."""
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, ASKER, socket, *groups], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(groups, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_cgroup_v2_a_process_is_its_pod_and_nobody_becomes_another_by_a_group(tree, tmp_path, layout):
    at, sibling, runtime = LAYOUTS[layout]
    socket = str(tmp_path / "s")
    pods = {
        tree / at(WEB): "web",
        tree / at(DB, "burstable"): "db",
        tree / at(WEB) / at(DB): "web",
        tree / at(WEB) / "x\r0::" / at(DB): "web",
    }
    others = [
        tree / "system.slice/sshd.service",
        tree / f"lxc/pod{WEB}/{ID}",
        tree / "machine.slice/libpod-x.scope" / at(WEB),
        tree / "machine.slice/machine-nspawn.scope/payload" / at(WEB),
        tree / "user.slice/user-1000.slice" / at(WEB),
        tree / "user.slice/user-1000.slice/x\r0::" / at(WEB),
        tree / at(SELF, container=sibling),
        tree / at(SELF, container=sibling) / at(WEB),
        tree / at(SELF) / at(WEB),
    ]
    with issuing(tree / at(SELF), socket, runtime):
        told = asks([*pods, *others], socket)
    assert {group: told[group] for group in pods} == {
        group: f"spiffe://test.mesh/ns/shop/pod/{name}" for group, name in pods.items()
    }
    for group in others:
        assert NODE in told[group], group
