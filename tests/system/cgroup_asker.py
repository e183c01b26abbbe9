"""Asks the Workload API who it is, at SOCKET; prints its SPIFFE ID, or why it has none."""

import asyncio
import sys

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


asyncio.run(main(sys.argv[1]))
