"""How a host outside the cluster gets an identity: it exchanges a one-time token for an SVID, which it renews.

The host connects over TLS 1.3. It verifies the server by the fingerprint of the authority, which is in the token,
before it sends the token's secret. From then on it is verified by its own SVID. Its keys never leave it: it sends
requests for certificates (PKCS#10), for itself and for its workloads, whose SPIFFE IDs are below its own.
"""
