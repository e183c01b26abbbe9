"""Counters in VPP's shared memory: read while they change, and out of what is no segment."""

import asyncio
import contextlib
import os
import socket
import struct

import pytest

from nsm.forwarder_vpp.api import Malformed, Unreachable
from nsm.forwarder_vpp.api.stats import Counters, Stats
from tests.forwarder_vpp.standin.segment import Segment


@pytest.fixture
async def segment(tmp_path):
    segment = Segment()
    async with segment.serving(tmp_path / "stats.sock"):
        yield segment
    segment.close()


@pytest.fixture
async def stats(segment, tmp_path):
    with await Stats.open(str(tmp_path / "stats.sock")) as stats:
        yield stats


@contextlib.contextmanager
def handing_out(path, size, header=b""):
    """A socket that hands out a piece of memory, once."""
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    os.pwrite(descriptor, header, 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, _give, listening, descriptor)
        yield str(path)
        asyncio.get_running_loop().remove_reader(listening)
    os.close(descriptor)


def _give(listening, descriptor):
    with listening.accept()[0] as connection:
        socket.send_fds(connection, [b"\0"], [descriptor])


async def test_the_counters_of_all_threads_are_added(segment, stats):
    segment.count(1, rx=(3, 300), tx=(2, 120), drops=5)
    segment.count(2, rx=(1, 60))
    assert stats.interfaces([2, 1]) == {1: Counters(3, 300, 2, 120, 5), 2: Counters(1, 60, 0, 0, 0)}


async def test_an_interface_that_is_not_there_has_passed_nothing(stats):
    assert stats.interfaces([0, 1, 0xFFFFFFFF]) == dict.fromkeys([0, 1, 0xFFFFFFFF], Counters())


async def test_entries_are_found_where_they_are_now(segment, stats):
    segment.count(1, rx=(3, 300))
    assert stats.interfaces([1])[1].rx_packets == 3
    stats._places = {b"/if/rx": 3, b"/if/tx": 999, b"/if/drops": 0}
    assert stats.interfaces([1])[1] == Counters(3, 300)


async def test_it_tries_again_while_vpp_changes_the_directory(segment, stats, monkeypatch):
    segment.count(1, rx=(3, 300))
    reads = []

    def changing(wanted):
        reads.append(wanted)
        if len(reads) < 3:
            segment.write()
        return Stats._read(stats, wanted)

    monkeypatch.setattr(stats, "_read", changing)
    assert stats.interfaces([1])[1].rx_packets == 3
    assert len(reads) == 3


async def test_a_change_that_never_ends_is_an_error(segment, stats):
    struct.pack_into("=Q", segment._memory, 24, 1)
    with pytest.raises(Malformed, match="they change all the time, or VPP ended in the midst of a change"):
        stats.interfaces([1])


@pytest.mark.parametrize("address", [1, 1 << 63, 0x130000000 + (1 << 20) - 1, 0x130000000 + 4])
async def test_addresses_that_lead_nowhere_are_an_error(segment, stats, address):
    struct.pack_into("=Q", segment._memory, 32, address)
    if address == 0x130000000 + (1 << 20) - 1:
        assert stats.interfaces([1]) == {1: Counters()}  # a directory without entries
        return
    with pytest.raises(Malformed):
        stats.interfaces([1])


@pytest.mark.parametrize(
    ("size", "header", "said"),
    [
        (4096, struct.pack("=Q", 1), "have version 1; expected 2"),
        (16, struct.pack("=Q", 2), r"have version unknown \(it is too short\); expected 2"),
    ],
)
async def test_another_version_of_the_segment(tmp_path, size, header, said):
    with handing_out(tmp_path / "stats.sock", size, header) as path, pytest.raises(Malformed, match=said):
        await Stats.open(path)


async def test_an_empty_file_is_no_segment(tmp_path):
    with handing_out(tmp_path / "stats.sock", 0) as path, pytest.raises(Unreachable, match="is not VPP's counters"):
        await Stats.open(path)


async def test_a_socket_that_is_not_there(tmp_path):
    with pytest.raises(Unreachable, match="cannot read VPP's counters from .*: No such file or directory"):
        await Stats.open(str(tmp_path / "stats.sock"))


async def test_a_socket_that_hands_out_nothing(tmp_path):
    path = str(tmp_path / "stats.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        with pytest.raises(Unreachable, match=r"does not hand out VPP's counters within 0.05 s"):
            await Stats.open(path, timeout=0.05)
        with listening.accept()[0]:
            opening = asyncio.create_task(Stats.open(path, timeout=5))
            await asyncio.sleep(0)
            listening.setblocking(False)
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            connection.close()
            with pytest.raises(Unreachable, match="it hands out nothing"):
                await opening


async def test_no_descriptor_is_left(segment, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with await Stats.open(str(tmp_path / "stats.sock")) as stats:
            stats.interfaces([1])
    assert len(os.listdir("/proc/self/fd")) <= before
