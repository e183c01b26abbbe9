"""A host outside any cluster: manager, forwarder and proxy in one process, as a node of the domain that it joins."""
