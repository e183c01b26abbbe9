"""A small issuer of SPIFFE identities for one machine: the Workload API without an agent behind it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nsm.apis.workload import (
    X509BundlesRequest,
    X509BundlesResponse,
    X509Svid,
    X509SvidRequest,
    X509SvidResponse,
)
from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.identity import Authority, trust_domain_of
from nsm.chains.logs import log
from nsm.chains.transport import Incoming, Methods, Streaming

FETCH_SVID = "/SpiffeWorkloadAPI/FetchX509SVID"
FETCH_BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"


@dataclass(frozen=True)
class Entries:
    """Who is who: by the socket that a process uses, else by what the kernel says of it."""

    by_socket: Mapping[str, str] = field(default_factory=dict)
    by_uid: Mapping[int, str] = field(default_factory=dict)
    by_pid: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Entries:
        """Read ``socket:/path=spiffe://..``, ``uid:1000=spiffe://..`` and ``pid:42=spiffe://..``.

        Raises ValueError with what would do.
        """
        sockets: dict[str, str] = {}
        numbers: dict[str, dict[int, str]] = {"uid": {}, "pid": {}}
        for text in texts:
            selector, _, spiffe_id = text.partition("=")
            kind, _, value = selector.partition(":")
            try:
                trust_domain_of(spiffe_id)
            except Refused as error:
                raise _malformed(text, str(error)) from None
            if kind == "socket" and value.startswith("/"):
                sockets[value] = spiffe_id
            elif kind in numbers and value.isdigit():
                numbers[kind][int(value)] = spiffe_id
            else:
                raise _malformed(text, f"{selector!r} selects nobody")
        return cls(sockets, numbers["uid"], numbers["pid"])

    def joined(self, other: Entries) -> Entries:
        """These and those of `other`, which win."""
        return Entries(
            {**self.by_socket, **other.by_socket}, {**self.by_uid, **other.by_uid}, {**self.by_pid, **other.by_pid}
        )


def _malformed(text: str, why: str) -> ValueError:
    wanted = "socket:/path=spiffe://domain/name, uid:1000=spiffe://.. or pid:42=spiffe://.."
    return ValueError(f"{text!r}: {why}; expected {wanted}")


class Issuer:
    """Answers the Workload API: an SVID at once, and a new one at half of its life. `entries` may be changed."""

    def __init__(
        self,
        authority: Authority,
        entries: Entries,
        *,
        lifetime: float = 3600.0,
        federated: Mapping[str, Sequence[x509.Certificate]] | None = None,
    ) -> None:
        self._authority, self.entries, self._lifetime = authority, entries, lifetime
        self._federated = {domain: _der(bundle) for domain, bundle in (federated or {}).items()}

    def methods(self, socket_path: str) -> Methods:
        """The Workload API as it is served on one socket."""

        async def svids(_request: X509SvidRequest, incoming: Incoming) -> AsyncIterator[list[X509SvidResponse]]:
            spiffe_id = self._identify(socket_path, incoming)
            while True:
                yield [self._response(spiffe_id)]
                await asyncio.sleep(self._lifetime / 2)

        async def bundles(_request: X509BundlesRequest, incoming: Incoming) -> AsyncIterator[list[X509BundlesResponse]]:
            self._identify(socket_path, incoming)
            own = {f"spiffe://{self._authority.trust_domain}": _der([self._authority.certificate])}
            yield [X509BundlesResponse(bundles={**own, **self._federated})]
            await asyncio.get_running_loop().create_future()  # they do not change while we run

        return {
            FETCH_SVID: Streaming(X509SvidRequest, svids),
            FETCH_BUNDLES: Streaming(X509BundlesRequest, bundles),
        }

    def _identify(self, socket_path: str, incoming: Incoming) -> str:
        if incoming.metadata.get("workload.spiffe.io") != "true":
            raise InvalidRequest("the metadata workload.spiffe.io: true is missing")
        caller, entries = incoming.credentials, self.entries
        spiffe_id = entries.by_socket.get(socket_path)
        if spiffe_id is None and caller is not None:
            spiffe_id = entries.by_pid.get(caller.pid) or entries.by_uid.get(caller.uid)
        if spiffe_id is None:
            who = f"uid {caller.uid}, pid {caller.pid}" if caller else "unknown"
            raise Refused(f"no identity is issued to this caller ({who}) on {socket_path}")
        return spiffe_id

    def _response(self, spiffe_id: str) -> X509SvidResponse:
        svid = self._authority.issue(spiffe_id, lifetime=datetime.timedelta(seconds=self._lifetime))
        log.debug("issued", spiffe_id=spiffe_id)
        key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        bundle = _der([self._authority.certificate])
        message = X509Svid(spiffe_id=spiffe_id, x509_svid=_der(svid.chain), x509_svid_key=key, bundle=bundle)
        return X509SvidResponse(svids=[message], federated_bundles=self._federated)


def _der(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)
