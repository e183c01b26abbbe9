"""Identities of the pods of one node of a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from nsm.kube import connect

from .authorities import Authorities
from .issuer import Identify
from .pods import PodIdentities, Pods
from .secret import shared_authorities


@asynccontextmanager
async def pods_of_node(
    node: str,
    trust_domain: str,
    *,
    own_pod: str,
    secret: str,
    authority_lifetime: timedelta,
    cgroup_driver: str = "",
    cgroup_root: str = "",
) -> AsyncIterator[tuple[Authorities, Identify]]:
    """The authorities that all nodes share in the Secret `secret`, and a function that identifies the pods of `node`.

    `own_pod` is the name of our own pod, or empty; `cgroup_driver` and `cgroup_root` are the kubelet's, or empty to
    detect them from our own pod's control groups.
    """
    async with (
        connect() as api,
        Pods(api, node) as pods,
        shared_authorities(api, secret, trust_domain, lifetime=authority_lifetime) as authorities,
    ):
        own = (api.namespace, own_pod) if own_pod else None
        yield authorities, PodIdentities(pods, trust_domain, own=own, driver=cgroup_driver, root=cgroup_root).identify
