"""Network, mount and user namespaces, made and entered without a program's help."""

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
    """Leave the present namespaces of `kinds` for new ones. Raises OSError that names `what` was wanted."""
    libc.unshare(kinds, what)


def enter(descriptor: int, kind: int) -> None:
    """Enter the namespace of `descriptor`. Raises OSError."""
    libc.setns(descriptor, kind, "enter a namespace")


def become_root_in_user_namespace() -> None:
    """Make a user namespace in which this process is root. Raises OSError that says what to do if it may not."""
    uid, gid = os.getuid(), os.getgid()
    try:
        unshare(NEW_USER, "make a user namespace")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error}; this system does not let ordinary users make user namespaces: run as root, or allow them "
            "(sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0)",
        ) from None
    libc.prctl(libc.PR_SET_DUMPABLE, 1)  # so that our own later commands may look into /proc/self/ns


def may_make() -> bool:
    """Whether this process may make namespaces as it is: tried in a child, which takes its attempt with it."""
    pid = os.fork()
    if pid == 0:
        try:
            libc.unshare(NEW_NET | NEW_MOUNT)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def is_own_user(descriptor: int) -> bool:
    """Whether `descriptor` is of the user namespace that this process is in."""
    return os.path.samestat(os.fstat(descriptor), os.stat("/proc/self/ns/user"))


def new_network() -> int:
    """A descriptor of a new network namespace whose loopback is up. It lives as long as somebody holds it."""

    def make() -> int:
        unshare(NEW_NET, "make a network namespace")
        _set_up("lo")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


def forward_packets(network: int) -> None:
    """Let what lives in a network namespace pass packets on between its interfaces."""

    def allow() -> None:
        enter(network, NEW_NET)
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            with contextlib.suppress(FileNotFoundError):  # a kernel without that family
                _write(f"/proc/sys/net/{path}", "1")

    in_thread(allow)


def another(descriptor: int) -> int:
    """One more descriptor of the same namespace."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def new_mounts(resolv_conf: str) -> int:
    """A descriptor of a new mount namespace in which `resolv_conf` is shown as /etc/resolv.conf.

    The machine's own file is never opened. A link that leads nowhere, as a resolver that is not running leaves it, is
    mounted over itself. Where there is nothing, the workload has nothing either: a mount needs a place.
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
    """What tells one network namespace from another: the inode of its descriptor."""
    return os.fstat(network).st_ino


@dataclass(frozen=True)
class Mark:
    """By what a process is known that came from a workload: it has either, whichever namespaces it went to since."""

    environment: bytes
    """What a variable begins with; with a zero byte at the end it is all of it."""
    mounts: bytes
    """What stands in a line of its mounts: the device and the path of a file that is shown to nobody else."""


def inhabitants(networks: Collection[int], marks: Collection[Mark] = ()) -> list[int]:
    """Pids of the processes in the network namespaces with these numbers, as far as this user may know.

    Also of those that have one of `marks`, and of whatever any of them started. This process and those above it are
    none of them.
    """
    parents = {pid: _parent(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    above = {os.getpid(), *_line(os.getpid(), parents)}
    here = {pid for pid in parents if pid not in above and (_lives_in(pid, networks) or _is_marked(pid, marks))}
    return [pid for pid in parents if pid not in above and (pid in here or not here.isdisjoint(_line(pid, parents)))]


def place_on_device(path: str) -> str:
    """How the mounts of a process name a file or folder that is shown elsewhere: its device, and the path there."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" ", 5)[2:5] for line in file]
    written = path.replace("\\", "\\134").replace(" ", "\\040")
    around = [mount for mount in mounts if f"{written}/".startswith(f"{mount[2].rstrip('/')}/")]
    device, root, place = max(around, key=lambda mount: len(mount[2]))
    return f"{device} {root.rstrip('/')}{written[len(place.rstrip('/')) :]}"


def _parent(pid: int) -> int:
    """The process that started another, or that has it since; 0 if there is none here, or the other one has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _line(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The processes above one: the one that started it, and so on."""
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        seen.add(pid)
        yield pid


def _lives_in(pid: int, networks: Collection[int]) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino in networks
    except OSError:  # it ended, or belongs to another user
        return False


def _is_marked(pid: int, marks: Collection[Mark]) -> bool:
    if not marks:
        return False
    environment = b"\0" + _content(f"/proc/{pid}/environ")
    if any(b"\0" + mark.environment in environment for mark in marks):
        return True
    mounts = _content(f"/proc/{pid}/mountinfo")
    return any(mark.mounts in mounts for mark in marks)


def _content(path: str) -> bytes:
    """Nothing if the process ended, or belongs to another user."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own, which takes the namespaces that it entered with it."""
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
    """A mount namespace of this process's own: what is mounted from now on is seen here only."""
    unshare(NEW_MOUNT, "make a mount namespace")
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE, what="make mounts private")


def bind(source: str, target: str) -> None:
    """Show the file `source` at `target`."""
    libc.mount(source, target, flags=libc.MS_BIND, what=f"mount {source} at {target}")


def die_with_parent(signal: int, parent: int) -> None:
    """Get `signal` when the process `parent` ends, however it ends; at once if it has ended already."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


def call_self(name: str) -> None:
    """Show `name` (its first 15 bytes) as this process's in `ps` and `top`."""
    libc.prctl(libc.PR_SET_NAME, name.encode()[:15])


def _set_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", interface.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | _IFF_UP))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
