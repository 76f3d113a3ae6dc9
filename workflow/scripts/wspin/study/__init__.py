"""The study as a graph: who descends from whom, which files belong to it, and the flags of every rule."""
