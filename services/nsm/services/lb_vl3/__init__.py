"""A load balancer in a vL3: a client of the network that passes connections to its address on to other clients."""
