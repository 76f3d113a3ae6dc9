"""The shared-prefix engine behind scoring and training: packing, attention, log-probabilities, counted work."""
