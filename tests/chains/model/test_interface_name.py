"""Names of interfaces that nobody chose."""

from nsm.chains.model.interface_name import generate


def test_a_random_name_is_not_that_of_an_interface_which_exists(monkeypatch):
    letters = iter("aaaabbbb")
    monkeypatch.setattr("secrets.choice", lambda _alphabet: next(letters))
    names = {"ten-letter-aaaa": 7}

    def index_of(name):
        if name not in names:
            raise OSError
        return names[name]

    monkeypatch.setattr("socket.if_nametoindex", index_of)
    assert generate("ten-letter") == "ten-letter-bbbb"
