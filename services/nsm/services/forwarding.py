"""Has this process's network namespace forward packets."""

from __future__ import annotations

import contextlib
import os

from nsm.chains.core import MeshError
from nsm.chains.logs import log

_SETTINGS = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_REDIRECTS = ("net/ipv4/conf/all/send_redirects", "net/ipv4/conf/default/send_redirects")


def forward(version: int) -> None:
    """Forward packets of IPv4 or IPv6. Raises `MeshError` that says what to do if it may not be set."""
    setting = _SETTINGS[version]
    try:
        if _read(setting) == "1":
            return
        _write(setting, "1")
    except OSError as error:
        raise MeshError(
            f"IPv{version} packets are not forwarded, and /proc/sys/{setting} cannot be written: "
            f"{error.strerror or error}; set {setting.replace('/', '.')}=1 in this network namespace before, as the "
            "init containers of k8s/examples/vl3 do"
        ) from error
    log.info("forwarding", ip=version)


def send_no_redirects() -> None:
    """Send no ICMP redirects for packets that leave by the interface that they came in at, if that may be set."""
    for setting in _REDIRECTS:
        with contextlib.suppress(OSError):
            _write(setting, "0")


def _read(setting: str) -> str:
    with open(f"/proc/sys/{setting}", encoding="ascii") as file:
        return file.read().strip()


def _write(setting: str, value: str) -> None:
    file = os.open(f"/proc/sys/{setting}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)
