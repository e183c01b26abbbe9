"""Network namespaces by descriptor, each with a netlink socket inside, kept while in use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from nsm.chains import libc
from nsm.chains.core import FileKey, InvalidRequest, MeshError, Refused, Unsupported
from nsm.chains.core.descriptors import facts_of
from nsm.chains.logs import log

from . import sysctls
from .processes import Processes
from .sockets import NetlinkError, Socket
from .wireguard import WireguardSocket

_NS_GET_NSTYPE = 0xB703
_MOST_NUMBERS = 4096
"""That are remembered, and not asked for again."""


class Namespace:
    """An open network namespace."""

    def __init__(self, descriptor: int, where: str) -> None:
        self.descriptor = descriptor
        self.key = facts_of(descriptor).key
        """Device and inode."""
        self.where = where
        self.users = 0
        self.number: int | None = None
        """Its number in the node's namespace; None if it has none there, or is the node's own."""
        self.handle = b""
        """The handle to open it again; empty on a kernel without handles, such as those before Linux 6.18."""
        self._wireguard: WireguardSocket | None = None
        with entered(descriptor):
            self.socket = Socket(where)
            _let_everybody_ping()

    def enable_ipv6(self, interface: str) -> None:
        """Switch IPv6 on for an interface, if the system's default is off.

        Raises `Unsupported` if that cannot be changed: /proc/sys is read-only in most containers.
        """
        try:
            with entered(self.descriptor):
                sysctls.write(f"net/ipv6/conf/{interface}/disable_ipv6", "0")
        except OSError as error:
            raise Unsupported(
                f"IPv6 is off in {self.where} and stays off ({error.strerror}); "
                "set net.ipv6.conf.all.disable_ipv6=0 there, or give the wire IPv4 only"
            ) from None

    def refuse_advertisements(self, interface: str) -> None:
        """Ignore addresses and routes from IPv6 router advertisements on an interface.

        If that cannot be changed there is a warning, once in the life of this process.
        """
        try:
            with entered(self.descriptor):
                for setting in ("accept_ra", "autoconf"):
                    sysctls.write(f"net/ipv6/conf/{interface}/{setting}", "0", anyway=True)
        except FileNotFoundError:
            return  # there is no IPv6
        except OSError as error:
            _warn(error.strerror)

    def wireguard(self) -> WireguardSocket:
        """The kernel's WireGuard of this namespace, kept. Raises `NetlinkError` if this kernel has none."""
        if self._wireguard is None:
            with entered(self.descriptor):
                self._wireguard = WireguardSocket(self.where)
        return self._wireguard

    def close(self) -> None:
        """Release it."""
        self.socket.close()
        if self._wireguard is not None:
            self._wireguard.close()
        os.close(self.descriptor)


class Namespaces:
    """The namespaces in use, by device and inode. Used by one thread only: it enters them.

    `with_own` allows the node's own, which is this thread's and that of the first process.
    """

    def __init__(self, *, with_own: bool = False) -> None:
        self._open: dict[FileKey, Namespace] = {}
        self._numbers: dict[bytes, int] = {}
        self._processes = Processes()
        self.own = Namespace(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), "our own namespace")
        self._nodes = frozenset() if with_own else frozenset(_nodes_own(self.own.descriptor))

    def __len__(self) -> int:
        return len(self._open)

    def descriptors(self) -> set[int]:
        """The identities of the kept namespaces."""
        return {namespace.descriptor for namespace in self._open.values()}

    def take(self, path: str) -> Namespace:
        """The namespace whose file is at `path`; give it back.

        Raises `InvalidRequest` if it is not one, `Refused` if it is the node's own.
        """
        descriptor = _open_namespace(path)
        key = facts_of(descriptor).key
        if key in self._nodes:
            os.close(descriptor)
            raise Refused("a wire would end in the node's own network namespace; NSM_NODE_NAMESPACE=true allows that")
        return self._use(descriptor, key)

    def _use(self, descriptor: int, key: FileKey) -> Namespace:
        if key in self._open:
            os.close(descriptor)
        else:
            self._open[key] = Namespace(descriptor, f"namespace {key[1]}")
        namespace = self._open[key]
        namespace.users += 1
        return namespace

    def identify(self, namespace: Namespace) -> None:
        """Keep the identifiers of a namespace after it is given back. It has a number from now on, and is reported."""
        if namespace.number is not None or os.path.sameopenfile(namespace.descriptor, self.own.descriptor):
            return
        with contextlib.suppress(OSError, AttributeError):
            namespace.handle = libc.file_handle(namespace.descriptor)
        namespace.number = self._numbers.get(namespace.handle)
        if namespace.number is None:
            with contextlib.suppress(NetlinkError):  # a kernel that has no numbers
                namespace.number = self.own.socket.number_of(namespace.descriptor)
                self._remember(namespace.handle, namespace.number)

    def _remember(self, handle: bytes, number: int) -> None:
        """A namespace keeps its number as long as it lives, and its handle is never reused."""
        if len(self._numbers) >= _MOST_NUMBERS:
            self._numbers.clear()
        if handle:
            self._numbers[handle] = number

    def again(self, handle: bytes, key: FileKey | None = None, number: int | None = None) -> Namespace | None:
        """A namespace that was released; None if it is gone, or cannot be opened again. Give it back.

        It is opened by its handle or, on kernels that have none, by a process of it that is seen here: then what is
        found under its `key`, device and inode, has to have its `number`, since either may be another one's by now.
        """
        if handle:
            with contextlib.suppress(OSError):
                descriptor = libc.open_handle(self.own.descriptor, handle, os.O_RDONLY | os.O_CLOEXEC)
                return self._use(descriptor, facts_of(descriptor).key)
        if key is None or number is None or (path := self._processes.path(key)) is None:
            return None
        try:
            namespace = self.take(path)
        except MeshError:
            return None
        if (namespace.key, self.own.socket.known_number(namespace.descriptor)) == (key, number):
            namespace.number = number
            return namespace
        self.give(namespace)
        return None

    @contextmanager
    def in_reach(
        self, held: Namespace | None, handle: bytes, key: FileKey | None, number: int | None
    ) -> Iterator[Namespace | None]:
        """The namespace that is `held`, or for the moment one that was released; None in the cases of `again`."""
        if held is not None:
            yield held
            return
        namespace = self.again(handle, key, number)
        try:
            yield namespace
        finally:
            if namespace is not None:
                self.give(namespace)

    def give(self, namespace: Namespace) -> None:
        """End one use."""
        namespace.users -= 1
        if not namespace.users:
            del self._open[namespace.key]
            namespace.close()

    def close(self) -> None:
        """Release all."""
        for namespace in [self.own, *self._open.values()]:
            namespace.close()
        self._open.clear()


def _open_namespace(path: str) -> int:
    """Only namespaces are opened: opening a FIFO would block this thread until a writer opens it."""
    try:
        named = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"there is no network namespace at {path}: {error.strerror}") from None
    try:
        if facts_of(named).is_namespace:
            descriptor = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == libc.CLONE_NEWNET:
                    return descriptor
            os.close(descriptor)
    finally:
        os.close(named)
    raise InvalidRequest(f"{path} is not a network namespace; name one such as file:///proc/1234/ns/net")


def _nodes_own(own: int) -> Iterator[FileKey]:
    yield facts_of(own).key
    with contextlib.suppress(OSError):  # not visible from a container, nor without rights
        yield facts_of("/proc/1/ns/net").key


@contextmanager
def entered(descriptor: int) -> Iterator[None]:
    """Enter another namespace, this thread only. A thread that cannot return must not continue: RuntimeError."""
    back = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(descriptor)
        try:
            yield
        finally:
            _set_namespace(back)
    finally:
        os.close(back)


def _set_namespace(descriptor: int) -> None:
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET, "enter a network namespace")
    except OSError as error:
        raise RuntimeError(f"{error.strerror}; this needs CAP_SYS_ADMIN") from None


def _let_everybody_ping() -> None:
    """Allow unprivileged ICMP sockets, which clients check their wires with; a user namespace may only know group 0."""
    for groups in ("0 2147483647", "0 0"):
        with contextlib.suppress(OSError):
            sysctls.write("net/ipv4/ping_group_range", groups)
            return


@cache
def _warn(reason: str) -> None:
    log.warning(
        "wires take addresses and routes from any IPv6 router advertisement; let this forwarder write to /proc/sys",
        error=reason,
    )
