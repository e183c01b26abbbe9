"""Has a process id taken again, in a PID namespace of its own, and prints what its second owner is told: SOCKET ASKER.

`nsm identity` names the first owner by its id. What the first one is told is printed before.
"""

import os
import subprocess
import sys
from pathlib import Path

SOCKET, ASKER = sys.argv[1:]
LAST = Path("/proc/sys/kernel/ns_last_pid")


def asked(process):
    """What a process that waits for a line is told."""
    return process.communicate("go\n")[0].strip()


def waiting():
    return subprocess.Popen(
        ["sh", "-c", f'read line; exec "{sys.executable}" "{ASKER}" "{SOCKET}"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


victim = waiting()
environment = {
    **os.environ,
    "NSM_LISTEN_ON": SOCKET,
    "NSM_ENTRIES": f"pid:{victim.pid}=spiffe://test.mesh/victim",
}
issuer = subprocess.Popen(
    [sys.executable, "-m", "nsm.chains", "identity"], env=environment, stderr=subprocess.PIPE, text=True
)
while '"ready"' not in issuer.stderr.readline():
    assert issuer.poll() is None
print(asked(victim))
LAST.write_text(str(victim.pid - 1))
successor = waiting()
assert successor.pid == victim.pid, (successor.pid, victim.pid)
print(asked(successor))
issuer.kill()
issuer.wait()
