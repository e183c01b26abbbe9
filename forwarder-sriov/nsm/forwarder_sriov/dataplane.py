"""The dataplane of virtual functions: a network of their own joins them, so a wire ends at the function's card."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nsm.apis.mechanisms import DEVICE_MAJOR, DEVICE_MINOR, IOMMU_GROUP, PCI_ADDRESS, VFIO_MAJOR, VFIO_MINOR
from nsm.chains.core import Conflict, FileKey, MeshError, Refused, Unsupported, shielded
from nsm.chains.core.descriptors import facts_of
from nsm.chains.devices import Permissions
from nsm.chains.devices.program import Device
from nsm.chains.forwarding.dataplane import NOBODY, Client, LiveWire, Owned
from nsm.chains.forwarding.sides import KernelInterface, Nothing, Side, VirtualFunction
from nsm.chains.forwarding.wires import Wire
from nsm.chains.logs import log
from nsm.chains.model.traffic import Traffic
from nsm.chains.netlink import Namespaces
from nsm.chains.netlink.processes import Processes
from nsm.forwarder_kernel.kernel_thread import KernelThread

from .interfaces import Former, Interfaces, Moved
from .pool import Holding, Pool
from .sysfs import VFIO_DRIVER, Function, Pci

Whose = Callable[[str], Awaitable[tuple[str, str] | None]]
"""The namespace and name of the pod to which the kubelet gave a token; None: no kubelet is asked."""
_FORMER = "of "
"""Begins what stands for the connection of a device whose connection is not known."""
_SETTLING, _SETTLING_PAUSE = 12.0, 0.005
"""Seconds that a card may take to report its carrier, and between two looks."""
_POD = re.compile(r"spiffe://[^/]+/ns/([^/]+)/pod/([^/]+)")


async def whose_ever(_token: str) -> None:
    """For a node without a kubelet: whoever knows a token has it."""


@dataclass(slots=True, kw_only=True)
class LiveFunction(LiveWire):
    """A wire, and the function that it is made of; none for a client that wants no interface (NOOP)."""

    client: Client = NOBODY
    holding: Holding | None = None
    moved: Moved | None = None
    """KERNEL: the interface."""
    groups: list[Path] = field(default_factory=list)
    """VFIO: the control groups that may open the device."""


@dataclass(frozen=True, slots=True)
class OwnedFunction:
    """What an earlier process gave to a connection."""

    connection_id: str
    is_live: bool
    is_used: bool


class SriovDataplane:
    """The wires of `owner`, made of the functions of `pool`. `whose` is asked for the pod that has a token."""

    def __init__(self, owner: str, pci: Pci, pool: Pool, permissions: Permissions, whose: Whose = whose_ever) -> None:
        self._pci, self._pool, self._permissions, self._whose = pci, pool, permissions, whose
        self._interfaces = Interfaces(owner)
        self.kernel = KernelThread()
        self._live: dict[str, LiveFunction] = {}
        self._former: dict[str, Former] = {}
        """Interfaces that an earlier process gave away, by their connections."""
        self._processes = Processes()
        self._strays = False
        """Whether an interface was not back yet when its connection ended: its namespace is ending, or out of reach."""

    async def start(self) -> None:
        """Find what an earlier process gave away, before anybody asks; what came back meanwhile gets its name again."""
        for function in self._pool.functions:
            driver = await asyncio.to_thread(self._pci.driver, function.address)
            if driver and driver not in (function.card.vf_driver, VFIO_DRIVER):
                log.warning("another driver has a virtual function", address=function.address, driver=driver)
            if driver == VFIO_DRIVER and await self._is_held(function):
                self._pool.found(function, f"{_FORMER}{function.address}", "", by_vfio=True)
        await self._look()

    async def create(
        self, wire: Wire, connection_id: str, begun: Any | None = None, client: Client = NOBODY
    ) -> LiveFunction:
        """See `Dataplane`. Raises `Refused` for a token of another pod, `Conflict` for one that is in use."""
        side, far = wire.sides
        if not isinstance(far, Nothing):
            raise Unsupported(
                f"virtual functions are joined outside of the node: the endpoint has {far.kind}, not NOOP"
            )
        live = LiveFunction(wire=wire, connection_id=connection_id, client=client)
        if isinstance(side, Nothing):
            self._live[connection_id] = live
            return live
        await self._check_token(_token_of(side), client)
        await self._make_way(side, connection_id, client)
        by_vfio = isinstance(side, VirtualFunction)
        if isinstance(side, VirtualFunction):
            await asyncio.to_thread(self._claim_former, side, connection_id)
        holding = live.holding = await self._pool.take(connection_id, _token_of(side), by_vfio=by_vfio)
        try:
            live.parameters = {PCI_ADDRESS: holding.function.address}
            await (self._make_vfio(live, side) if isinstance(side, VirtualFunction) else self._make_kernel(live))
        except BaseException:
            await shielded(self._undo(live), name="give a function back that could not be used")
            raise
        self._live[connection_id] = live
        return live

    async def resume(self, live: LiveFunction, wire: Wire) -> bool:
        """See `Dataplane`."""
        side, far = wire.sides
        is_same = type(side) is type(live.wire.client.side) and isinstance(far, Nothing)
        if not is_same or self._live.get(live.connection_id) is not live:
            return False
        if isinstance(side, Nothing):
            return True
        if _token_of(side) != _token_of(live.wire.client.side):
            return False
        moved, before = live.moved, live.wire.client.side
        is_there = True
        if isinstance(side, VirtualFunction):
            await self._permit(live, side)
        elif isinstance(side, KernelInterface) and isinstance(before, KernelInterface) and moved is not None:
            is_there = await self.kernel.in_node(lambda spaces: self._interfaces.resume(spaces, moved, before, side))
        live.wire = live.wire.moved(side, far) if is_there else live.wire
        return is_there

    async def change(self, live: LiveFunction, wire: Wire) -> None:
        """See `Dataplane`."""
        if (moved := live.moved) is not None:
            await self.kernel.in_node(lambda spaces: self._interfaces.change(moved, live.wire, wire, spaces))
        elif live.holding is not None:
            await self._prepare(live.holding, wire)
        live.wire = wire

    async def let_go(self, live: LiveFunction) -> None:
        """See `Dataplane`."""
        if (moved := live.moved) is not None and not self.kernel.is_closed:
            await self.kernel.in_node(lambda spaces: self._interfaces.let_go(spaces, moved))

    async def remove(self, connection_id: str) -> None:
        """See `Dataplane`."""
        if (live := self._live.pop(connection_id, None)) is not None:
            await self._undo(live)
        else:
            await self._take_back(connection_id)

    async def owned(self) -> Sequence[Owned]:
        """See `Dataplane`."""
        await self._look()
        former = [OwnedFunction(each.connection_id, False, True) for each in self._pool.holdings() if each.is_former]
        return [*(OwnedFunction(each, True, True) for each in self._live), *former]

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """See `Dataplane`."""
        for each in connection_ids:
            if each not in self._live:
                await self._take_back(each)

    async def traffic(self, wires: Sequence[LiveFunction]) -> Sequence[tuple[Traffic | None, Traffic | None]]:
        """See `Dataplane`: of interfaces only."""
        return await self.kernel.in_node(lambda spaces: [(_traffic(spaces, each), None) for each in wires])

    async def aclose(self) -> None:
        """See `Dataplane`."""
        await self.kernel.aclose()

    # --- whose token it is

    async def _check_token(self, token: str, client: Client) -> None:
        pod = await self._whose(token)
        shown = _POD.fullmatch(client.owner[-1]) if client.owner else None
        if pod is not None and shown is not None and shown.groups() != pod:
            raise Refused(f"token {token} was given to the pod {'/'.join(pod)}, and not to {client.owner[-1]}")

    async def _make_way(self, side: Side, connection_id: str, client: Client) -> None:
        """Take a token from a connection that its client has replaced by this one, and functions that are back."""
        if self._strays:
            self._strays = False
            await self._look()
        former = self._former.get(connection_id)
        if former is not None and isinstance(side, KernelInterface) and former.key not in (None, _key(side.path)):
            await self._take_back(connection_id)
        holding = self._pool.of_token(_token_of(side))
        if holding is None or holding.connection_id == connection_id:
            return
        if holding.is_former:
            await self._take_back(holding.connection_id, side.path if isinstance(side, KernelInterface) else "")
        elif (live := self._live.get(holding.connection_id)) is not None and live.client.is_same(client):
            await self.remove(live.connection_id)
            if live.when_superseded is not None:
                live.when_superseded()

    # --- KERNEL

    async def _make_kernel(self, live: LiveFunction) -> None:
        assert live.holding is not None
        holding, wire = live.holding, live.wire

        def put(spaces: Namespaces) -> Moved:
            card = self._pci.interface(holding.function.card.address)
            return self._interfaces.put(spaces, holding, wire, card, self._pci.interface(holding.function.address))

        begin = asyncio.get_running_loop().time()
        making = asyncio.ensure_future(self.kernel.in_node(put))
        try:
            live.moved = await asyncio.shield(making)
        except asyncio.CancelledError:
            with contextlib.suppress(MeshError, OSError):  # the thread goes on, and what it makes has to be taken back
                live.moved = await making
            raise
        self._former.pop(live.connection_id, None)
        await self._until_settled(live.moved, wire)
        live.seconds = asyncio.get_running_loop().time() - begin

    async def _until_settled(self, moved: Moved, wire: Wire) -> None:
        """Wait for the card's carrier, without delaying other wires. Raises `Conflict`."""
        end, restart = time.monotonic() + _SETTLING, time.monotonic() + _SETTLING / 3
        while not await self.kernel.run(lambda: self._interfaces.is_settled(moved, wire)):
            if time.monotonic() >= restart:
                restart = end
                await self.kernel.run(lambda: self._interfaces.restart(moved, wire))
            if time.monotonic() >= end:
                raise Conflict(
                    f"interface {wire.client.side.interface!r} does not come up in {_SETTLING:g} s: "
                    f"is {moved.card or 'its card'} up on the node, and connected?"
                )
            await asyncio.sleep(_SETTLING_PAUSE)

    # --- VFIO

    async def _make_vfio(self, live: LiveFunction, side: VirtualFunction) -> None:
        assert live.holding is not None
        await self._prepare(live.holding, live.wire)
        group = live.holding.function.group
        device, common = await asyncio.to_thread(self._devices, group)
        numbers = {VFIO_MAJOR: common[0], VFIO_MINOR: common[1], DEVICE_MAJOR: device[0], DEVICE_MINOR: device[1]}
        live.parameters = {**live.parameters, IOMMU_GROUP: group} | {key: str(value) for key, value in numbers.items()}
        await self._permit(live, side)

    async def _permit(self, live: LiveFunction, side: VirtualFunction) -> None:
        """Also with each refresh: containers start later, and runtimes replace what they had set."""
        assert live.holding is not None
        group = live.holding.function.group

        def permit() -> list[Path]:
            device, common = self._devices(group)
            groups = self._groups(side)
            self._permissions.permit(groups, [common, device])
            return groups

        groups = await asyncio.to_thread(permit)
        live.groups = list(dict.fromkeys([*live.groups, *groups]))

    def _groups(self, side: VirtualFunction) -> list[Path]:
        """Those of the processes in the client's network namespace; if none is seen, those that the client names."""
        if side.path:
            pids = self._processes.look().get(_key(side.path) or (0, 0), [])
            if groups := self._permissions.of_processes(pids):
                return groups
        if not side.cgroup:
            raise Conflict(
                "it is not known which control groups may use the device: the client names none (cgroup v2), "
                "and its processes are not seen: this forwarder needs the node's process ids (hostPID)"
            )
        return self._permissions.matching(side.cgroup)

    def _devices(self, group: str) -> tuple[Device, Device]:
        """The numbers of a group's device, and of the one that all share."""
        return _numbers(self._pool.vfio / group), _numbers(self._pool.vfio / "vfio")

    async def _prepare(self, holding: Holding, wire: Wire) -> None:
        function = holding.function

        def prepare(spaces: Namespaces) -> None:
            card = self._pci.interface(function.card.address)
            self._interfaces.set_function(spaces, card, function.number, wire)

        await self.kernel.in_node(prepare)

    # --- the end

    async def _undo(self, live: LiveFunction) -> None:
        """Take back what a connection has. Whatever is out of reach stays in use, until it is back on the node."""
        if (holding := live.holding) is None:
            return
        if (moved := live.moved) is not None:
            if not await self.kernel.in_node(lambda spaces: self._give(spaces, moved)):
                self._strays = True
        elif holding.by_vfio:
            await self._revoke(live.groups, holding.function)
            await self.kernel.in_node(partial(self._clean_function, address=holding.function.address))
        self._pool.give_back(holding)

    async def _revoke(self, groups: Sequence[Path], function: Function) -> None:
        if groups:
            device, common = await asyncio.to_thread(self._devices, function.group)
            await asyncio.to_thread(self._permissions.revoke, groups, device, common)

    def _clean_function(self, spaces: Namespaces, address: str) -> None:
        """Take MAC and VLAN from a function."""
        if (function := self._pool.by_address(address)) is not None:
            self._interfaces.clean(spaces, self._pci.interface(function.card.address), function.number)

    def _give(self, spaces: Namespaces, moved: Moved) -> bool:
        try:
            return self._interfaces.take_back(spaces, moved)
        finally:
            self._interfaces.let_go(spaces, moved)

    # --- what an earlier process did

    async def _look(self) -> None:
        """Find the interfaces given away before; those that are back on the node, unasked, get their names again."""
        await self.kernel.in_node(self._find)
        for holding in [each for each in self._pool.holdings() if each.is_former]:
            if not await self._is_given(holding):
                self._pool.give_back(holding)
        held = {each.connection_id for each in self._pool.holdings()}
        for each in self._former.values():
            function = self._pool.by_address(each.address)
            if function is not None and each.connection_id not in held:
                self._pool.found(function, each.connection_id, each.token, by_vfio=False)

    async def _is_given(self, holding: Holding) -> bool:
        if holding.by_vfio:
            return await self._is_held(holding.function)
        return holding.connection_id in self._former

    def _find(self, spaces: Namespaces) -> None:
        former = [each for each in self._interfaces.former(spaces) if each.connection_id not in self._live]
        for each in former:
            if each.is_back:
                self._back_former(spaces, each)
        self._former = {each.connection_id: each for each in former if not each.is_back}

    def _claim_former(self, side: VirtualFunction, connection_id: str) -> None:
        """A client that has a device already keeps it: its control groups may open that, and no other's may."""
        for holding in self._pool.holdings():
            is_it = holding.function.address == side.address and holding.by_vfio
            if is_it and not holding.token and set(self._holders(holding.function)) & set(self._groups(side)):
                self._pool.claim(holding, connection_id, side.token)

    async def _is_held(self, function: Function) -> bool:
        return bool(await asyncio.to_thread(self._holders, function))

    def _holders(self, function: Function) -> list[Path]:
        """The control groups that may open a function's device."""
        if not function.group or not (self._pool.vfio / function.group).exists():
            return []
        return self._permissions.holders(self._devices(function.group)[0])

    async def _take_back(self, connection_id: str, path: str = "") -> None:
        """Take back what an earlier process gave to a connection, as far as it can be reached."""
        holding = self._pool.of_connection(connection_id)
        if (former := self._former.get(connection_id)) is not None:
            if not await self.kernel.in_node(lambda spaces: self._back_former(spaces, former, path)):
                return
            del self._former[connection_id]
        elif holding is not None and holding.by_vfio:
            await self._revoke(await asyncio.to_thread(self._holders, holding.function), holding.function)
            await self.kernel.in_node(partial(self._clean_function, address=holding.function.address))
        if holding is not None:
            self._pool.give_back(holding)

    def _back_former(self, spaces: Namespaces, former: Former, path: str = "") -> bool:
        clean = partial(self._clean_function, spaces, former.address)
        return self._interfaces.take_back_former(spaces, former, clean, path)


def _token_of(side: Side) -> str:
    assert isinstance(side, KernelInterface | VirtualFunction)
    return side.token


def _key(path: str) -> FileKey | None:
    """Device and inode of a namespace's file; None: what takes it will say what is wrong with it."""
    try:
        return facts_of(path).key
    except OSError:
        return None


def _numbers(path: Path) -> Device:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise Conflict(f"cannot read the numbers of {path}: {error.strerror}") from None
    return os.major(number), os.minor(number)


def _traffic(spaces: Namespaces, live: LiveFunction) -> Traffic | None:
    if (moved := live.moved) is None:
        return None
    if moved.is_loose:
        return spaces.own.socket.traffic(moved.index, moved.space)
    return moved.namespace.socket.traffic(moved.index)
