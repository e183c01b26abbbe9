"""`nsm identity token`, `nodes` and `forget`: for the operator of a domain that hosts outside it join."""

from __future__ import annotations

import os
import sys

from nsm.chains.config import duration
from nsm.chains.core import MeshError
from nsm.chains.terminal import escaped

from .store import JoinStore
from .token import check_node_name

COMMANDS = ("token", "nodes", "forget")
JOIN_FOLDER = "/var/lib/networkservicemesh/join"


def join_command(arguments: list[str]) -> int:
    """Run one of `COMMANDS`; returns the exit code."""
    import argparse  # noqa: PLC0415 - an issuer does not need it

    parser = argparse.ArgumentParser("nsm identity", description="Hosts outside the cluster that join this domain.")
    parser.add_argument("--folder", help="the issuer's NSM_JOIN_FOLDER", default=None)
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="print a one-time token with which a host joins as NODE")
    token.add_argument("node", metavar="NODE", help="the node's name, such as edge-1")
    token.add_argument("--for", dest="lifetime", default="1h", metavar="TIME", help="how long it is valid [1h]")
    token.add_argument("--at", default="", metavar="HOST:PORT", help="where the host reaches this domain's issuer")
    commands.add_parser("nodes", help="list the nodes that have joined")
    forget = commands.add_parser("forget", help="let NODE renew its identity no longer")
    forget.add_argument("node", metavar="NODE")
    chosen = parser.parse_args(arguments)
    try:
        store = JoinStore(chosen.folder or os.environ.get("NSM_JOIN_FOLDER") or JOIN_FOLDER)
        if chosen.command == "token":
            print(store.new_token(chosen.node, lifetime=_lifetime(chosen.lifetime), at=chosen.at))
        elif chosen.command == "nodes":
            print(*store.nodes(), sep="\n")
        elif not store.forget(check_node_name(chosen.node)):
            print(f"nsm identity: no node {chosen.node!r} has joined", file=sys.stderr)
            return 1
    except (MeshError, ValueError, OSError) as error:
        print(escaped(f"nsm identity: {error}"), file=sys.stderr)
        return 2
    return 0


def _lifetime(value: str) -> float:
    if not (seconds := duration(value)):
        raise ValueError("--for 0: expected more than 0")
    return seconds
