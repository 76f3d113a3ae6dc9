"""Looking after results: their state, age, cost, model cards and uploads."""
