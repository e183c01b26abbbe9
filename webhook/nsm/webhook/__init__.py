"""The admission webhook: an annotation on a workload becomes clients in its pods."""
