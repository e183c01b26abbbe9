"""Upstream's examples, to the same effect: pods as its manifests write them, with our images, and what its READMEs run."""
