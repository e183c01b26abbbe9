"""Nobody becomes somebody else at `nsm identity`, and nobody keeps it from others."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kube.stand_in import stand_in

HERE = Path(__file__).parent
ASKER = HERE.parent / "system" / "cgroup_asker.py"
IN_A_PID_NAMESPACE = ["unshare", *([] if os.getuid() == 0 else ["-Ur"]), "--pid", "--fork", "--mount-proc"]


def test_who_takes_a_process_id_again_is_not_who_had_it(tmp_path):
    """The number is that of an entry whose process has ended; the kernel is made to give it out at once."""
    command = [*IN_A_PID_NAMESPACE, sys.executable, HERE / "pid_reuse.py", tmp_path / "s", ASKER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "spiffe://test.mesh/victim"
    assert "no identity is issued to this caller" in second
    assert "the process that its entry selected has ended" in second


UID, ID = "8b1b2e0c-6f5e-4a51-9d3c-0a5c9b7a1e42", "3f2a" * 16
UID_ = UID.replace("-", "_")
PLACE = f"kubepods/besteffort/pod{UID}/{ID}"
SLICES = f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope"
LOOK_ALIKES = [
    f"lxc/pod{UID}/{ID}",
    f"lxc.payload.web/{PLACE}",
    f"lxc.payload.web/{SLICES}",
    f"machine.slice/libpod-{ID}.scope/{PLACE}",
    f"machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope/{SLICES}",
    f"machine.slice/machine-nspawn.scope/payload/{SLICES}",
    f"machine.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
    f"system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
    f"user.slice/user-1000.slice/user@1000.service/{SLICES}",
    f"pod{UID}/{ID}",
    SLICES,
]
UNTRUE = [
    PLACE.replace(ID, ID[::-1]),
    PLACE.replace(ID, f"libpod-{ID}.scope"),
    PLACE.replace("besteffort", "burstable"),
    PLACE.replace("besteffort/", ""),
]


@pytest.fixture
def tree(tmp_path):
    """A folder of cgroup v2, for groups; they go afterwards."""
    top = tmp_path / "cgroup2"
    top.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", top], check=True)
    tree = top / f"nsm-hostile-{os.getpid()}"
    tree.mkdir()
    try:
        yield tree
    finally:
        for folder, _, _ in os.walk(tree, topdown=False):
            os.rmdir(folder)
        subprocess.run(["umount", top], check=True)


@pytest.fixture
async def issuer(tree, tmp_path):
    """`nsm identity` for the pods of a node whose groups are in `tree`; gives its socket."""
    socket = str(tmp_path / "s")
    async with stand_in() as server:
        path = "/api/v1/namespaces/shop/pods/web"
        status = {"qosClass": "BestEffort", "containerStatuses": [{"containerID": f"containerd://{ID}"}]}
        server.put(path, status=status)
        server.at(path)["metadata"]["uid"] = UID
        cluster = {"name": "c", "cluster": {"server": server.url}}
        context = {"name": "c", "context": {"cluster": "c", "namespace": "nsm-system"}}
        known = {"clusters": [cluster], "contexts": [context], "current-context": "c"}
        (tmp_path / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **known}))
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "NODE_NAME": "node-1",
            "NSM_PODS": "true",
            "NSM_LISTEN_ON": socket,
            "NSM_TRUST_DOMAIN": "test.mesh",
            "NSM_CGROUP_ROOT": f"/{tree.name}",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nsm.chains", "identity", env=environment, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(20):
                while b'"ready"' not in (line := await process.stderr.readline()):
                    assert line
            yield socket
        finally:
            process.kill()
            await process.communicate()


async def told(socket, groups):
    """What a process is told that goes from group to group."""
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(HERE / "moves_through_groups.py"), socket, *map(str, groups)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        return (await process.communicate())[0].decode().splitlines()


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes control groups")
async def test_a_group_that_looks_like_a_pod_s_makes_nobody_that_pod(tree, issuer):
    """As podman, LXC, systemd-nspawn and users name theirs; or in the right place, with another class or container."""
    answers = await told(issuer, [tree / group for group in (PLACE, *LOOK_ALIKES, *UNTRUE, PLACE)])
    web = "spiffe://test.mesh/ns/shop/pod/web"
    assert (answers[0], answers[-1]) == (web, web)
    for group, answer in zip(LOOK_ALIKES, answers[1:], strict=False):
        assert "it is not in a pod" in answer, group
    for group, answer in zip(UNTRUE, answers[1 + len(LOOK_ALIKES) :], strict=False):
        assert answer == "waits", f"{group}: there may be news of another container yet"
