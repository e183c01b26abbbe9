"""What tests of chains and of custom endpoints need: probes that are elements, identities without a socket."""
