"""Finds the API server and the credentials for it."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from .api import Api
from .errors import NoCluster

_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)
_DEAD_AFTER = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""TCP keep-alive: a watch is silent while nothing changes, so the kernel detects a dead server, within 25 s."""


@asynccontextmanager
async def connect(where: str = "") -> AsyncIterator[Api]:
    """A client of the API server that `where` names: the path of a kubeconfig, or `http://host:port` (a proxy).

    Empty: the file that KUBECONFIG names; in a pod, its service account (a rotated token is read again);
    otherwise ~/.kube/config. Sends nothing yet. Raises `NoCluster`.
    """
    try:
        config = _config(where)
        client = _client(config)
    except (ConfigError, OSError, ssl.SSLError, yaml.YAMLError, msgspec.ValidationError, httpx2.InvalidURL) as error:
        raise NoCluster(f"cannot find the API server: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise NoCluster(f"the kubeconfig {where or _named()} is incomplete: {error!r}") from error
    async with client:
        yield Api(client, server=config.cluster.server, namespace=config.namespace)


def _config(where: str) -> SingleConfig:
    if where.startswith(("http://", "https://")):
        found = KubeConfig.from_server(where)
    elif where or _named():
        found = KubeConfig.from_file(where or _named())
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        found = KubeConfig.from_service_account()
    elif Path("~/.kube/config").expanduser().is_file():
        found = KubeConfig.from_file("~/.kube/config")
    else:
        raise ConfigError("not in a pod, KUBECONFIG is not set and there is no ~/.kube/config")
    config = found.get()
    if config is None:
        raise ConfigError("the kubeconfig has no current context")
    return config


def _named() -> str:
    return os.environ.get("KUBECONFIG", "")


def _client(config: SingleConfig) -> httpx2.AsyncClient:
    user = config.user or User()
    auth = user_auth(user)
    return httpx2.AsyncClient(
        base_url=config.cluster.server,
        auth=None if auth is None else _Auth(auth),
        timeout=_TIMEOUT,
        transport=httpx2.AsyncHTTPTransport(
            verify=verify_cluster(config.cluster, user, config.abs_file, trust_env=False),
            limits=_LIMITS,
            socket_options=_DEAD_AFTER,
            trust_env=False,
        ),
        headers={"Accept": "application/json", "User-Agent": "nsm"},
        trust_env=False,
    )


class _Auth(httpx2.Auth):
    """The source of tokens: any fault of a plugin or file becomes a ConfigError."""

    def __init__(self, auth: httpx2.Auth) -> None:
        self._auth = auth

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send the request with the token, and once more with a new one if it is rejected."""
        async with aclosing(self._auth.async_auth_flow(request)) as flow:
            try:
                wanted = await anext(flow)
                while True:
                    wanted = await flow.asend((yield wanted))
            except StopAsyncIteration:
                return
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ConfigError(f"its source failed: {error!r}") from error
