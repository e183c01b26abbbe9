"""The client of VPP's API, and the reader of its counters, against a VPP that is installed on this machine."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from nsm.forwarder_vpp.api import VPP, Gone, Silent
from nsm.forwarder_vpp.api.stats import Stats
from tests.forwarder_vpp import scenario
from tests.forwarder_vpp.real import real_vpp
from tests.forwarder_vpp.standin import standing_in

UP = ["IF_STATUS_API_FLAG_ADMIN_UP"]
HAS_TAPS = Path("/dev/vhost-net").exists()


@pytest.fixture
async def vpp(tmp_path):
    async with real_vpp(tmp_path, links=scenario.LINKS) as running:
        async with await running.connect():
            yield running


async def test_the_stand_in_answers_as_this_vpp_does(vpp, tmp_path):
    async with await VPP.connect(vpp.api) as connection:
        of_vpp = await scenario.run(connection, tap=HAS_TAPS)
        version = connection.version[:5]
    folder = tmp_path / "standin"
    folder.mkdir()
    links = set(scenario.LINKS)
    async with standing_in(folder, version=version, links=links, vhost=HAS_TAPS) as standin:
        async with await VPP.connect(standin.api) as connection:
            answers = await scenario.run(connection, tap=HAS_TAPS)
        assert standin.faults == []
    for place, (mine, other) in enumerate(zip(scenario.comparable(answers), scenario.comparable(of_vpp), strict=True)):
        assert mine == other, f"answer {place}"


async def test_packets_are_counted(vpp):
    async with await VPP.connect(vpp.api) as connection:
        link = scenario.LINKS[0]
        fields = {"rx_frame_size": 10240, "tx_frame_size": 10240, "rx_frames_per_block": 32, "tx_frames_per_block": 32}
        made = await connection.call(
            "af_packet_create_v3",
            mode="AF_PACKET_API_MODE_ETHERNET",
            host_if_name=link,
            use_random_hw_addr=True,
            flags=["AF_PACKET_API_FLAG_VERSION_2"],
            **fields,
        )
        index = made.sw_if_index
        await connection.call("sw_interface_set_flags", sw_if_index=index, flags=UP)
        await connection.call("sw_interface_add_del_address", sw_if_index=index, is_add=True, prefix="10.1.1.1/24")
        await vpp.run("ip", "address", "add", "10.1.1.2/24", "dev", f"{link}p")
        await vpp.run("ping", "-c", "3", "-i", "0.1", "-W", "5", "10.1.1.1")
        with await Stats.open(vpp.stats) as stats:
            counted = stats.interfaces([index, 999])
        assert counted[index].rx_packets >= 4  # three and the neighbor's ARP
        assert counted[index].rx_bytes >= 3 * 98
        assert counted[index].tx_packets >= 4
        assert counted[999].rx_packets == 0


async def test_vpp_is_killed_during_a_call(vpp):
    async with await VPP.connect(vpp.api) as connection:
        assert connection.process_id == vpp.process.pid
        os.kill(vpp.process.pid, signal.SIGSTOP)
        call = asyncio.create_task(connection.call("create_loopback_instance", timeout=30))
        await asyncio.sleep(0)
        os.kill(vpp.process.pid, signal.SIGKILL)
        with pytest.raises(Gone, match="VPP .* closed the connection: it ended or was restarted"):
            await call


async def test_vpp_hangs_and_goes_on(vpp):
    """What was asked meanwhile is done later, and the caller can undo it."""
    late = asyncio.get_running_loop().create_future()
    async with await VPP.connect(vpp.api) as connection:
        os.kill(vpp.process.pid, signal.SIGSTOP)
        with pytest.raises(Silent):
            await connection.call("create_loopback_instance", timeout=0.2, late=late.set_result)
        os.kill(vpp.process.pid, signal.SIGCONT)
        made = await asyncio.wait_for(late, 20)
        await connection.call("delete_loopback", sw_if_index=made.sw_if_index)
        assert [one.interface_name for one in await connection.dump("sw_interface_dump")] == ["local0"]


async def test_events_of_a_vpp_that_is_told_by_another(vpp):
    async with await VPP.connect(vpp.api) as one, await VPP.connect(vpp.api) as other:
        with one.events("sw_interface_event") as events:
            await one.call("want_interface_events", enable_disable=1, pid=os.getpid())
            made = await other.call("create_loopback_instance")
            await other.call("sw_interface_set_flags", sw_if_index=made.sw_if_index, flags=UP)
            seen = await asyncio.wait_for(anext(aiter(events)), 10)
        assert seen[1].sw_if_index == made.sw_if_index
