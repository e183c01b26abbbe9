"""Commands that look at a mesh, or put load on it, from outside."""
