"""Who is who by entries: sockets, users, and processes that stay the ones they were."""

import os
import subprocess

import pytest

from nsm.chains.core import Refused
from nsm.chains.transport import Credentials
from nsm.services.identity.entries import Entries

ME = "spiffe://test.mesh/me"


@pytest.fixture
def process():
    """A process that waits, and a way to end it."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def caller(pid, descriptor):
    return Credentials(pid, 1000, 1000, descriptor)


async def test_a_process_id_means_the_process_that_had_it_and_nobody_who_has_it_later(process):
    entries = Entries.parse([f"pid:{process.pid}={ME}"])
    own = os.pidfd_open(os.getpid())  # stands for a process that has the number now
    try:
        process_itself = os.pidfd_open(process.pid)
        assert await entries.identify("/s", caller(process.pid, process_itself)) == ME
        process.kill()
        process.wait()
        with pytest.raises(Refused, match="no identity is issued"):
            await entries.identify("/s", caller(process.pid, own))
        with pytest.raises(Refused, match="its process has ended"):
            await entries.identify("/s", caller(process.pid, process_itself))
        os.close(process_itself)
    finally:
        os.close(own)


async def test_an_entry_that_stays_means_the_same_process_when_entries_are_read_again(process):
    text = f"pid:{process.pid}={ME}"
    before = Entries.parse([text])
    process.kill()
    process.wait()
    # read again while another has the number: this process stands for it
    again = Entries.parse([f"pid:{os.getpid()}={ME}"])
    again = Entries(by_process={process.pid: again.by_process[os.getpid()]})
    own = os.pidfd_open(os.getpid())
    try:
        assert await again.identify("/s", caller(process.pid, own)) == ME
        with pytest.raises(Refused):
            await again.following(before).identify("/s", caller(process.pid, own))
        assert again.following(before).ended() == [process.pid]
        assert await again.following(Entries()).identify("/s", caller(process.pid, own)) == ME
    finally:
        os.close(own)


async def test_a_process_that_ended_has_no_socket_s_and_no_user_s_identity_either(process):
    entries = Entries.parse([f"socket:/s={ME}", f"uid:1000={ME}"])
    descriptor = os.pidfd_open(process.pid)
    try:
        for path in ("/s", "/other"):
            assert await entries.identify(path, caller(process.pid, descriptor)) == ME
        process.kill()
        process.wait()
        for path in ("/s", "/other"):
            with pytest.raises(Refused, match="its process has ended"):
                await entries.identify(path, caller(process.pid, descriptor))
            with pytest.raises(Refused, match="its process has ended"):
                await entries.identify(path, caller(process.pid, None))
    finally:
        os.close(descriptor)


async def test_a_process_that_cannot_be_seen_and_not_be_held_has_its_socket_s_identity():
    """In a container, before Linux 6.5: who asks is in another one, and all that is known is the socket."""
    assert await Entries.parse([f"socket:/s={ME}"]).identify("/s", caller(0, None)) == ME
    with pytest.raises(Refused):
        await Entries.parse([f"pid:0={ME}"]).identify("/s", caller(0, None))


def test_descriptors_of_processes_go_with_the_entries():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Entries.parse([f"pid:{os.getpid()}={ME}"])
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("number", ["9" * 5000, "\u0664\u0662", "-1", "", "1" * 11])
def test_a_number_that_is_none_selects_nobody(number):
    for kind in ("pid", "uid"):
        with pytest.raises(ValueError, match="is not a valid selector") as refused:
            Entries.parse([f"{kind}:{number}={ME}"])
        assert len(str(refused.value)) < 600


def test_a_process_that_is_not_there_is_nobody_and_is_told():
    assert Entries.parse([f"pid:{2**22 + 1}={ME}", f"pid:9999999999={ME}"]).ended() == [2**22 + 1, 9999999999]
