import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import api_server, binary, helm_binary, modules
from .cluster import CannotStart, Cluster, second
from .programs import Ended

USAGE = """\
usage: python -m tests.cluster COMMAND
  up [two]              start a cluster of two nodes, and leave it running; `two`: and one of one node, joined to it
  down                  end what runs; nothing of it is left
  load ARCHIVE...       import images on all nodes, from archives such as `docker save` makes
  run -- WORDS...       run a command in its network; where none runs, one is started and ended
  api [-- WORDS...]     etcd and an API server alone, on the loopback, for a command or until Ctrl-C
  build                 build the programs of Kubernetes, unless they are in the cache"""


def main(command=None, *words):
    words = words[1:] if words[:1] == ("--",) else words
    match command:
        case "up" if words in ((), ("two",)):
            up(Cluster())
            if words:
                up(second())
                second().join(Cluster())
        case "down" if not words:
            second().down()
            Cluster().down()
        case "load" if words:
            for archive in words:
                running().load(archive)
        case "run" if words:
            return run(words)
        case "api":
            return api(words)
        case "build" if not words:
            print(binary.programs(say=tell))
            print(helm_binary.program(say=tell))
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


def tell(text):
    print(text, file=sys.stderr, flush=True)


def running():
    cluster = Cluster()
    if cluster.pid is None:
        raise CannotStart("no cluster runs; `make cluster-up` starts one")
    return cluster


def up(cluster):
    begin = time.monotonic()
    cluster.up()
    tell(
        f"a cluster with {len(cluster.layout.nodes)} nodes is ready after {time.monotonic() - begin:.0f} s\n"
        f"  {cluster.kubectl} get nodes\n"
        f"  {' '.join(cluster.command(['env', f'KUBECONFIG={cluster.kubeconfig}', 'bash']))}\n"
        f"  make cluster-down"
    )


def run(words):
    cluster = Cluster()
    ours = cluster.pid is None
    try:
        if ours:
            up(cluster)
        return subprocess.run(cluster.command(words), env=cluster.environment(), check=False).returncode
    finally:
        if ours:
            second().down()  # in case a killed test has left it
            cluster.down()


def api(words):
    with (
        tempfile.TemporaryDirectory(prefix="nsm-api-") as folder,
        api_server.serve(Path(folder), controllers=True) as it,
    ):
        environment = {**os.environ, "KUBECONFIG": str(it.kubeconfig), "PATH": f"{it.bin}:{os.environ['PATH']}"}
        if words:
            return subprocess.run(words, env=environment, check=False).returncode
        tell(f"ready at {it.url}; Ctrl-C ends it\n  export KUBECONFIG={it.kubeconfig} PATH={it.bin}:$PATH")
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(*sys.argv[1:]))
    except (CannotStart, Ended, modules.CannotBuild) as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
