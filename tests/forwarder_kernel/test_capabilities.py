import pytest

from nsm.chains.core import Refused
from nsm.forwarder_kernel.capabilities import check_capabilities


def status(folder, mask):
    file = folder / "status"
    file.write_text(f"CapPrm:\t0000000000000000\nCapEff:\t{mask:016x}\n")
    return file


def test_a_forwarder_with_both_capabilities_begins(tmp_path):
    check_capabilities(status(tmp_path, 1 << 12 | 1 << 21))


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (1 << 12, "does not have CAP_SYS_ADMIN, to enter network namespaces; run"),
        (1 << 21, "does not have CAP_NET_ADMIN, to make interfaces; run"),
        (0, "does not have CAP_NET_ADMIN, to make interfaces and CAP_SYS_ADMIN, to enter network namespaces; run"),
    ],
)
def test_a_forwarder_says_which_capability_it_lacks(tmp_path, mask, told):
    with pytest.raises(Refused, match=told):
        check_capabilities(status(tmp_path, mask))
