"""`nsm find services|endpoints`: lists the records of a registry."""

from __future__ import annotations

import argparse
import json

from nsm.apis import jsonform
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, SERVICES, Found, R, RegistryCall, RegistryHandler
from nsm.chains.terminal import escaped
from nsm.chains.tools.arguments import Parser
from nsm.chains.tools.session import run, session
from nsm.chains.transport import RemoteRegistry


def main(arguments: list[str]) -> int:
    """Lists the network services or endpoints of a registry (or a manager)."""
    parser = Parser(prog="nsm find", description=main.__doc__)
    parser.add_argument("what", choices=["services", "endpoints"])
    parser.add_argument("--registry", required=True, metavar="URL", help="the registry, or a manager")
    parser.add_argument("--name", default="", help="only the one of that name")
    parser.add_argument("--watch", action="store_true", help="keep printing changes")
    parser.add_argument("--json", action="store_true", help="machine-readable: an object a line")
    parsed = parser.parse_args(arguments)

    async def work() -> int:
        async with session() as pool:
            if parsed.what == "services":
                await _show(RemoteRegistry(SERVICES, pool), NetworkService(name=parsed.name), parsed)
            else:
                await _show(RemoteRegistry(ENDPOINTS, pool), NetworkServiceEndpoint(name=parsed.name), parsed)
        return 0

    return run("find", work)


async def _show(registry: RegistryHandler[R], query: R, parsed: argparse.Namespace) -> None:
    call = RegistryCall(query, watch=parsed.watch, target=parsed.registry)
    async for batch in registry.find(call):
        for found in batch:
            print(_as_json(found) if parsed.json else escaped(_as_line(found)), flush=True)


def _as_json(found: Found[R]) -> str:
    return json.dumps({"deleted": found.deleted, "record": jsonform.to_json(found.record)})


def _as_line(found: Found[R]) -> str:
    record = found.record
    gone = "  gone" if found.deleted else ""
    if isinstance(record, NetworkService):
        return f"{record.name:<24} {record.payload:<10} {len(record.matches)} matches{gone}"
    assert isinstance(record, NetworkServiceEndpoint)
    until = record.expiration_time.to_rfc3339() if record.expiration_time else "-"
    return f"{record.name:<24} {','.join(record.network_service_names):<24} {record.url:<32} until {until}{gone}"
