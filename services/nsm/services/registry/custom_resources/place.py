"""The location of a registry's objects."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.kube import Api


@dataclass(frozen=True)
class Place:
    """The API server, the namespace to write to, and the component name in events."""

    api: Api
    namespace: str
    component: str
