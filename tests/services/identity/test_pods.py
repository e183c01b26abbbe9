"""Pods are told apart by who connects: real sockets and processes, groups as a runtime would write them."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol

from nsm.apis import codec
from nsm.apis.workload import SpiffeWorkloadApiStub, X509SvidRequest
from nsm.chains.core import Refused
from nsm.chains.identity import Authority
from nsm.chains.identity.source import SECURITY_HEADER, identity_from
from nsm.chains.transport import Credentials, SocketAccess, serve_plain
from nsm.kube import connect
from nsm.services.identity import pods as module
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.issuer import Issuer
from nsm.services.identity.pods import PodIdentities, Pods
from tests.kube.stand_in import eventually, forbidden, stand_in

AUTHORITY = Authority.create("test.mesh")
WEB = "8b1b2e0c-6f5e-4a51-9d3c-0a5c9b7a1e42"
DB = "11111111-2222-3333-4444-555555555555"


class Node:
    """A node: its API server, its /proc, and an issuer on a socket."""

    def __init__(self, server, folder):
        self.server, self.proc, self.path = server, folder / "proc", str(folder / "s")

    def pod(self, name, uid, namespace="shop", qos="BestEffort", containers=("containerd://c1",)):
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        status = {"qosClass": qos, "containerStatuses": [{"containerID": each} for each in containers]}
        self.server.remove(path) if path in self.server.paths() else None
        metadata = {"name": name, "namespace": namespace, "uid": uid}
        self.server._store("ADDED", path, {"metadata": metadata, "status": status})

    def belongs(self, pid, uid):
        folder = self.proc / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup").write_text(f"0::/kubepods/besteffort/pod{uid}/c1\n" if uid else "0::/init.scope\n")

    @asynccontextmanager
    async def issuing(self, lifetime=3600.0, **settings):
        async with connect(self.server.url) as api, Pods(api, "node-1") as pods:
            who = PodIdentities(pods, "test.mesh", proc=self.proc, **settings)
            self.authorities = Authorities([AUTHORITY])
            issuer = Issuer(self.authorities, who.identify, lifetime=lifetime)
            methods = issuer.methods(self.path)
            async with serve_plain(self.path, methods, name="identity", access=SocketAccess()):
                yield

    @asynccontextmanager
    async def asked(self):
        channel = Channel(path=self.path, codec=codec.Codec())
        try:
            yield SpiffeWorkloadApiStub(channel).fetch_x_509_svid(X509SvidRequest(), metadata=SECURITY_HEADER)
        finally:
            channel.close()

    async def answer(self):
        async with asyncio.timeout(10), self.asked() as answers:
            return (await anext(answers)).svids[0].spiffe_id


@pytest.fixture
async def node(tmp_path):
    async with stand_in() as server:
        yield Node(server, tmp_path)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.1)


@pytest.fixture(params=["6.5", "5.10"])
def kernel(request, monkeypatch):
    """Kernels before 6.5 do not know SO_PEERPIDFD."""
    if request.param == "5.10":
        monkeypatch.setattr("nsm.chains.transport.credentials._SO_PEERPIDFD", 9999)


@pytest.mark.usefixtures("kernel")
async def test_a_process_of_a_pod_gets_the_pod_s_identity(node):
    node.pod("web", WEB)
    node.pod("db", DB)
    node.belongs(os.getpid(), DB)
    async with node.issuing(), identity_from(f"unix://{node.path}", token_lifetime=60) as identity:
        assert identity.spiffe_id == "spiffe://test.mesh/ns/shop/pod/db"
    assert any("/pods?" in r and "fieldSelector=spec.nodeName%3Dnode-1" in r for r in node.server.requests)


async def test_a_container_that_is_up_before_the_news_of_its_pod_waits_for_them(node):
    node.belongs(os.getpid(), WEB)
    async with node.issuing():
        asking = asyncio.ensure_future(node.answer())
        await eventually(lambda: node.server.watching)
        await asyncio.sleep(0.05)
        assert not asking.done()
        node.pod("web", WEB, containers=[""])
        await asyncio.sleep(0.05)
        assert not asking.done(), "which container that is, nobody has told yet"
        node.pod("web", WEB)
        assert await asking == "spiffe://test.mesh/ns/shop/pod/web"


async def test_who_is_in_no_pod_of_this_node_is_refused_with_the_reason(node, impatient):
    node.pod("db", DB)
    async with node.issuing():
        node.belongs(os.getpid(), None)
        with pytest.raises(GRPCError) as refused:
            await node.answer()
        assert refused.value.status.name == "PERMISSION_DENIED"
        assert (
            f"no identity is issued to pid {os.getpid()}, uid {os.getuid()}: it is not in a pod"
            in refused.value.message
        )
        node.belongs(os.getpid(), WEB)
        with pytest.raises(GRPCError, match=f"its pod {WEB} is not on node node-1"):
            await node.answer()


async def test_a_process_that_asks_is_told_why_it_gets_none(node, capsys, impatient):
    node.belongs(os.getpid(), None)
    async with node.issuing():
        source = identity_from(f"unix://{node.path}", token_lifetime=60)
        entering = asyncio.ensure_future(source.__aenter__())
        await eventually(lambda: "it is not in a pod, but a process of the node itself" in capsys.readouterr().out)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)


async def test_without_the_permission_to_see_pods_the_refusal_names_it(node, impatient):
    node.belongs(os.getpid(), WEB)
    node.server.refuse = forbidden
    async with node.issuing():
        with pytest.raises(GRPCError) as told:
            await node.answer()
    assert told.value.status.name == "UNAVAILABLE"
    assert "the pods of node node-1 are not known yet" in told.value.message
    assert "grant it the verb 'list' on pods by a ClusterRole" in told.value.message


async def test_a_pod_that_is_gone_gets_no_new_svid(node, impatient):
    node.pod("web", WEB)
    node.belongs(os.getpid(), WEB)
    async with node.issuing(lifetime=0.2), node.asked() as answers:
        assert (await anext(answers)).svids[0].spiffe_id == "spiffe://test.mesh/ns/shop/pod/web"
        node.server.remove("/api/v1/namespaces/shop/pods/web")
        with pytest.raises(GRPCError, match=f"its pod {WEB} is not on node"):
            async with asyncio.timeout(5):
                while True:
                    await anext(answers)


async def test_a_pod_made_again_under_its_name_is_another_pod(node, impatient):
    """As a StatefulSet does: the name is the same, the processes are not."""
    node.pod("web", WEB)
    node.belongs(os.getpid(), WEB)
    async with node.issuing():
        assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"
        node.server.remove("/api/v1/namespaces/shop/pods/web")
        node.pod("web", DB)
        node.belongs(os.getpid(), DB)
        assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"
        node.belongs(os.getpid(), WEB)
        with pytest.raises(GRPCError, match=f"its pod {WEB} is not on node"):
            await node.answer()


async def test_what_a_pod_or_a_user_calls_a_group_makes_nobody_another_pod(node, capsys):
    """All but a line feed and a slash may be in a name: what ends a line elsewhere, and what is no text at all."""
    node.pod("web", WEB)
    node.pod("db", DB)
    node.belongs(os.getpid(), WEB)
    groups = node.proc / str(os.getpid()) / "cgroup"
    async with node.issuing():
        for name in (b"x\r0::", b"x\x0c0::", b"x\xc2\x850::", b"\xff"):
            below = name + f"/kubepods/pod{DB}/c1\n".encode()
            groups.write_bytes(f"0::/kubepods/besteffort/pod{WEB}/c1/".encode() + below)
            assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"
            groups.write_bytes(b"0::/user.slice/user-1000.slice/user@1000.service/" + below)
            with pytest.raises(GRPCError, match="it is not in a pod"):
                await node.answer()
    assert "Traceback" not in capsys.readouterr().out


async def test_a_probe_in_the_issuer_s_own_container_is_the_issuer_s_pod(node):
    """Control groups as a container sees them that has a namespace of them: its own is the root."""
    for process in ("self", os.getpid()):
        node.belongs(process, None)
        (node.proc / str(process) / "cgroup").write_text("0::/\n")
    async with node.issuing(own=("nsm-system", "identity-x")):
        assert await node.answer() == "spiffe://test.mesh/ns/nsm-system/pod/identity-x"
    async with node.issuing():
        with pytest.raises(GRPCError, match="it is not in a pod"):
            await node.answer()


def groups_of(node, process, text):
    (node.proc / str(process)).mkdir(parents=True, exist_ok=True)
    (node.proc / str(process) / "cgroup").write_text(text)


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (f"/kubepods/burstable/pod{WEB}/c1", "is for class Burstable, but the class of pod shop/web is BestEffort"),
        (f"/kubepods/pod{WEB}/c1", "is for class Guaranteed, but the class of pod shop/web is BestEffort"),
        (f"/kubepods/besteffort/pod{WEB}/c2", "control group 'c2' is not that of a container of pod shop/web"),
        (
            f"/kubepods/besteffort/pod{WEB}/crio-c1",
            "control group 'crio-c1' is not that of a container of pod shop/web",
        ),
        (f"/kubepods/besteffort/pod{WEB}/{'c' * 255}", f"control group '{'c' * 80}' is not that of a container"),
        (f"/lxc/pod{WEB}/c1", "it is not in a pod, but a process of the node itself"),
        (f"/machine.slice/libpod-x.scope/kubepods/besteffort/pod{WEB}/c1", "it is not in a pod"),
    ],
)
async def test_a_group_made_to_look_like_a_pod_s_is_refused(node, impatient, group, why):
    """By podman, LXC, nspawn or whoever may make one: the API server tells the class and the containers of a pod."""
    node.pod("web", WEB)
    groups_of(node, os.getpid(), f"0::{group}\n")
    async with node.issuing():
        with pytest.raises(GRPCError) as refused:
            await node.answer()
    assert why in refused.value.message


async def test_where_the_node_s_pods_have_their_groups_shows_by_our_own(node, impatient):
    node.pod("identity-x", DB, namespace="nsm-system", qos="Guaranteed")
    node.pod("web", WEB)
    groups_of(node, "self", f"0::/cluster/n1/kubepods/pod{DB}/c1\n")
    async with node.issuing(own=("nsm-system", "identity-x")):
        groups_of(node, os.getpid(), f"0::/cluster/n1/kubepods/besteffort/pod{WEB}/c1\n")
        assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"
        for elsewhere in ("", "/cluster/n2", "/cluster/n1/x"):
            groups_of(node, os.getpid(), f"0::{elsewhere}/kubepods/besteffort/pod{WEB}/c1\n")
            with pytest.raises(GRPCError, match="it is not in a pod"):
                await node.answer()


async def test_outside_of_a_pod_those_of_the_node_are_expected_at_the_root_unless_the_variables_say_where(
    node, impatient, capsys
):
    node.pod("web", WEB)
    groups_of(node, "self", "0::/system.slice/nsm.service\n")
    own = "nsm-system", "identity-x"
    async with node.issuing(own=own):
        node.belongs(os.getpid(), WEB)
        assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"
        groups_of(node, os.getpid(), f"0::/kubelet/kubepods/besteffort/pod{WEB}/c1\n")
        with pytest.raises(GRPCError, match="it is not in a pod"):
            await node.answer()
    assert "NSM_CGROUP_DRIVER and NSM_CGROUP_ROOT change that" in capsys.readouterr().out
    async with node.issuing(own=own, driver="cgroupfs", root="/kubelet"):
        assert await node.answer() == "spiffe://test.mesh/ns/shop/pod/web"


async def test_in_what_is_not_the_pod_that_it_was_told_nobody_is_recognised_and_the_variables_are_named(
    node, impatient
):
    node.pod("identity-x", DB, namespace="nsm-system")
    node.pod("web", WEB)
    groups_of(node, "self", f"0::/kubepods/besteffort/pod{WEB}/c1\n")
    node.belongs(os.getpid(), WEB)
    async with node.issuing(own=("nsm-system", "identity-x")):
        with pytest.raises(GRPCError, match="set NSM_CGROUP_DRIVER and NSM_CGROUP_ROOT"):
            await node.answer()


async def test_many_callers_of_one_pod_do_not_wait_for_its_news_without_bound(node, monkeypatch):
    monkeypatch.setattr(module, "_WAITING", 2)
    node.belongs(os.getpid(), WEB)
    async with node.issuing():
        waiting = [asyncio.ensure_future(node.answer()) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(GRPCError, match="2 callers are already waiting for pod") as refused:
            await node.answer()
        assert refused.value.status.name == "RESOURCE_EXHAUSTED"
        node.pod("web", WEB)
        assert set(await asyncio.gather(*waiting)) == {"spiffe://test.mesh/ns/shop/pod/web"}


async def test_new_authorities_reach_a_pod_at_once(node):
    node.pod("web", WEB)
    node.belongs(os.getpid(), WEB)
    async with node.issuing(), identity_from(f"unix://{node.path}", token_lifetime=60) as identity:
        node.authorities.use([AUTHORITY, Authority.create("test.mesh")])
        await eventually(lambda: len(identity.bundles["test.mesh"]) == 2)


HAND_OVER = """
import socket, sys
connection, us = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
us.connect(sys.argv[2])
socket.send_fds(us, [b"x"], [connection.fileno()])
"""


@pytest.mark.usefixtures("kernel")
async def test_a_connection_whose_process_has_ended_is_nobody_s_though_its_number_is_taken_again(node, tmp_path):
    """It connected, left its end to another process and ended; then its process id became that of a pod's process."""
    node.pod("web", WEB)
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / "hand"))
        ours.listen()
        async with node.issuing():
            process = subprocess.Popen([sys.executable, "-c", HAND_OVER, node.path, str(tmp_path / "hand")])
            process_end, _ = await asyncio.get_running_loop().run_in_executor(None, ours.accept)
            _, (descriptor,), _, _ = socket.recv_fds(process_end, 1, 1)
            process_end.close()
            await asyncio.get_running_loop().run_in_executor(None, process.wait)
            node.belongs(process.pid, WEB)
            told = await _ask_over(socket.socket(fileno=descriptor))
    assert told == f"identity: no identity is issued to pid {process.pid}, uid {os.getuid()}: its process has ended"


async def _ask_over(connection):
    """What is answered on a socket that is connected already."""
    connection.setblocking(False)
    channel = Channel(path="/unused", codec=codec.Codec())

    async def connect():
        protocol = H2Protocol(_NoCalls(), Configuration().__for_client__(), channel._h2_config)
        await asyncio.get_running_loop().create_connection(lambda: protocol, sock=connection)
        return protocol

    channel._create_connection = connect
    try:
        with pytest.raises(GRPCError) as refused:
            await anext(SpiffeWorkloadApiStub(channel).fetch_x_509_svid(X509SvidRequest(), metadata=SECURITY_HEADER))
    finally:
        channel.close()
    return refused.value.message


class _NoCalls:
    connection_lost = False

    def accept(self, stream, headers, release_stream):
        raise NotImplementedError

    def cancel(self, stream):
        raise NotImplementedError

    def close(self):
        self.connection_lost = True


async def test_a_process_that_cannot_be_seen_is_refused_with_what_is_missing(node):
    """Without hostPID the kernel gives no number for who is in another pod."""
    async with connect(node.server.url) as api, Pods(api, "node-1") as pods:
        with pytest.raises(Refused, match="needs hostPID: true"):
            await PodIdentities(pods, "test.mesh").identify("", Credentials(0, 1000, 1000))


async def test_descriptors_of_processes_are_closed_with_their_connections(node):
    node.pod("web", WEB)
    node.belongs(os.getpid(), WEB)
    async with node.issuing():
        await node.answer()
        await asyncio.sleep(0.05)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await node.answer()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
