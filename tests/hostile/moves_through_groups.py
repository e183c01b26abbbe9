"""Goes into one control group after the other and asks the Workload API there who it is: SOCKET GROUP...

Prints a line for each: the SPIFFE ID, why there is none, or `waits` if there is no answer yet after half a second.
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


async def asked(socket):
    channel = Channel(path=socket, codec=codec.Codec())
    answers = SpiffeWorkloadApiStub(channel).fetch_x_509_svid(X509SvidRequest(), metadata=SECURITY_HEADER)
    try:
        async with asyncio.timeout(0.5):
            return (await anext(answers)).svids[0].spiffe_id
    except GRPCError as error:
        return error.message
    except TimeoutError:
        return "waits"
    finally:
        channel.close()


async def main(socket, groups):
    for group in groups:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        print(await asked(socket), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
