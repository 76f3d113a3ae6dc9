"""Stage weigh: stored log-probabilities of two models become token weights."""
