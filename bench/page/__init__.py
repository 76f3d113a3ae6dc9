"""The page of results: raw numbers, goals, tables and the figure."""
