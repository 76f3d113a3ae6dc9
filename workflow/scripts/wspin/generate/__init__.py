"""Stage generate: the opponent's own answers, each prompt sampled with random numbers of its own."""
