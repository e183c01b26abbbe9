"""The VPP of a client whose wire is a memif: it connects to the wire's socket, and pings the endpoint.

    python memif_client.py @/run/nsm/memif/client-0/memif.socket 10.60.0.1/32 10.60.0.0/32

The socket is what `nsm nsc` logs as "memif ready", the addresses are those of the connection.
"""

import asyncio
import sys

from memif_vpp import add_memif, own_vpp


async def main(socket: str, own: str, peer: str) -> None:
    """Print what VPP's ping says."""
    async with own_vpp() as vpp:
        await add_memif(vpp, socket, own, peer, is_master=False)
        for _ in range(5):  # VPP looks for its master every two seconds
            said = await vpp.call("cli_inband", cmd=f"ping {peer.partition('/')[0]} repeat 4 interval 0.5", timeout=10)
            print(said.reply.strip(), flush=True)
            if " 0 received" not in said.reply:
                return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
