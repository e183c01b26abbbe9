"""Netlink messages as pyroute2 reads them, for tests."""

REQUEST_ACK, CREATE_EXCL, CREATE_REPLACE = 0x5, 0x600, 0x500


def read(kind, message, *, acknowledged=True):
    """The message as the library decodes it: its fields, and its attributes by name."""
    found = kind(message.numbered(7))
    found.decode()
    assert (found["header"]["length"], found["header"]["sequence_number"]) == (len(message.data), 7)
    assert bool(found["header"]["flags"] & 0x4) == acknowledged
    assert len(message.data) % 4 == 0
    return found, dict(found["attrs"])
