"""Published implementations of the same work, rewritten from their sources."""
