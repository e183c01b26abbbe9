"""The errors of requests to the API server, each with a text of one line.

    MeshError
    ├── NoCluster            no API server is configured, or the configuration cannot be used
    ├── Unavailable
    │   ├── Unreachable      no connection, no response in time, or the server is not able to respond now
    │   ├── Unauthorized     our credentials are rejected: an expired token, an unknown certificate
    │   └── Forbidden        a permission is missing; the text names it
    ├── ObjectMissing        no such object, or no such kind of object (NotFound)
    ├── ObjectConflict       the object was changed meanwhile, or exists already (Conflict)
    ├── Gone                 the requested version is too old (Conflict)
    └── Rejected             the object violates its schema or an admission rule, or is too large (InvalidRequest)

Our callers see Unauthorized and Forbidden as Unavailable: the missing permission is ours, not the caller's, and the
caller may retry once it has been granted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from nsm.chains.core import Conflict, InvalidRequest, MeshError, NotFound, Unavailable

from .resources import Resource

_DENIED = re.compile(r'User "(?P<user>[^"]*)" cannot ')
_TOO_LARGE = re.compile(r"etcdserver: request is too large|trying to send message larger than max")
"""The API server's message, with status 500, for an object that is too large for etcd: the limit is 1.5 MiB."""


class NoCluster(MeshError):
    """No API server is configured, or the configuration cannot be used."""


class Unreachable(Unavailable):
    """The API server is unreachable, or not able to respond now."""


class Unauthorized(Unavailable):
    """The API server does not accept our token or certificate."""


class Forbidden(Unavailable):
    """The process is not permitted to do this in the cluster."""


class ObjectMissing(NotFound):
    """The object or its kind does not exist."""


class ObjectConflict(Conflict):
    """The object was changed meanwhile, or exists already."""


class Gone(Conflict):
    """The resource version is too old for the API server: list again."""


class Rejected(InvalidRequest):
    """The object violates its schema or an admission rule, or is too large."""


@dataclass(frozen=True, slots=True)
class Action:
    """A request to the API server, for error messages; `verb` as in RBAC."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def noun(self) -> str:
        """The resource to name in a Role: `pods`, `networkservices.networkservicemesh.io`, `pods/status`."""
        resource, slash = self.resource, "/" if self.subresource else ""
        group = f".{resource.group}" if resource.group else ""
        return f"{resource.plural}{slash}{self.subresource}{group}"

    @property
    def where(self) -> str:
        """The scope of the request."""
        if not self.resource.namespaced:
            return "in the cluster"
        return f"in namespace {self.namespace!r}" if self.namespace else "in all namespaces"

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"{self.verb} {self.noun}{name} {self.where}"


def error_of(code: int, body: bytes, action: Action) -> MeshError:
    """The error for a response of the API server with the HTTP status `code` and `body`."""
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    return error_of_status(code, status if isinstance(status, dict) else {}, action)


def error_of_status(code: int, status: dict[str, Any], action: Action) -> MeshError:  # noqa: PLR0911 - one kind a line
    """The error for a `Status` object; `code` is the HTTP status."""
    said = str(status.get("message") or f"status {code}")
    if code == 401:
        return Unauthorized(f"cannot {action}: the API server rejects our token or certificate: {said}")
    if code == 403:
        return Forbidden(_forbidden(said, action))
    if code == 404 and not status:
        return ObjectMissing(f"the API server does not know {action.resource}; is its definition (CRD) applied?")
    if code == 404:
        return ObjectMissing(f"cannot {action}: {said}")
    if code == 409:
        return ObjectConflict(f"cannot {action}: {said}")
    if code == 410:
        return Gone(f"cannot {action}: {said}")
    if code == 429 or (code >= 500 and not _TOO_LARGE.search(said)):
        return Unreachable(f"the API server cannot {action} now: {said}")
    return Rejected(f"the API server refuses to {action}: {said}")


def _forbidden(said: str, action: Action) -> str:
    """Names the missing permission and how to grant it; refusals by quotas or admission are passed on unchanged."""
    denied = _DENIED.search(said)
    if denied is None:
        return f"the API server forbids to {action}: {said}"
    role = "Role" if action.resource.namespaced and action.namespace else "ClusterRole"
    return f"{denied['user']} may not {action}: grant it the verb {action.verb!r} on {action.noun} by a {role}"
