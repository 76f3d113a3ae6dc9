"""Files: atomic writes, locks, tables with schema and metadata, provenance records."""
