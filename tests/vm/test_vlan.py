"""Breakout to tagged networks behind an uplink: two ids, two clients each."""

from tests.system.forwarder_kernel.breakout import check

SECONDS = 120


async def test_clients_of_two_vlans_reach_their_own_network_and_not_the_other():
    await check(100, 200)


async def test_frames_with_and_without_a_tag_share_an_uplink():
    await check(0, 100)
