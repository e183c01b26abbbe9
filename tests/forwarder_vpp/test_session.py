"""The connection to VPP: how its end is noticed, and what is done then."""

import asyncio

from nsm.forwarder_vpp.grace import GracePeriods
from nsm.forwarder_vpp.process import ExternalVPP
from nsm.forwarder_vpp.session import Session
from tests.forwarder_vpp.standin import standing_in


class Ending(ExternalVPP):
    """A VPP whose process ends when a test says so, while its API socket is still open."""

    def __init__(self, vpp):
        super().__init__(str(vpp.api))
        self.stats, self.ends, self.has_gone = str(vpp.stats), asyncio.Event(), asyncio.Event()

    async def is_ending(self, pid):
        await self.ends.wait()
        self.ends.clear()

    async def has_ended(self, pid):
        await self.has_gone.wait()


async def test_a_vpp_that_ends_is_noticed_before_the_kernel_has_closed_its_hundreds_of_sockets(tmp_path):
    setting, faults = tmp_path / "rcu_expedited", []
    setting.write_text("0")
    async with standing_in(tmp_path) as vpp:
        process = Ending(vpp)
        session = Session(process, grace=GracePeriods(tmp_path / "mark", setting))
        session.when_ended(faults.append)
        async with session:
            was = await session.vpp()
            process.ends.set()
            assert "the process of VPP ends" in str(await was.ended())
            while not faults:
                await asyncio.sleep(0)
            assert session.now is None
            assert setting.read_text() == "1", "the kernel closes the sockets faster then"
            process.has_gone.set()
            assert await session.vpp() is not was
            assert setting.read_text() == "0"
