"""What an endpoint of a vL3 sets in its network namespace, and finds there after a restart."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

CODE = """
import subprocess
from ipaddress import ip_network
from nsm.chains.model.vl3 import Share
from nsm.services.nse_vl3.kernel import Vl3Kernel

def share(prefix, whole):
    return Share(ip_network(prefix), ip_network(whole))

def shown(words):
    return sorted(line.split()[1] for line in subprocess.check_output(words.split(), text=True).splitlines() if line)

first = Vl3Kernel()
print(first.former())
first.set([share("172.16.1.0/24", "172.16.0.0/16"), share("2001:db8:0:1::/64", "2001:db8::/32")])
first.set([share("172.16.1.0/24", "172.16.0.0/16"), share("2001:db8:0:1::/64", "2001:db8::/32")])
print(shown("ip -4 route show type unreachable"), shown("ip -6 route show type unreachable"))
print(open("/proc/sys/net/ipv4/ip_forward").read(), open("/proc/sys/net/ipv6/conf/all/forwarding").read())
print(subprocess.run(["ping", "-c1", "-W1", "172.16.1.0"], stdout=subprocess.DEVNULL).returncode)

again = Vl3Kernel()
print(sorted(map(str, again.former())))
print(again.outside())
again.set([share("172.16.0.0/24", "172.16.0.0/16")])
print(shown("ip -4 route show type unreachable"), shown("ip -6 route show type unreachable"))
print(subprocess.run(["ping", "-c1", "-W1", "172.16.1.0"], stdout=subprocess.DEVNULL).returncode > 0)
print(sorted(map(str, Vl3Kernel().former())))
"""


def test_addresses_and_prefixes_are_set_changed_and_found_by_the_next_process():
    """A prefix that begins where the whole network begins is told apart from it."""
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$0" -c "$1"', sys.executable, CODE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line and "[info" not in line] == [
        "[]",
        "['172.16.0.0/16', '172.16.1.0/24'] ['2001:db8:0:1::/64', '2001:db8::/32']",
        "1",
        " 1",
        "0",
        "['172.16.1.0/24', '2001:db8:0:1::/64']",
        "127.0.0.0/8,::1/128",
        "['172.16.0.0/16', '172.16.0.0/24'] []",
        "True",
        "['172.16.0.0/24']",
    ]


def test_without_the_right_to_it_an_endpoint_says_what_it_needs():
    code = CODE.partition("first = ")[0] + (
        "from nsm.chains.core import MeshError\n"
        "try:\n    Vl3Kernel().set([share('172.16.1.0/24', '172.16.0.0/16')])\n"
        "except MeshError as error:\n    print(error)\n"
    )
    words = ["unshare", "-n", "setpriv", "--bounding-set=-net_admin", sys.executable, "-c", code]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told == "cannot set the addresses of this endpoint: Operation not permitted; it needs CAP_NET_ADMIN\n"
