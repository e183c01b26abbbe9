"""The table of handlers: what a stand-in does for a message.

A handler takes the world and the message. It returns the fields of the reply, or a list of the fields of details; or
it raises `Refusal`. Fields that it leaves out are zero.
"""

HANDLERS = {}


def handles(handler):
    """Add a handler for the message of its name."""
    HANDLERS[handler.__name__] = handler
    return handler
