"""Changes and reads nftables of this process's network namespace, by the program `nft` and its JSON.

The program is nftables' own compiler: it turns rules into the kernel's instructions, checks them, and sends each file
as one transaction. Python libraries for netlink leave that to their callers, who would write instructions by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

from nsm.chains.core import MeshError, Refused, TimedOut, Unavailable

Command = dict[str, Any]
"""One command of libnftables' JSON, such as ``{"add": {"table": {..}}}``."""

_TIMEOUT = 10.0
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class NftError(MeshError):
    """nftables refuses a transaction; nothing of it is in force."""


def program() -> str:
    """The path of `nft`. Raises `Unavailable` if it is not installed."""
    if (found := shutil.which("nft", path=_PATH)) is None:
        raise Unavailable("the program nft is missing; install the package nftables")
    return found


async def change(commands: Sequence[Command]) -> None:
    """Apply all commands, or none, in one transaction.

    Raises `NftError` with nftables' words, `Refused` without the right to change them, `Unavailable`, `TimedOut`.
    """
    await _run(["-j", "-f", "-"], json.dumps({"nftables": list(commands)}))


async def read(*what: str) -> list[dict[str, Any]]:
    """The objects that ``nft list`` shows for `what`, such as ``counters table inet firewall``. Raises as `change`."""
    found: list[dict[str, Any]] = json.loads(await _run(["-j", "list", *what], ""))["nftables"]
    return found


async def _run(arguments: Sequence[str], text: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program(), *arguments, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(_TIMEOUT):
            out, error = await process.communicate(text.encode())
    except TimeoutError:
        raise TimedOut(f"nft did not end within {_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = dict.fromkeys(line.strip() for line in error.decode(errors="replace").splitlines() if line.strip())
        said = "; ".join(lines) or f"nft ended with {process.returncode}"
        if "Operation not permitted" in said:
            raise Refused("nftables cannot be changed: this needs CAP_NET_ADMIN in this process's network namespace")
        raise NftError(f"nftables refuses the rules: {said}")
    return out.decode()
