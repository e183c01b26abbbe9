"""The local DNS of a client: /etc/resolv.conf, and a server that asks those which the workload's wires brought."""
