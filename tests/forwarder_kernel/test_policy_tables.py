"""In which order rules of policies stand, and which numbers their tables have."""

import pytest

from nsm.chains.core import Exhausted
from nsm.chains.netlink.rules import Selector
from nsm.forwarder_kernel import policy_tables
from nsm.forwarder_kernel.policy_tables import FIRST_PRIORITY, FROM_1, LAST_PRIORITY, RESERVED, PolicyLink

ALL, WEB, DNS = Selector(4), Selector(4, dst_ports=(80, 80)), Selector(4, dst_ports=(53, 53))


def priorities_of(there):
    return policy_tables.priorities_of(there, FIRST_PRIORITY, LAST_PRIORITY)


def order_of(*wires):
    """Selectors and lengths of prefixes as they stand, of wires that are given by name with their policies."""
    steps = [
        [
            step
            for table, (selector, *lengths) in enumerate(policies)
            for step in policy_tables._steps(selector, table, lengths, PolicyLink(1, name, order))
        ]
        for name, order, *policies in wires
    ]
    return [[(step.wire[1], step.selector, step.length) for step in ranked] for ranked in policy_tables._ranked(steps)]


def test_priorities_grow_and_are_kept_where_that_is_possible():
    three = priorities_of([None] * 3)
    assert FIRST_PRIORITY <= three[0] < three[1] < three[2] <= LAST_PRIORITY
    first, second, third = three
    assert priorities_of([first, third]) == [first, third]
    before, *rest = priorities_of([None, second, third])
    assert before < second
    assert rest == [second, third]
    assert priorities_of([third, first])[0] == third
    assert priorities_of([]) == []


def test_priorities_are_given_anew_when_no_room_is_left():
    crowded = priorities_of([20000, None, 20001])
    assert crowded[0] < crowded[1] < crowded[2]
    with pytest.raises(Exhausted, match="do not fit between the priorities"):
        priorities_of([None] * (LAST_PRIORITY - FIRST_PRIORITY + 2))
    assert priorities_of([None] * (LAST_PRIORITY - FIRST_PRIORITY + 1)) == list(
        range(FIRST_PRIORITY, LAST_PRIORITY + 1)
    )
    there: list[int] = []
    for _ in range(40):
        there = priorities_of([*there, None])
        assert there == sorted(set(there))


def test_a_priority_that_is_not_of_the_range_is_not_kept():
    assert priorities_of([5, 32000]) == priorities_of([None, None])


def test_the_longest_prefix_comes_first_then_the_first_wire():
    internal, internet = ("b", 0, (WEB, 24)), ("a", 1, (WEB, 0, 16))
    expected = [("b", WEB, 24), ("a", WEB, 16), ("a", WEB, 0)]
    assert order_of(internal, internet) == order_of(internet, internal) == [expected, []]
    one, two = ("b", 0, (WEB, 0)), ("a", 1, (WEB, 0))
    assert order_of(two, one) == [[("b", WEB, 0), ("a", WEB, 0)], []]


def test_the_list_of_a_wire_keeps_its_order():
    assert order_of(("a", 0, (WEB, 0), (DNS, 24))) == [[("a", WEB, 0), ("a", DNS, 24)], []]
    assert order_of(("a", 0, (WEB, 0), (ALL, 0), (DNS, 24))) == [[("a", WEB, 0)], [("a", ALL, 0), ("a", DNS, 24)]]


def test_tables_are_numbered_in_the_order_of_the_policies_past_those_in_use():
    web6 = Selector(6, dst_ports=(80, 80))
    assert policy_tables._choose([WEB, DNS, web6], {}, {1, 3}, FROM_1) == {WEB: 2, DNS: 4, web6: 2}
    assert policy_tables._choose([web6, DNS], {WEB: 2}, {1, 2}, FROM_1) == {web6: 2, DNS: 3}
    assert policy_tables._choose([web6, DNS], {WEB: 2}, {1, 2}, FROM_1, {(6, 2)}) == {web6: 3, DNS: 4}


def test_reserved_tables_end_when_all_are_in_use():
    taken = set(range(policy_tables.FIRST_TABLE, policy_tables.LAST_TABLE))
    assert policy_tables._choose([WEB], {}, taken, RESERVED) == {WEB: policy_tables.LAST_TABLE}
    with pytest.raises(Exhausted, match="no routing table is left between"):
        policy_tables._choose([WEB, DNS], {}, taken, RESERVED)
