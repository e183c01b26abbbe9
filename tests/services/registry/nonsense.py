"""Every way to spoil one place of a record's JSON: what a person's hand may leave in an object."""

import copy
import re

SERVICE = {
    "name": "x",
    "payload": "IP",
    "matches": [
        {
            "source_selector": {"app": "a"},
            "routes": [{"destination_selector": {"app": "b"}, "weight": 3}],
            "fallthrough": True,
            "metadata": {"labels": {"c": "d"}},
        }
    ],
    "path_ids": ["spiffe://a/nse"],
}
ENDPOINT = {
    "name": "x",
    "network_service_names": ["svc"],
    "network_service_labels": {"svc": {"labels": {"nodeName": "n"}}},
    "url": "tcp://10.0.0.1:5001",
    "expiration_time": {"seconds": 4_000_000_000, "nanos": 5},
    "initial_registration_time": {"seconds": 1_700_000_000, "nanos": 5},
    "path_ids": ["spiffe://a/nse"],
}

NONSENSE = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**9,
    2**32,
    2**62,
    -(2**62),
    1e300,
    "",
    "all of them",
    "tcp://10.0.0.1:1",
    [],
    ["a"],
    [None],
    [1],
    [[[]]],
    [{}],
    [{"routes": [{"weight": "much"}]}],
    {},
    {"a": "b"},
    {"a": None},
    {"labels": 1},
    {"seconds": "soon"},
    {"seconds": 1_795_931_363_000},
    {"routes": {}},
]
MAPS = [(name,) for name in ("source_selector", "destination_selector", "labels", "network_service_labels")]
NUMBERS = {"weight": (0, 2**32 - 1), "nanos": (0, 10**9 - 1), "seconds": (-62_135_596_800, 253_402_300_799)}


def places(value, path=()):
    """The path to each value in a JSON value, its own too."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def put(value, path, new):
    """A copy of `value` with `new` at that path."""
    if not path:
        return new
    spoilt = copy.deepcopy(value)
    inner = spoilt
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return spoilt


def at(value, path):
    for key in path:
        value = value[key]
    return value


def shown(path):
    """As an error names a place: `matches[0].routes[0].weight`."""
    return re.sub(r"\.?\[", "[", ".".join(f"[{key}]" if isinstance(key, int) else key for key in path)) or "spec"


def all_of(sound):
    """Each place of `sound` with each kind of nonsense: path, the spoilt whole, what is in it now."""
    for path in places(sound):
        for new in NONSENSE:
            yield path, put(sound, path, new), new


def must_fail(sound, path, new):
    """Whether `new` cannot be right there, whatever is meant by it: of another type, or a number out of range.

    Null means that nothing is there, but not in a list or a map, and not for the whole.
    """
    before = at(sound, path)
    if new is None:
        return not path or isinstance(path[-1], int) or path[-2:-1] in MAPS
    if type(new) is not type(before):
        return True
    if isinstance(before, int) and not isinstance(before, bool):
        least, most = NUMBERS[path[-1]]
        return not least <= new <= most
    return False
