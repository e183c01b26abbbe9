"""An endpoint of a vL3 network: a router for its clients, connected to all other endpoints of the network."""
