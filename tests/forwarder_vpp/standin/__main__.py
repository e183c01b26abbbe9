"""A stand-in as a process of its own, which takes the arguments of vpp: ``vpp -c startup.conf`` or its content."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

from .server import StandIn


def paths(arguments):
    """The API socket and the stats socket that a configuration of VPP names."""
    text = Path(arguments[1]).read_text() if arguments[:1] == ["-c"] else " ".join(arguments)
    text = re.sub(r"#.*", "", text)
    found = {}
    for section, options in re.findall(r"([\w-]+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", text):
        if name := re.search(r"(?:socket-name|socket)\s+(\S+)", options):
            found[section] = name[1]
    if "socksvr" not in found:
        sys.exit("vpp: the configuration has no section socksvr with socket-name")
    return found["socksvr"], found.get("statseg", f"{Path(found['socksvr']).parent}/stats.sock")


async def main(arguments):
    """Answer until a signal ends it."""
    api, stats = paths(arguments)

    async def die():
        os.kill(os.getpid(), signal.SIGKILL)

    vpp = StandIn(Path(api).parent, api=api, stats=stats, die=die)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with vpp.serving():
        print("ready", flush=True)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
