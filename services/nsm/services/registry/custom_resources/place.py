"""Where the objects of a registry are."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.kube import Api


@dataclass(frozen=True)
class Place:
    """The API server, the namespace that is written to, and the name under which events are reported."""

    api: Api
    namespace: str
    component: str
