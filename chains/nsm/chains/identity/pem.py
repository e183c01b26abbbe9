"""Certificates and keys for OpenSSL, which reads files only: they are in memory and never on a disk."""

from __future__ import annotations

import os
import ssl


def load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Have `context` show the certificates of `pem` and use its key. Raises `ssl.SSLError` if they do not fit."""
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
