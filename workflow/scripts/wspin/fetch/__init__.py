"""Stage fetch: models, data sets and tasks from the hub, Python packages or local folders."""
