"""The folder of an issuer that nodes join at: tokens that may still be used, and the nodes that have joined.

    tokens/SHA256-OF-THE-SECRET   {"node", "expires", "used", "by"}    times in seconds since the epoch
    nodes/NAME                    {"current", "before"}          serial numbers of its last two certificates
    server.json                   {"address", "trust_domain", "fingerprint"}     what goes into tokens

Commands write tokens and remove nodes while the issuer runs, which reads the files for each call.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import Conflict, InvalidRequest, Refused

from .token import JoinToken, check_node_name, digest, new_secret

_KEPT = 86400.0
"""Seconds for which an expired token is remembered, to say that it has expired."""


@dataclass(frozen=True)
class Server:
    """What tokens say about the server: where it is, for which domain, and by which authority it is verified."""

    address: Address
    trust_domain: str
    fingerprint: str


class JoinStore:
    """The folder; it is created if it is missing, for its owner only. Raises `InvalidRequest` if it cannot be used."""

    def __init__(self, folder: str, *, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = Path(folder), now
        self._tokens, self._nodes, self._server = (self._folder / name for name in ("tokens", "nodes", "server.json"))
        try:
            for each in (self._folder, self._tokens, self._nodes):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(self._folder)
        except OSError as error:
            raise InvalidRequest(f"NSM_JOIN_FOLDER={folder!r} cannot be used: {error.strerror or error}") from None

    @contextmanager
    def served(self) -> Iterator[None]:
        """While one issuer serves the folder, no other can. Raises `Conflict`."""
        with locked(self._folder, f"another `nsm identity` serves NSM_JOIN_FOLDER={str(self._folder)!r}"):
            yield

    def publish(self, server: Server) -> None:
        """Set what new tokens say."""
        write(
            self._server,
            {
                "address": str(server.address),
                "trust_domain": server.trust_domain,
                "fingerprint": server.fingerprint,
            },
        )

    def new_token(self, node: str, *, lifetime: float, at: str = "") -> JoinToken:
        """A token for `node`, valid for `lifetime` seconds, that names the server's address as `at`, if set.

        Raises `InvalidRequest` if the name is invalid, `Conflict` if no issuer has served the folder.
        """
        check_node_name(node)
        found = read(self._server)
        if found is None:
            raise Conflict(
                f"no `nsm identity` has served {str(self._folder)!r} yet: start it with NSM_JOIN_LISTEN_ON and this "
                "NSM_JOIN_FOLDER"
            )
        secret, address = new_secret(), parse_address(at or found["address"])
        if not address.host:
            raise InvalidRequest(f"{at or found['address']!r} names no host that nodes can connect to")
        write(self._tokens / digest(secret), {"node": node, "expires": self._now() + lifetime, "used": 0, "by": ""})
        return JoinToken(node, secret, address, found["trust_domain"], found["fingerprint"])

    def use(self, secret: str, *, by: str) -> str:
        """The node that the token of this secret is for; it is used from now on.

        Whoever has used it, with the key whose digest is `by`, may repeat that: the answer may have been lost.

        Raises `Refused` if there is no such token, or if it has expired or was used.
        """
        self._sweep()
        path = self._tokens / digest(secret)
        token = read(path)
        if token is None:
            raise Refused("there is no such join token; `nsm identity token NODE` makes a new one")
        node: str = token["node"]
        if token["used"] and token["by"] != by:
            raise Refused(
                f"this join token for {node!r} was used at {_clock(token['used'])}: a token is valid once. If that was "
                f"not you, another host has joined as {node!r}: `nsm identity forget {node}` ends that"
            )
        if self._now() >= token["expires"]:
            raise Refused(
                f"this join token for {node!r} expired at {_clock(token['expires'])}; `nsm identity token {node}` "
                "makes a new one"
            )
        write(path, {**token, "used": self._now(), "by": by})
        return node

    def enter(self, node: str, serial: int) -> None:
        """`node` has joined, with a certificate of that number; whoever had its name before has lost it."""
        write(self._nodes / node, {"current": str(serial), "before": ""})

    def check(self, node: str, serial: int) -> None:
        """Check that `node` may use its certificate of that number for calls. Raises `Refused`.

        A certificate is replaced by the next one when that is used, and must not be used afterwards: if it is, two
        hosts have the same state, and which of them is the node is not known. Both are refused from then on.
        """
        path = self._nodes / node
        known = read(path)
        if known is None:
            raise Refused(
                f"node {node!r} is not (or no longer) a node of this domain; it can join with a new token: "
                f"`nsm identity token {node}`"
            )
        if str(serial) == known["current"]:
            if known["before"]:
                write(path, {**known, "before": ""})
            return
        if str(serial) == known["before"]:
            return  # the answer with the next one was lost
        write(path, {"current": "", "before": ""})
        raise Refused(
            f"node {node!r} used a certificate that it has replaced, so its state may have been copied: it has to join "
            f"with a new token, `nsm identity token {node}`"
        )

    def renew(self, node: str, old: int, new: int) -> None:
        """`node` gets another certificate in place of the one that it has used for this call."""
        write(self._nodes / node, {"current": str(new), "before": str(old)})

    def nodes(self) -> list[str]:
        """The nodes that have joined."""
        return sorted(each.name for each in self._nodes.iterdir() if not each.name.startswith("."))

    def forget(self, node: str) -> bool:
        """Let `node` renew nothing from now on, and its unused tokens expire; returns whether there was such a node."""
        for path in self._tokens.iterdir():
            if (token := read(path)) is not None and token["node"] == node:
                path.unlink(missing_ok=True)
        try:
            (self._nodes / check_node_name(node)).unlink()
        except FileNotFoundError:
            return False
        return True

    def _sweep(self) -> None:
        """Remove tokens that expired long ago."""
        for path in self._tokens.iterdir():
            token = read(path)
            if token is not None and self._now() > token["expires"] + _KEPT:
                path.unlink(missing_ok=True)


def check_private(folder: Path) -> None:
    """Raises `InvalidRequest` if anyone but us and root can read or change `folder`."""
    found = folder.stat()
    if found.st_uid not in {os.geteuid(), 0} or found.st_mode & 0o077:
        raise InvalidRequest(
            f"{str(folder)!r} holds secrets and is open to other users (owner {found.st_uid}, mode "
            f"{found.st_mode & 0o777:03o}): chown it to {os.geteuid()} and chmod 700"
        )


@contextmanager
def locked(folder: Path, fault: str) -> Iterator[None]:
    """Keep other processes from using `folder`. Raises `Conflict` with the text `fault` if one does."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(fault) from None
        yield


def read(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none. Raises `InvalidRequest` if it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{str(path)!r} cannot be read: expected an object")
    return found


def write(path: Path, value: dict[str, Any]) -> None:
    """Replace a file as a whole, readable by its owner only; it is on the disk when this returns. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        json.dump(value, opened)
        opened.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
