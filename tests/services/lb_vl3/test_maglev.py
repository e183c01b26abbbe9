"""Which server a part of the connections goes to."""

from collections import Counter

from nsm.services.lb_vl3.maglev import SLOTS, table

SERVERS = [f"172.16.{number}.1" for number in range(7)]


def test_every_server_has_about_the_same_part():
    shares = Counter(table(SERVERS))
    assert set(shares) == set(SERVERS)
    assert max(shares.values()) - min(shares.values()) <= 2
    assert sum(shares.values()) == SLOTS


def test_the_order_in_which_servers_are_found_does_not_matter():
    assert table(SERVERS) == table([*reversed(SERVERS), SERVERS[0]])


def test_a_server_that_leaves_moves_little_but_its_own_part():
    before, after = table(SERVERS), table(SERVERS[1:])
    moved = sum(one != other for one, other in zip(before, after, strict=True) if one != SERVERS[0])
    assert moved < SLOTS / 10


def test_without_servers_there_is_nothing():
    assert table([]) == []
    assert set(table(["a"])) == {"a"}
