"""The prefix service of vL3 networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.config import Common, duration, items, text, urls, variable
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network
from nsm.chains.model.values import read_number
from nsm.chains.policy import IdPatterns
from nsm.chains.transport import Health, serve
from nsm.services.registry.store_url import StoreUrl, store_url

from .lease_store import lease_store_url, opened
from .leases import Leases
from .prefix_space import PrefixSpace
from .service import PrefixService

_LENGTHS = {4: 24, 6: 64}


def _prefixes(value: str) -> tuple[Network, ...]:
    found = []
    for each in items(value):
        try:
            found.append(ipaddress.ip_network(each))
        except ValueError as error:
            raise ValueError(f"{each!r}: {error}; expected a prefix such as 172.16.0.0/16 or 2001:db8::/32") from None
    if not found:
        raise ValueError("expected a prefix such as 172.16.0.0/16, or several with commas between them")
    return tuple(found)


def _lengths(value: str) -> tuple[int, ...]:
    found = []
    for each in items(value):
        if (number := read_number(each, 128)) is None:
            raise ValueError(f"{each!r} is not a length of a prefix; expected one such as 24 or 64")
        found.append(number)
    return tuple(found)


def _store(value: str) -> StoreUrl:
    return lease_store_url(store_url(value))


@dataclass(frozen=True, kw_only=True)
class IpamConfig(Common):
    """The networks that prefixes are from, and where leases are kept."""

    name: str = variable("ipam", text, "the name in errors, logs and traces")
    listen_on: tuple[str, ...] = variable(
        "unix:///listen.on.socket", urls, "where to listen: as many addresses as there are networks, in their order"
    )
    prefix: tuple[Network, ...] = variable(
        "169.254.0.0/16", _prefixes, "the networks that are divided among endpoints; one for each address family"
    )
    client_prefix_len: tuple[int, ...] = variable(
        "", _lengths, "the length of an endpoint's prefix, for each network; empty: 24 for IPv4, 64 for IPv6"
    )
    store: StoreUrl = variable("memory:", _store, "where leases are kept: `memory:` or `sqlite:///PATH`")
    lease_time: float = variable(
        "10m", duration, "how long a prefix is kept for an endpoint that has no stream here; endpoints ask again"
    )
    clients: IdPatterns = variable(
        "", IdPatterns.parse, "SPIFFE IDs that may have prefixes, patterns a,b; empty: every verified client"
    )

    def misfits(self) -> Iterator[str]:
        """Rejects numbers of values that do not fit together, and lengths that do not fit their networks."""
        yield from super().misfits()
        if len(self.listen_on) != len(self.prefix):
            yield (
                f"NSM_LISTEN_ON has {len(self.listen_on)} addresses for the {len(self.prefix)} networks of NSM_PREFIX: "
                "each network has an address of its own"
            )
        if self.client_prefix_len and len(self.client_prefix_len) != len(self.prefix):
            yield f"NSM_CLIENT_PREFIX_LEN has {len(self.client_prefix_len)} lengths for {len(self.prefix)} networks"
            return
        for network, length in zip(self.prefix, self.lengths, strict=True):
            try:
                PrefixSpace(network, length)
            except ValueError as error:
                yield f"NSM_CLIENT_PREFIX_LEN: {error}"

    @property
    def lengths(self) -> tuple[int, ...]:
        """The length of prefixes of each network."""
        return self.client_prefix_len or tuple(_LENGTHS[network.version] for network in self.prefix)


def main(arguments: list[str]) -> int:
    """Hands out prefixes to the endpoints of vL3 networks."""
    return run("ipam", IpamConfig, _serve, arguments)


async def _serve(config: IpamConfig, runtime: Runtime) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(config.store))
        for url, network, length in zip(config.listen_on, config.prefix, config.lengths, strict=True):
            leases = Leases(
                PrefixSpace(network, length), store, lease_time=config.lease_time, most=config.limits.prefixes
            )
            await leases.load()
            serving = serve(
                [url],
                {**PrefixService(leases, config.clients).methods(), **Health("ipam.IPAM").methods()},
                runtime.identity,
                name=config.name,
                access=runtime.access(config),
                limits=config.limits,
                takes_descriptors=False,
            )
            bound = await stack.enter_async_context(serving)
            log.info("serving", network=str(network), prefixes=f"/{length}", kept=len(leases), listen_on=bound)
        log.info("ready", networks=[str(network) for network in config.prefix])
        await runtime.stopping.wait()
