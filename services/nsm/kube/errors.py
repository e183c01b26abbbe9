"""What the API server may answer instead of what was asked, each as one line for a person.

    MeshError
    ├── NoCluster            nothing says where an API server is, or what says so cannot be used
    ├── Unavailable
    │   ├── Unreachable      no connection, no answer in time, or it says that it cannot answer now
    │   ├── Unauthorized     it does not know us: a token that has ended, a certificate of somebody else
    │   └── Forbidden        we lack a permission; the line names it
    ├── ObjectMissing        no such object, or no such kind of object (NotFound)
    ├── ObjectConflict       it was changed by somebody else meanwhile, or is there already (Conflict)
    ├── Gone                 what was asked for is too old to be told (Conflict)
    └── Rejected             the object breaks the schema of its kind or a rule, or is too large (InvalidRequest)

Unauthorized and Forbidden travel to a caller of ours as Unavailable: it is we who lack the permission, not the caller,
and it may try again once somebody has granted it.
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
"""What the API server says, with status 500, of an object that it takes but etcd does not: 1.5 MiB is the most."""


class NoCluster(MeshError):
    """Nothing says where an API server is, or what says so cannot be used."""


class Unreachable(Unavailable):
    """The API server cannot be reached, or cannot answer now."""


class Unauthorized(Unavailable):
    """The API server does not accept our token or certificate."""


class Forbidden(Unavailable):
    """We may not do this in the cluster."""


class ObjectMissing(NotFound):
    """There is no such object, or no such kind of object."""


class ObjectConflict(Conflict):
    """Somebody else changed the object meanwhile, or made one of that name."""


class Gone(Conflict):
    """The resource version is older than what the API server remembers: list again."""


class Rejected(InvalidRequest):
    """The object breaks the schema of its kind, or an admission rule of the cluster, or is too large."""


@dataclass(frozen=True, slots=True)
class Action:
    """What was asked of the API server; `verb` as RBAC names it."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def noun(self) -> str:
        """What a Role has to name: `pods`, `networkservices.networkservicemesh.io`, `pods/status`."""
        resource, slash = self.resource, "/" if self.subresource else ""
        group = f".{resource.group}" if resource.group else ""
        return f"{resource.plural}{slash}{self.subresource}{group}"

    @property
    def where(self) -> str:
        """The part of the cluster that is meant."""
        if not self.resource.namespaced:
            return "in the cluster"
        return f"in namespace {self.namespace!r}" if self.namespace else "in all namespaces"

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"{self.verb} {self.noun}{name} {self.where}"


def error_of(code: int, body: bytes, action: Action) -> MeshError:
    """The error for an answer of the API server with the status `code` (HTTP's) and `body`."""
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    return error_of_status(code, status if isinstance(status, dict) else {}, action)


def error_of_status(code: int, status: dict[str, Any], action: Action) -> MeshError:  # noqa: PLR0911 - one kind a line
    """The error for a `Status` object; `code` is HTTP's."""
    said = str(status.get("message") or f"status {code}")
    if code == 401:
        return Unauthorized(f"the API server does not accept our token or certificate, to {action}: {said}")
    if code == 403:
        return Forbidden(_forbidden(said, action))
    if code == 404 and not status:
        return ObjectMissing(f"the API server knows no {action.resource}; is its definition (CRD) applied?")
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
    """What permission is missing, and where to grant it; what is no matter of RBAC (a quota, an admission) as it is."""
    denied = _DENIED.search(said)
    if denied is None:
        return f"the API server forbids to {action}: {said}"
    role = "Role" if action.resource.namespaced and action.namespace else "ClusterRole"
    return f"{denied['user']} may not {action}: grant it the verb {action.verb!r} on {action.noun} by a {role}"
