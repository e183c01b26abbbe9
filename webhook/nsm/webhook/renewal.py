"""The loop that keeps a certificate fresh and the API server's knowledge of it right."""

from __future__ import annotations

import asyncio

from nsm.chains.core import MeshError
from nsm.chains.logs import log

from .registration import Registration
from .sources import Source

_LOOK = 2.0
"""Seconds between looks at the source; API servers hear of a change well within."""
_PERIOD = 30.0
"""Seconds between looks at the configuration: somebody may have removed or edited it."""


class Renewal:
    """Makes the authorities of `source` known, and has it show what they issued, for ever.

    Without a registration somebody else tells the API server.
    """

    def __init__(self, source: Source, registration: Registration | None) -> None:
        self._source, self._registration = source, registration
        self._told, self._looked = "", 0.0
        self.trouble = "the webhook is not registered yet" if registration is not None else ""
        """Why the API server could not be told when it was asked last; empty if it could."""
        self._is_trusted = registration is None

    @property
    def fault(self) -> str:
        """Why the API server does not trust the certificate; empty if it does.

        That it cannot be reached later changes nothing: it trusts what is shown, and nothing else is shown until it
        knows it. A webhook that was not ready then would be missing when the API server is back.
        """
        return "" if self._is_trusted else self.trouble

    @property
    def is_registered(self) -> bool | None:
        """Whether the API server knows us, as far as we know; None if it is somebody else's to tell it."""
        return None if self._registration is None else not self.trouble

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._tell()
            await asyncio.sleep(_LOOK)
            if not self.trouble:
                self._source.renew()

    async def withdraw(self) -> None:
        """Have the API server forget the authorities; that it cannot be told is a warning."""
        if self._registration is not None:
            try:
                await self._registration.withdraw()
            except MeshError as error:
                log.warning("the registration stays", error=str(error))

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
