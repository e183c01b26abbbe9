"""What a host keeps of the domain that it has joined: its key and certificate, the domain's bundles, where to renew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest, MeshError
from nsm.chains.identity import Bundles, Svid, spiffe_id_of, trust_domain_of
from nsm.services.identity.joining.store import check_private, locked, read, write


@dataclass(frozen=True)
class Membership:
    """A host's place in a domain."""

    svid: Svid = field(repr=False)
    bundles: Bundles
    address: Address
    """Where it renews its SVID."""
    settings: Mapping[str, str]
    """What the domain tells its nodes: `registry`, a URL, and `intermediaries`, patterns."""

    @property
    def trust_domain(self) -> str:
        """The domain that the host has joined."""
        return trust_domain_of(self.svid.spiffe_id)

    @property
    def node(self) -> str:
        """The host's name there."""
        return self.svid.spiffe_id.rpartition("/")[2]


class State:
    """The folder of one node. Raises `InvalidRequest` if it cannot be used, or if others can read it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._file = self._folder / "node.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(self._folder)
        except OSError as error:
            raise InvalidRequest(f"NSM_STATE_FOLDER={folder!r} cannot be used: {error.strerror or error}") from None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a process uses the folder, no other can. Raises `Conflict`."""
        with locked(self._folder, f"another `nsm node` uses NSM_STATE_FOLDER={str(self._folder)!r}"):
            yield

    def load(self) -> Membership | None:
        """The membership; None before the host has joined. Raises `InvalidRequest` if the file cannot be read."""
        found = read(self._file)
        if found is None:
            return None
        try:
            return _membership(found)
        except (KeyError, TypeError, AttributeError, ValueError, MeshError) as error:
            told = f"{str(self._file)!r} cannot be used ({error}); remove it and join with a new token"
            raise InvalidRequest(told) from None

    def save(self, membership: Membership) -> None:
        """Replace it. Raises OSError."""
        write(
            self._file,
            {
                "svid": membership.svid.pem().decode(),
                "bundles": {domain: _pem(bundle) for domain, bundle in membership.bundles.items()},
                "address": str(membership.address),
                "settings": dict(membership.settings),
            },
        )


def svid_from(chain: str, key: EllipticCurvePrivateKey) -> Svid:
    """An SVID from its chain as PEM. Raises ValueError, also if the certificate is for another key."""
    certificates = x509.load_pem_x509_certificates(chain.encode())
    if certificates[0].public_key() != key.public_key():
        raise ValueError("the certificate is for another key")
    return Svid(spiffe_id_of(certificates[0]), tuple(certificates), key)


def bundles_from(texts: Mapping[str, str]) -> Bundles:
    """Bundles from PEM. Raises ValueError."""
    return {domain: x509.load_pem_x509_certificates(pem.encode()) for domain, pem in texts.items()}


def _membership(found: Mapping[str, Any]) -> Membership:
    key = load_pem_private_key(found["svid"].encode(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("the key is not ECDSA")
    bundles, settings = bundles_from(found["bundles"]), dict(found["settings"])
    return Membership(svid_from(found["svid"], key), bundles, parse_address(found["address"]), settings)


def _pem(certificates: Any) -> str:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()
