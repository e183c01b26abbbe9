"""Whose network namespace may be taken from whom, as the kernel shows it at either end of a unix socket."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.transport import giver
from nsm.chains.transport.giver import Giver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs other users and namespaces")

PEER = """
import ctypes, os, socket, sys
place, uid, side = sys.argv[1], int(sys.argv[2]), sys.argv[3]
assert ctypes.CDLL(None).unshare(0x40000000) == 0
if uid:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
sock = socket.socket(socket.AF_UNIX)
if side == "connects":
    sock.connect(place)
else:
    sock.bind(place); sock.listen()
print("there", flush=True)
sys.stdin.read()
"""


class Peer:
    """A process in a network namespace of its own, and our end of a unix socket to it."""

    def __init__(self, folder, uid, side):
        folder.chmod(0o777)
        place, self.accepted = f"{folder}/{uid}-{side}", side == "connects"
        words = [sys.executable, "-c", PEER, place, str(uid), side]
        ours = socket.socket(socket.AF_UNIX)
        if self.accepted:
            ours.bind(place)
            os.chmod(place, 0o777)
            ours.listen()
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"there\n"
        if self.accepted:
            self.sock, _ = ours.accept()
            ours.close()
        else:
            ours.connect(place)
            self.sock = ours

    def check(self, path, **options):
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            Giver(self.sock, accepted=self.accepted).check(file, "inode://1/2", **{"unchecked": False, **options})
        finally:
            os.close(file)

    @property
    def namespace(self):
        return f"/proc/{self.process.pid}/ns/net"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        self.process.communicate()


@pytest.fixture
def reachable():
    """A folder that other users get to: those of pytest are closed to them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("side", ["connects", "listens"])
def test_a_process_may_give_its_own_namespace_and_no_other(reachable, side):
    with Peer(reachable, 65534, side) as peer, Peer(reachable, 1234, side) as other:
        peer.check(peer.namespace)
        for path in (other.namespace, "/proc/self/ns/net"):
            for unchecked in (False, True):
                with pytest.raises(Refused, match=r"neither that of the process .*uid 65534\) nor has"):
                    peer.check(path, unchecked=unchecked)


@pytest.mark.parametrize("side", ["connects", "listens"])
def test_a_process_that_may_change_a_namespace_may_give_it(reachable, side):
    with Peer(reachable, 0, side) as root, Peer(reachable, 1234, side) as other:
        root.check(root.namespace)
        root.check(other.namespace)


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/proc/self/ns/user", "/dev/null", "/"])
def test_what_is_no_network_namespace_is_nobodys_to_give(reachable, path):
    with Peer(reachable, 0, "connects") as root, pytest.raises(InvalidRequest, match="is not a network namespace"):
        root.check(path, unchecked=True)


def test_where_the_kernel_shows_nothing_a_variable_decides(reachable, monkeypatch):
    """As in a container that sees no processes of others, before Linux 6.18."""
    monkeypatch.setattr(giver, "_SO_PEERPIDFD", 9999)
    monkeypatch.setattr(giver, "_NS_GET_ID", 0x8008B7FF)
    known = giver._Evidence.__init__

    def unseen(evidence, *arguments):
        known(evidence, *arguments)
        evidence._pid = 0

    monkeypatch.setattr(giver._Evidence, "__init__", unseen)
    with Peer(reachable, 65534, "connects") as peer:
        with pytest.raises(Refused, match=r"nothing here shows whether .*NSM_UNCHECKED_NAMESPACES=true accepts such"):
            peer.check(peer.namespace)
        peer.check(peer.namespace, unchecked=True)


def test_a_process_that_has_ended_gives_nothing_of_others(reachable):
    """Its number may be somebody else's by now."""
    with Peer(reachable, 65534, "listens") as peer, Peer(reachable, 1234, "listens") as other:
        own = os.open(peer.namespace, os.O_PATH)
        peer.process.communicate()
        for path in (f"/proc/self/fd/{own}", other.namespace):
            with pytest.raises(Refused):
                peer.check(path)
        os.close(own)
