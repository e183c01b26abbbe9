"""Which connection has which virtual function, and which one the next connection gets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import Conflict, Exhausted, MeshError

from .sysfs import VFIO_DRIVER, Function, Pci, await_file
from .tokens import Tokens


@dataclass(slots=True)
class Holding:
    """A function in use: by a connection, by a token, and by vfio or by the kernel's driver."""

    function: Function
    connection_id: str
    token: str
    by_vfio: bool
    is_former: bool = False
    """Whether an earlier process gave it, and no request for its connection has arrived since."""


class Pool:
    """The virtual functions of a node; `vfio` is the folder with the nodes of IOMMU groups."""

    def __init__(self, pci: Pci, functions: Sequence[Function], tokens: Tokens, vfio: str) -> None:
        self._pci, self.functions, self._tokens, self.vfio = pci, functions, tokens, Path(vfio)
        self._held: dict[str, Holding] = {}
        self._groups: dict[str, asyncio.Lock] = {}

    def by_address(self, address: str) -> Function | None:
        """One of them."""
        return next((each for each in self.functions if each.address == address), None)

    def holdings(self) -> list[Holding]:
        """Those in use."""
        return list(self._held.values())

    def of_connection(self, connection_id: str) -> Holding | None:
        """What a connection has."""
        return next((each for each in self._held.values() if each.connection_id == connection_id), None)

    def of_token(self, token: str) -> Holding | None:
        """What is had by a token."""
        return next((each for each in self._held.values() if each.token == token), None)

    def found(self, function: Function, connection_id: str, token: str, *, by_vfio: bool) -> None:
        """An earlier process gave a function: no other connection gets it."""
        self._held[function.address] = Holding(function, connection_id, token, by_vfio, is_former=True)
        with contextlib.suppress(MeshError):  # the kubelet may have taken the token back
            self._tokens.use(token, function.card.address)

    def claim(self, holding: Holding, connection_id: str, token: str) -> None:
        """A function that an earlier process gave away is this connection's. Raises what `Tokens.use` does."""
        self._tokens.use(token, holding.function.card.address)
        holding.connection_id, holding.token = connection_id, token

    async def take(self, connection_id: str, token: str, *, by_vfio: bool) -> Holding:
        """A function for a connection, bound to the driver that it needs; `give_back` has to follow.

        One that an earlier process gave to it stays. Raises `Exhausted`, or `Conflict` if a driver or vfio refuses.
        """
        former = self.of_connection(connection_id)
        if former is not None and (former.token, former.by_vfio) == (token, by_vfio):
            former.is_former = False
            return former
        self._tokens.check(token)
        busy: set[str] = set()
        while True:
            function = self._choose(token, busy, by_vfio=by_vfio)
            self._tokens.use(token, function.card.address)
            holding = self._held[function.address] = Holding(function, connection_id, token, by_vfio)
            try:
                async with self._groups.setdefault(function.group, asyncio.Lock()):
                    if await asyncio.to_thread(self._is_busy, function):
                        self.give_back(holding)
                        busy.add(function.address)
                        continue
                    await asyncio.to_thread(self._bind, function, by_vfio=by_vfio)
            except BaseException:
                self.give_back(holding)
                raise
            return holding

    def give_back(self, holding: Holding) -> None:
        """No connection has it any more; it stays bound to its driver."""
        if self._held.get(holding.function.address) is holding:
            del self._held[holding.function.address]
            if not any(each.token == holding.token for each in self._held.values()):
                self._tokens.stop_using(holding.token)

    def _choose(self, token: str, busy: set[str], *, by_vfio: bool) -> Function:
        name = self._tokens.name(token)
        fitting = [each for each in self.functions if name in each.card.names]
        free = [each for each in fitting if each.address not in self._held and each.address not in busy]
        kinds = {each.function.group: each.by_vfio for each in self._held.values() if each.function.group}
        usable = [each for each in free if kinds.get(each.group, by_vfio) == by_vfio and (each.group or not by_vfio)]
        left = Counter(each.card.address for each in free)
        wise = [each for each in usable if self._tokens.leaves_enough(token, each.card.address)]
        if not wise:
            raise Exhausted(self._why_none(name, fitting, free, by_vfio=by_vfio))
        return min(wise, key=lambda each: (each.group not in kinds, -left[each.card.address], each.address))

    def _why_none(self, name: str, fitting: Sequence[Function], free: Iterable[Function], *, by_vfio: bool) -> str:
        what = f"none of the {len(fitting)} virtual functions for {name} is free"
        if not free:
            return what
        if by_vfio and not any(each.group for each in free):
            return f"{what} for VFIO: this node has no IOMMU, or it is off"
        return f"{what} for {'VFIO' if by_vfio else 'KERNEL'}: others of their IOMMU groups are used otherwise"

    # --- in a thread

    def _is_busy(self, function: Function) -> bool:
        """Whether it is in use elsewhere: its interface is elsewhere, or its group is open."""
        driver = self._pci.driver(function.address)
        if driver == function.card.vf_driver:
            return not self._pci.interface(function.address)
        if driver != VFIO_DRIVER:
            return bool(driver)
        try:
            os.close(os.open(self.vfio / function.group, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            raise Conflict(f"cannot look whether {self.vfio / function.group} is in use: {error.strerror}") from None
        return False

    def _bind(self, function: Function, *, by_vfio: bool) -> None:
        wanted = VFIO_DRIVER if by_vfio else function.card.vf_driver
        if not by_vfio:
            self._pci.bind(function.address, wanted)
            self._pci.await_interface(function.address)
            return
        group = [each for each in self.functions if each.group == function.group]
        others = self._pci.others_in_use(function.address, {each.address for each in group})
        if others:
            raise Conflict(
                f"IOMMU group {function.group} of {function.address} is shared with {', '.join(others)}, in use; "
                "vfio needs the whole group: use KERNEL, or another card or slot"
            )
        for each in group:
            self._pci.bind(each.address, wanted)
        await_file(self.vfio / function.group)
