"""Events, as shown by `kubectl describe` and `kubectl get events`."""

from __future__ import annotations

import datetime
import hashlib

from nsm.chains.core import MeshError
from nsm.chains.logs import named

from .api import Api
from .errors import ObjectConflict
from .resources import EVENTS, Object, Resource, key_of

_log = named("nsm.kube")


async def warn(api: Api, resource: Resource, about: Object, *, component: str, reason: str, message: str) -> None:
    """Report a fault of the object `about` that a person must fix; `reason` is one word in CamelCase.

    Several replicas that report the same create one event. Failures to write it are only logged.
    """
    namespace, name = key_of(about)
    metadata = about["metadata"]
    seen = f"{metadata.get('uid')} {metadata.get('resourceVersion')} {reason} {message}"
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event: Object = {
        "metadata": {"name": f"{name[:200]}.{hashlib.sha256(seen.encode()).hexdigest()[:16]}"},
        "involvedObject": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": namespace,
            "name": name,
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": "Warning",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": component},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    try:
        await api.create(EVENTS, event, namespace or "default")
    except ObjectConflict:
        return
    except MeshError as error:
        _log.warning("cannot write an event", object=name, error=str(error))
