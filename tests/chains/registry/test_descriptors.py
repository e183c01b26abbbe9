"""Sockets that go with registrations, and what is found of others' files."""

import os
import socket

import pytest

from nsm.chains.core import (
    InvalidRequest,
    Peer,
    Refused,
    RegistryCall,
    RegistryChain,
    RegistryElement,
    Unavailable,
    inode_url,
)
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.descriptors import ReceiveUrl, ReceiveUrls, ReturnUrls, SendUrl, Sockets, WithoutPaths
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.retry import RegistryRetry
from nsm.chains.testing import Record
from nsm.chains.transport.inbox import FileInbox
from tests.chains.registry.records import find, nse

PEER = Peer("spiffe://test.mesh/peer", b"")


async def test_an_endpoint_whose_first_registration_failed_sends_its_socket_again(tmp_path):
    """Its manager came later: the URL that was translated for the first try is not taken for its own."""
    (tmp_path / "s.sock").touch()
    url = f"unix://{tmp_path}/s.sock"
    tries = []

    class Manager(RegistryElement):
        async def register(self, call, rest):
            tries.append((call.record.url.split("/")[0], list(call.outgoing)))
            if len(tries) == 1:
                raise Unavailable("not there yet")
            return call.record

    chain = RegistryChain([RegistryRetry(), SendUrl(), Manager()])
    for _ in range(2):
        assert (await chain.register(RegistryCall(nse(url=url)))).url == url
    assert tries == [("inode:", [f"{tmp_path}/s.sock"])] * 3


@pytest.fixture
def own(tmp_path):
    """The path of a socket that is listened on."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "nse.sock"))
        yield str(tmp_path / "nse.sock")


def inbox_with(path):
    inbox = FileInbox()
    inbox.arrived(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return inbox


def settle(inbox, url):
    inbox.settle(*map(int, url.removeprefix("inode://").split("/")))


async def test_a_socket_that_an_endpoint_sends_is_open_as_long_as_it_is_registered(own):
    inbox, url, forgotten, probe, sockets = inbox_with(own), inode_url(own), [], Record(), Sockets()
    chain = RegistryChain([RegistryBegin(), ReceiveUrl(forgotten.append, sockets), probe])
    record = await chain.register(RegistryCall(nse(url=url), peer=PEER, inbox=inbox))
    settle(inbox, url)
    inside = probe.registered[0].url
    assert record.url == url
    assert inside in sockets
    assert inside.startswith(f"unix:///proc/{os.getpid()}/fd/")
    await chain.unregister(RegistryCall(nse(), peer=PEER))
    assert forgotten == [inside]
    assert inside not in sockets
    assert len(inbox) == 0


@pytest.mark.parametrize("url", ["unix:///run/nse.sock", "file:///run/nse.sock", "inode://4/5"])
async def test_a_path_of_an_endpoint_and_a_descriptor_that_cannot_come_are_refused(url):
    chain = RegistryChain([RegistryBegin(), ReceiveUrl(print, Sockets())])
    with pytest.raises(Refused, match="descriptor"):
        await chain.register(RegistryCall(nse(url=url), peer=PEER))


async def test_a_namespace_that_is_sent_as_an_endpoint_s_socket_is_refused_and_closed():
    inbox, url = inbox_with("/proc/self/ns/net"), inode_url("/proc/self/ns/net")
    chain = RegistryChain([RegistryBegin(), ReceiveUrl(print, Sockets())])
    with pytest.raises(InvalidRequest, match="expected an endpoint's unix socket; received a namespace"):
        await chain.register(RegistryCall(nse(url=url), peer=PEER, inbox=inbox))
    settle(inbox, url)
    assert len(inbox) == 0


async def test_only_sockets_of_the_node_s_endpoints_are_sent_to_who_finds_them(own):
    memory, sockets, inbox = Memory(), Sockets(), inbox_with(own)
    held = sockets.hold(await inbox.take(*map(int, inode_url(own).removeprefix("inode://").split("/")), timeout=0))
    memory.records.put(nse("own", url=held))
    memory.records.put(nse("other", url="unix:///etc/other.sock"))
    asked = RegistryCall(nse(""), inbox=FileInbox())
    found = [each.record async for batch in RegistryChain([ReturnUrls(sockets), memory]).find(asked) for each in batch]
    assert {each.name: each.url for each in found} == {"own": inode_url(own), "other": "unix:///etc/other.sock"}
    assert asked.outgoing == [held.removeprefix("unix://")]
    sockets.release(held)
    assert {each.url for each in await find(RegistryChain([ReturnUrls(sockets), memory]))} == {
        held,
        "unix:///etc/other.sock",
    }


async def test_a_socket_that_comes_with_a_record_is_adopted_and_other_components_paths_are_not_there(own):
    memory, inbox, adopted = Memory(), inbox_with(own), []

    def adopt(received):
        adopted.append(received)
        return f"unix://{received.path}"

    memory.records.put(nse("near", url=inode_url(own)))
    memory.records.put(nse("path", url="unix:///etc/other.sock"))
    memory.records.put(nse("far", url="tcp://h:1"))

    class Arrives(RegistryElement):
        def find(self, call, rest):
            call.inbox = inbox
            return rest.find(call)

    found = await find(RegistryChain([ReceiveUrls(adopt), Arrives(), memory]))
    assert {each.name: each.url for each in found} == {"near": f"unix://{adopted[0].path}", "far": "tcp://h:1"}
    adopted[0].release()
    settle(inbox, inode_url(own))
    assert len(inbox) == 0


async def test_endpoints_that_a_registry_has_at_paths_are_hidden_but_for_the_manager_itself():
    memory = Memory()
    for name, url in (("far", "tcp://h:1"), ("path", "unix:///a"), ("inode", "inode://4/5"), ("own", "unix:///nsmgr")):
        memory.records.put(nse(name, url=url))
    chain = RegistryChain([WithoutPaths("unix:///nsmgr"), memory])
    assert sorted(each.name for each in await find(chain)) == ["far", "own"]
    watch = chain.find(RegistryCall(nse(""), watch=True))
    assert {each.record.name for each in await anext(watch) if each.deleted} == {"path", "inode"}
    await watch.aclose()
