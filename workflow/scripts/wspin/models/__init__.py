"""Models on disk: folders with manifests, models from scratch, and cheap imports of their libraries."""
