"""A stand-in for VPP: a process of ours that speaks its binary API and keeps real state, but passes no packets.

It is written from our descriptions of the messages, and refuses what VPP refuses, with VPP's numbers. It is held
against VPP by transcripts: see `tests.forwarder_vpp.scenario`. In a test's own process:

    async with standing_in(folder) as vpp:
        client = await VPP.connect(vpp.api)
        vpp.refuse("tap_create_v3", -9)

or as a process of its own, which can be killed: ``python -m tests.forwarder_vpp.standin``, with the arguments of vpp.
"""

from .faults import Fault
from .server import StandIn, standing_in
from .world import Refusal, World

__all__ = ["Fault", "Refusal", "StandIn", "World", "standing_in"]
