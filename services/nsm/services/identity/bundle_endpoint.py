"""SPIFFE bundle endpoints over HTTPS: ours, and queries of others (SPIFFE Federation 5)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.core import Refused, Unavailable
from nsm.chains.identity import Svid
from nsm.chains.identity.pem import load_chain
from nsm.chains.identity.svid import spiffe_id_of

from .bundle_document import LARGEST, Bundle, from_document

_TIMEOUT = 10.0


async def fetch(url: str, spiffe_id: str, trusted: Sequence[x509.Certificate]) -> Bundle:
    """The bundle at `url`, whose server has an SVID `spiffe_id` by one of `trusted`; without an id, a web certificate.

    Raises OSError if it cannot be queried, also if the server is another one, and ValueError for a wrong answer.
    """
    context = _verifying(trusted, spiffe_id) if spiffe_id else ssl.create_default_context()
    timeout, connector = aiohttp.ClientTimeout(total=_TIMEOUT), aiohttp.TCPConnector(ssl=context)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != web.HTTPOk.status_code:
                raise ValueError(f"{url} answered with status {response.status}")
            content = b""
            while len(content) <= LARGEST and (more := await response.content.read(LARGEST)):
                content += more
    except aiohttp.ClientError as error:
        raise OSError(f"{url} cannot be queried: {error}") from None
    if len(content) > LARGEST:
        raise ValueError(f"{url} answered with more than {LARGEST} bytes")
    return from_document(content.decode("utf-8"))


def _verifying(trusted: Sequence[x509.Certificate], spiffe_id: str) -> ssl.SSLContext:
    """A context that accepts only the SVID `spiffe_id` by `trusted`: SVIDs have no host names."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                found = spiffe_id_of(x509.load_der_x509_certificate(self.getpeercert(binary_form=True) or b""))
            except (Refused, ValueError) as error:
                raise ssl.SSLCertVerificationError(str(error)) from None
            if found != spiffe_id:
                raise ssl.SSLCertVerificationError(f"the server is {found}, not {spiffe_id}")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.sslobject_class = Checked
    context.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in trusted))
    return context


@asynccontextmanager
async def serving(
    host: str, port: int, document: Callable[[], str], svid: Callable[[], Svid], lifetime: float
) -> AsyncIterator[int]:
    """Serve `document` at every path; yields the port. The server's SVID is issued anew after half of its `lifetime`.

    Raises `Unavailable` if it cannot listen.
    """

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=document(), content_type="application/json")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_chain(context, svid().pem())
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, host or None, port, ssl_context=context)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    renewing = asyncio.ensure_future(_renew(context, svid, lifetime))
    try:
        yield runner.addresses[0][1]
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await runner.cleanup()


async def _renew(context: ssl.SSLContext, svid: Callable[[], Svid], lifetime: float) -> None:
    while True:
        await asyncio.sleep(lifetime / 2)
        load_chain(context, svid().pem())
