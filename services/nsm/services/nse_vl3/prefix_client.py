"""Keeps a prefix of a prefix service: requests it again whenever the stream breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from nsm.apis.ipam import PrefixRequest, PrefixResponse, Type
from nsm.chains.core import Backoff, MeshError, Unavailable
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network, read_interface
from nsm.chains.model.networks import Networks, host_fault
from nsm.chains.model.vl3 import Share, whole_of
from nsm.chains.transport import Pool
from nsm.services.ipam.service import ENDPOINT, MANAGE_PREFIXES, NETWORK

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the stream is opened again, after the first failure and at most."""
_MOST_REFUSED = 16
"""Prefixes of one stream that cannot be used, before a pause."""


class PrefixClient:
    """One prefix from the service at `url`, for the endpoint `name`.

    `use` receives each share that can be used. A prefix that overlaps one of `never()` is given back, and another one
    requested. `former` is the prefix of an earlier process, which is requested first.
    """

    def __init__(
        self,
        url: str,
        pool: Pool,
        name: str,
        use: Callable[[Share], None],
        never: Callable[[], Networks],
        former: Network | None = None,
    ) -> None:
        self._url, self._pool, self._name, self._use, self._never = url, pool, name, use, never
        self._prefix, self._excluded = former, list[Network]()
        self._requests: asyncio.Queue[PrefixRequest] = asyncio.Queue()
        self._is_told = ""

    async def run(self) -> None:
        """Keep the prefix, forever."""
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            error: MeshError
            try:
                await self._stream(pauses)
                error = Unavailable("the prefix service ended the stream")
            except MeshError as failure:
                error = failure
            self._tell(error)
            await asyncio.sleep(pauses.next())

    def another(self, why: str, taken: Network) -> None:
        """The prefix cannot be used: it shares addresses with `taken`. Request another one."""
        if self._prefix is None or not self._prefix.overlaps(taken):
            return
        log.warning("the prefix cannot be used; requesting another one", prefix=str(self._prefix), reason=why)
        self._excluded = [*(each for each in self._excluded if each != taken), taken][-_MOST_REFUSED:]
        self._requests.put_nowait(PrefixRequest(type=Type.DELETE, prefix=str(self._prefix)))
        self._prefix = None
        self._requests.put_nowait(self._allocate())

    def conflicts(self, why: str) -> None:
        """Another endpoint says that it has a prefix of this one's; request another one if it is this prefix."""
        if self._prefix is not None and (str(self._prefix) in why or f"{self._prefix.network_address}/" in why):
            self.another(why, self._prefix)

    async def _stream(self, pauses: Backoff) -> None:
        self._requests = asyncio.Queue()
        self._requests.put_nowait(self._allocate())
        headers: dict[str, str] = {}
        answers = self._pool.channel(self._url).converse(
            MANAGE_PREFIXES,
            self._sent(self._requests),
            PrefixResponse,
            metadata=[(ENDPOINT, self._name)],
            headers=headers,
        )
        refused = 0
        try:
            async for answer in answers:
                if self._accept(answer, headers):
                    pauses.reset()
                    refused = 0
                    continue
                refused += 1
                if refused >= _MOST_REFUSED:
                    raise Unavailable(f"{self._url} hands out only prefixes that cannot be used here")
        finally:
            await answers.aclose()

    @staticmethod
    async def _sent(requests: asyncio.Queue[PrefixRequest]) -> AsyncIterator[PrefixRequest]:
        while True:
            yield await requests.get()

    def _allocate(self) -> PrefixRequest:
        return PrefixRequest(
            type=Type.ALLOCATE,
            prefix=str(self._prefix or ""),
            exclude_prefixes=[str(each) for each in self._excluded],
        )

    def _accept(self, answer: PrefixResponse, headers: dict[str, str]) -> bool:
        """Use a prefix, unless it cannot be used."""
        interface = read_interface(answer.prefix)
        if interface is None or host_fault(interface.ip) is not None or not interface.network.prefixlen:
            log.warning("the prefix service handed out what is no prefix", url=self._url, prefix=answer.prefix[:64])
            self._requests.put_nowait(self._allocate())
            return False
        before, prefix = self._prefix, interface.network  # upstream's server hands out 172.16.0.7/24, too
        self._prefix = prefix
        if (taken := next((each for each in self._never_networks() if _overlap(each, prefix)), None)) is not None:
            self.another(f"this endpoint reaches {taken} by itself, or another endpoint has it", taken)
            return False
        if before is not None and before != prefix:
            log.warning("another prefix than before: clients get new addresses", before=str(before), now=str(prefix))
        log.info("prefix received", prefix=str(prefix), of=self._url)
        self._is_told = ""
        self._use(Share(prefix, _whole(prefix, headers.get(NETWORK, "")), _excluded(answer, prefix, self._excluded)))
        return True

    def _never_networks(self) -> Sequence[Network]:
        return [each for each in self._never().listed if each.prefixlen]

    def _tell(self, error: MeshError) -> None:
        """Report a failure, each cause once."""
        told, keeps = str(error), str(self._prefix) if self._prefix is not None else "none"
        tell = log.debug if told == self._is_told else log.warning
        tell("no stream to the prefix service", url=self._url, reason=told, prefix=keeps)
        self._is_told = told


def _whole(prefix: Network, said: str) -> Network:
    """The network that a prefix is of, as the service says, if it can be."""
    interface = read_interface(said)
    if interface is not None and interface.version == prefix.version and interface.network.prefixlen:
        network = interface.network
        if network.prefixlen <= prefix.prefixlen and prefix.network_address in network:
            return network
    return whole_of(prefix)


def _excluded(answer: PrefixResponse, prefix: Network, ours: Sequence[Network]) -> tuple[str, ...]:
    """What the service excludes from the prefix, besides what we excluded to get another one."""
    read = (read_interface(text) for text in answer.exclude_prefixes)
    networks = [each.network for each in read if each is not None]
    return tuple(str(each) for each in networks if each not in ours and _overlap(each, prefix))


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
