"""The published ways of the same work, derived again from their sources."""
