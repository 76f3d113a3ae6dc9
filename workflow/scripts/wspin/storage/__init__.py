"""Files: written whole, locked, described by schema and metadata, with a record of how they were computed."""
