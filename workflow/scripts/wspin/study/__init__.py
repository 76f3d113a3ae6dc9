"""The study as a graph: model lineage, file paths, and the flags of every rule."""
