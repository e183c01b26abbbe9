"""What is remembered of underlays, and what listening to the kernel leaves behind."""

import asyncio
import ipaddress
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nsm.chains.forwarding.dataplane import Underlay
from nsm.forwarder_kernel.underlay import Underlays

OWN, PEER = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")
ETH0 = Underlay("eth0", 1500, OWN)


def netlink_sockets():
    """How many this process has, as the kernel's table of them names them."""
    with open("/proc/net/netlink") as table:
        known = {f"socket:[{line.split()[-1]}]" for line in table.readlines()[1:]}
    mine = []
    for number in os.listdir("/proc/self/fd"):
        try:
            mine.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return sum(target in known for target in mine)


async def test_a_search_that_is_cancelled_leaves_no_socket():
    """The thread begins to listen all the same: whoever asks next, or closes, has what it made."""
    before = netlink_sockets()
    begun, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def look(own, peer):
        return ETH0

    def in_worker(work):
        def slowly():
            loop.call_soon_threadsafe(begun.set)
            may_go_on.wait(10)
            return work()

        return loop.run_in_executor(worker, slowly)

    with ThreadPoolExecutor(1) as worker:
        underlays = Underlays(look, in_worker)
        search = asyncio.create_task(underlays.find(OWN, PEER))
        await begun.wait()
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        may_go_on.set()
        assert await underlays.find(OWN, PEER) == ETH0
        assert netlink_sockets() == before + 1
        await in_worker(underlays.close)
    assert netlink_sockets() == before


async def test_what_was_found_is_looked_for_once():
    looked = []

    async def look(own, peer):
        looked.append(peer)
        return ETH0

    async def in_worker(work):
        return work()

    underlays = Underlays(look, in_worker)
    for peer in (PEER, PEER, None, PEER):
        assert await underlays.find(OWN, peer) == ETH0
    underlays.close()
    assert looked == [PEER, None]
