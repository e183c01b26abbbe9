"""Namespaces that go with requests and answers, as descriptors."""

import asyncio
import os

import pytest

from nsm.apis.connection import Mechanism
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Begin, Chain, Element, InvalidRequest, Limits, Peer, Refused, Unavailable, inode_url
from nsm.chains.elements.descriptors import (
    ReceiveDescriptors,
    ReceiveReturned,
    ReturnDescriptors,
    SendDescriptors,
)
from nsm.chains.elements.idle import IDLE_AFTER
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.testing import Check, Record, call
from nsm.chains.transport.inbox import FileInbox


async def test_a_second_candidate_gets_the_descriptor_too_and_the_caller_its_own_name_back(tmp_path):
    """What was translated for the first one is not taken for the caller's own."""
    (tmp_path / "ns").touch()
    sent = []

    class Peer(Element):
        async def request(self, call, rest):
            sent.append((call.connection.mechanism.parameters["inodeURL"].split(":")[0], list(call.outgoing)))
            if len(sent) == 1:
                raise Unavailable("gone")
            return call.connection

    chain = Chain([Begin(), RoundRobin(), SendDescriptors(), Peer()])
    asked = call("c", mechanism=Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{tmp_path}/ns"}))
    asked.candidates = [NetworkServiceEndpoint(name=name, url=f"tcp://{name}:1") for name in ("a", "b")]
    connection = await chain.request(asked)
    assert connection.mechanism.parameters["inodeURL"] == f"file://{tmp_path}/ns"
    assert sent == [("inode", [f"{tmp_path}/ns"])] * 2


async def test_a_close_names_only_namespaces_that_it_sends(tmp_path):
    """Else the peer would count the descriptor of another request, which was just sent, as that of the Close."""
    (tmp_path / "ns").touch()
    record = Record()
    for url, named in ((f"file://{tmp_path}/ns", inode_url(f"{tmp_path}/ns")), ("inode://4/99", None)):
        await Chain([SendDescriptors(), record]).close(
            call("c", mechanism=Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": "nsm-1"}))
        )
        assert record.closes[-1].connection.mechanism.parameters.get("inodeURL") == named
        assert record.closes[-1].connection.mechanism.parameters["name"] == "nsm-1"


OWN = "/proc/self/ns/net"
PEER = Peer("spiffe://test.mesh/peer", b"")


def kernel(url):
    return Mechanism(type="KERNEL", parameters={"inodeURL": url})


def inbox_with(*paths):
    """What a peer sent over its connection: descriptors of these files."""
    inbox = FileInbox()
    for path in paths:
        inbox.arrived(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return inbox


def settle(inbox, url):
    inbox.settle(*map(int, url.removeprefix("inode://").split("/")))


async def test_the_namespace_of_an_answer_is_sent_with_it():
    names = Check(lambda call: setattr(call.connection, "mechanism", kernel(f"file://{OWN}")))
    asked = call()
    connection = await Chain([ReturnDescriptors(), names]).request(asked)
    assert connection.mechanism.parameters["inodeURL"] == inode_url(OWN)
    assert asked.outgoing == [OWN]


async def test_a_namespace_that_a_caller_sends_is_a_path_inside_and_closed_with_the_connection():
    inbox, url, probe = inbox_with(OWN), inode_url(OWN), Record()
    chain = Chain([Begin(), ReceiveDescriptors(), probe])
    asked = call(mechanism=kernel(url))
    asked.peer, asked.inbox = PEER, inbox
    connection = await chain.request(asked)
    settle(inbox, url)
    assert connection.mechanism.parameters["inodeURL"] == url
    inside = probe.requests[0].connection.mechanism.parameters["inodeURL"]
    assert inside.startswith(f"file:///proc/{os.getpid()}/fd/")
    assert os.path.exists(inside.removeprefix("file://"))
    await chain.close(call(mechanism=kernel(url)))
    assert probe.closes[0].connection.mechanism.parameters["inodeURL"] == inside
    assert len(inbox) == 0


async def test_who_names_a_path_or_a_descriptor_that_cannot_come_or_too_many_is_refused():
    chain = Chain([Begin(), ReceiveDescriptors(limits=Limits(namespaces=1))])
    for url, error in (
        (f"file://{OWN}", "is a path of the caller's"),
        (inode_url(OWN), "only unix sockets carry"),
    ):
        asked = call(mechanism=kernel(url))
        asked.peer = PEER
        with pytest.raises(Refused, match=error):
            await chain.request(asked)
    with pytest.raises(InvalidRequest, match="names 2 namespaces; the limit 'namespaces' is 1"):
        await chain.request(call(preferences=[kernel("inode://4/5"), kernel("inode://4/6")]))


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_namespace_that_comes_with_an_answer_is_a_path_here_and_open_while_it_is_needed(forgets):
    inbox, url = inbox_with(OWN), inode_url(OWN)

    def answer(call):
        call.connection.mechanism, call.server_peer, call.inbox = kernel(url), PEER, inbox
        call.named.append(tuple(map(int, url.removeprefix("inode://").split("/"))))

    chain = Chain([Begin(), ReceiveReturned(forgets=forgets), Check(answer)])
    connection = await chain.request(call())
    assert connection.mechanism.parameters["inodeURL"].startswith(f"file:///proc/{os.getpid()}/fd/")
    await chain.elements[0].close_all()
    assert len(inbox) == 0


@pytest.mark.parametrize("fault", ["the endpoint is gone", "the namespace is another's"])
async def test_a_request_that_fails_does_not_keep_its_clients_namespace(fault):
    """An endpoint that heals a wire of its own and is killed then has to be gone for its clients, too."""
    inbox, url, record = inbox_with(OWN), inode_url(OWN), Record()

    def refuse(*_, **__):
        raise Refused("not yours")

    def answer(_call):
        if len(record.requests) > 1 and fault == "the endpoint is gone":
            raise Unavailable("cannot reach the endpoint")

    begin = Begin()
    async with Chain([begin, ReceiveDescriptors(), record, Check(answer)]) as chain:
        asked = call(mechanism=kernel(url))
        asked.peer, asked.inbox = PEER, inbox
        connection = await chain.request(asked)
        settle(inbox, url)
        await asyncio.sleep(IDLE_AFTER * 2)
        assert len(inbox) == 0
        inbox.arrived(os.open(OWN, os.O_PATH | os.O_CLOEXEC))
        inbox.check_namespace = refuse if fault == "the namespace is another's" else inbox.check_namespace
        again = call(mechanism=connection.mechanism)
        again.peer, again.inbox = PEER, inbox
        with pytest.raises((Refused, Unavailable)):
            await chain.request(again)
        settle(inbox, url)
        await asyncio.sleep(IDLE_AFTER * 2)
        assert (len(inbox), len(begin)) == (0, 1)


async def test_a_namespace_that_an_answering_process_may_not_pass_on_is_closed_at_once():
    inbox, url = inbox_with(OWN), inode_url(OWN)

    def refuse(*_, **__):
        raise Refused("not yours")

    def answer(call):
        call.connection.mechanism, call.server_peer, call.inbox = kernel(url), PEER, inbox
        call.named.append(tuple(map(int, url.removeprefix("inode://").split("/"))))

    async with Chain([Begin(), ReceiveReturned(), Check(answer)]) as chain:
        await chain.request(call())
        inbox.check_namespace = refuse
        inbox.arrived(os.open("/proc/self/ns/uts", os.O_PATH | os.O_CLOEXEC))
        url = inode_url("/proc/self/ns/uts")
        with pytest.raises(Refused):
            await chain.request(call())
        assert len(inbox) == 1  # the one in use
