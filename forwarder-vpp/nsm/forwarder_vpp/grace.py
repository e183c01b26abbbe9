"""Shortens what VPP waits for when it makes or deletes interfaces of the kernel.

Whenever a ring of a packet socket is set up or removed, the kernel waits for an RCU grace period, until no CPU uses
the former one: some ten milliseconds, three times for each interface, and VPP does nothing else meanwhile. *Expedited*
grace periods take a tenth of a millisecond. The kernel uses them by itself for what it does under its lock of network
devices, as when links are deleted. For packet sockets only a setting of the whole node does, so it is on only while
VPP makes or deletes such interfaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nsm.chains.logs import log

SETTING = Path("/sys/kernel/rcu_expedited")
_ON, _OFF = "1", "0"


class GracePeriods:
    """The node's `setting`. `mark` is a file that exists while this forwarder has changed it; None: it never does.

    The setting is left alone where it is on already, or may not be written.
    """

    def __init__(self, mark: Path | None = None, setting: Path = SETTING) -> None:
        self._mark, self._setting = mark, setting
        self._users = 0
        if mark is not None and mark.exists():  # the process before was killed meanwhile
            self._reset(mark)

    @contextlib.contextmanager
    def short(self) -> Iterator[None]:
        """Expedite all grace periods; contexts may overlap."""
        self._users += 1
        if self._users == 1 and self._mark is not None:
            self._expedite(self._mark)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._mark is not None and self._mark.exists():
                self._reset(self._mark)

    def _expedite(self, mark: Path) -> None:
        try:
            if self._setting.read_text().strip() == _OFF:
                mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                mark.touch()
                self._setting.write_text(_ON)
        except OSError as error:
            mark.unlink(missing_ok=True)
            self._mark = None
            log.info(
                "VPP waits some 40 ms for each interface of the kernel that it makes or deletes",
                because=f"{self._setting} cannot be written: {error.strerror}",
            )

    def _reset(self, mark: Path) -> None:
        with contextlib.suppress(OSError):
            self._setting.write_text(_OFF)
        mark.unlink(missing_ok=True)
