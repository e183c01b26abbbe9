"""Where a registry stores its records, by URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_EXPECTED = "expected memory:, sqlite:///PATH, etcd://HOST:PORT[,HOST:PORT], k8s: or k8s:NAMESPACE"
_ETCD_PORT = 2379


@dataclass(frozen=True)
class MemoryStore:
    """`memory:`: in the process."""


@dataclass(frozen=True)
class CustomResourceStore:
    """`k8s:NAMESPACE`: in custom resources; the namespace may be empty."""

    namespace: str = ""


@dataclass(frozen=True)
class SqliteStore:
    """`sqlite:///PATH`: in a file."""

    path: Path


@dataclass(frozen=True)
class EtcdStore:
    """`etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT][/PREFIX][?ca=FILE&cert=FILE&key=FILE]`."""

    members: tuple[tuple[str, int], ...]
    prefix: str = "/nsm/registry"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password_file: str = ""


StoreUrl = MemoryStore | CustomResourceStore | SqliteStore | EtcdStore


def store_url(value: str) -> StoreUrl:
    """Read it. Raises ValueError with what is expected."""
    scheme, colon, rest = value.partition(":")
    if not colon:
        raise ValueError(_EXPECTED)
    if scheme == "memory" and not rest:
        return MemoryStore()
    if scheme == "k8s":
        return _custom_resources(rest)
    if scheme == "sqlite":
        return _sqlite(rest)
    if scheme == "etcd":
        return _etcd(value)
    raise ValueError(_EXPECTED)


def _custom_resources(namespace: str) -> CustomResourceStore:
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"{namespace!r} is not the name of a namespace; expected lower-case letters, digits and -, at most 63"
        )
    return CustomResourceStore(namespace)


def _sqlite(rest: str) -> SqliteStore:
    path = rest.removeprefix("//")
    if not rest.startswith("///") or path.endswith("/"):
        raise ValueError(
            "expected sqlite:/// and the absolute path of a file, such as sqlite:///var/lib/nsm/registry.db"
        )
    return SqliteStore(Path(path))


_PARAMETERS = {"ca": "ca", "cert": "certificate", "key": "key", "user": "user", "password-file": "password_file"}


def _etcd(value: str) -> EtcdStore:
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("expected the user as ?user=NAME&password-file=FILE: a URL is shown in logs")
    members = tuple(_member(each) for each in parts.netloc.split(","))
    given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    options: dict[str, str] = {}
    for name, of in given:
        if name not in _PARAMETERS or not of or _PARAMETERS[name] in options:
            raise ValueError(
                f"{name}={of} is not a parameter of etcd:// URLs; expected each once of {', '.join(_PARAMETERS)}"
            )
        options[_PARAMETERS[name]] = of
    store = EtcdStore(members, **({"prefix": parts.path.rstrip("/")} if parts.path.strip("/") else {}), **options)
    if bool(store.certificate) != bool(store.key):
        raise ValueError("cert and key belong together: set both")
    if bool(store.user) != bool(store.password_file):
        raise ValueError("user and password-file belong together")
    if store.certificate and not store.ca:
        raise ValueError("cert and key need ca, the authority of etcd's own certificate")
    return store


def _member(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path:
        raise ValueError(f"{text!r} is not a member of an etcd cluster; expected HOST:PORT")
    return host, port or _ETCD_PORT
