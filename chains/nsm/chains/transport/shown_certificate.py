"""The certificate that a server shows to every caller, even without an identity."""

from __future__ import annotations

import asyncio
import ssl

from cryptography import x509

from .frames import not_reached
from .urls import parse_address


async def shown_certificate(target: str, *, timeout: float = 5.0) -> x509.Certificate:
    """The certificate that the server at `target` shows before it checks ours: so it is there, and it answers.

    Raises `Unavailable` if it does not within `timeout` seconds.
    """
    address, context = parse_address(target), _context()
    try:
        async with asyncio.timeout(timeout):
            if address.is_unix:
                _, writer = await asyncio.open_unix_connection(address.path, ssl=context, server_hostname="")
            else:
                host = address.host or "localhost"
                _, writer = await asyncio.open_connection(host, address.port, ssl=context, server_hostname=host)
    except (OSError, TimeoutError) as error:
        raise not_reached(error, target) from error
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(shown)


def _context() -> ssl.SSLContext:
    """Since TLS 1.3 a server has done its part before it knows its client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
