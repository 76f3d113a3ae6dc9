"""Stage weigh: token weights from the stored log-probabilities of two models."""
