"""The namespaces of a mesh: a network namespace per node; network and mount namespaces per workload."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable

from . import namespaces
from .rundir import RunDir
from .zygote import Zygote, end_inhabitants


class Places:
    """Namespaces by the name of their node or workload; they live as long as this process holds them."""

    def __init__(self, run: RunDir, zygote: Zygote) -> None:
        self._run, self._zygote = run, zygote
        self.networks: dict[str, int] = {}
        self.mounts: dict[str, int] = {}

    @property
    def numbers(self) -> set[int]:
        """The numbers of the network namespaces."""
        return {namespaces.number_of(network) for network in self.networks.values()}

    def make(self, nodes: Iterable[str], workloads: Iterable[str]) -> None:
        """Create missing namespaces. Raises OSError."""
        for node in nodes:
            if node not in self.networks:
                self.networks[node] = namespaces.new_network()
        for workload in workloads:
            if workload not in self.networks:
                path = self._run.resolv_conf_of(workload)
                path.touch()
                self.networks[workload] = namespaces.new_network()
                self.mounts[workload] = namespaces.new_mounts(str(path))

    async def remove(self, names: Collection[str]) -> None:
        """End all processes in them, and release the namespaces."""
        networks = [self.networks[name] for name in names]
        if not networks:
            return
        numbers = [namespaces.number_of(network) for network in networks]
        await asyncio.to_thread(end_inhabitants, numbers, self._run.marks(names))
        self._zygote.forget(numbers)
        for name in names:
            os.close(self.networks.pop(name))
            if name in self.mounts:
                os.close(self.mounts.pop(name))
                self._run.resolv_conf_of(name).unlink(missing_ok=True)
