"""A client's part of VFIO: whose groups may use the device, and its nodes."""

import os
import stat

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain, Conflict, Element, InvalidRequest
from nsm.chains.elements.vfio import VfioClient, own_groups

V1 = "12:pids:/kubepods/pod1/a\n7:cpu,devices:/kubepods/besteffort/pod1/a\n0::/system.slice\n"
ANSWER = {
    "iommuGroup": "7",
    "pciAddress": "0000:3b:10.0",
    "vfioMajor": "10",
    "vfioMinor": "196",
    "deviceMajor": "511",
    "deviceMinor": "3",
}


class Forwarder(Element):
    """Answers with the first preference, completed."""

    def __init__(self, answer):
        self.answer, self.seen = answer, None

    async def request(self, call, rest):
        self.seen = codec.clone(call.request.mechanism_preferences[0])
        call.connection.mechanism = codec.clone(self.seen)
        call.connection.mechanism.parameters.update(self.answer)
        return await rest.request(call)


async def ask(folder, answer=ANSWER, kind="VFIO", cgroups=V1):
    forwarder = Forwarder(answer)
    chain = Chain([VfioClient(str(folder), namespace="file:///proc/7/ns/net", cgroups=cgroups), forwarder])
    request = NetworkServiceRequest(connection=Connection(), mechanism_preferences=[Mechanism(type=kind)])
    await chain.request(Call(request))
    return forwarder.seen.parameters


async def test_a_client_names_its_groups_and_makes_the_nodes(tmp_path):
    folder = tmp_path / "dev/vfio"
    assert await ask(folder) == {"inodeURL": "file:///proc/7/ns/net", "cgroupDir": "/kubepods/besteffort/pod1/*"}
    for name, number in (("vfio", (10, 196)), ("7", (511, 3))):
        found = os.stat(folder / name)
        assert stat.filemode(found.st_mode) == "crw-rw-rw-"
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == number


async def test_nodes_that_are_there_stay_but_those_of_another_device_are_replaced(tmp_path):
    await ask(tmp_path)
    before = (tmp_path / "7").stat()
    await ask(tmp_path)
    assert (tmp_path / "7").stat().st_ino == before.st_ino
    await ask(tmp_path, {**ANSWER, "deviceMinor": "4"})
    assert os.minor((tmp_path / "7").stat().st_rdev) == 4


async def test_other_mechanisms_pass_unchanged(tmp_path):
    assert await ask(tmp_path / "none", {}, "KERNEL") == {}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"iommuGroup": ""}, "the forwarder's answer has no IOMMU group: ''"),
        ({"iommuGroup": "../mem"}, "has no IOMMU group: '../mem'"),
        ({"deviceMajor": ""}, "has no device: deviceMajor, deviceMinor"),
        ({"vfioMinor": "-1"}, "has no device: vfioMajor, vfioMinor"),
        ({"vfioMajor": "99999"}, "has no device: vfioMajor, vfioMinor"),
    ],
)
async def test_an_answer_without_a_device_makes_no_node(tmp_path, changed, told):
    with pytest.raises(InvalidRequest, match=told):
        await ask(tmp_path / "vfio", {**ANSWER, **changed})
    assert not (tmp_path / "vfio").exists() or not list((tmp_path / "vfio").iterdir())


async def test_nodes_that_cannot_be_made_say_what_it_takes(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Conflict, match="cannot make the device nodes in .*; it takes CAP_MKNOD"):
        await ask(tmp_path / "file/vfio")


@pytest.mark.parametrize(
    ("cgroups", "pattern"),
    [
        (V1, "/kubepods/besteffort/pod1/*"),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n", "/kubepods.slice/kubepods-pod1.slice/*"),
        ("0::/\n", ""),  # a container on v2: it sees itself at the root
        ("0::/../pod1/a\n", ""),
        ("5:devices:/\n0::/\n", ""),
        ("", ""),
    ],
)
def test_the_groups_of_a_pod(cgroups, pattern):
    assert own_groups(cgroups) == pattern
