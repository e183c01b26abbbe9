"""Loads certificates and keys into OpenSSL, which reads only files, through a file in memory, never on disk."""

from __future__ import annotations

import os
import ssl


def load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Have `context` present the certificates in `pem` and use its key. Raises `ssl.SSLError` if they do not match."""
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
