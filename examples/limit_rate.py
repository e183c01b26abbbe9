"""An endpoint in a chain of services: it passes everything on, at most 10 MB/s from each client.

In a topology file, as the `command` of an endpoint: [python, limit_rate.py]. See examples/limit-rate.yaml.
"""

import subprocess
import sys

from nsm.chains.component import Runtime, run
from nsm.chains.composed import passthrough
from nsm.chains.serving import ChainedConfig, serve_endpoint

LIMIT = (
    'table netdev {0} {{ chain c {{ type filter hook ingress device "{0}" priority 0; limit rate over {1} drop; }}; }}'
)


def limit(client_side: str, _server_side: str) -> None:
    """Packets begin to pass: set the limit at the client's interface."""
    subprocess.run(["nft", LIMIT.format(client_side, "10 mbytes/second")], check=True)


async def serve(config: ChainedConfig, runtime: Runtime) -> None:
    elements = passthrough(config.name, runtime.pool, url=config.connect_to, labels=config.labels, on_joined=limit)
    await serve_endpoint(config, runtime, elements)


if __name__ == "__main__":
    sys.exit(run("limit-rate", ChainedConfig, serve, sys.argv[1:]))
