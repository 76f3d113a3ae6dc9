"""Files: written whole, locked, described by schema and metadata, with a record of what made them."""
