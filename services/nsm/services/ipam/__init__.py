"""The prefix service: hands out parts of one network to the endpoints of a vL3."""
