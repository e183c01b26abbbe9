"""A host outside any cluster: manager and forwarder in one process, with an identity of the domain that it joins."""
