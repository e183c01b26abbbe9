"""Mounts the manager's socket folder into pods that may not mount host paths: restricted ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

from nsm.chains.component import run_plain
from nsm.chains.config import Common, text, variable
from nsm.chains.logs import log
from nsm.chains.transport import SocketAccess, serve_plain

from .driver import driver, registration
from .volumes import Volumes

_DRIVER = re.compile(r"[a-z0-9A-Z]([-.a-z0-9A-Z]{0,61}[a-z0-9A-Z])?")
_ROOT_ONLY = SocketAccess(mode=0o600)


def _driver_name(value: str) -> str:
    if not _DRIVER.fullmatch(value):
        raise ValueError("expected the name of a driver, such as csi.networkservicemesh.io, of at most 63 characters")
    return value


def _folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("expected the absolute path of a folder")
    return value.rstrip("/") or "/"


@dataclass(frozen=True, kw_only=True)
class CsiDriverConfig(Common):
    """The folder that pods get, and the name of the driver. Requires `NODE_NAME`."""

    name: str = variable("csi-driver", text, "the name in logs")
    driver_name: str = variable("csi.networkservicemesh.io", _driver_name, "the driver name in a pod's volume")
    socket_dir: str = variable("/var/lib/networkservicemesh", _folder, "the folder to mount in pods, read-only")
    kubelet_dir: str = variable("/var/lib/kubelet", _folder, "the kubelet's root, mounted at the same path")

    def misfits(self) -> Iterator[str]:
        """Values that the kubelet requires."""
        yield from super().misfits()
        if not self.node_name:
            yield "NODE_NAME is empty: the kubelet requires the node's name"


def main(arguments: list[str]) -> int:
    """Mounts the manager's socket folder into pods that may not use host paths (CSI, node part)."""
    return run_plain("csi-driver", CsiDriverConfig, _serve, arguments)


async def _serve(config: CsiDriverConfig, stopping: asyncio.Event) -> None:
    name, node = config.driver_name, config.node_name
    volumes = Volumes(config.socket_dir, kubelet_folder=config.kubelet_dir)
    own = f"{config.kubelet_dir}/plugins/{name}/csi.sock"
    registry = f"{config.kubelet_dir}/plugins_registry/{name}-reg.sock"
    serving = serve_plain(own, driver(name, node, volumes), name=config.name, access=_ROOT_ONLY, limits=config.limits)
    announcing = serve_plain(
        registry, registration(name, own), name=config.name, access=_ROOT_ONLY, limits=config.limits
    )
    async with serving, announcing:  # register last: the kubelet then calls at once
        log.info("ready", driver=name, node=node, folder=config.socket_dir)
        await stopping.wait()
