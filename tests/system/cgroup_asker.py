"""Asks the Workload API who it is, at SOCKET; prints its SPIFFE ID, or why it has none.

SOCKET GROUP...: as a process of each of these control groups in turn, a line each.
"""

import asyncio
import os
import sys
from pathlib import Path

from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from nsm.apis import codec
from nsm.apis.workload import SpiffeWorkloadApiStub, X509SvidRequest
from nsm.chains.identity.source import SECURITY_HEADER


async def main(socket):
    channel = Channel(path=socket, codec=codec.Codec())
    try:
        answers = SpiffeWorkloadApiStub(channel).fetch_x_509_svid(X509SvidRequest(), metadata=SECURITY_HEADER)
        print((await anext(answers)).svids[0].spiffe_id)
    except GRPCError as error:
        print(error.message)
    finally:
        channel.close()


def ask_in(group, socket):
    """As a process that was made for that, and goes there before it says anything."""
    pid = os.fork()
    if pid == 0:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        asyncio.run(main(socket))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, group


if len(sys.argv) == 2:
    asyncio.run(main(sys.argv[1]))
for each in sys.argv[2:]:
    ask_in(each, sys.argv[1])
