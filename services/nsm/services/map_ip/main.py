"""Writes the outside addresses of a cluster's nodes to a file, for the domain's proxy."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.chains.component import run_plain, unless_set
from nsm.chains.config import Common, text, variable
from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.chains.transport import parse_address, publishable
from nsm.kube import CONFIG_MAPS, NODES, Api, Reflector, connect
from nsm.services.prefixes.outputs import File

from .table import document_of, of_config_map, of_node, of_own

_SETTLED = 0.1
"""Seconds to wait for further changes."""
_PAUSE = 5.0
"""Seconds until a failed write is retried."""
_MODE = 0o644
"""The proxy that reads the file may be another user."""


@dataclass(frozen=True, kw_only=True)
class MapIpConfig(Common):
    """Which entries there are, and where to write them."""

    name: str = variable("map-ip-k8s", text, "the name in logs")
    output_path: str = variable("external_ips.yaml", text, "the file; a proxy reads it as NSM_MAP_IP_FILE_PATH")
    node_name: str = variable(
        "", text, "the node of this pod, whose outside address the pod gets; empty: no entry for the pod"
    )
    namespace: str = variable("default", text, "namespace of the ConfigMap with further entries")
    from_config_map: str = variable("", text, "its name; each of its values is a YAML map; empty: none")


def main(arguments: list[str]) -> int:
    """Writes the outside addresses of a Kubernetes cluster's nodes to a file, for the domain's proxy."""
    return run_plain("map-ip", MapIpConfig, _serve, arguments)


async def _serve(config: MapIpConfig, stopping: asyncio.Event) -> None:
    async with connect() as api:
        await unless_set(stopping, write_table(config, api, own_address()))


def own_address() -> str:
    """The address of this pod, which the proxy in the same pod publishes."""
    return parse_address(publishable("tcp://:1")).host


async def write_table(config: MapIpConfig, api: Api, own: str) -> None:
    """Write the table whenever it changes, forever."""
    news, output = asyncio.Event(), File(config.output_path, _MODE)
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(Reflector(api, NODES))
        nodes.on_change(lambda _change: news.set())
        await nodes.synced()
        config_maps = None
        if config.from_config_map:
            config_maps = Reflector(
                api, CONFIG_MAPS, config.namespace, fields=f"metadata.name={config.from_config_map}"
            )
            config_maps.on_change(lambda _change: news.set())
            await stack.enter_async_context(config_maps)
            await config_maps.synced()
        tables = _Tables(config, nodes, config_maps, own)
        log.info("ready")
        while True:
            news.clear()
            pause = None if await _written(output, document_of(tables.joined())) else _PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await news.wait()
            await asyncio.sleep(_SETTLED)


class _Tables:
    """The entries of all sources. A ConfigMap that cannot be read leaves its last entries in force."""

    def __init__(self, config: MapIpConfig, nodes: Reflector, config_maps: Reflector | None, own: str) -> None:
        self._config, self._nodes, self._config_maps, self._own = config, nodes, config_maps, own
        self._listed: dict[str, str] = {}

    def joined(self) -> dict[str, str]:
        """All entries; those of the ConfigMap take precedence."""
        table: dict[str, str] = {}
        for (_, name), node in sorted(self._nodes.objects.items()):
            table.update(of_node(node))
            if name == self._config.node_name:
                table.update(of_own(self._own, node))
        return {**table, **self._of_config_map()}

    def _of_config_map(self) -> dict[str, str]:
        if self._config_maps is not None:
            try:
                self._listed = {
                    inside: outside
                    for each in self._config_maps.objects.values()
                    for inside, outside in of_config_map(each).items()
                }
            except ValueError as error:
                log.warning(
                    "the ConfigMap cannot be used; its last entries stay",
                    name=f"{self._config.namespace}/{self._config.from_config_map}",
                    error=str(error),
                )
        return self._listed


async def _written(output: File, document: str) -> bool:
    try:
        await output.write(document)
    except MeshError as error:
        log.warning("cannot write the table of addresses", error=str(error), again_in_s=_PAUSE)
        return False
    return True
