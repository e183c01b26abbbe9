"""Which prefix is the next one."""

from ipaddress import ip_network

import pytest

from nsm.services.ipam.prefix_space import PrefixSpace


def lowest(space, *taken):
    found = space.lowest([ip_network(each) for each in taken])
    return None if found is None else str(found)


def test_the_lowest_prefix_that_nobody_has_is_next():
    space = PrefixSpace(ip_network("172.16.0.0/16"), 24)
    assert lowest(space) == "172.16.0.0/24"
    assert lowest(space, "172.16.0.0/24", "172.16.2.0/24") == "172.16.1.0/24"
    assert lowest(space, "172.16.1.0/24", "172.16.0.0/24", "172.16.2.0/24") == "172.16.3.0/24"


def test_a_part_of_a_prefix_that_is_taken_takes_all_of_it():
    space = PrefixSpace(ip_network("172.16.0.0/16"), 24)
    assert lowest(space, "172.16.0.7/32", "172.16.1.128/25") == "172.16.2.0/24"
    assert lowest(space, "172.0.0.0/8") is None
    assert lowest(space, "172.16.0.0/17") == "172.16.128.0/24"


def test_a_large_network_takes_no_time_to_search():
    space = PrefixSpace(ip_network("2001:db8::/32"), 64)
    assert lowest(space, "2001:db8::/33") == "2001:db8:8000::/64"
    assert space.size == 2**32


def test_a_full_network_has_no_next_prefix():
    space = PrefixSpace(ip_network("10.0.0.0/23"), 24)
    assert lowest(space, "10.0.0.0/24", "10.0.1.0/24") is None
    assert lowest(space, "2001:db8::/32") == "10.0.0.0/24"


@pytest.mark.parametrize("length", [15, 33])
def test_a_length_outside_of_the_network_is_refused(length):
    with pytest.raises(ValueError, match=r"do not fit into 172.16.0.0/16: expected 16 to 32"):
        PrefixSpace(ip_network("172.16.0.0/16"), length)
