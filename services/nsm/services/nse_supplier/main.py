"""An endpoint that starts other endpoints when clients need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsm.chains.component import Runtime, run
from nsm.chains.composed import registry_at
from nsm.chains.config import flag, pairs, text, variable
from nsm.chains.core import MeshError
from nsm.chains.elements.supply import Supplier, Supply
from nsm.chains.serving import EndpointConfig, serve_endpoint, services

from .local import LocalSupplier, Supplied, parse_supplied

if TYPE_CHECKING:
    from .pods import PodTemplate


@dataclass(frozen=True, kw_only=True)
class NseSupplierConfig(EndpointConfig):
    """The settings of the endpoint."""

    name: str = variable("nse-supplier-k8s", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[str, ...] = variable(
        "nse-supplier-k8s", services, "the services whose clients it serves", env="NSM_SERVICE_NAME"
    )
    labels: dict[str, str] = variable("", pairs, "labels, key:value,..; the service's last match names them")
    register_service: bool = variable("false", flag, "also register the services, without matches")
    pod_description_file: str = variable("pod.yaml", text, "in a cluster: the template of a pod, YAML")
    namespace: str = variable("default", text, "in a cluster: the namespace of its pods")
    supplies: tuple[Supplied, ...] = variable(
        "", parse_supplied, "in a local mesh: the endpoints that it may have started, name@node,.."
    )

    def misfits(self) -> Iterator[str]:
        """A supplier that ended when idle could not start anything."""
        yield from super().misfits()
        if self.idle_timeout:
            yield "NSM_IDLE_TIMEOUT is for the endpoints that a supplier starts; a supplier has no connections"


def main(arguments: list[str]) -> int:
    """An endpoint that starts other endpoints when clients need them."""
    return run("nse-supplier", NseSupplierConfig, supply_endpoints, arguments)


async def supply_endpoints(config: NseSupplierConfig, runtime: Runtime) -> None:
    """Serve until the process is asked to stop. Raises `MeshError` without a template, or without an API server."""
    async with _supplier(config) as supplier, registry_at(config.connect_to, runtime.pool) as registry:
        await serve_endpoint(config, runtime, [Supply(supplier, registry)])


@asynccontextmanager
async def _supplier(config: NseSupplierConfig) -> AsyncIterator[Supplier]:
    if config.supplies:
        yield LocalSupplier(config.supplies)
        return
    try:
        from nsm.kube import connect  # noqa: PLC0415 - a local mesh needs none of it

        from .pods import PodSupplier  # noqa: PLC0415
    except ImportError as error:
        raise MeshError(f"pods need the extra nsm-services[k8s]: {error}") from error
    template = _template(config.pod_description_file)
    async with connect() as api:
        supplier = PodSupplier(api, template, namespace=config.namespace, name=config.name)
        cleaning = asyncio.ensure_future(supplier.clean_up())
        try:
            yield supplier
        finally:
            cleaning.cancel()
            with suppress(asyncio.CancelledError):
                await cleaning


def _template(path: str) -> PodTemplate:
    from .pods import PodTemplate  # noqa: PLC0415 - as above

    try:
        return PodTemplate(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MeshError(f"the template of the pod cannot be read: {path}: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise MeshError(f"the template of the pod cannot be used: {path}: {error}") from None
