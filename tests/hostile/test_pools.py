"""Addresses of an endpoint's pool that one client names, so that nobody else gets them."""

import ipaddress
from contextlib import suppress

import pytest

from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.core import Exhausted, MeshError

from .attacker import Attacker
from .endpoints import like_others, serving

POOL = ipaddress.ip_network("10.66.0.0/24")


@pytest.fixture
def attacked(target):
    return target


@pytest.fixture
async def victim(target):
    """It has an endpoint of its own, and a client."""
    async with Attacker(target, "victim") as found, serving(found, like_others(found).methods(), "pool", "pool"):
        yield found


def naming(src, dst, excluded=()):
    named = IpContext(src_ip_addrs=[src], dst_ip_addrs=[dst], excluded_prefixes=list(excluded))
    return ConnectionContext(ip_context=named)


async def test_requests_that_fail_keep_no_pool_from_others(attacker, victim):
    """Each names an address, and excludes all the others of the pool."""
    for address in map(ipaddress.ip_network, POOL):
        context = naming(str(address), "10.77.0.1/32", map(str, POOL.address_exclude(address)))
        with pytest.raises(Exhausted):
            await attacker.request(
                attacker.connection("named", service="pool", context=context),
                attacker.kernel("evil-pool"),
                files=[attacker.network],
            )
    made = await victim.request(
        victim.connection("honest", service="pool"), victim.kernel("vic4"), files=[victim.network]
    )
    await victim.close(made)


async def test_connections_that_name_more_addresses_than_they_get_keep_no_pool_from_others(attacker, victim):
    made = []
    try:
        for number in range(96):
            context = naming(f"10.66.0.{255 - number}/32", f"10.77.0.{number}/32")
            asked = attacker.connection(f"named-{number}", service="pool", context=context)
            made.append(await attacker.request(asked, attacker.kernel(), files=[attacker.network]))
        honest = await victim.request(
            victim.connection("honest", service="pool"), victim.kernel("vic4"), files=[victim.network]
        )
        await victim.close(honest)
    finally:
        for each in made:
            with suppress(MeshError):
                await attacker.close(each)
