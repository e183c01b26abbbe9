"""An authority that is stored in a file, for one machine."""

from __future__ import annotations

import os
from pathlib import Path

from nsm.chains.core import InvalidRequest
from nsm.chains.identity import Authority

from .pem import authority_from, certificate_of, key_of


def authority_at(file: str, trust_domain: str) -> Authority:
    """The authority in `file`, which is created if it is missing; without a file, a new one each time.

    Raises `InvalidRequest` if it cannot be used.
    """
    if not file:
        return Authority.create(trust_domain)
    path = Path(file)
    try:
        return _read(path, trust_domain) if path.exists() else _made(path, trust_domain)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"NSM_AUTHORITY_FILE={file!r} cannot be used: {error}") from None


def _made(path: Path, trust_domain: str) -> Authority:
    authority = Authority.create(trust_domain)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(key_of(authority) + certificate_of(authority))
    except OSError:
        path.unlink()  # an incomplete file would break the next start
        raise
    return authority


def _read(path: Path, trust_domain: str) -> Authority:
    pem = path.read_bytes()
    return authority_from(pem, pem, trust_domain)
