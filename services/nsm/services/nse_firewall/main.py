"""An endpoint in a chain of services that filters what passes, by nftables and the rules of a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from nsm.chains.component import Runtime, run
from nsm.chains.composed import passthrough
from nsm.chains.config import not_yet, text, variable
from nsm.chains.metrics import also
from nsm.chains.serving import ChainedConfig, serve_endpoint

from .figures import decided
from .firewall import Firewall

DEFAULT_PATH = "/etc/firewall/config.yaml"


@dataclass(frozen=True, kw_only=True)
class NseFirewallConfig(ChainedConfig):
    """The settings of the endpoint."""

    name: str = variable("firewall-server", text, "the endpoint's name; unique in the mesh")
    acl_config_path: str = variable(DEFAULT_PATH, text, "a YAML file of rules, or upstream's ACL; watched for changes")
    acl_config: str = not_yet("", "rules in a variable")


def main(arguments: list[str]) -> int:
    """An endpoint that filters what passes from its clients to the next endpoint of the service."""
    return run("nse-firewall", NseFirewallConfig, filter_and_pass_on, arguments)


async def filter_and_pass_on(config: NseFirewallConfig, runtime: Runtime) -> None:
    """Serve until the process is asked to stop. Raises `MeshError` if the rules cannot be put in force at the start."""
    firewall = Firewall(config.acl_config_path)
    await firewall.open()  # before the first wire
    elements = passthrough(
        config.name,
        runtime.pool,
        url=config.connect_to,
        labels=config.labels,
        policies=config.client_policies,
        limits=config.limits,
    )
    with also(partial(decided, firewall)):
        async with _kept(firewall):
            await serve_endpoint(config, runtime, elements)


@asynccontextmanager
async def _kept(firewall: Firewall) -> AsyncIterator[None]:
    """Follow the file while the context is open. The rules stay in force afterwards, as the wires do."""
    watching = asyncio.ensure_future(firewall.watch())
    try:
        yield
        await firewall.log_counts()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
