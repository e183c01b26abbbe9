"""Kernel features: namespaces, and the parts of wires; each is tried once, in a temporary namespace."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from . import netlink
from .model import Finding, error, ok, warning
from .throw_away import NoNamespacesError, tried

_VXLAN_ID, _MACVLAN_MODE, _VLAN_ID = 1, 1, 1
_MACVLAN_BRIDGE = 4
_TABLE = 5000
_WIREGUARD_GO = "wireguard-go"


@dataclass(frozen=True)
class Probe:
    """Something to try; `missing` is what does not work without it."""

    name: str
    about: str
    work: Callable[[], None]
    missing: str
    module: str = ""
    needed: bool = False


PROBES = (
    Probe("veth", "veth pairs", partial(netlink.make_link, "veth", "v0"), "no wire", "veth", needed=True),
    Probe("bridge", "bridges", partial(netlink.make_link, "bridge", "b0"), "no local mesh of several nodes", "bridge"),
    Probe("ipv6", "IPv6", partial(netlink.add_ipv6_address, "fd00::1", "lo"), "no IPv6 over wires", "ipv6"),
    Probe(
        "vxlan",
        "VXLAN",
        partial(netlink.make_link, "vxlan", "x0", netlink.attribute_of_number(_VXLAN_ID, 5)),
        "no ETHERNET wires to other nodes",
        "vxlan",
    ),
    Probe(
        "wireguard",
        "WireGuard",
        partial(netlink.make_link, "wireguard", "w0"),
        "no IP wires to other nodes",
        "wireguard",
    ),
    Probe("tun", "tun interfaces", partial(netlink.make_tun, "t0"), "no WireGuard in user space", "tun"),
    Probe(
        "macvlan",
        "macvlan",
        partial(
            netlink.make_link, "macvlan", "m0", netlink.attribute_of_number(_MACVLAN_MODE, _MACVLAN_BRIDGE), parent="v0"
        ),
        "no wires to an untagged uplink",
        "macvlan",
    ),
    Probe(
        "vlan",
        "VLAN 802.1q",
        partial(netlink.make_link, "vlan", "q0", netlink.attribute_of_number(_VLAN_ID, 5, "H"), parent="v0"),
        "no wires to a tagged uplink",
        "8021q",
    ),
    Probe(
        "policy-routes-ipv4",
        "policy routes, IPv4",
        partial(netlink.add_rule, socket.AF_INET, _TABLE),
        "no policy routes of IPv4",
    ),
    Probe(
        "policy-routes-ipv6",
        "policy routes, IPv6",
        partial(netlink.add_rule, socket.AF_INET6, _TABLE),
        "no policy routes of IPv6",
    ),
    Probe(
        "ping-sockets",
        "ping without privileges (ICMP sockets)",
        netlink.open_ping_socket,
        "clients cannot check their wires",
    ),
)


def namespaces() -> Iterator[Finding]:
    """Whether namespaces for nodes and workloads can be created."""
    try:
        answer = _answers()
    except NoNamespacesError as refused:
        yield error("namespaces", f"no {refused}", hint_for_namespaces(refused, _setting))
        return
    if answer["user_namespace"]:
        yield ok("namespaces", "network and mount namespaces, in a user namespace")
    else:
        yield ok("namespaces", "network and mount namespaces")


def wires() -> Iterator[Finding]:
    """The kernel features that each kind of wire needs."""
    try:
        answer = _answers()
    except NoNamespacesError:
        yield warning("wires", "not checked, since no namespace can be created", "see above")
        return
    for probe in PROBES:
        number = answer["results"][probe.name]
        if probe.name == "wireguard":
            yield _wireguard(probe, number, answer["results"]["tun"])
        elif probe.name != "tun":
            yield _finding(probe, number)


def _finding(probe: Probe, number: int) -> Finding:
    if not number:
        return ok(probe.name, probe.about)
    kind = error if probe.needed else warning
    detail = f"no {probe.about} ({os.strerror(number)}): {probe.missing}"
    return kind(probe.name, detail, hint_for(probe, number))


def hint_for(probe: Probe, number: int) -> str:
    """How to fix it, by the kernel's error."""
    if number in {errno.EPERM, errno.EACCES}:
        return "this user or container is not permitted; run as root, or in a container with CAP_NET_ADMIN"
    if not probe.module:
        return "this kernel was built without it; use another kernel"
    return f"load it with `modprobe {probe.module}`; if there is no such module, use another kernel"


def _wireguard(probe: Probe, number: int, tun: int) -> Finding:
    """WireGuard in the kernel, or else as a program on a tun interface."""
    if not number:
        return ok(probe.name, "WireGuard, in the kernel")
    program = shutil.which(_WIREGUARD_GO)
    if program is None:
        hint = f"`modprobe wireguard`, or install {_WIREGUARD_GO} (Debian: apt install {_WIREGUARD_GO})"
        return warning(
            probe.name, f"no WireGuard in this kernel, and no program {_WIREGUARD_GO}: {probe.missing}", hint
        )
    if tun:
        detail = f"no WireGuard in this kernel, and no tun interface for {_WIREGUARD_GO} ({os.strerror(tun)})"
        hint = "give this user, or this container, /dev/net/tun (`modprobe tun`; docker run --device /dev/net/tun)"
        return warning(probe.name, f"{detail}: {probe.missing}", hint)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    if version.returncode:
        detail = f"no WireGuard in this kernel, and {program} does not run: {version.stderr.strip()}"
        return warning(probe.name, detail, f"reinstall {_WIREGUARD_GO}")
    return ok(probe.name, f"WireGuard, by {program} (the kernel has none)")


@cache
def _answers() -> dict[str, Any]:
    """The results of all probes, run in one child process. Raises `NoNamespacesError`."""
    return tried(_try_all)


def _try_all() -> dict[str, Any]:
    return {"results": {probe.name: _errno_of(probe.work) for probe in PROBES}}


def _errno_of(work: Callable[[], None]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def hint_for_namespaces(refused: NoNamespacesError, setting: Callable[[str], str]) -> str:
    """What to do if a distribution or a container forbids namespaces; `setting` reads a sysctl."""
    if setting("kernel.unprivileged_userns_clone") == "0":
        return "allow them: sysctl -w kernel.unprivileged_userns_clone=1; or run as root"
    if setting("user.max_user_namespaces") == "0":
        return "allow them: sysctl -w user.max_user_namespaces=15000; or run as root"
    if setting("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts them: give Python a profile with the rule `userns,`, or "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; or run as root"
        )
    if refused.number == errno.ENOSPC:
        return "the limit is reached: raise sysctl user.max_net_namespaces, user.max_user_namespaces"
    return (
        "a container's seccomp profile or capabilities deny them: "
        "docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined; or run as root"
    )


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""
