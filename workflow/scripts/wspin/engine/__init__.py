"""The engine behind all stages that run a model: packing, attention, log-probabilities, decoding, counted work."""
