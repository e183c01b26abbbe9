"""`nsm csi-driver` called as the kubelet calls it: real mounts, in mount namespaces as a node and a container have them.

The container's shares what is mounted below the kubelet's folder with the node's (mountPropagation: Bidirectional).
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from nsm.apis import codec, csi
from nsm.apis.pluginregistration import InfoRequest, RegistrationStatus, RegistrationStub

pytestmark = pytest.mark.system

NAME = "csi.networkservicemesh.io"
EPHEMERAL = {"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.namespace": "a"}
MOUNT = csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume())


OLD_KERNEL = """
import sys
from nsm.chains.cli import main
from nsm.services.csi_driver import mounts
mounts._MOUNT_SETATTR = 9999
sys.exit(main(["csi-driver"]))
"""


class Driver:
    """A running driver, its folders, and what the kubelet sees of its mounts."""

    def __init__(self, folder):
        self.kubelet, self.sockets = folder / "kubelet", folder / "net work\\mesh"
        self.kubelet.mkdir()
        self.sockets.mkdir()
        self.target = str(self.kubelet / "pods/5-0/volumes/kubernetes.io~csi/nsm-socket/mount")
        self.node = self.process = None

    def start_node(self):
        """A process that keeps the node's mount namespace."""
        share = 'mount --bind "$0" "$0" && mount --make-shared "$0" && echo && exec sleep 1000'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", share, str(self.kubelet)]
        self.node = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.node.stdout.readline()

    def start(self, *program):
        environment = {
            "PATH": os.environ["PATH"],
            "NODE_NAME": "node-1",
            "NSM_SOCKET_DIR": str(self.sockets),
            "NSM_KUBELET_DIR": str(self.kubelet),
        }
        enter = ["nsenter", f"--target={self.node.pid}", "--mount", "unshare", "--mount", "--propagation", "unchanged"]
        command = [*enter, sys.executable, *(program or ("-m", "nsm.chains", "csi-driver"))]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.until('"ready"')

    def until(self, text):
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text}: {lines}")

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=10)
        return self.process.returncode

    def stop_node(self):
        self.node.kill()
        self.node.communicate()

    def seen(self, name=""):
        """A path below the target, in the node's mount namespace."""
        return f"/proc/{self.node.pid}/root{self.target}/{name}"

    def mounts(self):
        """What is mounted below the kubelet's folder, in the node's mount namespace."""
        with open(f"/proc/{self.node.pid}/mountinfo") as lines:
            return [line.split() for line in lines if f"{self.kubelet}/" in line.split()[4]]

    @asynccontextmanager
    async def calls(self, stub, path):
        channel = Channel(path=str(self.kubelet / path), codec=codec.Codec())
        try:
            yield stub(channel)
        finally:
            channel.close()

    def asked(self):
        return self.calls(csi.NodeStub, f"plugins/{NAME}/csi.sock")

    def request(self, **changed):
        wanted = {
            "volume_id": "csi-1",
            "target_path": self.target,
            "volume_capability": MOUNT,
            "readonly": True,
            "volume_context": EPHEMERAL,
        }
        return csi.NodePublishVolumeRequest(**{**wanted, **changed})

    def end_request(self):
        return csi.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=self.target)


@pytest.fixture
def driver():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for the path of a socket
        driver = Driver(Path(folder))
        driver.start_node()
        try:
            driver.start()
            yield driver
        finally:
            driver.stop()
            driver.stop_node()


async def test_the_kubelet_learns_which_driver_this_is_and_where(driver):
    async with driver.calls(RegistrationStub, f"plugins_registry/{NAME}-reg.sock") as registration:
        info = await registration.get_info(InfoRequest())
        await registration.notify_registration_status(RegistrationStatus(plugin_registered=True))
    assert (info.type, info.name, info.supported_versions) == ("CSIPlugin", NAME, ["1.0.0"])
    assert "registered with the kubelet" in driver.until("registered")
    async with driver.calls(csi.IdentityStub, os.path.relpath(info.endpoint, driver.kubelet)) as identity:
        assert (await identity.get_plugin_info(csi.GetPluginInfoRequest())).name == NAME
        await identity.probe(csi.ProbeRequest())
        assert bytes(await identity.get_plugin_capabilities(csi.GetPluginCapabilitiesRequest())) == b""
    async with driver.asked() as node:
        assert (await node.node_get_info(csi.NodeGetInfoRequest())).node_id == "node-1"
        assert bytes(await node.node_get_capabilities(csi.NodeGetCapabilitiesRequest())) == b""


async def test_a_refusal_of_the_kubelet_is_told(driver):
    async with driver.calls(RegistrationStub, f"plugins_registry/{NAME}-reg.sock") as registration:
        await registration.notify_registration_status(RegistrationStatus(error="no such CSIDriver"))
    assert "no such CSIDriver" in driver.until("rejected")


async def test_a_pod_s_volume_is_the_socket_folder_read_only(driver):
    """It can connect there and change nothing; sockets that come later are seen too."""
    async with driver.asked() as node:
        await node.node_publish_volume(driver.request())
        with socket.socket(socket.AF_UNIX) as manager, socket.socket(socket.AF_UNIX) as client:
            manager.bind(str(driver.sockets / "nsm.io.sock"))
            manager.listen()
            client.connect(driver.seen("nsm.io.sock"))
        with pytest.raises(OSError, match="Read-only file system"):
            open(driver.seen("mine"), "w").close()
        with pytest.raises(OSError, match="Read-only file system"):
            os.unlink(driver.seen("nsm.io.sock"))
        (mount,) = driver.mounts()
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount[5].split(","))
        await node.node_unpublish_volume(driver.end_request())
    assert driver.mounts() == []
    assert not os.path.lexists(driver.target)
    assert os.listdir(driver.sockets) == ["nsm.io.sock"]


async def test_what_is_done_already_is_done_once(driver):
    """The kubelet repeats what it did not hear the answer of, also over a restart of the driver's pod."""
    async with driver.asked() as node:
        await node.node_publish_volume(driver.request())
        await node.node_publish_volume(driver.request())
        assert len(driver.mounts()) == 1
        await node.node_unpublish_volume(driver.end_request())
        await node.node_unpublish_volume(driver.end_request())
        assert driver.mounts() == []


async def test_what_else_is_mounted_at_the_target_gives_way(driver):
    """A bind that can be written, twice: what another driver may have left."""
    async with driver.asked() as node:
        os.makedirs(driver.target)
        inside = ["nsenter", "-t", str(driver.node.pid), "-m"]
        for _ in range(2):
            subprocess.run([*inside, "mount", "--bind", driver.sockets, driver.target], check=True)
        await node.node_publish_volume(driver.request())
        (mount,) = driver.mounts()
        assert "ro" in mount[5].split(",")


@pytest.mark.parametrize("name", ["a\rb", "a\u2028b", "a\x0bb", "a b\nc"])
async def test_an_odd_subpath_of_some_pod_stops_no_other_pod_s_volume(driver, name):
    """The kubelet binds it below its folder, so its name stands in the driver's table of mounts."""
    volume, subpath = driver.kubelet / "volume" / name, driver.kubelet / "pods/6-1/volume-subpaths/v/c/0"
    volume.mkdir(parents=True)
    subpath.mkdir(parents=True)
    inside = ["nsenter", "-t", str(driver.node.pid), "-m"]
    subprocess.run([*inside, "mount", "--bind", volume, subpath], check=True)
    async with driver.asked() as node:
        await node.node_publish_volume(driver.request())
        assert os.stat(driver.seen()).st_ino == driver.sockets.stat().st_ino
        await node.node_unpublish_volume(driver.end_request())
    assert not os.path.lexists(driver.target)


async def test_a_kernel_before_5_12_needs_the_folder_read_only_in_the_driver_s_container(driver):
    """Without that the pod would have a folder that it can write to, so it is refused."""
    driver.stop()
    driver.start("-c", OLD_KERNEL)
    async with driver.asked() as node:
        with pytest.raises(GRPCError, match="mount the folder read-only into this container"):
            await node.node_publish_volume(driver.request())
        assert driver.mounts() == []
        bind = ["mount", "--bind", "-o", "ro", driver.sockets, driver.sockets]
        subprocess.run(["nsenter", f"--target={driver.process.pid}", "--mount", *bind], check=True)
        await node.node_publish_volume(driver.request())
        (mount,) = driver.mounts()
        assert "ro" in mount[5].split(",")


async def test_what_a_pod_left_at_the_mount_point_is_never_removed(driver):
    async with driver.asked() as node:
        os.makedirs(driver.target)
        with open(f"{driver.target}/kept", "w") as file:
            file.write("x")
        with pytest.raises(GRPCError, match="Directory not empty"):
            await node.node_unpublish_volume(driver.end_request())
        assert os.listdir(driver.target) == ["kept"]


BLOCK = csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume())
EXT4 = csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"readonly": False}, "not read-only; write readOnly: true"),
        ({"volume_context": {}}, "not ephemeral; define it in the pod itself"),
        ({"volume_capability": BLOCK}, "block volumes are not supported"),
        ({"volume_capability": None}, "block volumes are not supported"),
        ({"volume_capability": EXT4}, "which are not supported"),
        ({"volume_id": ""}, "the volume has no id"),
        ({"target_path": "/etc"}, "'/etc' is not a path of a CSI volume below"),
        ({"target_path": "pods/x"}, "set NSM_KUBELET_DIR"),
        ({"target_path": ""}, "is not a path of a CSI volume below"),
    ],
)
async def test_what_no_volume_of_this_driver_can_be_is_refused_with_a_reason(driver, changed, told):
    async with driver.asked() as node:
        with pytest.raises(GRPCError) as refused:
            await node.node_publish_volume(driver.request(**changed))
    assert refused.value.status.name == "INVALID_ARGUMENT"
    assert told in refused.value.message
    assert driver.mounts() == []


async def test_a_target_that_leaves_the_kubelet_s_folder_by_a_link_is_refused(driver, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (driver.kubelet / "pods").mkdir()
    (driver.kubelet / "pods/link").symlink_to(outside)
    async with driver.asked() as node:
        with pytest.raises(GRPCError, match="is not a path of a CSI volume below"):
            await node.node_publish_volume(driver.request(target_path=f"{driver.kubelet}/pods/link/x"))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("target", ["", "/", "/pods/.."])
async def test_the_kubelet_s_folder_itself_is_no_target(driver, target):
    """It may be a mount of its own, and would be taken away for the volume."""
    (driver.kubelet / "pods").mkdir()
    path = f"{driver.kubelet}{target}"
    async with driver.asked() as node:
        with pytest.raises(GRPCError, match="is not a path of a CSI volume below"):
            await node.node_publish_volume(driver.request(target_path=path))
        with pytest.raises(GRPCError, match="is not a path of a CSI volume below"):
            await node.node_unpublish_volume(csi.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=path))
    assert f" {driver.kubelet} " in Path(f"/proc/{driver.node.pid}/mountinfo").read_text()


async def test_before_the_manager_s_folder_is_there_the_kubelet_is_told_to_come_again(driver):
    os.rmdir(driver.sockets)
    async with driver.asked() as node:
        with pytest.raises(GRPCError) as refused:
            await node.node_publish_volume(driver.request())
        assert refused.value.status.name == "UNAVAILABLE"
        assert "is the manager running?" in refused.value.message
        os.mkdir(driver.sockets)
        await node.node_publish_volume(driver.request())
    assert len(driver.mounts()) == 1


def test_a_stopped_driver_takes_its_sockets_away_and_a_killed_one_s_are_taken_over(driver):
    driver.process.kill()
    driver.process.communicate(timeout=10)
    assert (driver.kubelet / f"plugins/{NAME}/csi.sock").exists()
    driver.start()
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(driver.kubelet / f"plugins/{NAME}/csi.sock"))
    assert driver.stop() == 0
    deadline = time.monotonic() + 5
    while any(driver.kubelet.rglob("*.sock")):
        assert time.monotonic() < deadline
