"""`nsm health URL`: whether a component serves."""

from __future__ import annotations

import sys

from .alive import check_alive
from .arguments import Parser

_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Checks whether a component serves; exits 0 if it does, 1 if not.

    If this process has no identity, it checks only that the component responds, with a certificate that is valid.
    """
    parser = Parser(prog="nsm health", description=main.__doc__)
    parser.add_argument(
        "url", help="unix:///path, tcp://host:port or host:port; also that of the Workload API, and http:// of a view"
    )
    parser.add_argument("--service", default="", help="one of its services; default: the whole component")
    parser.add_argument(
        "--alive",
        action="store_true",
        help="only check that it is alive, which works without an identity",
    )
    parsed = parser.parse_args(arguments)
    if parsed.url.startswith("http://"):
        return _by_http(parsed.url)
    if parsed.alive:
        return _alive(parsed.url)
    from .asking import ask  # noqa: PLC0415 - it takes long to import, and a probe is a process of its own

    return ask(parsed.url, parsed.service)


def _alive(url: str) -> int:
    try:
        check_alive(url, _SECONDS)
    except (OSError, ValueError) as error:
        print(f"nsm health: {url} is not alive: {error}", file=sys.stderr)
        return 1
    print(f"{url}: alive")
    return 0


def _by_http(url: str) -> int:
    """A view's own answer, which everyone may have."""
    from contextlib import closing  # noqa: PLC0415 - as above
    from http import HTTPStatus  # noqa: PLC0415
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url)
    try:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
        with closing(connection):
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
    except (OSError, ValueError, HTTPException) as error:
        print(f"nsm health: {url} cannot be reached: {error}", file=sys.stderr)
        return 1
    if status != HTTPStatus.OK:
        print(f"nsm health: {url} answered with status {status}", file=sys.stderr)
        return 1
    print(f"{url}: serving")
    return 0
