"""Renews the certificate, and keeps its registration with the API server correct."""

from __future__ import annotations

import asyncio

from nsm.chains.core import MeshError
from nsm.chains.logs import log

from .registration import Registration
from .sources import Source

_LOOK = 2.0
"""Seconds between checks of the source, long enough for API servers to see a change."""
_PERIOD = 30.0
"""Seconds between checks of the configuration, which may have been removed or edited."""


class Renewal:
    """Registers the authorities of `source`, then lets it present their certificates, forever.

    Without a registration, another component informs the API server.
    """

    def __init__(self, source: Source, registration: Registration | None) -> None:
        self._source, self._registration = source, registration
        self._told, self._looked = "", 0.0
        self.trouble = "the webhook is not registered yet" if registration is not None else ""
        """The error of the last registration; empty if it succeeded."""
        self._is_trusted = registration is None

    @property
    def fault(self) -> str:
        """Why the API server does not trust the certificate; empty if it does.

        Later failures do not matter: it trusts the presented certificate, and no other is presented before it is
        registered. A webhook that became unready would be missing when the API server is back.
        """
        return "" if self._is_trusted else self.trouble

    @property
    def is_registered(self) -> bool | None:
        """Whether we are registered, as far as is known; None if another component does that."""
        return None if self._registration is None else not self.trouble

    async def run(self) -> None:
        """Run forever."""
        while True:
            await self._tell()
            await asyncio.sleep(_LOOK)
            if not self.trouble:
                self._source.renew()

    async def withdraw(self) -> None:
        """Remove the authorities from the registration; failures are warnings."""
        if self._registration is not None:
            try:
                await self._registration.withdraw()
            except MeshError as error:
                log.warning("the registration could not be removed", error=str(error))

    async def _tell(self) -> None:
        now, authorities = asyncio.get_running_loop().time(), self._source.authorities()
        if self._registration is None or (authorities == self._told and now < self._looked + _PERIOD):
            return
        try:
            await self._registration.publish(authorities)
        except MeshError as error:
            trouble = f"the webhook cannot be registered: {error}"
            if trouble != self.trouble:
                log.error("cannot register", error=str(error))
            self.trouble, self._told = trouble, ""
        else:
            if self.trouble:
                log.info("ready: the API server knows the certificate")
            self.trouble, self._is_trusted, self._told, self._looked = "", True, authorities, now
