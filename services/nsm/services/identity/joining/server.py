"""The server at which nodes join: it exchanges tokens for SVIDs, and renews them."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest, MeshError, Refused, Tasks, Unavailable
from nsm.chains.identity import Authority, load_chain, presented_chain, spiffe_id_of, verify_chain
from nsm.chains.logs import log
from nsm.chains.transport import publishable
from nsm.chains.transport.sockets import tcp_socket
from nsm.services.identity.authorities import Authorities

from . import message
from .attempts import Attempts
from .store import JoinStore, Server
from .token import NODES, fingerprint, issuer_id, node_id

LIFETIME = "svid_lifetime"
"""The setting that tells nodes for how many seconds their workloads' SVIDs are valid."""
_HANDSHAKE, _EXCHANGE = 5.0, 10.0
"""Seconds that a caller may take for TLS, and for its exchange."""
_CONNECTIONS, _OF_ADDRESS = 64, 8
"""Concurrent connections, and those of one address."""
_LATER = 1.0
"""Seconds after which the server accepts again if the process has no descriptors left."""


class JoinServer:
    """Signs for nodes that have a token, and for those that have joined.

    `lifetime` is that of the nodes' own SVIDs in seconds, `of_workloads` that of their workloads'. `settings` are
    passed on to each node; `federated` has the bundles of other domains, for nodes whose SPIFFE IDs
    `federates` accepts.
    """

    def __init__(
        self,
        authorities: Authorities,
        store: JoinStore,
        *,
        lifetime: float,
        of_workloads: float,
        settings: Mapping[str, str] | None = None,
        federated: Mapping[str, Sequence[x509.Certificate]] | None = None,
        federates: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._authorities, self._store = authorities, store
        self._lifetime, self._of_workloads = lifetime, of_workloads
        self._settings = {**(settings or {}), LIFETIME: str(of_workloads)}
        self._federated, self._federates = federated if federated is not None else {}, federates
        self._attempts = Attempts(asyncio.get_running_loop().time)
        self._open: dict[asyncio.Task[None], str] = {}
        """The connections and their addresses, the oldest first."""
        self._context: tuple[float, Authority, list[x509.Certificate], ssl.SSLContext] | None = None

    @property
    def trust_domain(self) -> str:
        """The domain that nodes join."""
        return self._authorities.signing.trust_domain

    def answer(self, request: dict[str, Any], leaf: x509.Certificate | None) -> dict[str, Any]:
        """The answer to a node's request; `leaf` is its certificate, already verified, if it has one.

        Raises `Refused` and `InvalidRequest`.
        """
        wanted, join, old = _requests(request), request.get("join"), None
        if join is not None:
            node = self._joining(join, wanted)
        else:
            node, old = self._known(leaf)
        chains = {path: self._certify(node, path, each) for path, each in wanted.items()}
        if "" in chains:
            serial = chains[""].serial_number
            if old is None:
                self._store.enter(node, serial)
                log.info("joined", node=node, spiffe_id=node_id(self.trust_domain, node))
            else:
                self._store.renew(node, old, serial)
        others = self._federated if self._federates(node_id(self.trust_domain, node)) else {}
        bundles = {self.trust_domain: self._authorities.bundle, **others}
        return {
            "chains": {path: _pem([each]) for path, each in chains.items()},
            "bundles": {domain: _pem(bundle) for domain, bundle in bundles.items()},
            "settings": self._settings,
        }

    async def accept(self, listener: socket.socket) -> None:
        """Serve on a socket, forever."""
        loop = asyncio.get_running_loop()
        async with Tasks("join") as tasks:
            while True:
                try:
                    sock, peer = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("cannot accept nodes that join", error=str(error))
                    await asyncio.sleep(_LATER)
                    continue
                self._make_room(peer[0])
                task = tasks.spawn(self._serve(sock, peer[0]), name=f"join {peer[0]}")
                self._open[task] = peer[0]
                task.add_done_callback(lambda ended: self._open.pop(ended, None))

    def _make_room(self, address: str) -> None:
        """End the oldest connection if there are too many, of the same address if that has too many.

        So whoever keeps connections open, such as a workload of a node, does not keep others, such as that node, away.
        """
        same = [task for task, its in self._open.items() if its == address]
        oldest = same if len(same) >= _OF_ADDRESS else list(self._open) if len(self._open) >= _CONNECTIONS else []
        for task in oldest[:1]:
            self._open.pop(task)
            task.cancel()

    async def _serve(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=message.LARGEST)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self.context(), ssl_handshake_timeout=_HANDSHAKE
            )
        except (OSError, TimeoutError) as error:
            sock.close()
            # A certificate that was presented and is not trusted is worth a look; everything else is a scan.
            tell = log.warning if isinstance(error, ssl.SSLCertVerificationError) else log.debug
            tell("no TLS with a node", address=address, error=str(error))
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            async with asyncio.timeout(_EXCHANGE):
                await self._exchange(reader, writer, address)
        except (TimeoutError, OSError, Unavailable) as error:
            log.debug("a node left", address=address, error=str(error))
        finally:
            transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            leaf = self._leaf(writer.get_extra_info("ssl_object"))
            if leaf is None:  # a workload's attempts do not keep its node from renewing
                self._attempts.check(address)
            answer = self.answer(await message.receive(reader), leaf)
        except (Refused, InvalidRequest) as error:
            self._attempts.failed(address)
            log.warning("a node was refused", address=address, error=error.detail)
            answer = message.of_error(error)
        except MeshError as error:
            answer = message.of_error(error)
        except OSError as error:
            log.error("cannot store what joins", error=str(error))
            answer = message.of_error(Unavailable("the domain cannot store who joins now; its log says why"))
        await message.send(writer, answer)
        writer.close()
        await writer.wait_closed()

    def _leaf(self, connection: ssl.SSLObject) -> x509.Certificate | None:
        """The certificate of a node, verified once more: by our own domain's authorities. Raises `Refused`."""
        if connection.getpeercert(binary_form=True) is None:
            return None
        chain = presented_chain(connection)
        verify_chain(chain, self._authorities.bundle, spiffe_id_of(chain[0]))
        return chain[0]

    def _joining(self, join: object, wanted: Mapping[str, x509.CertificateSigningRequest]) -> str:
        told = message.texts(join, "join")
        if (domain := told.get("trust_domain", "")) != self.trust_domain:
            raise Refused(f"the token is of domain {domain[:80]!r}; this is {self.trust_domain!r}")
        if "" not in wanted:
            raise InvalidRequest("a node that joins requests a certificate for itself")
        key = wanted[""].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return self._store.use(told.get("secret", ""), by=sha256(key).hexdigest())

    def _known(self, leaf: x509.Certificate | None) -> tuple[str, int]:
        if leaf is None:
            raise Refused("neither a join token nor a node's certificate was presented")
        spiffe_id, prefix = spiffe_id_of(leaf), f"spiffe://{self.trust_domain}{NODES}"
        node = spiffe_id.removeprefix(prefix)
        if node == spiffe_id or "/" in node:
            raise Refused(f"{spiffe_id} is not a node that has joined: nodes are called {prefix}NAME")
        self._store.check(node, leaf.serial_number)
        return node, leaf.serial_number

    def _certify(self, node: str, path: str, request: x509.CertificateSigningRequest) -> x509.Certificate:
        key = request.public_key()
        assert isinstance(key, EllipticCurvePublicKey)  # checked when it was read
        own = node_id(self.trust_domain, node)
        lifetime = datetime.timedelta(seconds=self._of_workloads if path else self._lifetime)
        return self._authorities.signing.certify(f"{own}/{path}" if path else own, key, lifetime=lifetime)

    def context(self) -> ssl.SSLContext:
        """For TLS with nodes, by an SVID of the authority that signs now; one that joins has no certificate yet."""
        now, signing, bundle = asyncio.get_running_loop().time(), self._authorities.signing, self._authorities.bundle
        if self._context is not None:
            made, by, trusted, context = self._context
            if now - made < self._of_workloads / 2 and by is signing and trusted == bundle:
                return context
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols([message.ALPN])
        context.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in bundle))
        svid = signing.issue(issuer_id(signing.trust_domain), lifetime=datetime.timedelta(seconds=self._of_workloads))
        # With the authority's own certificate: a node that joins knows its fingerprint only.
        load_chain(context, svid.pem() + signing.certificate.public_bytes(Encoding.PEM))
        self._context = now, signing, bundle, context
        return context


@asynccontextmanager
async def joining(
    server: JoinServer, store: JoinStore, authorities: Authorities, listen_on: Address, at: str
) -> AsyncIterator[str]:
    """Serve while the context is open; yields the URL. Tokens name it, or `at` if that is set.

    Raises `Conflict` if it cannot listen, or if another process serves the folder.
    """
    with store.served(), await tcp_socket(asyncio.get_running_loop(), listen_on) as listener:
        listener.listen(_CONNECTIONS)
        bound = Address(host=listen_on.host, port=listener.getsockname()[1])
        url = publishable(str(bound))
        async with Tasks("joining") as tasks:
            tasks.spawn(_publish(store, authorities, at or url), name="what tokens say")
            tasks.spawn(server.accept(listener), name=f"join at {url}")
            await asyncio.sleep(0)  # the first is on the disk
            yield url


async def _publish(store: JoinStore, authorities: Authorities, at: str) -> None:
    """Keep what tokens say up to date, forever: the authority that signs changes."""
    before = None
    while True:
        signing = authorities.signing
        server = Server(parse_address(at), signing.trust_domain, fingerprint(signing.certificate))
        if server != before:
            try:
                store.publish(server)
                before = server
            except OSError as error:
                log.error("cannot publish where nodes join", error=str(error))
        await asyncio.sleep(_TICK)


_TICK = 30.0
"""Seconds between two looks whether another authority signs."""


def _requests(request: Mapping[str, Any]) -> dict[str, x509.CertificateSigningRequest]:
    """The certificates that are requested, by path below the node. Raises `InvalidRequest`."""
    found = message.texts(request.get("requests"), "requests")
    if not 0 < len(found) <= message.MOST_REQUESTS:
        raise InvalidRequest(f"{len(found)} certificates are requested; expected 1 to {message.MOST_REQUESTS}")
    return {path: _request(path, pem) for path, pem in found.items()}


def _request(path: str, pem: str) -> x509.CertificateSigningRequest:
    if path and not message.is_workload(path):
        raise InvalidRequest(f"{path[:80]!r} cannot be a workload's name below its node's")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        is_signed = request.is_signature_valid
    except Exception as error:
        raise InvalidRequest(f"the request for {path or 'the node'!r} cannot be read: {error}") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1) or not is_signed:
        raise InvalidRequest(f"the request for {path or 'the node'!r} is not signed with a P-256 key of its own")
    return request


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()
