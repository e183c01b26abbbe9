"""Creates and enters network, mount and user namespaces, by system calls."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from nsm.chains import libc

T = TypeVar("T")

NEW_NET, NEW_MOUNT, NEW_USER = libc.CLONE_NEWNET, libc.CLONE_NEWNS, libc.CLONE_NEWUSER
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def unshare(kinds: int, what: str) -> None:
    """Move into new namespaces of `kinds`. Raises OSError with `what` was attempted."""
    libc.unshare(kinds, what)


def enter(descriptor: int, kind: int) -> None:
    """Enter the namespace of `descriptor`. Raises OSError."""
    libc.setns(descriptor, kind, "enter a namespace")


def become_root_in_user_namespace() -> None:
    """Create a user namespace in which this process is root. Raises OSError with what to do if that is forbidden."""
    uid, gid = os.getuid(), os.getgid()
    try:
        unshare(NEW_USER, "make a user namespace")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error}; this system does not allow ordinary users to create user namespaces: run as root, or allow them "
            "(sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0)",
        ) from None
    libc.prctl(libc.PR_SET_DUMPABLE, 1)  # lets our own later commands read /proc/self/ns


def may_make() -> bool:
    """Whether this process may create namespaces; tried in a child process."""
    pid = os.fork()
    if pid == 0:
        try:
            libc.unshare(NEW_NET | NEW_MOUNT)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def is_own_user(descriptor: int) -> bool:
    """Whether `descriptor` refers to the user namespace of this process."""
    return os.path.samestat(os.fstat(descriptor), os.stat("/proc/self/ns/user"))


def new_network() -> int:
    """A descriptor of a new network namespace with its loopback up. It lives as long as it is held open."""

    def make() -> int:
        unshare(NEW_NET, "make a network namespace")
        _set_up("lo")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


def forward_packets(network: int) -> None:
    """Enable packet forwarding in a network namespace."""

    def allow() -> None:
        enter(network, NEW_NET)
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            with contextlib.suppress(FileNotFoundError):  # the kernel has no such family
                _write(f"/proc/sys/net/{path}", "1")

    in_thread(allow)


def another(descriptor: int) -> int:
    """Another descriptor of the same namespace."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def new_mounts(resolv_conf: str) -> int:
    """A descriptor of a new mount namespace with `resolv_conf` as /etc/resolv.conf.

    The machine's own file is never opened. A dangling link, as left by a resolver that is not running, is covered by a
    mount. If there is no file, the workload has none either: a mount needs a mount point.
    """

    def make() -> int:
        private_mounts()
        target = os.path.realpath("/etc/resolv.conf")
        if os.path.exists(target):
            bind(resolv_conf, target)
        elif os.path.islink("/etc/resolv.conf"):
            link = os.open("/etc/resolv.conf", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                bind(resolv_conf, f"/proc/self/fd/{link}")
            finally:
                os.close(link)
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


def number_of(network: int) -> int:
    """The number that identifies a network namespace: the inode of its descriptor."""
    return os.fstat(network).st_ino


@dataclass(frozen=True)
class Mark:
    """Identifies processes that came from a workload: either part stays with them in any namespace."""

    environment: bytes
    """The beginning of an environment variable; with a zero byte at the end, all of it."""
    mounts: bytes
    """Part of a line of its mounts: the device and path of a file that only this workload has mounted."""


def inhabitants(networks: Collection[int], marks: Collection[Mark] = ()) -> list[int]:
    """Pids of the processes in the network namespaces with these numbers, as far as visible to this user.

    Includes processes with one of `marks`, and descendants of all these; excludes this process and its ancestors.

    """
    parents = {pid: _parent(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    above, seen = {os.getpid(), *_line(os.getpid(), parents)}, _Mounts(marks)
    here = {pid for pid in parents if pid not in above and (_lives_in(pid, networks) or seen.is_marked(pid))}
    return [pid for pid in parents if pid not in above and (pid in here or not here.isdisjoint(_line(pid, parents)))]


def place_on_device(path: str) -> str:
    """A bind-mounted file or folder in the notation of a process's mounts: its device, and the path there."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" ", 5)[2:5] for line in file]
    written = path.replace("\\", "\\134").replace(" ", "\\040")
    around = [mount for mount in mounts if f"{written}/".startswith(f"{mount[2].rstrip('/')}/")]
    device, root, place = max(around, key=lambda mount: len(mount[2]))
    return f"{device} {root.rstrip('/')}{written[len(place.rstrip('/')) :]}"


def _parent(pid: int) -> int:
    """The parent of a process; 0 if it is not visible here, or the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _line(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The ancestors of a process."""
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        seen.add(pid)
        yield pid


def _lives_in(pid: int, networks: Collection[int]) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino in networks
    except OSError:  # it ended, or belongs to another user
        return False


class _Mounts:
    """Which processes have one of `marks`; nearly all share their mounts with many others, which are read once."""

    def __init__(self, marks: Collection[Mark]) -> None:
        self._marks = marks
        self._seen: dict[object, bool] = {}
        """By mount namespace, and root folder there: whether a mount is marked."""

    def is_marked(self, pid: int) -> bool:
        """Whether the environment or the mounts of a process are."""
        if not self._marks:
            return False
        environment = b"\0" + _content(f"/proc/{pid}/environ")
        if any(b"\0" + mark.environment in environment for mark in self._marks):
            return True
        try:
            root = os.stat(f"/proc/{pid}/root")
            place = os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:  # it ended, or belongs to another user
            return False
        if place not in self._seen:
            mounts = _content(f"/proc/{pid}/mountinfo")
            self._seen[place] = any(mark.mounts in mounts for mark in self._marks)
        return self._seen[place]


def _content(path: str) -> bytes:
    """The file's content; empty if the process ended, or belongs to another user."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in its own thread, so that the namespaces that it enters do not affect this one."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def private_mounts() -> None:
    """Move this process into its own mount namespace: later mounts are visible only here."""
    unshare(NEW_MOUNT, "make a mount namespace")
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE, what="make mounts private")


def bind(source: str, target: str) -> None:
    """Bind-mount the file `source` at `target`."""
    libc.mount(source, target, flags=libc.MS_BIND, what=f"mount {source} at {target}")


def die_with_parent(signal: int, parent: int) -> None:
    """Receive `signal` when the process `parent` ends for any reason; at once if it has ended already."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


def call_self(name: str) -> None:
    """Set the name of this process in `ps` and `top` to the first 15 bytes of `name`."""
    libc.prctl(libc.PR_SET_NAME, name.encode()[:15])


def _set_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", interface.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | _IFF_UP))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
