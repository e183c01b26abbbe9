"""Commands that inspect a mesh, or put load on it, from outside."""
