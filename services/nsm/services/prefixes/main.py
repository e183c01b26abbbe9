"""Collects the addresses that a cluster uses itself, so that managers exclude them from wires."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.chains.component import run_plain, unless_set
from nsm.chains.config import Common, items, text, variable
from nsm.chains.config.watched_file import PartlyRead
from nsm.chains.core import MeshError
from nsm.chains.elements.excluded_prefixes import DEFAULT_PATH
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network, read_interface
from nsm.kube import Api, connect

from .collector import Collector
from .outputs import ConfigMap, File, Output
from .sources import document_of, in_document

_SETTLED = 0.2
"""Seconds to wait for further changes, such as all services of one manifest."""
_PAUSE = 5.0
"""Seconds until a failed write is retried."""


def _prefixes(value: str) -> tuple[Network, ...]:
    return tuple(map(_prefix, items(value)))


def _prefix(value: str) -> Network:
    if (interface := read_interface(value)) is None:
        raise ValueError(f"{value!r} is not a prefix; expected one such as 10.96.0.0/12 or fd00::/64")
    return interface.network


def _output_type(value: str) -> str:
    if value not in {"file", "config-map"}:
        raise ValueError("expected file or config-map")
    return value


@dataclass(frozen=True, kw_only=True)
class PrefixesConfig(Common):
    """Additional prefixes to exclude, and where to write the result."""

    name: str = variable("exclude-prefixes-k8s", text, "the name in logs")
    excluded_prefixes: tuple[Network, ...] = variable("", _prefixes, "prefixes to exclude in any case")
    config_map_namespace: str = variable("default", text, "namespace of the ConfigMap with further prefixes")
    config_map_name: str = variable("excluded-prefixes-config", text, "its name; it is optional")
    config_map_key: str = variable("excluded_prefixes_input.yaml", text, "its entry, YAML: prefixes: [..]")
    prefixes_output_type: str = variable("file", _output_type, "where to write: file or config-map")
    output_file_path: str = variable(DEFAULT_PATH, text, "the file; managers read it as NSM_EXCLUDED_PREFIXES_FILE")
    output_config_map_name: str = variable("nsm-config", text, "the ConfigMap, in this component's namespace")
    output_config_map_key: str = variable("excluded_prefixes_output.yaml", text, "its entry")


def main(arguments: list[str]) -> int:
    """Collects the addresses that a Kubernetes cluster uses itself, for managers to exclude."""
    return run_plain("prefixes", PrefixesConfig, _serve, arguments)


async def _serve(config: PrefixesConfig, stopping: asyncio.Event) -> None:
    async with connect() as api:
        await unless_set(stopping, collect(config, api))


async def collect(config: PrefixesConfig, api: Api) -> None:
    """Write the prefixes whenever they change, forever."""
    news = asyncio.Event()
    async with AsyncExitStack() as stack:
        output = await _output(config, api, stack, news.set)
        collector = Collector(
            api,
            always=config.excluded_prefixes,
            before=await _present(output),
            user=(config.config_map_namespace, config.config_map_name),
            user_key=config.config_map_key,
            on_change=news.set,
        )
        await stack.enter_async_context(collector)
        await collector.synced()
        log.info("ready")
        while True:
            news.clear()
            pause = None if await _written(output, document_of(collector.prefixes())) else _PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await news.wait()
            await asyncio.sleep(_SETTLED)


async def _output(config: PrefixesConfig, api: Api, stack: AsyncExitStack, on_change: Callable[[], None]) -> Output:
    if config.prefixes_output_type == "file":
        return File(config.output_file_path)
    config_map = ConfigMap(api, config.output_config_map_name, config.output_config_map_key, on_change=on_change)
    return await stack.enter_async_context(config_map)


async def _present(output: Output) -> list[Network]:
    """The prefixes in the output; none if it cannot be parsed, since it is overwritten anyway."""
    try:
        return in_document(await output.read(), "the previous prefixes")
    except PartlyRead as partly:
        found: list[Network] = partly.value
        return found
    except ValueError:
        return []


async def _written(output: Output, document: str) -> bool:
    try:
        await output.write(document)
    except MeshError as error:
        log.warning("cannot write the prefixes", error=str(error), again_in_s=_PAUSE)
        return False
    return True
