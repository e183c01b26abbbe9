"""A client's local DNS: it changes /etc/resolv.conf, and serves DNS from the servers that the wires provide."""
